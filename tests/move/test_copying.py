"""rsync's command, its errors, and whose rights it has."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import Any
from unittest import mock

from imapshield.move.copying import Copier, Ssh
from imapshield.move.nodes_file import Node
from imapshield.move.places import MoveError, TooSlow
from tests.move.move_case import MoveCase


class CopierTests(MoveCase):
    def run_copier(
        self, source: str, target: str, status: int = 0, seconds: float | None = None
    ) -> list[str]:
        """Copy between nodes with these machines; return the command."""
        runs: list[list[str]] = []

        def popen(command: list[str], **_: Any) -> Any:
            runs.append(command)
            process = mock.MagicMock(returncode=status)
            process.__enter__.return_value = process
            process.stdout = [b".\n"]
            process.stderr.read.return_value = b"no space\nmore\n" if status else b""
            return process

        self.patch(shutil, "which", lambda _: "/usr/bin/rsync")
        self.patch(subprocess, "Popen", popen)
        with mock.patch.object(subprocess, "run"), Ssh() as ssh:
            copier = Copier(Node("one", ssh=source), Node("two", ssh=target), ssh)
            copier.copy("/a b", "/c", is_last=False, seconds=seconds)
        return runs[0]

    def test_commands(self) -> None:
        self.assertEqual(self.run_copier("", "")[-2:], ["/a b/", "/c/"])
        self.assertEqual(self.run_copier("", "two")[-2:], ["/a b/", "two:/c/"])
        self.assertEqual(self.run_copier("one", "")[-2:], ["one:/a b/", "/c/"])
        both = self.run_copier("same", "same")
        self.assertEqual((both[0], both[-2:]), ("ssh", ["'/a b/'", "'/c/'"]))
        self.assertNotIn("'timeout'", both)
        limited = self.run_copier("same", "same", seconds=50.0)
        self.assertEqual(
            limited[limited.index("same") + 2 :][:3], ["'timeout'", "'50.0'", "'rsync'"]
        )

    def test_rights_of_rsync(self) -> None:
        """Root's rsync has the rights of the owner of the mail on each side on which it is root's."""
        for user, source, target, remote, expected in (
            (0, "", "", "", []),
            (0, "", "two", "0", ["--copy-as=7:8", "-M--copy-as=7:8"]),
            (7, "one", "", "0", ["-M--copy-as=7:8"]),
            (0, "one", "", "7", ["--copy-as=7:8"]),
            (7, "same", "same", "0", ["--copy-as=7:8"]),
            (7, "", "", "", []),
        ):
            with (
                self.subTest(user=user, source=source, target=target),
                mock.patch.object(os, "geteuid", return_value=user),
                mock.patch.object(subprocess, "run") as run,
                Ssh() as ssh,
            ):
                run.return_value.stdout = remote + "\n"
                copier = Copier(Node("one", ssh=source), Node("two", ssh=target), ssh)
                self.assertEqual(copier._rights(), [])
                copier.act_as(7, 8)
                self.assertEqual(copier._rights(), expected)
                is_own = user == 0 and not source and not target
                owner = {"user": 7, "group": 8, "extra_groups": []} if is_own else {}
                self.assertEqual(copier._owner(), owner)

    def test_errors(self) -> None:
        self.assertIn(
            "run this command on one", str(self.assertRaises(MoveError, self.run_copier, "a", "b"))
        )
        self.assertEqual(
            str(self.assertRaises(MoveError, self.run_copier, "", "", 11)), "rsync: no space"
        )
        self.run_copier("", "", 24)
        self.patch(shutil, "which", lambda _: None)
        with Ssh() as ssh:
            error = self.assertRaises(MoveError, Copier, Node("one"), Node("two"), ssh)
        self.assertIn("apt-get install rsync", str(error))

    def test_slow_copy_is_ended(self) -> None:
        """While a user waits, rsync is ended when the time is over."""
        popen = subprocess.Popen
        self.patch(shutil, "which", lambda _: "/usr/bin/rsync")
        self.patch(subprocess, "Popen", lambda _, **pipes: popen(["sleep", "60"], **pipes))
        with Ssh() as ssh:
            copier = Copier(Node("one"), Node("two"), ssh)
            self.assertRaises(TooSlow, copier.copy, "/a", "/b", is_last=True, seconds=0.01)

    def test_copy_ends_with_the_command(self) -> None:
        """When the command is killed, its rsync does not go on in a copy that another command may use."""
        program = (
            "import os, signal, subprocess\n"
            "from imapshield.move.copying import _end_with_parent\n"
            "subprocess.Popen(['sleep', '60'], preexec_fn=_end_with_parent())\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        # The pipe is closed when both have ended.
        subprocess.run(
            [sys.executable, "-c", program], check=False, stdout=subprocess.PIPE, timeout=50
        )
