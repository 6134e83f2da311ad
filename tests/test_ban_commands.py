"""The commands ``imapshield bans`` and ``imapshield unban``."""

import errno
import json
import os
import sqlite3
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from imapshield import cli
from imapshield.guard.bans import SavedBan
from imapshield.state_file import COMMAND_ADVICE, Changes, StateFile


class BanCommandTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.path = os.path.join(self.folder, "guard.sqlite")
        file = StateFile(self.path, create=True)
        bans = (
            SavedBan("192.0.2.7/32", "max_failed_pairs", 599.0, 600.0, 1, False),
            SavedBan("192.0.2.9/32", "max_failed_pairs", -1.0, 600.0, 1, False),
            SavedBan("2001:db8::/64", "backlog", 1200.0, 1200.0, 2, True),
        )
        file.save(0.0, Changes({ban.network: ban for ban in bans}))
        file.close()

    def command(self, *arguments: str, state: bool = True) -> tuple[int, str, str]:
        """Run a command. Returns the exit status, standard output and standard error."""
        out, err = StringIO(), StringIO()
        option = ("--state", self.path) if state else ()
        with redirect_stdout(out), redirect_stderr(err):
            status = cli.main([*arguments, *option])
        return status, out.getvalue(), err.getvalue()

    def test_bans(self) -> None:
        """`imapshield bans` lists the bans that have not ended, that which ends next first."""
        first = "192.0.2.7  9m59s left, max_failed_pairs, ban 1\n"
        second = "2001:db8::/64  20m left, backlog, ban 2, strangers only\n"
        self.assertEqual(self.command("bans"), (0, first + second, ""))

    def test_unban(self) -> None:
        """`imapshield unban` removes the bans of an address or inside a network, and names those that had not ended."""
        self.assertEqual(self.command("unban", "2001:db8::1")[:2], (0, "unbanned 2001:db8::/64\n"))
        status, out, _ = self.command("unban", "192.0.2.0/24")
        self.assertEqual((status, out), (0, "unbanned 192.0.2.7\n"))
        advice = f"no bans in {self.path}; if that is the file of another server, {COMMAND_ADVICE}"
        self.assertEqual(self.command("bans"), (0, "", f"imapshield: {advice}\n"))

    def test_errors(self) -> None:
        """An address without a ban, a wrong address and a missing or damaged file are one line with advice."""
        for arguments, advice in (
            (
                ("unban", "10.0.0.1"),
                f"no ban of 10.0.0.1 in {self.path}; `imapshield bans --state {self.path}` lists the bans",
            ),
            (("unban", "host"), "'host' is no network; write for example 192.0.2.0/24"),
        ):
            self.assertEqual(self.command(*arguments), (1, "", f"imapshield: {advice}\n"))
        with open(self.path, "wb") as file:
            file.write(b"x" * 1000)
        advice = f"file is not a database; {COMMAND_ADVICE}\n"
        self.assertIn(advice, self.command("bans")[2])
        self.assertIn(advice, self.command("unban", "10.0.0.1")[2])
        os.unlink(self.path)
        sqlite3.connect(self.path).close()
        advice = f"not a state file of imapshield; {COMMAND_ADVICE}\n"
        self.assertIn(advice, self.command("bans")[2])
        os.unlink(self.path)
        self.assertIn("'host' is no network", self.command("unban", "host")[2])
        advice = f"{self.path}: no such file; {COMMAND_ADVICE}"
        self.assertEqual(self.command("bans"), (1, "", f"imapshield: {advice}\n"))
        self.assertFalse(os.path.exists(self.path))

    def test_directory(self) -> None:
        """A directory instead of a file is named as such."""
        self.path = self.folder
        advice = (
            f"{self.path}: is a directory; name the file in it: --state {self.path}/guard.sqlite"
        )
        self.assertEqual(self.command("bans"), (1, "", f"imapshield: {advice}\n"))

    def test_permission_denied(self) -> None:
        """A file that the user may not use, or in such a directory, is not called missing."""
        advice = f"imapshield: {self.path}: permission denied; run it as root\n"
        denied = PermissionError(errno.EACCES, "Permission denied", self.path)
        with mock.patch("imapshield.cli.os.stat", side_effect=denied):
            self.assertEqual(self.command("bans"), (1, "", advice))
        with mock.patch("imapshield.cli.os.access", return_value=False):
            self.assertEqual(self.command("unban", "10.0.0.1"), (1, "", advice))

    def test_default(self) -> None:
        """Without --state the commands use the file that the server uses by default."""
        with mock.patch.dict(
            os.environ,
            {"STATE_DIRECTORY": self.folder, "XDG_DATA_HOME": os.path.abspath(self.folder)},
        ):
            self.assertIn("192.0.2.7  ", self.command("bans", state=False)[1])

    def test_running_server_is_asked(self) -> None:
        """Without --state, a running server answers; its bans are listed as text or JSON, and ended at once."""
        ban = {
            "network": "192.0.2.7/32",
            "reason": "operator",
            "remaining": 90.0,
            "number": 1,
            "strangers_only": False,
        }
        answers = {"bans": [ban], "unban": ["192.0.2.7/32"]}
        with mock.patch("imapshield.cli.ask", lambda _path, request: answers[request.command]):
            listed = self.command("bans", state=False)
            self.assertEqual(listed, (0, "192.0.2.7  90s left, operator, ban 1\n", ""))
            self.assertEqual(json.loads(self.command("bans", "--json", state=False)[1]), [ban])
            ended = self.command("unban", "192.0.2.7", state=False)
            self.assertEqual(ended, (0, "unbanned 192.0.2.7\n", ""))
            answers |= {"bans": [], "unban": []}
            self.assertEqual(self.command("bans", state=False), (0, "no bans\n", ""))
            self.assertIn("is not banned", self.command("unban", "192.0.2.7", state=False)[2])

    def test_server_that_is_named_must_answer(self) -> None:
        """With --control, the file is not used if no server answers there."""
        path = os.path.join(self.folder, "none")
        status, _, error = self.command("bans", "--control", path, state=False)
        self.assertEqual(status, 1)
        self.assertIn("is the server running?", error)
