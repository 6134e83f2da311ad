"""SELECT and EXAMINE: examples of RFC 9051 and 7162."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand
from imapshield.wire.commands.base import MemoryLiteral
from imapshield.wire.commands.select import Qresync, Select
from imapshield.wire.grammar import parse
from imapshield.wire.sequence import SequenceSet
from tests.wire.grammar.typed_parse import parse_as

numbers = SequenceSet.parse


class SelectTests(SynchronousTestCase):
    def test_plain(self) -> None:
        """SELECT and EXAMINE have a mailbox name in any form."""
        self.assertEqual(parse([b"SELECT INBOX"]), Select("INBOX"))
        self.assertEqual(parse([b'EXAMINE "inbox"']), Select("INBOX", readonly=True))
        self.assertEqual(parse([b"SELECT ", MemoryLiteral(b"a/b"), b""]), Select("a/b"))

    def test_condstore(self) -> None:
        """CONDSTORE is a parameter (RFC 7162 section 3.1.8)."""
        self.assertEqual(parse([b"SELECT INBOX (CONDSTORE)"]), Select("INBOX", condstore=True))

    def test_qresync(self) -> None:
        """The values of QRESYNC are parsed in their four forms (RFC 7162 section 3.2.5)."""
        head = b"SELECT INBOX (QRESYNC (67890007 20050715194045000"
        forms: tuple[tuple[bytes, tuple[SequenceSet | None, ...]], ...] = (
            (b"", ()),
            (b" 41,43:211,214:541", (numbers(b"41,43:211,214:541"),)),
            (b" (1 2)", (None, numbers(b"1"), numbers(b"2"))),
            (b" 41 (1,5 2,9)", (numbers(b"41"), numbers(b"1,5"), numbers(b"2,9"))),
        )
        for tail, sets in forms:
            expected = Qresync(67890007, 20050715194045000, *sets)
            self.assertEqual(parse_as(Select, [head + tail + b"))"]).qresync, expected)

    def test_malformed(self) -> None:
        """Unknown and damaged parameters are refused; a client cannot know ``*`` or ``$``."""
        for line in (
            b"SELECT", b"SELECT a b", b"SELECT INBOX ()", b"SELECT INBOX (FOO)",
            b"SELECT INBOX (QRESYNC)", b"SELECT INBOX (QRESYNC (1))",
            b"SELECT INBOX (QRESYNC (0 1))", b"SELECT INBOX (QRESYNC (1 2 *))",
            b"SELECT INBOX (QRESYNC (1 2 $))", b"SELECT INBOX (QRESYNC (1 2 1 (1)))",
            b"SELECT INBOX (QRESYNC (1 2 (1 2) 3))", b"SELECT INBOX (QRESYNC (1 2 ))", b"SELECT *",
            b"SELECT a%",
        ):  # fmt: skip
            self.assertRaises(BadCommand, parse, [line])

    def test_names_that_cannot_be_decoded(self) -> None:
        """A name that no mailbox can have is parsed as "", so that the session still deselects the mailbox."""
        for name in (b"&A-", b"&AOk", b'"\xff"'):
            self.assertEqual(parse([b"SELECT " + name]), Select(""))
