"""SEARCH and CANCELUPDATE: the tree of search keys, and result options."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand
from imapshield.wire.commands.fetch import Attribute
from imapshield.wire.commands.search import CancelUpdate, Search
from imapshield.wire.commands.search_keys import And, EnvelopeKey, FlagKey, Not, Or, SearchKey
from imapshield.wire.commands.sort_thread import Sort
from imapshield.wire.cursor import GrammarLimits
from imapshield.wire.grammar import parse
from tests.wire.grammar.typed_parse import parse_as

SEEN, DRAFT = FlagKey(b"\\Seen"), FlagKey(b"\\Draft")
ANSWERED, DELETED = FlagKey(b"\\Answered"), FlagKey(b"\\Deleted")


def key(text: bytes, **limits: int) -> SearchKey:
    """Parse a SEARCH with the limits that differ from the default, and return its key."""
    return parse_as(Search, [b"SEARCH " + text], GrammarLimits(**limits)).key


def keys(parsed: SearchKey) -> tuple[SearchKey, ...]:
    """Return the keys inside an And or an Or."""
    assert isinstance(parsed, And | Or)
    return parsed.keys


class KeyTreeTests(SynchronousTestCase):
    def test_example(self) -> None:
        """The example of RFC 9051 section 6.4.4 is parsed."""
        self.assertEqual(
            keys(key(b'FLAGGED SINCE 1-Feb-1994 NOT FROM "Smith"'))[2],
            Not(EnvelopeKey(b"FROM", "Smith")),
        )

    def test_nesting(self) -> None:
        """A list of keys is AND, OR takes the next two keys, and NOT the next one."""
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
        """Chains of one kind become one value, however they were nested."""
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
        """The chains that clients build from lists of Message-IDs are flat; 4,000 times NOT cancels out."""
        chain = b"OR HEADER MESSAGE-ID x " * 1500 + b"HEADER MESSAGE-ID x"
        self.assertEqual(len(keys(key(chain))), 1501)
        self.assertEqual(key(b"NOT " * 4000 + b"SEEN"), SEEN)

    def test_depth(self) -> None:
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

    def test_malformed(self) -> None:
        """Parentheses without their counterpart and operators without their keys are refused."""
        for text in (
            b"(", b")", b"()", b"(SEEN", b"SEEN)", b"(SEEN))", b"( SEEN)", b"(SEEN )", b"OR",
            b"OR SEEN", b"OR SEEN )", b"(OR SEEN) DRAFT", b"NOT", b"NOT ", b"NOT)", b"NOT(SEEN)",
            b"SEEN  DRAFT", b"SEEN(DRAFT)", b"OR SEEN  DRAFT", b"(SEEN)(DRAFT)", b"NOTSEEN",
            b"{-100}zzz",
        ):  # fmt: skip
            self.assertRaises(BadCommand, key, text)


class ResultOptionTests(SynchronousTestCase):
    def test_options(self) -> None:
        """The result options of RFC 4731, 5182 and 9394 are parsed; () is ALL."""
        cases: tuple[tuple[bytes, set[bytes] | None, tuple[int, int] | None], ...] = (
            (b"", None, None),
            (b"RETURN () ", {b"ALL"}, None),
            (b"RETURN (min COUNT) ", {b"MIN", b"COUNT"}, None),
            (b"RETURN (SAVE) ", {b"SAVE"}, None),
            (b"RETURN (update CONTEXT COUNT) ", {b"UPDATE", b"CONTEXT", b"COUNT"}, None),
            (b"RETURN (PARTIAL 500:1 COUNT) ", {b"PARTIAL", b"COUNT"}, (1, 500)),
            (b"RETURN (PARTIAL -1:-100) ", {b"PARTIAL"}, (-1, -100)),
        )
        for text, returns, partial in cases:
            parsed = parse([b"UID SEARCH " + text + b"CHARSET UTF-8 SEEN"])
            options = None if returns is None else frozenset(returns)
            self.assertEqual(parsed, Search(SEEN, True, options, partial))

    def test_malformed(self) -> None:
        """Unknown options, options that cannot be combined, and a charset before RETURN are refused."""
        for text in (
            b"RETURN ALL", b"RETURN (FOO) ALL", b"RETURN ()", b"RETURN (PARTIAL) ALL",
            b"RETURN (PARTIAL 0:1) ALL", b"RETURN (ALL PARTIAL 1:2) ALL",
            b"CHARSET UTF-8 RETURN () ALL", b"CHARSET UTF-8", b"CHARSET", b"RETURN",
            b"RETURN (PARTIAL 1:-2) ALL", b"RETURN (PARTIAL 1) ALL",
            b"RETURN (PARTIAL 1:2 PARTIAL 3:4) ALL", b"RETURN (UPDATE ()) ALL",
            b"RETURN (UPDATE (UID) ALL", b"RETURN (COUNT (UID)) ALL",
        ):  # fmt: skip
            self.assertRaises(BadCommand, key, text)

    def test_update(self) -> None:
        """UPDATE may have FETCH items, with a space as in RFC 5465 section 7, or without as in section 8."""
        for text in (b"UPDATE (UID FLAGS uid)", b"UPDATE(UID FLAGS)"):
            parsed = parse_as(Sort, [b"SORT RETURN (COUNT " + text + b") (DATE) UTF-8 SEEN"])
            self.assertEqual(parsed.returns, {b"COUNT", b"UPDATE"})
            self.assertEqual(parsed.update_items, (Attribute(b"UID"), Attribute(b"FLAGS")))


class CancelUpdateTests(SynchronousTestCase):
    def test_tags(self) -> None:
        """CANCELUPDATE has at least one tag, in quotes (RFC 5267)."""
        self.assertEqual(parse([b'CANCELUPDATE "B01" "B]02"']), CancelUpdate((b"B01", b"B]02")))
        for line in (
            b"CANCELUPDATE",
            b"CANCELUPDATE B01",
            b'CANCELUPDATE "B01""B02"',
            b"CANCELUPDATE ",
        ):
            self.assertRaises(BadCommand, parse, [line])
