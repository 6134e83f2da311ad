"""Search keys are parsed, alone and as a tree of keys that contain other keys."""

import codecs
from datetime import date

from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand, CommandRefused
from imapshield.wire.commands.base import MemoryLiteral
from imapshield.wire.commands.search import (
    AgeKey,
    And,
    DateKey,
    EnvelopeKey,
    FlagKey,
    HeaderKey,
    ModseqKey,
    Not,
    ObjectIdKey,
    Or,
    Search,
    SearchKey,
    SequenceKey,
    SizeKey,
    Sort,
    TextKey,
    Thread,
)
from imapshield.wire.cursor import GrammarLimits, Parts
from imapshield.wire.grammar import parse
from imapshield.wire.grammar.search_keys import CHARSETS
from imapshield.wire.names import NameFormat
from imapshield.wire.sequence import SAVED, SequenceSet
from tests.wire.grammar.typed_parse import parse_as

DAY = date(1994, 2, 1)
RECENT, SEEN = FlagKey(b"\\Recent"), FlagKey(b"\\Seen")


def key(text: bytes, **limits: int) -> SearchKey:
    """Parse a SEARCH and return its key; `limits` are the limits that differ from the default."""
    return parse_as(Search, [b"SEARCH " + text], GrammarLimits(**limits)).key


class KeyTests(SynchronousTestCase):
    def test_every_key_is_parsed(self) -> None:
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
            (
                b'KEYWORD "$Junk"',
                FlagKey(b"$Junk"),
            ),  # the form that npm's emailjs-imap-client sends
            (b"1:5,*", SequenceKey(SequenceSet.parse(b"1:5,*"))),
            (b"$", SequenceKey(SAVED)),
            (b"UID 7", SequenceKey(SequenceSet.parse(b"7"), uid=True)),
            (b"UID $", SequenceKey(SAVED, uid=True)),
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

    def test_invalid_keys_are_refused(self) -> None:
        """Unknown keys, and keys without their arguments, are refused."""
        for text in (
            b"", b"FOO", b"FROM", b"FROM ", b"FROM (x)", b"KEYWORD \\Seen", b'KEYWORD "\\\\Seen"',
            b"KEYWORD", b"UID", b"UID x", b"0", b"SINCE yesterday", b"SINCE 30-Feb-1994",
            b"LARGER -1", b"LARGER x", b"YOUNGER 0", b"MODSEQ x", b'MODSEQ "x" some 1',
            b"EMAILID a.b", b"HEADER x", b"\\Seen", b'"x"', b"FROM x)", b"FROM x\0", b"\xff",
        ):  # fmt: skip
            self.assertRaises(BadCommand, key, text)

    def test_body_searches_are_limited(self) -> None:
        """A SEARCH may search for at most fifty texts in the bodies of messages."""
        parsed = key(b"BODY x " * 49 + b"TEXT x")
        assert isinstance(parsed, And)
        self.assertEqual(len(parsed.keys), 50)
        self.assertRaises(BadCommand, key, b"BODY x " * 50 + b"TEXT x")


class CharsetTests(SynchronousTestCase):
    def test_texts_are_decoded_from_their_charset(self) -> None:
        """Texts are decoded from their charset; without one they are UTF-8."""
        for charset, octets in (
            (b"CHARSET UTF-8 ", "é".encode()),
            (b"CHARSET utf8 ", "é".encode()),
            (b"", "é".encode()),
            (b'CHARSET "iso-8859-1" ', b"\xe9"),
        ):
            parsed = parse_as(Search, [b"SEARCH " + charset + b"TEXT ", MemoryLiteral(octets), b""])
            self.assertEqual(parsed.key, TextKey("é", headers=True))

    def test_latin1_after_enable_utf8_is_read(self) -> None:
        """After ENABLE UTF8=ACCEPT, texts that are not UTF-8 are read as Latin-1, because JavaMail sends them."""
        text = b"Gr\xf6\xdfe"
        for name in (b"SEARCH", b"SORT (DATE) UTF-8", b"THREAD REFERENCES UTF-8"):
            command = name + b" SUBJECT "
            quoted: Parts = [command + b'"%b"' % text]
            literal: Parts = [command, MemoryLiteral(text), b""]
            for parts in (quoted, literal):
                parsed = parse(parts, names=NameFormat(utf8=True))
                assert isinstance(parsed, Search | Sort | Thread)
                self.assertEqual(parsed.key, EnvelopeKey(b"SUBJECT", "Größe"))
        self.assertRaises(BadCommand, parse, [b'SEARCH SUBJECT "\xf6"'])
        self.assertRaises(
            BadCommand, parse, [b'SORT (DATE) US-ASCII SUBJECT "\xf6"'], names=NameFormat(utf8=True)
        )

    def test_unknown_charset_is_refused(self) -> None:
        """An unknown charset and a codec that only Python knows are refused; the response names supported charsets."""
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

    def test_undecodable_text_is_refused(self) -> None:
        """A text that is not valid in its charset is refused, for every charset."""
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

    def test_every_supported_charset_has_a_codec(self) -> None:
        """Python has a codec for every supported charset."""
        for codec in CHARSETS.values():
            self.assertTrue(codecs.lookup(codec)._is_text_encoding)


SEEN, DRAFT = FlagKey(b"\\Seen"), FlagKey(b"\\Draft")
ANSWERED, DELETED = FlagKey(b"\\Answered"), FlagKey(b"\\Deleted")


def keys(parsed: SearchKey) -> tuple[SearchKey, ...]:
    """Return the keys inside an And or an Or."""
    assert isinstance(parsed, And | Or)
    return parsed.keys


class KeyTreeTests(SynchronousTestCase):
    def test_example_of_rfc_9051_is_parsed(self) -> None:
        """The example of RFC 9051 section 6.4.4 is parsed."""
        self.assertEqual(
            keys(key(b'FLAGGED SINCE 1-Feb-1994 NOT FROM "Smith"'))[2],
            Not(EnvelopeKey(b"FROM", "Smith")),
        )

    def test_and_or_and_not_nest(self) -> None:
        """A list of keys is AND, OR takes the next two keys, and NOT takes the next key."""
        for text, expected in (
            (b"SEEN DRAFT", And((SEEN, DRAFT))),
            (b"OR SEEN DRAFT", Or((SEEN, DRAFT))),
            (b"OR SEEN DRAFT DELETED", And((Or((SEEN, DRAFT)), DELETED))),
            (b"OR (SEEN DELETED) DRAFT", Or((And((SEEN, DELETED)), DRAFT))),
            (b"NOT SEEN DRAFT", And((Not(SEEN), DRAFT))),
            (b"NOT (SEEN DRAFT)", Not(And((SEEN, DRAFT)))),
            (b"NOT OR SEEN DRAFT", Not(Or((SEEN, DRAFT)))),
            (b"OR NOT SEEN NOT DRAFT", Or((Not(SEEN), Not(DRAFT)))),
            (b"(SEEN)", SEEN),
            (b"NOT ALL", Not(And(()))),
        ):
            self.assertEqual(key(text), expected)

    def test_tree_is_flat(self) -> None:
        """Chains of one kind become one value, whatever their nesting."""
        any_four = Or((SEEN, DRAFT, ANSWERED, DELETED))
        for text in (
            b"OR SEEN OR DRAFT OR ANSWERED DELETED",
            b"OR OR OR SEEN DRAFT ANSWERED DELETED",
            b"OR OR SEEN DRAFT OR ANSWERED DELETED",
            b"OR (OR SEEN DRAFT) (OR ANSWERED DELETED)",
        ):
            self.assertEqual(key(text), any_four)
        self.assertEqual(key(b"((SEEN (DRAFT)) ANSWERED)"), And((SEEN, DRAFT, ANSWERED)))
        for text in (b"NOT NOT SEEN", b"NOT UNSEEN", b"NOT (NOT (SEEN))", b"ALL SEEN ALL"):
            self.assertEqual(key(text), SEEN)

    def test_long_chains_do_not_nest(self) -> None:
        """The chains that clients build from lists of Message-IDs are flat; 4,000 NOTs cancel each other out."""
        chain = b"OR HEADER MESSAGE-ID x " * 1500 + b"HEADER MESSAGE-ID x"
        self.assertEqual(len(keys(key(chain))), 1501)
        self.assertEqual(key(b"NOT " * 4000 + b"SEEN"), SEEN)

    def test_depth_is_limited_over_all_kinds(self) -> None:
        """Parentheses, NOT and OR are limited together."""
        parsed = key(b"NOT (OR SEEN (DRAFT DELETED))", max_depth=4)
        self.assertEqual(parsed, Not(Or((SEEN, And((DRAFT, DELETED))))))
        for text in (
            b"NOT (OR SEEN (DRAFT DELETED))",
            b"((((SEEN))))",
            b"NOT OR SEEN NOT OR SEEN DRAFT",
        ):
            self.assertRaises(BadCommand, key, text, max_depth=3)

    def test_keys_are_counted(self) -> None:
        """Search keys are counted, and so are operators and parentheses."""
        key(b"NOT (OR SEEN DRAFT)", max_terms=5)
        self.assertRaises(BadCommand, key, b"NOT (OR SEEN DRAFT)", max_terms=4)

    def test_unbalanced_keys_are_refused(self) -> None:
        """Parentheses without their counterpart and operators without their keys are refused."""
        for text in (
            b"(", b")", b"()", b"(SEEN", b"SEEN)", b"(SEEN))", b"( SEEN)", b"(SEEN )", b"OR",
            b"OR SEEN", b"OR SEEN )", b"(OR SEEN) DRAFT", b"NOT", b"NOT ", b"NOT)", b"NOT(SEEN)",
            b"SEEN  DRAFT", b"SEEN(DRAFT)", b"OR SEEN  DRAFT", b"(SEEN)(DRAFT)", b"NOTSEEN",
            b"{-100}zzz",
        ):  # fmt: skip
            self.assertRaises(BadCommand, key, text)
