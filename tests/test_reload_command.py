"""``imapshield reload`` prints what the server has done, and fails if something is wrong."""

import io
import sys
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from imapshield import cli, operator_commands


class ReloadCommandTests(SynchronousTestCase):
    def reload(self, **answer: Any) -> tuple[int, str]:
        """Run the command for an answer of the server. Returns the exit status and the output."""
        answer = {"changed": [], "needs_restart": [], "problems": [], **answer}
        out = io.StringIO()
        with (
            mock.patch.object(operator_commands, "ask", return_value=answer) as ask,
            mock.patch.object(sys, "stdout", out),
        ):
            status = cli.main(["reload", "--control", "/c"])
        path, request = ask.call_args.args
        self.assertEqual((path, request.command), ("/c", "reload"))
        return status, out.getvalue()

    def test_changes(self) -> None:
        """Each change is a line, and what needs a restart is one."""
        status, out = self.reload(changed=["backlog: 100 -> 50"], needs_restart=["listen", "state"])
        self.assertEqual(
            (status, out), (0, "changed backlog: 100 -> 50\nneeds a restart: listen, state\n")
        )

    def test_no_change(self) -> None:
        """A reload without a change says so."""
        self.assertEqual(self.reload(), (0, "reloaded; no setting has changed\n"))

    def test_problems(self) -> None:
        """A problem is a line, and the exit status is 1."""
        self.assertEqual(
            self.reload(problems=["--config x: bad"]), (1, "problem: --config x: bad\n")
        )
