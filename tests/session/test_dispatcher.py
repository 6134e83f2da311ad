"""Errors that the dispatcher finds before a handler runs."""

from twisted.internet.defer import Deferred

from imapshield.wire.commands.base import MemoryLiteral
from imapshield.wire.framing import RawCommand
from tests.session.session_case import SessionTestCase


class ClosableLiteral(MemoryLiteral):
    """A literal that notes that it was closed."""

    closed = False

    def close(self) -> None:
        """Note the call."""
        self.closed = True


class DispatcherTests(SessionTestCase):
    def test_unknown_command(self) -> None:
        """The text says whether the name is unknown or missing, as after two spaces."""
        self.assertEqual(self.client(b"a XYZZY"), b"a BAD Unknown command\r\n")
        for line in (b"a  NOOP", b"a "):
            response = b"a BAD Expected a command name after the tag\r\n"
            self.assertEqual(self.client(line), response, line)

    def test_literals_are_closed(self) -> None:
        """The literals of a command are closed, whether it is executed, unknown or not allowed in this state."""
        for name in (b"APPEND", b"XYZZY", b"REPLACE"):
            literal = ClosableLiteral(b"x")
            command = RawCommand(b"a", name, (name + b" INBOX ", literal, b""), 20)
            self.successResultOf(Deferred.fromCoroutine(self.client.protocol._session.run(command)))
            self.assertTrue(literal.closed, name)
