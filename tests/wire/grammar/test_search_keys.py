"""Search keys that contain no other keys, and charsets."""

from __future__ import annotations

import codecs
from datetime import date

from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand, CommandRefused
from imapshield.wire.commands.base import MemoryLiteral
from imapshield.wire.commands.search import Search
from imapshield.wire.commands.search_keys import (
    AgeKey,
    And,
    DateKey,
    EnvelopeKey,
    FlagKey,
    HeaderKey,
    ModseqKey,
    Not,
    ObjectIdKey,
    SearchKey,
    SequenceKey,
    SizeKey,
    TextKey,
)
from imapshield.wire.grammar import parse
from imapshield.wire.grammar.search_keys import CHARSETS
from imapshield.wire.sequence import SequenceSet
from tests.wire.grammar.typed_parse import parse_as

DAY = date(1994, 2, 1)
RECENT, SEEN = FlagKey(b"\\Recent"), FlagKey(b"\\Seen")


def key(text: bytes) -> SearchKey:
    """Parse a SEARCH and return its key."""
    return parse_as(Search, [b"SEARCH " + text]).key


class KeyTests(SynchronousTestCase):
    def test_all_keys(self) -> None:
        """Every key of RFC 9051, 3501, 5032, 7162, 8474 and 8514 is parsed."""
        for text, expected in (
            (b"ALL", And(())),
            (b"answered", FlagKey(b"\\Answered")),
            (b"UNDRAFT", Not(FlagKey(b"\\Draft"))),
            (b"UNSEEN", Not(SEEN)),
            (b"NEW", And((RECENT, Not(SEEN)))),
            (b"OLD", Not(RECENT)),
            (b"RECENT", RECENT),
            (b"KEYWORD $Junk", FlagKey(b"$Junk")),
            (b"UNKEYWORD $Junk", Not(FlagKey(b"$Junk"))),
            (b'KEYWORD "$Junk"', FlagKey(b"$Junk")),  # as npm's emailjs-imap-client sends it
            (b"1:5,*", SequenceKey(SequenceSet.parse(b"1:5,*"))),
            (b"$", SequenceKey(None)),
            (b"UID 7", SequenceKey(SequenceSet.parse(b"7"), uid=True)),
            (b"UID $", SequenceKey(None, uid=True)),
            (b"FROM Smith", EnvelopeKey(b"FROM", "Smith")),
            (b'subject "a b"', EnvelopeKey(b"SUBJECT", "a b")),
            (b"HEADER from Smith", HeaderKey(b"FROM", "Smith")),
            (b'HEADER message-id "<x>"', HeaderKey(b"MESSAGE-ID", "<x>")),
            (b'HEADER X-Foo ""', HeaderKey(b"X-FOO", "")),
            (b"BODY x", TextKey("x")),
            (b"TEXT x", TextKey("x", headers=True)),
            (b"SINCE 1-Feb-1994", DateKey(b"SINCE", DAY)),
            (b'SENTBEFORE "1-Feb-1994"', DateKey(b"BEFORE", DAY, b"SENT")),
            (b"SAVEDON 01-feb-1994", DateKey(b"ON", DAY, b"SAVED")),
            (b"SAVEDATESUPPORTED", And(())),
            (b"LARGER 9223372036854775807", SizeKey(True, 2**63 - 1)),
            (b"SMALLER 0", SizeKey(False, 0)),
            (b"YOUNGER 259200", AgeKey(True, 259200)),
            (b"OLDER 1", AgeKey(False, 1)),
            (b"MODSEQ 620162338", ModseqKey(620162338)),
            (b'MODSEQ "/flags/\\\\draft" all 620162338', ModseqKey(620162338)),
            (b"EMAILID M6d99ac3275bb4e", ObjectIdKey(False, b"M6d99ac3275bb4e")),
            (b"THREADID T64b478a75b7ea9", ObjectIdKey(True, b"T64b478a75b7ea9")),
        ):
            self.assertEqual(key(text), expected)

    def test_malformed(self) -> None:
        """Unknown keys, and keys without their arguments, are refused."""
        for text in (
            b"", b"FOO", b"FROM", b"FROM ", b"FROM (x)", b"KEYWORD \\Seen", b'KEYWORD "\\\\Seen"',
            b"KEYWORD", b"UID", b"UID x", b"0", b"SINCE yesterday", b"SINCE 30-Feb-1994",
            b"LARGER -1", b"LARGER x", b"YOUNGER 0", b"MODSEQ x", b'MODSEQ "x" some 1',
            b"EMAILID a.b", b"HEADER x", b"\\Seen", b'"x"', b"FROM x)", b"FROM x\0", b"\xff",
        ):  # fmt: skip
            self.assertRaises(BadCommand, key, text)

    def test_bodies_are_counted(self) -> None:
        """Fifty texts may be searched for in the bodies of messages, and no more."""
        parsed = key(b"BODY x " * 49 + b"TEXT x")
        assert isinstance(parsed, And)
        self.assertEqual(len(parsed.keys), 50)
        self.assertRaises(BadCommand, key, b"BODY x " * 50 + b"TEXT x")


class CharsetTests(SynchronousTestCase):
    def test_texts(self) -> None:
        """Texts are decoded from their charset; without one they are UTF-8."""
        for charset, octets in (
            (b"CHARSET UTF-8 ", "é".encode()),
            (b"CHARSET utf8 ", "é".encode()),
            (b"", "é".encode()),
            (b'CHARSET "iso-8859-1" ', b"\xe9"),
        ):
            parsed = parse_as(Search, [b"SEARCH " + charset + b"TEXT ", MemoryLiteral(octets), b""])
            self.assertEqual(parsed.key, TextKey("é", headers=True))

    def test_unknown_charset(self) -> None:
        """An unknown charset is refused, and so are the codecs that only Python knows; the response names supported charsets."""
        for charset in (
            b"X-UNKNOWN",
            b"zlib_codec",
            b"idna",
            b"unicode_escape",
            b"utf-16",
            b"os",
            b"../x",
        ):
            error = self.assertRaises(
                CommandRefused, parse, [b"SEARCH CHARSET " + charset + b" ALL"]
            )
            self.assertEqual(error.code, b"BADCHARSET (US-ASCII UTF-8)")

    def test_undecodable_text(self) -> None:
        """A text that is not valid in its charset is refused, in every charset."""
        self.assertRaises(BadCommand, parse, [b"SEARCH TEXT ", MemoryLiteral(b"\xff"), b""])
        self.assertRaises(
            BadCommand, parse, [b"SEARCH CHARSET US-ASCII TEXT ", MemoryLiteral(b"\xe9"), b""]
        )
        for charset in CHARSETS:
            for octets in (b"\xff\xfe", b"\x1b$B\x80", b"\x80", bytes(range(1, 256))):
                try:
                    parse([b"SEARCH CHARSET " + charset + b" TEXT ", MemoryLiteral(octets), b""])
                except BadCommand as error:
                    self.assertEqual(error.text, "The search text is not valid in its charset")

    def test_codecs_exist(self) -> None:
        """Python has a codec for every supported charset."""
        for codec in CHARSETS.values():
            self.assertTrue(codecs.lookup(codec)._is_text_encoding)
