"""Bytes are sent as valid IMAP strings."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.message.imap_string import (
    display_string,
    literal,
    nstring,
    string,
    unfolded_nstring,
)
from tests.message.grammar import Reader


def parse_nstring(sent: bytes) -> bytes | None:
    """Return the value of an nstring."""
    reader = Reader(sent)
    value = reader.nstring()
    reader.end()
    return value


class ImapStringTests(SynchronousTestCase):
    def test_string_is_quoted_or_a_literal(self) -> None:
        """A string is quoted, or a literal if it has 8-bit bytes, line ends, NUL or more than four escapes."""
        for value, sent in (
            (b"", b'""'),
            (b"a\tb", b'"a\tb"'),
            (b'a"\\', b'"a\\"\\\\"'),
            (b'"""""', b'{5}\r\n"""""'),
            (b"\xc3\xa9", b"{2}\r\n\xc3\xa9"),
            (b"a\r\nb", b"{4}\r\na\r\nb"),
            (b"\0", b"{3}\r\n\xef\xbf\xbd"),
        ):
            self.assertEqual(string(value), sent)
        self.assertEqual(nstring(None), b"NIL")
        self.assertEqual(unfolded_nstring(None), b"NIL")

    @settings(derandomize=True, deadline=None, max_examples=400)
    @given(st.binary(max_size=40))
    def test_strings_follow_the_grammar(self, value: bytes) -> None:
        """Strings of all kinds follow the grammar and have the right value: unchanged, unfolded or collapsed."""
        expected = value.replace(b"\0", b"\xef\xbf\xbd")
        self.assertEqual(parse_nstring(literal(value)), expected)
        self.assertEqual(parse_nstring(string(value)), expected)
        self.assertNotIn(b"\n", parse_nstring(unfolded_nstring(value)) or b"")
        blank = b" \t\r\n"
        collapsed = b" ".join(
            word
            for word in expected.translate(
                bytes(32 if i in blank else i for i in range(256))
            ).split(b" ")
            if word
        )
        self.assertEqual(parse_nstring(display_string(value)), collapsed)
