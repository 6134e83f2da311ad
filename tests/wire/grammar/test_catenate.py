"""APPEND with CATENATE (RFC 4469)."""

from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand
from imapshield.wire.commands.base import MemoryLiteral
from imapshield.wire.cursor import GrammarLimits
from imapshield.wire.grammar import parse

MAIL = MemoryLiteral(b"Subject: x\r\n\r\n")


class CatenateTests(SynchronousTestCase):
    def test_parts(self) -> None:
        """Literals, UTF8 data and URLs make a message, among others (RFC 3502)."""
        mail = MemoryLiteral(b"a\0", binary=True)
        parsed = parse(
            [b"APPEND x (\\Seen) CATENATE (text ", MAIL, b' URL "/a" Utf8 (', mail, b") URL ",
             MemoryLiteral(b";UID=1"), b") ", MAIL, b""]
        )  # fmt: skip
        parts = (MAIL, b"/a", mail, b";UID=1")
        self.assertEqual([m.content for m in parsed.messages], [parts, MAIL])

    def test_malformed(self) -> None:
        """Other parts, none, and more URLs than there may be items in a FETCH."""
        for parts in (
            [b"APPEND x CATENATE ()"], [b"APPEND x CATENATE (MAIL ", MAIL, b")"], [b"APPEND x CATENATE (TEXT ", MAIL, b""],
            [b"APPEND x CATENATE (TEXT a)"], [b"APPEND x CATENATE ", MAIL, b""],
        ):  # fmt: skip
            self.assertRaises(BadCommand, parse, parts)
        parse([b"APPEND x CATENATE (URL a URL b)"], limits=GrammarLimits(max_fetch_items=2))
        limits = GrammarLimits(max_fetch_items=1)
        self.assertRaises(BadCommand, parse, [b"APPEND x CATENATE (URL a URL b)"], limits=limits)
