"""The cursor reads one thing at a time, and counts."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand, CommandRefused
from imapshield.wire import abnf
from imapshield.wire.commands.base import MemoryLiteral
from imapshield.wire.cursor import MAX_NUMBER, MAX_NUMBER64, Cursor, GrammarLimits
from imapshield.wire.sequence import SAVED


def cursor(*parts, **limits) -> Cursor:
    return Cursor(parts, GrammarLimits(**limits))


class StringTests(SynchronousTestCase):
    def test_three_forms(self) -> None:
        """An astring is an atom, quoted, or a literal, and what follows is next."""
        for c in (cursor(b"a]b x"), cursor(b'"a]b" x'), cursor(b"", MemoryLiteral(b"a]b"), b" x")):
            self.assertEqual(c.astring("a name"), b"a]b")
            c.space("the name")
            self.assertEqual(c.atom("an atom"), b"x")
            c.expect_end()

    def test_escapes(self) -> None:
        r"""\" and \\ are undone, once."""
        self.assertEqual(cursor(b'"\\\\\\"\\\\"').string("a string"), b'\\"\\')

    def test_string_is_no_atom(self) -> None:
        """A string is quoted or a literal."""
        self.assertRaises(BadCommand, cursor(b"a").string, "a string")

    def test_nil(self) -> None:
        """NIL is None in any case; as a string it is itself; NILS is neither."""
        self.assertIsNone(cursor(b"nil").nstring("a string"))
        self.assertEqual(cursor(b'"NIL"').nstring("a string"), b"NIL")
        self.assertRaises(BadCommand, cursor(b"NILS").nstring, "a string")

    def test_bad_literals(self) -> None:
        """NUL, literal8 and too many octets are refused where a string is meant."""
        for octets in (
            MemoryLiteral(b"a\0"),
            MemoryLiteral(b"a", binary=True),
            MemoryLiteral(b"aaaa"),
        ):
            self.assertRaises(BadCommand, cursor(b"", octets, max_string_size=3).astring, "a name")
        self.assertRaises(BadCommand, cursor(b'"aaaa"', max_string_size=3).astring, "a name")

    def test_literal_is_not_read(self) -> None:
        """A message comes as it is, of whatever size."""
        octets = MemoryLiteral(b"\0" * 99, binary=True)
        self.assertIs(cursor(b"", octets, max_string_size=3).literal("a message"), octets)
        self.assertRaises(BadCommand, cursor(b"x", octets).literal, "a message")
        self.assertRaises(BadCommand, cursor(b"").literal, "a message")

    def test_shapes(self) -> None:
        """Parts that framing would never make are Malformed too."""
        self.assertRaises(BadCommand, cursor, MemoryLiteral(b""))
        self.assertRaises(BadCommand, cursor(b"", b"").literal, "a message")
        self.assertRaises(
            BadCommand, cursor(b"", MemoryLiteral(b""), MemoryLiteral(b"")).astring, "a name"
        )
        self.assertTrue(cursor().at_end())

    def test_mailbox(self) -> None:
        """A mailbox is decoded and INBOX folded."""
        self.assertEqual(cursor(b"inbox").mailbox(), "INBOX")
        self.assertEqual(cursor(b"&AOk-").mailbox(), "é")
        self.assertEqual(Cursor([b"&AOk-"], utf8=True).mailbox(), "&AOk-")
        self.assertRaises(CommandRefused, cursor(b'"\xff"').mailbox)

    def test_list_mailbox(self) -> None:
        """A pattern's atom may have wildcards; nobody else's."""
        self.assertEqual(cursor(b"a/%*]").list_mailbox("a pattern"), b"a/%*]")
        self.assertRaises(BadCommand, cursor(b"*").astring, "a name")


class NumberTests(SynchronousTestCase):
    def test_ranges(self) -> None:
        """32 bits and 63 bits, from 0 or 1."""
        self.assertEqual(cursor(b"0").number("a number"), 0)
        self.assertEqual(cursor(b"4294967295").number("a number"), MAX_NUMBER)
        self.assertEqual(cursor(b"9223372036854775807").number64("a number"), MAX_NUMBER64)
        self.assertEqual(cursor(b"9223372036854775807").nz_number64("a number"), MAX_NUMBER64)
        self.assertRaises(BadCommand, cursor(b"0").nz_number, "a number")
        self.assertRaises(BadCommand, cursor(b"4294967296").number, "a number")
        self.assertRaises(BadCommand, cursor(b"9223372036854775808").number64, "a number")
        self.assertRaises(BadCommand, cursor(b"1" * 5000).number64, "a number")

    def test_no_numbers(self) -> None:
        """Python's idea of a number is not the RFC's."""
        for octets in (b"", b"-1", b"+1", b"_1", b" 1", "١".encode(), b"x"):
            self.assertRaises(BadCommand, cursor(octets).number, "a number")
        c = cursor(b"1_0")
        self.assertEqual(c.number("a number"), 1)
        self.assertRaises(BadCommand, c.expect_end)

    def test_sequence_set(self) -> None:
        """``$`` is the saved result, unless it may not be."""
        self.assertIs(cursor(b"$").sequence_set(), SAVED)
        self.assertRaises(BadCommand, cursor(b"$").sequence_set, allow_saved=False)
        self.assertEqual(cursor(b"1:2 x").sequence_set().ranges, ((1, 2),))
        self.assertRaises(BadCommand, cursor(b"1,2,3", max_ranges=2).sequence_set)


class WordTests(SynchronousTestCase):
    def test_keyword(self) -> None:
        """A keyword is a whole word, of any case, and is left if it is another."""
        c = cursor(b"return (")
        self.assertFalse(c.skip_word(b"RETUR"))
        self.assertTrue(c.skip_word(b"RETURN"))
        self.assertEqual(c.peek(), b" ")

    def test_optional(self) -> None:
        """What does not match is left."""
        c = cursor(b"a")
        self.assertIsNone(c.try_match(abnf.DIGITS))
        self.assertEqual(c.word("a word"), b"A")

    def test_flag(self) -> None:
        """A flag is canonical."""
        self.assertEqual(cursor(b"\\sEEN").flag(), b"\\Seen")
        self.assertRaises(BadCommand, cursor(b"\\").flag)

    def test_errors_say_what(self) -> None:
        """The text of an error is the noun it was given."""
        error = self.assertRaises(BadCommand, cursor(b")").atom, "a capability")
        self.assertEqual(error.text, "Expected a capability")
        error = self.assertRaises(BadCommand, cursor(b"x").space, "the mailbox name")
        self.assertEqual(error.text, "Expected a space after the mailbox name")


class ListTests(SynchronousTestCase):
    def test_lists(self) -> None:
        """One space between elements, none at the ends; empty only where that is allowed."""
        c = cursor(b"(a b)")
        self.assertEqual(c.list_of(lambda: c.atom("an atom"), "atoms"), [b"a", b"b"])
        c = cursor(b"()")
        self.assertEqual(c.list_of(lambda: c.atom("an atom"), "atoms", allow_empty=True), [])
        for octets in (b"()", b"( a)", b"(a )", b"(a  b)", b"(a", b"a", b"(a\tb)", b""):
            c = cursor(octets)
            self.assertRaises(BadCommand, c.list_of, lambda c=c: c.atom("an atom"), "atoms")

    def test_counts(self) -> None:
        """Elements are counted over the whole command."""
        c = cursor(b"(a b)(a b)", max_terms=3)
        c.list_of(lambda: c.atom("an atom"), "atoms")
        self.assertRaises(BadCommand, c.list_of, lambda: c.atom("an atom"), "atoms")

    def test_depth(self) -> None:
        """Lists nest as deep as they may, whatever stands between (CVE-2026-42006)."""

        def nested(c: Cursor) -> object:
            if c.peek() == b"(":
                return c.list_of(lambda: nested(c), "lists")
            return c.astring("an atom")

        self.assertEqual(nested(cursor(b"((a) (b))", max_depth=2)), [[b"a"], [b"b"]])
        self.assertRaises(BadCommand, nested, cursor(b"(((a)))", max_depth=2))
        self.assertRaises(
            BadCommand, nested, cursor(b"((", MemoryLiteral(b"x"), b" (a)", max_depth=2)
        )

    def test_end(self) -> None:
        """Spaces may stand at the end; nothing else, and no literal."""
        cursor(b"  ").expect_end()
        for c in (
            cursor(b" x"),
            cursor(b" ", MemoryLiteral(b""), b""),
            cursor(b"\t"),
            cursor(b" \n"),
        ):
            self.assertRaises(BadCommand, c.expect_end)
