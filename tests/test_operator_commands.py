"""What the commands of an operator print, for answers of a server."""

import argparse
import json
import os
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from imapshield import cli, command_output, operator_commands
from imapshield.control.request_lines import ControlError, Request

STATUS = {
    "version": "1.2",
    "seconds": 7300.0,
    "connections": 3,
    "without_login": 1,
    "max_connections": 100,
    "pending_commands": 2,
    "memory_of_connections": 1500,
    "max_memory": 2_500_000,
    "bans": 1,
}
CONNECTION = {
    "connection": 7,
    "user": "alice",
    "peer": "192.0.2.7",
    "client_id": "name=x",
    "seconds": 200.0,
    "commands": 12,
    "pending": 5,
    "paused": True,
    "octets_in": 999,
    "octets_out": 1_234_567,
    "busy": 0.25,
}
END: dict[str, Any] = {
    "cause": "backlog",
    "action": "reset",
    "peer": "192.0.2.7",
    "user": "",
    "value": 100,
    "observed": 101,
    "setting": "--backlog=N",
    "connection": 7,
    "commands": ["NOOP", "NOOP"],
    "detail": "name=x",
    "first": 0.0,
    "last": 60.0,
    "count": 3,
}
SHARES = {"commands": 0.85, "octets": 0.5, "busy": 0.0, "resets": 1.0}
TALKERS = {
    "period": "minute",
    "seconds": 45.0,
    "headlines": ["3 hosts, 85 % of commands"],
    "totals": {"commands": 2000, "octets": 5000, "busy": 1.5, "resets": 3},
    "tables": {"address": [{"key": "192.0.2.7", **SHARES}], "user": []},
}


class Output(StringIO):
    is_terminal = False

    def isatty(self) -> bool:
        return self.is_terminal


class OperatorCommandTests(SynchronousTestCase):
    is_terminal = False

    def setUp(self) -> None:
        self.asked: list[Request] = []
        self.answers: dict[str, Any] = {"status": STATUS, "talkers": TALKERS}

    def run_command(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command. Returns its status, and what it has printed on both outputs."""

        def ask(_: str, request: Request) -> Any:
            self.asked.append(request)
            return self.answers[request.command]

        self.patch(operator_commands, "ask", ask)
        self.patch(operator_commands, "follow", lambda path, request: iter(ask(path, request)))
        out, err = Output(), StringIO()
        out.is_terminal = self.is_terminal
        with redirect_stdout(out), redirect_stderr(err):
            status = cli.main(arguments)
        return status, out.getvalue(), err.getvalue()

    def test_status(self) -> None:
        """`status` is a few lines with units; with ``--json`` it is the answer."""
        status, text, _ = self.run_command("status")
        self.assertEqual(status, 0)
        for part in ("imapshield 1.2, up for 2h2m", "3 of 100, 1 without", "1.5k of 2.5M"):
            self.assertIn(part, text)
        self.assertEqual(json.loads(self.run_command("status", "--json")[1]), STATUS)

    def test_status_of_a_server_in_trouble(self) -> None:
        """What is wrong is in the first lines; the user map and the certificate have lines, too."""
        self.answers["status"] = {
            "warnings": ["--user-map file:x: gone"],
            **STATUS,
            "user_map": {"user_map": "file:x", "problem": "file:x: gone"},
            "certificate": {"option": "--certificate x", "expires": 86400 * 365.0, "problems": []},
        }
        lines = self.run_command("status")[1].splitlines()
        self.assertEqual(lines[0], "warning: --user-map file:x: gone")
        self.assertIn("user map     file:x, which fails", lines)
        self.assertTrue([line for line in lines if "until 1971-01-01" in line], lines)

    def test_control_before_the_command(self) -> None:
        """``--control`` means the same before and after the command."""
        paths = []

        def ask(path: str, _: Request) -> Any:
            paths.append(path)
            return STATUS

        self.patch(operator_commands, "ask", ask)
        for arguments in (
            ("--control", "/x", "status"),
            ("--control=/x", "status", "--json"),
            ("status", "--control", "/x"),
        ):
            with redirect_stdout(StringIO()):
                self.assertEqual(cli.main(arguments), 0)
        self.assertEqual(paths, ["/x"] * 3)

    def test_who(self) -> None:
        """`who` is a table; a star says that reading pauses."""
        self.answers["who"] = [CONNECTION, CONNECTION | {"user": "", "paused": False}]
        _, text, _ = self.run_command("who", "192.0.2.0/24")
        self.assertEqual(self.asked[-1].arguments, {"who": "192.0.2.0/24"})
        head, first, second = text.splitlines()
        self.assertEqual(len(first.split("name=x")[0]), len(second.split("name=x")[0]))
        self.assertIn("pending", head)
        for part in ("alice", "5*", "1.23M", "3m"):
            self.assertIn(part, first)
        self.answers["who"] = []
        self.assertEqual(self.run_command("who")[1], "no connections\n")

    def test_kick_and_ban(self) -> None:
        """`kick` and `ban` say how many connections they have reset; a ban may have a duration."""
        self.answers |= {"kick": 2, "ban": {"network": "192.0.2.7/32", "seconds": 5400, "reset": 1}}
        self.assertEqual(self.run_command("kick", "alice")[1], "reset 2 connections\n")
        text = self.run_command("ban", "192.0.2.7", "--for", "90m")[1]
        self.assertEqual(text, "banned 192.0.2.7 for 1h30m; 1 connection reset\n")
        self.assertEqual(self.asked[-1].arguments, {"network": "192.0.2.7", "seconds": 5400})

    def test_why(self) -> None:
        """`why` has the cause with its values and option, the client, and the last commands."""
        self.answers["why"] = {"ends": [END, END | {"value": 0, "user": "bob", "count": 1}]}
        _, text, _ = self.run_command("why", "192.0.2.7")
        self.assertIn("3 x reset: backlog=100, seen 101; to change it: --backlog=N, first ", text)
        self.assertIn("address 192.0.2.7, connection 7, last commands NOOP NOOP, name=x", text)
        self.assertIn("user bob from 192.0.2.7", text)
        self.answers["why"] = {"networks": [END | {"network": "192.0.0.0/21"}]}
        self.assertIn("network 192.0.0.0/21, last 192.0.2.7", self.run_command("why")[1])
        self.assertIn("by network (IPv4 /21, IPv6 /48)", self.run_command("why")[1])
        network = {"tables": {"network": [{"key": "192.0.2.0/26", **SHARES}]}}
        self.answers["talkers"] = TALKERS | network
        self.assertIn("network (IPv4 /26, IPv6 /56)", self.run_command("top", "--once")[1])
        self.answers["why"] = {"ends": [END | {"cause": "login refused: unavailable"}]}
        self.assertIn("`imapshield status` and the log say why", self.run_command("why", "bob")[1])
        self.answers["why"] = {"networks": []}
        self.assertIn("has ended", self.run_command("why")[1])

    def test_top(self) -> None:
        """`top` begins with the headlines, and prints once into a pipe."""
        _, text, _ = self.run_command("top", "--by", "octets")
        self.assertTrue(text.startswith("3 hosts, 85 % of commands\n"))
        self.assertIn("cpu", text)
        self.assertNotIn("busy", text)
        self.assertIn("last 45s: 2k commands, 5k octets, 1.5 s", text)
        self.assertIn("85.0 %", text)
        self.assertNotIn("user", text.partition("address")[2])
        expected = {"period": "minute", "by": "octets", "number": 5}
        self.assertEqual(self.asked[-1].arguments, expected)

    def test_top_by_processor_time(self) -> None:
        """The processor time is ``cpu`` for the operator."""
        self.run_command("top", "--by", "cpu")
        self.assertEqual(self.asked[-1].arguments["by"], "busy")

    def test_top_leaves_a_dumb_terminal_alone(self) -> None:
        """A terminal that cannot move its cursor gets one picture, without escape sequences."""
        self.patch(os, "environ", {**os.environ, "TERM": "dumb"})
        self.is_terminal = True
        _, text, _ = self.run_command("top")
        self.assertNotIn("\x1b", text)

    def test_trace(self) -> None:
        """`trace` prints what the server sends, line by line."""
        self.answers["trace"] = ["7 C: a NOOP", "7 S: a OK"]
        _, text, _ = self.run_command("trace", "alice", "--for", "1h")
        self.assertEqual(text, "7 C: a NOOP\n7 S: a OK\n")
        self.assertEqual(self.asked[-1].arguments, {"who": "alice", "seconds": 3600})

    def test_errors(self) -> None:
        """An error of the server is one line, and a wrong duration one with an example."""

        def refuse(*_: object) -> None:
            raise ControlError("nobody: no connection")

        self.answers["kick"] = 0
        self.run_command("kick", "x")
        self.patch(operator_commands, "ask", refuse)
        err = StringIO()
        with redirect_stderr(err):
            self.assertEqual(cli.main(["kick", "nobody"]), 1)
        self.assertEqual(err.getvalue(), "imapshield: nobody: no connection\n")
        for text in ("", "0", "5x", "m", "-1"):
            with self.assertRaisesRegex(argparse.ArgumentTypeError, "10m"):
                operator_commands.duration(text)
        self.assertEqual(operator_commands.duration("45"), 45)

    def test_numbers_for_people(self) -> None:
        """Times and sizes have few digits and a unit."""
        ages = [command_output.age(n) for n in (5, 119, 120, 7200, 86400 * 3)]
        self.assertEqual(ages, ["5s", "119s", "2m", "2h", "3d"])
        sizes = [command_output.size(n) for n in (0, 999, 1500, 2_500_000, 3e9, 5e12)]
        self.assertEqual(sizes, ["0", "999", "1.5k", "2.5M", "3G", "5T"])
