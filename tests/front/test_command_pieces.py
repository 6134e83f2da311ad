"""`command_pieces` writes a command as the client has sent it, and refuses what can be read in two ways."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand
from imapshield.front.command_pieces import announcement, pieces, pipelined_line
from imapshield.wire.commands.base import MemoryLiteral
from imapshield.wire.framing import Framer, RawCommand


def command(line: bytes) -> RawCommand:
    found = Framer().receive_line(line)
    assert isinstance(found, RawCommand)
    return found


class PiecesTests(SynchronousTestCase):
    def test_line_is_passed_on_as_it_is(self) -> None:
        """A command without literals is one line."""
        line = b'a1 UID FETCH 1 (BODY.PEEK[HEADER.FIELDS ("X")])'
        self.assertEqual(pieces(command(line)), [(line + b"\r\n", None)])

    def test_literals_follow_their_texts(self) -> None:
        """Literals stay between the texts."""
        first, second = MemoryLiteral(b"INBOX"), MemoryLiteral(b"\0x", binary=True)
        raw = RawCommand(b"a", b"APPEND", (b"APPEND ", first, b' "x" ', second, b""), 40)
        self.assertEqual(pieces(raw), [(b"a APPEND ", first), (b' "x" ', second), (b"\r\n", None)])
        self.assertEqual(announcement(first), b"{5}\r\n")
        self.assertEqual(announcement(second), b"~{2}\r\n")

    def test_what_another_server_could_read_as_two_commands_is_refused(self) -> None:
        """Line breaks, NUL, other literals, and a literal within quotes are refused."""
        for line in (
            b"a NOOP\nb NOOP",
            b"a NOOP\rb NOOP",
            b"a NOOP \0",
            b"a SEARCH TEXT {5-}",
            b"a SEARCH TEXT { 5+}",
            b"a SEARCH TEXT {99999999999999999999}",
            b"a  NOOP",
            b"a",
        ):
            with self.assertRaises(BadCommand):
                pieces(command(line))
        quoted = RawCommand(b"a", b"LOGIN", (b'SEARCH "', MemoryLiteral(b"x"), b""), 40)
        self.assertRaises(BadCommand, pieces, quoted)

    def test_tags_that_servers_do_not_repeat_are_refused(self) -> None:
        """Dovecot refuses a tag with a bracket, and Courier one with a tilde, in a response without that tag."""
        for tag in (b"a]", b"[a", b"a~b"):
            self.assertRaises(BadCommand, pieces, RawCommand(tag, b"NOOP", (b"NOOP",), 10))
            self.assertIsNone(pipelined_line(RawCommand(tag, b"NOOP", (b"NOOP",), 10)))

    def test_braces_that_announce_nothing_pass(self) -> None:
        """A brace in quotes, in a name, or escaped quotes pass."""
        for line in (b'a SELECT "{5}"', b"a SELECT a}", b'a SEARCH TEXT "\\"{1}"'):
            self.assertEqual(pieces(command(line))[0].data, line + b"\r\n")
        text = b'SEARCH TEXT "a\\"b" BODY '
        raw = RawCommand(b"a", b"SEARCH", (text, MemoryLiteral(b"x"), b""), 40)
        self.assertEqual(pieces(raw)[0].data, b"a " + text)

    def test_rejected_command_is_not_passed_on(self) -> None:
        """The reason of a rejected command is raised."""
        raw = command(b"a NOOP").rejected(BadCommand("too long"))
        self.assertRaises(BadCommand, pieces, raw)
