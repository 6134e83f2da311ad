"""How waiting commands are kept."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imapshield.guard.connection_guard import ConnectionGuard
from imapshield.limits import Limits
from imapshield.wire.framing import RawCommand
from imapshield.wire.grammar import PARSERS
from imapshield.wire.traits import traits_of
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

    def test_waiting_command_that_suspends_input_is_the_one_that_runs(self) -> None:
        """Behind any number of waiting commands, a command that suspends input suspends it until it has ended."""
        names = [name for name in PARSERS if traits_of(name).suspends_input]
        self.assertIn(b"IDLE", names)
        for name in names:
            for before in range(8):
                guard = ConnectionGuard(Limits())
                guard.login()
                for waiting in (*[b"NOOP"] * before, name):
                    guard.admit(command(waiting))
                self.assertTrue(guard.input_paused, name)
                for _ in range(before + 1):
                    self.assertIsNotNone(guard.next_command())
                    guard.command_finished()
                self.assertFalse(guard.input_paused, (name, before))
                self.assertEqual(guard.memory, 0)

    def test_packed_command_is_the_same_afterwards(self) -> None:
        """A command that is kept as its line is the same when it runs; another one is kept as it is."""
        for original in (
            command(b"NOOP"),
            command(b"NOOP", b"  x "),
            RawCommand(b"a", b"FETCH", (b"UID FETCH 1 x",), 17),
        ):
            self.assertEqual(RawCommand.unpacked(original.packed()), original)
            other = original._replace(octets=original.octets + 1)
            self.assertIs(RawCommand.unpacked(other.packed()), other)
