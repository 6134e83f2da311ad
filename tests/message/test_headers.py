"""Header fields are found, and their bodies are parsed and decoded."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.message.headers import (
    decode_header,
    field_body,
    field_end,
    header_values,
    leading_token,
    parse_content_type,
    parse_disposition,
    parse_languages,
    sole_token,
    unfold,
)
from tests.message import mails


def fields(header: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield every field as (name, body), by walking through the header."""
    pos = 0
    while pos < len(header):
        end = field_end(header, pos)
        name, colon, _ = header[pos:end].partition(b":")
        if colon and b"\n" not in name:
            yield name.rstrip(b" \t"), field_body(header, pos + len(name), end)
        pos = end


class HeaderValueTests(SynchronousTestCase):
    HEADER = (
        b"A: 1\r\nno colon\r\n cont: x\r\nB :\t2\r\n\tfold\r\na:3\r\nC:\r\n d\r\nLast: \r\n\r\n"
    )

    def test_values_of_a_name_are_found_in_any_case(self) -> None:
        """The bodies of a name are found in any case, in their order."""
        self.assertEqual(header_values(self.HEADER, b"A"), [b"1", b"3"])
        self.assertEqual(header_values(self.HEADER, b"b"), [b"2\r\n\tfold"])
        self.assertEqual(header_values(self.HEADER, b"cont"), [])
        self.assertEqual(header_values(b"a: x", b"a"), [b"x"])
        self.assertEqual(header_values(b"a: x\na:y\n", b"A"), [b"x", b"y"])

    def test_unfolding_removes_only_line_ends(self) -> None:
        """Unfolding removes line ends and keeps the white space after them, but a tab becomes a space."""
        self.assertEqual(unfold(b"a\r\n b\n\tc\td\r\n\t e"), b"a b c\td  e")

    @settings(derandomize=True, deadline=None, max_examples=300)
    @given(mails.hostile)
    def test_search_finds_the_same_as_a_walk(self, header: bytes) -> None:
        """A search for a name finds the same bodies as a walk through all fields."""
        for name in (b"from", b"subject", b"content-type"):
            found = [body for field, body in fields(header) if field.lower() == name]
            self.assertEqual(header_values(header, name), found)


class FieldBodyTests(SynchronousTestCase):
    def test_number_of_parameters_is_limited(self) -> None:
        """At most as many parameters as the limit are returned, whatever their form."""
        for form in (b"; a=b", b"; a*0=b", b"; a*=b", b"; a (c) =b", b"; a", b";;"):
            self.assertLessEqual(len(parse_content_type(b"a/b" + form * 500, 10)[2]), 10)

    def test_unfinished_comment_makes_a_disposition_unreadable(self) -> None:
        """A disposition followed by a comment without end is unreadable."""
        self.assertEqual(parse_disposition(b"(c) inline; a=b", 10), (b"inline", [(b"a", b"b")]))
        self.assertEqual(parse_disposition(b"inline (", 10), None)
        self.assertEqual(parse_disposition(b"", 10), (b"", []))

    def test_first_or_only_token_is_read(self) -> None:
        """`sole_token` reads a token that is the whole body, and `leading_token` reads the first token."""
        self.assertEqual(sole_token(b" base64 "), b"base64")
        self.assertEqual(sole_token(b"(c) base64 (d)"), b"base64")
        self.assertEqual(sole_token(b"base64 x"), b"")
        self.assertEqual(leading_token(b" BASE64; x"), b"base64")
        self.assertEqual(leading_token(b";"), b"")

    def test_language_tags_are_read_up_to_other_text(self) -> None:
        """Language tags are read up to the first text that is not a tag."""
        self.assertEqual(parse_languages(b"en, (c) de-DE , fr x, it", 9), [b"en", b"de-DE", b"fr"])
        self.assertEqual(parse_languages(b"en (", 9), [])

    @settings(derandomize=True, deadline=None, max_examples=300)
    @given(
        st.lists(
            st.sampled_from(
                [
                    b"a",
                    b"/",
                    b";",
                    b"=",
                    b'"',
                    b"(",
                    b")",
                    b"\\",
                    b"*0",
                    b"*",
                    b" ",
                    b"\r\n ",
                    b"\0",
                    b"\xff",
                ]
            ),
            max_size=25,
        ).map(b"".join)
    )
    def test_no_field_body_raises(self, body: bytes) -> None:
        """No field body raises."""
        parse_content_type(body, 10)
        parse_disposition(body, 10)
        parse_languages(body, 9)
        sole_token(body)
        leading_token(body)


class DecodeHeaderTests(SynchronousTestCase):
    def test_examples_of_rfc_2047_are_decoded(self) -> None:
        """The examples of RFC 2047 section 8 are decoded."""
        for body, text in (
            (b"(=?ISO-8859-1?Q?a?=)", "(a)"),
            (b"(=?ISO-8859-1?Q?a?= b)", "(a b)"),
            (b"(=?ISO-8859-1?Q?a?= =?ISO-8859-1?Q?b?=)", "(ab)"),
            (b"(=?ISO-8859-1?Q?a?=  =?ISO-8859-1?Q?b?=)", "(ab)"),
            (b"(=?ISO-8859-1?Q?a?=\r\n    =?ISO-8859-1?Q?b?=)", "(ab)"),
            (b"(=?ISO-8859-1?Q?a_b?=)", "(a b)"),
            (b"(=?ISO-8859-1?Q?a?= =?ISO-8859-2?Q?_b?=)", "(a b)"),
            (b"=?ISO-8859-1?B?SWYgeW91IGNhbiByZWFkIHRoaXMgeW8=?=", "If you can read this yo"),
        ):
            self.assertEqual(decode_header(body), text)

    def test_damaged_words_and_raw_bytes_are_decoded(self) -> None:
        """Words that split a character, words with a language, raw UTF-8 and raw Latin-1 are decoded; other text is
        unchanged."""
        for body, text in (
            (b"=?utf-8?q?=C3?= =?utf-8?q?=A9?=", "é"),
            (b"=?utf-8*en?q?a?=", "a"),
            (b"=?utf-8?q?a b?=", "a b"),
            (b"caf\xc3\xa9", "café"),
            (b"caf\xe9", "café"),
            (b"=?x-none?q?=E9?=", "é"),
            (b"=?utf-8?x?a?=", "=?utf-8?x?a?="),
            (b"=?utf-8?q?a", "=?utf-8?q?a"),
            (b"=?utf-8?b?w6k?=", "é"),
            (b"=?utf-8?b?!!?=", ""),
            (b"=??q?a?= x", "a x"),
            (b"a\r\n b", "a b"),
            (b"=?=?=?=", "=?=?=?="),
        ):
            self.assertEqual(decode_header(body), text)

    @settings(derandomize=True, deadline=None, max_examples=300)
    @given(
        st.lists(
            st.sampled_from(
                [
                    b"=?",
                    b"?=",
                    b"?",
                    b"utf-8",
                    b"utf-7",
                    b"q",
                    b"b",
                    b"=E9",
                    b"w6k=",
                    b"+2AA-",
                    b" ",
                    b"\r\n ",
                    b"\xff",
                ]
            ),
            max_size=25,
        ).map(b"".join)
    )
    def test_every_body_is_decoded_to_text(self, body: bytes) -> None:
        """Every body is decoded to text that can be encoded."""
        decode_header(body).encode()

    def test_hostile_words_are_decoded_in_linear_time(self) -> None:
        """A megabyte of beginnings of encoded words is decoded in linear time."""
        for fragment in (b"=?", b"=?a?q?", b"=?a?q?b?= ", b"=?a", b"\r\n "):
            decode_header(fragment * ((1 << 20) // len(fragment)))
