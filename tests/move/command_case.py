"""`imapshield move` with two nodes and a shield, all in this process."""

from __future__ import annotations

import io
import sys
from typing import Any
from unittest import mock

from imapshield import cli
from imapshield.move import agent, move_command, user_switch
from tests.move.move_case import MoveCase, TreeCopier


class MoveCommandCase(MoveCase):
    def setUp(self) -> None:
        super().setUp()
        self.asked: list[tuple[str, str]] = []
        self.node_of_shield: str | None = "two"
        self.backends = {"one": "up", "two": "up"}
        self.write_nodes()
        self.write("users.map", "# users\nbob one\nAlice one\n")
        self.patch(move_command, "Copier", lambda *_: TreeCopier())
        for module in (agent, user_switch):
            self.patch(module, "ask", self.ask)

    def ask(self, path: str, request: Any) -> Any:
        self.asked.append((path, request.command))
        if request.command == "nodes":
            return [{"node": name, "state": state} for name, state in self.backends.items()]
        return {"node": self.node_of_shield} if request.command == "release" else True

    def write(self, name: str, text: str) -> str:
        path = f"{self.base}/{name}"
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def write_nodes(self, first: str = "") -> None:
        nodes = "".join(
            f'[nodes.{name}]\nmail-root = "{node.mail_root}"\ncontrol = "{name}.control"\n'
            for name, node in self.nodes.items()
        )
        first = first or f'map = "{self.base}/users.map"'
        shields = '[shields]\nedge = { control = "edge.control" }\n'
        self.write("nodes.toml", f"{first}\n{shields}{nodes}")

    def run_command(self, *arguments: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        files = ("--nodes", f"{self.base}/nodes.toml", "--journal", f"{self.base}/journal")
        with mock.patch.multiple(sys, stdout=out, stderr=err):
            status = cli.main(["move", *arguments, *files])
        return status, out.getvalue(), err.getvalue()

    def error(self, *arguments: str) -> str:
        """Run a command that fails, and return its line."""
        status, out, err = self.run_command(*arguments)
        self.assertEqual((status, out, err.count("\n")), (1, "", 1))
        return err

    def last_line(self, *arguments: str) -> str:
        """Run a command, and return the last line of its errors."""
        return self.run_command(*arguments)[2].splitlines()[-1]
