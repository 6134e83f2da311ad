"""How waiting commands are kept."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imapshield.guard.connection_guard import ConnectionGuard
from imapshield.limits import Limits
from tests.guard.test_connection_guard import command


class PackedCommandTests(SynchronousTestCase):
    def test_waiting_commands_are_kept_as_their_lines(self) -> None:
        """All waiting commands but the first four are kept as their lines, and run in order."""
        guard = ConnectionGuard(Limits())
        texts = [b" %d" % n for n in range(9)]
        for text in texts:
            guard.admit(command(b"NOOP", text))
        kept = [isinstance(waiting, bytes) for waiting in guard._backlog]
        self.assertEqual(kept, [False] * 4 + [True] * 5)
        for text in texts:
            running = guard.next_command()
            assert running is not None
            self.assertEqual(running.parts, (b"NOOP" + text,))
            guard.command_finished()
