"""Each mailbox name has one spelling; LIST patterns match like a naive matcher, in linear time."""

from __future__ import annotations

from functools import cache

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand
from imapshield.wire.names import (
    MODIFIED_UTF7,
    ListPattern,
    NameFormat,
    decode_pattern,
    encode_name,
    fold_inbox,
)
from tests.cpu_time import check_cpu_time
from tests.wire.strategies import LAWS

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
UTF8 = NameFormat(utf8=True)


class NameTests(SynchronousTestCase):
    KNOWN = {
        "~peter/mail/台北/日本語": b"~peter/mail/&U,BTFw-/&ZeVnLIqe-",  # RFC 3501 section 5.1.3
        "☺!": b"&Jjo-!",  # the same section: "&Jjo!" lacks its end
        "台北日本語": b"&U,BTF2XlZyyKng-",  # the same section: "&U,BTFw-&ZeVnLIqe-" has a superfluous shift
        "Entwürfe": b"Entw&APw-rfe",
        "A&B": b"A&-B",
        "&": b"&-",
        "😀": b"&2D3eAA-",
        "": b"",
        "a\tb": b"a&AAk-b",
    }

    def test_known_names_are_encoded_and_decoded(self) -> None:
        """The names of RFC 3501 and of real mailboxes are encoded and decoded."""
        for name, octets in self.KNOWN.items():
            self.assertEqual(encode_name(name), octets)
            self.assertEqual(MODIFIED_UTF7.decode(octets), name)

    def test_other_spellings_are_refused(self) -> None:
        """Every other spelling of a name is refused, and so are bytes that encode no name."""
        for octets in (
            b"&", b"&Jjo", b"&Jjo!", b"&U,BTFw-&ZeVnLIqe-", b"&AGE-", b"&A-", b"&AA-", b"&AAA",
            b"&Jjp-", b"&2D0-", b"&3gDYPQ-", b"a&b", b"&=-", b"&J/o-", b"&Jjo=-", b"a\tb", b"a\0",
            b"\x7f", b"&-&",
        ):  # fmt: skip
            self.assertRaises(BadCommand, MODIFIED_UTF7.decode, octets)

    @LAWS
    @given(NAMES)
    def test_encoded_name_is_decoded(self, name: str) -> None:
        """A name that is encoded and decoded again is the same, in both encodings, except for INBOX."""
        self.assertEqual(MODIFIED_UTF7.decode(encode_name(name)), fold_inbox(name))
        self.assertEqual(UTF8.decode(encode_name(name, True)), fold_inbox(name))

    @LAWS
    @given(st.binary(max_size=10) | st.text("&AGhJjo-,+é", max_size=10).map(str.encode))
    def test_name_has_one_spelling(self, octets: bytes) -> None:
        """A name that is decoded and encoded again has the same bytes; ASCII is decoded from ASCII."""
        try:
            name = decode_pattern(octets)
        except BadCommand:
            return
        self.assertEqual(encode_name(name, utf8=not octets.isascii()), octets)

    def test_8bit_names_are_utf8(self) -> None:
        """8-bit names are UTF-8; ``&`` is a literal ``&`` only after ENABLE."""
        self.assertEqual(MODIFIED_UTF7.decode("é".encode()), "é")
        self.assertEqual(UTF8.decode(b"a&b"), "a&b")
        self.assertRaises(BadCommand, MODIFIED_UTF7.decode, b"\xff")
        self.assertRaises(BadCommand, UTF8.decode, b"\xed\xa0\x80")

    @LAWS
    @given(NAMES, st.sampled_from("/.^_|:~-"), st.booleans())
    def test_every_name_has_one_spelling_with_any_separator(
        self, name: str, separator: str, utf8: bool
    ) -> None:
        """Whatever the separator is, a name that is encoded and decoded again is the same."""
        names = NameFormat(utf8, separator)
        self.assertEqual(names.decode(names.encode(name)), fold_inbox(name))
        self.assertEqual(names.exchange(name).count(separator), name.count("/"))

    def test_separator_of_the_wire_becomes_a_slash(self) -> None:
        """The separator and the slash are exchanged, and INBOX as the first level is folded."""
        names = NameFormat(separator=".")
        self.assertEqual(names.decode(b"inbox.a/b"), "INBOX/a.b")
        self.assertEqual(names.encode("INBOX/a.b"), b"INBOX.a/b")
        self.assertEqual(names.decode_pattern(b"inbox.%"), "inbox/%")

    def test_invalid_text_is_encoded_readably(self) -> None:
        """A name that is not valid text, such as the name of a directory, is encoded as text that clients can read."""
        self.assertEqual(encode_name("a\udcff"), b"a?")
        self.assertEqual(encode_name("a\udcff", True), b"a?")

    def test_inbox_has_no_case(self) -> None:
        """INBOX is recognised in any case, but only as a first level."""
        for name, folded in {
            "inbox": "INBOX",
            "InBox/x": "INBOX/x",
            "inboxes": "inboxes",
            "a/inbox": "a/inbox",
            "ınbox": "ınbox",
            "inbox.x": "inbox.x",
            "inbo": "inbo",
        }.items():
            self.assertEqual(fold_inbox(name), folded)
        self.assertEqual(MODIFIED_UTF7.decode(b"inbox/Sub"), "INBOX/Sub")
        self.assertEqual(decode_pattern(b"inbox/Sub"), "inbox/Sub")


def naive(pattern: str, name: str) -> bool:
    """Match as in RFC 9051 section 6.3.9, by trying every possibility."""

    @cache
    def match(i: int, j: int) -> bool:
        if i == len(pattern):
            return j == len(name)
        if pattern[i] in "*%":
            may_extend = j < len(name) and (pattern[i] == "*" or name[j] != "/")
            return match(i + 1, j) or (may_extend and match(i, j + 1))
        return j < len(name) and pattern[i] == name[j] and match(i + 1, j + 1)

    return match(0, 0)


class PatternTests(SynchronousTestCase):
    @LAWS
    @given(st.text("ab/%*", max_size=8), st.text("ab/", max_size=8))
    def test_pattern_matches_as_a_naive_matcher(self, pattern: str, name: str) -> None:
        """A pattern matches the same names as a naive matcher that follows the text of the RFC."""
        self.assertEqual(ListPattern(pattern).matches(name), naive(pattern, name))

    def test_wildcards_match_at_both_ends_and_in_the_middle(self) -> None:
        """Wildcards match at both ends and in the middle."""
        for pattern, name, matches in (
            ("*", "a/b", True),
            ("%", "a/b", False),
            ("%", "a", True),
            ("a/%", "a/b", True),
            ("a/%", "a/b/c", False),
            ("a/%/c", "a/b/c", True),
            ("%/%", "a/b", True),
            ("*c", "a/b/c", True),
            ("*c", "a/b/cd", False),
            ("", "", True),
            ("", "a", False),
            ("A", "a", False),
            ("%%", "a/b", False),
            ("%*", "a/b", True),
        ):
            self.assertEqual(ListPattern(pattern).matches(name), matches, (pattern, name))

    def test_inbox_matches_in_any_case(self) -> None:
        """INBOX and its children match in any case, with wildcards too; no other name does."""
        for pattern in ("inbox", "InBoX", "in%", "*box", "INBOX", "%"):
            self.assertTrue(ListPattern(pattern).matches("INBOX"), pattern)
        for pattern in ("inbox/%", "INBOX/x", "i*", "%/x"):
            self.assertTrue(ListPattern(pattern).matches("INBOX/x"), pattern)
        self.assertFalse(ListPattern("inbox/X").matches("INBOX/x"))
        self.assertFalse(ListPattern("inboxes").matches("INBOXES"))
        self.assertFalse(ListPattern("i%").matches("INBOXES"))

    def test_time_is_linear(self) -> None:
        """64 wildcards are matched against a thousand characters in linear time (CVE-2021-40110)."""

        def match() -> None:
            for pattern in (
                "*" * 64,
                "%*" * 32,
                "*a" * 32 + "b",
                "%a" * 32 + "b",
                "*a%" * 21 + "b",
            ):
                found = ListPattern(pattern).matches("a" * 1000)
                self.assertEqual(found, not pattern.endswith("b"))

        check_cpu_time(self, 0.2, match)
