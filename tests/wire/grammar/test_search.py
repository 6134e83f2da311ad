"""SEARCH: what holds keys, and what is to be returned."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand
from imapshield.wire.commands.fetch import Attribute
from imapshield.wire.commands.search import CancelUpdate, Search
from imapshield.wire.commands.search_keys import And, EnvelopeKey, FlagKey, Not, Or, SearchKey
from imapshield.wire.commands.sort_thread import Sort
from imapshield.wire.cursor import GrammarLimits
from imapshield.wire.grammar import parse

SEEN, DRAFT = FlagKey(b"\\Seen"), FlagKey(b"\\Draft")
ANSWERED, DELETED = FlagKey(b"\\Answered"), FlagKey(b"\\Deleted")


def key(text: bytes, **limits: int) -> SearchKey:
    return parse([b"SEARCH " + text], limits=GrammarLimits(**limits)).key


class TreeTests(SynchronousTestCase):
    def test_example(self) -> None:
        """RFC 9051 section 6.4.4."""
        self.assertEqual(
            key(b'FLAGGED SINCE 1-Feb-1994 NOT FROM "Smith"').keys[2],
            Not(EnvelopeKey(b"FROM", "Smith")),
        )

    def test_nesting(self) -> None:
        """AND binds what is in parentheses, OR the two that follow, NOT the one."""
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

    def test_one_form(self) -> None:
        """Chains of one kind are one value, however they were nested."""
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
        """What clients build of a list of Message-IDs is flat; 4,000 times NOT is nothing."""
        chain = b"OR HEADER MESSAGE-ID x " * 1500 + b"HEADER MESSAGE-ID x"
        self.assertEqual(len(key(chain).keys), 1501)
        self.assertEqual(key(b"NOT " * 4000 + b"SEEN"), SEEN)

    def test_depth(self) -> None:
        """What nests is bounded, parentheses, NOT and OR together."""
        self.assertEqual(key(b"NOT (OR SEEN (DRAFT DELETED))", max_depth=4).key.keys[0], SEEN)
        for text in (
            b"NOT (OR SEEN (DRAFT DELETED))",
            b"((((SEEN))))",
            b"NOT OR SEEN NOT OR SEEN DRAFT",
        ):
            self.assertRaises(BadCommand, key, text, max_depth=3)

    def test_count(self) -> None:
        """Keys are counted, opening ones too."""
        key(b"NOT (OR SEEN DRAFT)", max_terms=5)
        self.assertRaises(BadCommand, key, b"NOT (OR SEEN DRAFT)", max_terms=4)

    def test_malformed(self) -> None:
        """Parentheses without their other, operators without their keys."""
        for text in (
            b"(", b")", b"()", b"(SEEN", b"SEEN)", b"(SEEN))", b"( SEEN)", b"(SEEN )", b"OR", b"OR SEEN",
            b"OR SEEN )", b"(OR SEEN) DRAFT", b"NOT", b"NOT ", b"NOT)", b"NOT(SEEN)", b"SEEN  DRAFT", b"SEEN(DRAFT)",
            b"OR SEEN  DRAFT", b"(SEEN)(DRAFT)", b"NOTSEEN", b"{-100}zzz",
        ):  # fmt: skip
            self.assertRaises(BadCommand, key, text)


class ReturnTests(SynchronousTestCase):
    def test_options(self) -> None:
        """RFC 4731, 5182 and 9394; () is ALL."""
        for text, returns, partial in (
            (b"", None, None),
            (b"RETURN () ", {b"ALL"}, None),
            (b"RETURN (min COUNT) ", {b"MIN", b"COUNT"}, None),
            (b"RETURN (SAVE) ", {b"SAVE"}, None),
            (b"RETURN (update CONTEXT COUNT) ", {b"UPDATE", b"CONTEXT", b"COUNT"}, None),
            (b"RETURN (PARTIAL 500:1 COUNT) ", {b"PARTIAL", b"COUNT"}, (1, 500)),
            (b"RETURN (PARTIAL -1:-100) ", {b"PARTIAL"}, (-1, -100)),
        ):
            parsed = parse([b"UID SEARCH " + text + b"CHARSET UTF-8 SEEN"])
            self.assertEqual(parsed, Search(SEEN, True, returns, partial))

    def test_malformed(self) -> None:
        """Options that are unknown or exclude each other, and a charset in front."""
        for text in (
            b"RETURN ALL", b"RETURN (FOO) ALL", b"RETURN ()", b"RETURN (PARTIAL) ALL", b"RETURN (PARTIAL 0:1) ALL",
            b"RETURN (ALL PARTIAL 1:2) ALL", b"CHARSET UTF-8 RETURN () ALL", b"CHARSET UTF-8", b"CHARSET", b"RETURN",
            b"RETURN (PARTIAL 1:-2) ALL", b"RETURN (PARTIAL 1) ALL", b"RETURN (PARTIAL 1:2 PARTIAL 3:4) ALL",
            b"RETURN (UPDATE ()) ALL", b"RETURN (UPDATE (UID) ALL", b"RETURN (COUNT (UID)) ALL",
        ):  # fmt: skip
            self.assertRaises(BadCommand, key, text)

    def test_update(self) -> None:
        """UPDATE may have FETCH items, with a space as in RFC 5465 section 7, or without as in section 8."""
        for text in (b"UPDATE (UID FLAGS uid)", b"UPDATE(UID FLAGS)"):
            parsed = parse([b"SORT RETURN (COUNT " + text + b") (DATE) UTF-8 SEEN"])
            assert isinstance(parsed, Sort)
            self.assertEqual(parsed.returns, {b"COUNT", b"UPDATE"})
            self.assertEqual(parsed.update_items, (Attribute(b"UID"), Attribute(b"FLAGS")))


class CancelUpdateTests(SynchronousTestCase):
    def test_tags(self) -> None:
        """Tags in quotes, one at least (RFC 5267)."""
        self.assertEqual(parse([b'CANCELUPDATE "B01" "B]02"']), CancelUpdate((b"B01", b"B]02")))
        for line in (
            b"CANCELUPDATE",
            b"CANCELUPDATE B01",
            b'CANCELUPDATE "B01""B02"',
            b"CANCELUPDATE ",
        ):
            self.assertRaises(BadCommand, parse, [line])
