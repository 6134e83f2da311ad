"""GETMETADATA and SETMETADATA (RFC 5464)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand
from imapshield.wire.commands.base import MemoryLiteral
from imapshield.wire.commands.mailboxes import GetMetadata, SetMetadata
from imapshield.wire.cursor import GrammarLimits
from imapshield.wire.grammar import parse

COMMENT = b"/shared/comment"


class GetMetadataTests(SynchronousTestCase):
    def test_options_may_precede_or_follow_the_mailbox(self) -> None:
        """GETMETADATA has one or several entries; options may precede or (as in the RFC) follow the mailbox."""
        for line, command in (
            (b'GETMETADATA "" /shared/comment', GetMetadata("", (COMMENT,))),
            (
                b"GETMETADATA inbox (/Shared/Comment /private/x/y)",
                GetMetadata("INBOX", (COMMENT, b"/private/x/y")),
            ),
            (
                b'GETMETADATA "INBOX" (MAXSIZE 1024) (/shared/comment)',
                GetMetadata("INBOX", (COMMENT,), 1024),
            ),
            (
                b"GETMETADATA (maxsize 5 DEPTH infinity) x /shared/comment",
                GetMetadata("x", (COMMENT,), 5, None),
            ),
            (b'GETMETADATA (DEPTH 1) x ("/shared/comment")', GetMetadata("x", (COMMENT,), None, 1)),
        ):
            self.assertEqual(parse([line]), command, line)
        self.assertEqual(
            parse([b"GETMETADATA x (", MemoryLiteral(COMMENT), b")"]), GetMetadata("x", (COMMENT,))
        )

    def test_invalid_entries_and_options_are_refused(self) -> None:
        """Impossible entry names and unknown options are refused."""
        for line in (
            b"GETMETADATA x", b"GETMETADATA x ()", b"GETMETADATA x comment",
            b"GETMETADATA x /shared", b"GETMETADATA x /shared/", b"GETMETADATA x /shared//a",
            b'GETMETADATA x "/shared/a*"', b'GETMETADATA x "/shared/%"',
            b"GETMETADATA x /vendor/a", b"GETMETADATA (DEPTH 2) x /shared/a",
            b"GETMETADATA (SIZE 2) x /shared/a", b"GETMETADATA x (MAXSIZE -1) /shared/a",
            b"GETMETADATA x /shared/" + b"a" * 300, b"GETMETADATA (DEPTH 1) x (DEPTH 1) /shared/a",
        ):  # fmt: skip
            self.assertRaises(BadCommand, parse, [line])


class SetMetadataTests(SynchronousTestCase):
    def test_value_is_a_string_or_nil(self) -> None:
        """Values are quoted, literal or binary; NIL removes an entry."""
        binary = MemoryLiteral(b"a\0", binary=True)
        parsed = parse([b'SETMETADATA x (/shared/a "b" /shared/c NIL /shared/d ', binary, b")"])
        values = ((b"/shared/a", b"b"), (b"/shared/c", None), (b"/shared/d", b"a\0"))
        self.assertEqual(parsed, SetMetadata("x", values))

    def test_invalid_values_are_refused(self) -> None:
        """A missing value, a missing list, and a value that is too long are refused."""
        for line in (
            b"SETMETADATA x /shared/a NIL",
            b"SETMETADATA x (/shared/a)",
            b"SETMETADATA x ()",
            b"SETMETADATA x (/shared/a b)",
        ):
            self.assertRaises(BadCommand, parse, [line])
        limits = GrammarLimits(max_string_size=10)
        self.assertRaises(
            BadCommand,
            parse,
            [b"SETMETADATA x (/shared/a ", MemoryLiteral(b"x" * 11), b")"],
            limits=limits,
        )
