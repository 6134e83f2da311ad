"""The cursor reads one element at a time, and counts what it reads."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand, CommandRefused
from imapshield.wire import abnf
from imapshield.wire.commands.base import LiteralData, MemoryLiteral
from imapshield.wire.cursor import MAX_NUMBER64, Cursor, GrammarLimits
from imapshield.wire.names import NameFormat
from imapshield.wire.sequence import MAX_NUMBER, SAVED


def cursor(*parts: bytes | LiteralData, **limits: int) -> Cursor:
    """Return a cursor at the beginning of `parts`; `limits` are the limits that differ from the default."""
    return Cursor(parts, GrammarLimits(**limits))


class StringTests(SynchronousTestCase):
    def test_astring_has_three_forms(self) -> None:
        """An astring is an atom, quoted or a literal, and reading continues after it."""
        for c in (cursor(b"a]b x"), cursor(b'"a]b" x'), cursor(b"", MemoryLiteral(b"a]b"), b" x")):
            self.assertEqual(c.astring("a name"), b"a]b")
            c.space("the name")
            self.assertEqual(c.atom("an atom"), b"x")
            c.expect_end()

    def test_escapes_are_undone_once(self) -> None:
        r"""The escapes \" and \\ are undone once."""
        self.assertEqual(cursor(b'"\\\\\\"\\\\"').string("a string"), b'\\"\\')

    def test_escapes_next_to_each_other(self) -> None:
        """Any sequence of escapes is undone, from left to right."""
        for content in (b"", b"a", b"\\\\", b'"', b'\\"\\', b'""\\\\""', b'a\\"b\\\\\\"c' * 100):
            escaped = content.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
            self.assertEqual(cursor(b'"%b"' % escaped).string("a string"), content)

    def test_string_is_not_an_atom(self) -> None:
        """A string is quoted or a literal."""
        self.assertRaises(BadCommand, cursor(b"a").string, "a string")

    def test_nil_is_none_in_any_case(self) -> None:
        """NIL is None in any case; "NIL" as a string is a value, and NILS is an error."""
        self.assertIsNone(cursor(b"nil").nstring("a string"))
        self.assertEqual(cursor(b'"NIL"').nstring("a string"), b"NIL")
        self.assertRaises(BadCommand, cursor(b"NILS").nstring, "a string")

    def test_invalid_literals_are_no_strings(self) -> None:
        """A string cannot contain NUL, be a literal8, or be longer than the limit."""
        for octets in (
            MemoryLiteral(b"a\0"),
            MemoryLiteral(b"a", binary=True),
            MemoryLiteral(b"aaaa"),
        ):
            self.assertRaises(BadCommand, cursor(b"", octets, max_string_size=3).astring, "a name")
        self.assertRaises(BadCommand, cursor(b'"aaaa"', max_string_size=3).astring, "a name")

    def test_message_literal_is_returned_unread(self) -> None:
        """A message is returned as a literal of any size, without being read."""
        octets = MemoryLiteral(b"\0" * 99, binary=True)
        self.assertIs(cursor(b"", octets, max_string_size=3).literal("a message"), octets)
        self.assertRaises(BadCommand, cursor(b"x", octets).literal, "a message")
        self.assertRaises(BadCommand, cursor(b"").literal, "a message")

    def test_parts_in_wrong_order_are_refused(self) -> None:
        """Parts that the framing never makes are refused too."""
        self.assertRaises(BadCommand, cursor, MemoryLiteral(b""))
        self.assertRaises(BadCommand, cursor(b"", b"").literal, "a message")
        self.assertRaises(
            BadCommand, cursor(b"", MemoryLiteral(b""), MemoryLiteral(b"")).astring, "a name"
        )
        self.assertTrue(cursor().at_end())

    def test_mailbox_name_is_decoded(self) -> None:
        """A mailbox name is decoded, and INBOX is returned in upper case."""
        self.assertEqual(cursor(b"inbox").mailbox(), "INBOX")
        self.assertEqual(cursor(b"&AOk-").mailbox(), "é")
        self.assertEqual(Cursor([b"&AOk-"], names=NameFormat(utf8=True)).mailbox(), "&AOk-")
        self.assertRaises(CommandRefused, cursor(b'"\xff"').mailbox)

    def test_only_pattern_atoms_may_contain_wildcards(self) -> None:
        """Only the atom of a pattern may contain wildcards."""
        self.assertEqual(cursor(b"a/%*]").list_mailbox("a pattern"), b"a/%*]")
        self.assertRaises(BadCommand, cursor(b"*").astring, "a name")


class NumberTests(SynchronousTestCase):
    def test_numbers_have_32_or_63_bits(self) -> None:
        """Numbers have 32 or 63 bits, and begin at 0 or 1."""
        self.assertEqual(cursor(b"0").number("a number"), 0)
        self.assertEqual(cursor(b"4294967295").number("a number"), MAX_NUMBER)
        self.assertEqual(cursor(b"9223372036854775807").number64("a number"), MAX_NUMBER64)
        self.assertEqual(cursor(b"9223372036854775807").nz_number64("a number"), MAX_NUMBER64)
        self.assertRaises(BadCommand, cursor(b"0").nz_number, "a number")
        self.assertRaises(BadCommand, cursor(b"4294967296").number, "a number")
        self.assertRaises(BadCommand, cursor(b"9223372036854775808").number64, "a number")
        self.assertRaises(BadCommand, cursor(b"1" * 5000).number64, "a number")

    def test_only_digits_are_numbers(self) -> None:
        """A number that only Python accepts is refused."""
        for octets in (b"", b"-1", b"+1", b"_1", b" 1", "١".encode(), b"x"):
            self.assertRaises(BadCommand, cursor(octets).number, "a number")
        c = cursor(b"1_0")
        self.assertEqual(c.number("a number"), 1)
        self.assertRaises(BadCommand, c.expect_end)

    def test_dollar_is_the_saved_result(self) -> None:
        """``$`` is the saved result, unless the command does not permit it."""
        self.assertIs(cursor(b"$").sequence_set(), SAVED)
        self.assertRaises(BadCommand, cursor(b"$").sequence_set, allow_saved=False)
        self.assertEqual(cursor(b"1:2 x").sequence_set().ranges, ((1, 2),))
        self.assertRaises(BadCommand, cursor(b"1,2,3", max_ranges=2).sequence_set)


class WordTests(SynchronousTestCase):
    def test_word_is_skipped_completely_or_not_at_all(self) -> None:
        """A word is read completely and in any case, or not at all."""
        self.assertEqual(cursor(b"all").word_in((b"ALL", b"NONE"), "all or none"), b"ALL")
        for octets in (b"ALLY", b"SOME", b"1", b""):
            self.assertRaises(BadCommand, cursor(octets).word_in, (b"ALL", b"NONE"), "all or none")
        c = cursor(b"return (")
        self.assertFalse(c.skip_word(b"RETUR"))
        self.assertTrue(c.skip_word(b"RETURN"))
        self.assertEqual(c.peek(), b" ")

    def test_try_match_reads_only_what_matches(self) -> None:
        """`try_match` reads nothing if the text does not match."""
        c = cursor(b"a")
        self.assertIsNone(c.try_match(abnf.DIGITS))
        self.assertEqual(c.word("a word"), b"A")

    def test_flag_is_returned_in_canonical_spelling(self) -> None:
        """A flag is returned in its canonical spelling."""
        self.assertEqual(cursor(b"\\sEEN").flag(), b"\\Seen")
        self.assertRaises(BadCommand, cursor(b"\\").flag)

    def test_error_text_names_the_expected_element(self) -> None:
        """An error text names the expected element."""
        error = self.assertRaises(BadCommand, cursor(b")").atom, "a capability")
        self.assertEqual(error.text, "Expected a capability")
        error = self.assertRaises(BadCommand, cursor(b"x").space, "the mailbox name")
        self.assertEqual(error.text, "Expected a space after the mailbox name")


class ListTests(SynchronousTestCase):
    def test_list_elements_have_one_space_between_them(self) -> None:
        """Elements have one space between them; only some lists may be empty."""
        c = cursor(b"(a b)")
        self.assertEqual(c.list_of(lambda: c.atom("an atom"), "atoms"), [b"a", b"b"])
        c = cursor(b"()")
        self.assertEqual(c.list_of(lambda: c.atom("an atom"), "atoms", allow_empty=True), [])
        for octets in (b"()", b"( a)", b"(a )", b"(a  b)", b"(a", b"a", b"(a\tb)", b""):
            c = cursor(octets)
            self.assertRaises(BadCommand, c.list_of, lambda c=c: c.atom("an atom"), "atoms")

    def test_list_without_parentheses_is_not_empty(self) -> None:
        """A list up to the end of the command has at least one element, and spaces may follow the last."""

        def atoms(c: Cursor) -> list[bytes]:
            return c.list_to_end(lambda: c.atom("an atom"), "atom")

        for octets in (b"a", b"a ", b"a b", b"a b  "):
            self.assertEqual(atoms(cursor(octets)), octets.split())
        for octets in (b"", b" a", b"a  b", b"a(b)"):
            self.assertRaises(BadCommand, atoms, cursor(octets))

    def test_elements_are_counted(self) -> None:
        """Elements are counted over the whole command."""
        c = cursor(b"(a b)(a b)", max_terms=3)
        c.list_of(lambda: c.atom("an atom"), "atoms")
        self.assertRaises(BadCommand, c.list_of, lambda: c.atom("an atom"), "atoms")
        c = cursor(b"a b c", max_terms=2)
        self.assertRaises(BadCommand, c.list_to_end, lambda: c.atom("an atom"), "atom")

    def test_depth_of_lists_is_limited(self) -> None:
        """Lists nest at most as deep as the limit permits, whatever is between them (CVE-2026-42006)."""

        def nested(c: Cursor) -> object:
            if c.peek() == b"(":
                return c.list_of(lambda: nested(c), "lists")
            return c.astring("an atom")

        self.assertEqual(nested(cursor(b"((a) (b))", max_depth=2)), [[b"a"], [b"b"]])
        self.assertRaises(BadCommand, nested, cursor(b"(((a)))", max_depth=2))
        self.assertRaises(
            BadCommand, nested, cursor(b"((", MemoryLiteral(b"x"), b" (a)", max_depth=2)
        )

    def test_only_spaces_may_end_a_command(self) -> None:
        """Only spaces may follow the end of a command; a literal may not."""
        cursor(b"  ").expect_end()
        for c in (
            cursor(b" x"),
            cursor(b" ", MemoryLiteral(b""), b""),
            cursor(b"\t"),
            cursor(b" \n"),
        ):
            self.assertRaises(BadCommand, c.expect_end)
