"""SEARCH and PREVIEW use the readable text of a message."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.mailbox.sort_order import collation_key
from imapshield.message.headers import header_end
from imapshield.message.mime_tree import Part, parse_mime_tree
from imapshield.message.text import _line_text, normalize, preview, searchable_texts
from tests.message import mails


def searchable_text(data: bytes, headers: bool = False) -> str:
    return "\n".join(map("".join, searchable_texts(parse_mime_tree(data), data, headers)))


class SearchableTextTests(SynchronousTestCase):
    def test_only_text_parts_are_searched(self) -> None:
        """Text parts are decoded, and HTML keeps its tags; other parts and preambles are not searched."""
        found = searchable_text(mails.ALTERNATIVE)
        for text in ("café au lait", "<p>café</p>"):
            self.assertIn(text, found)
        for text in ("SGVsbG8", "Hello", "preamble", "epilogue", "Jürgen", "outer"):
            self.assertNotIn(text, found)

    def test_headers_of_all_parts_are_decoded(self) -> None:
        """The headers of all parts are decoded, including those of embedded messages."""
        found = searchable_text(mails.FORWARD, headers=True)
        for text in (
            "From: Jürgen",
            "Subject: éè",
            "filename=",
            "Subject: afternoon meeting",
            "by y with ESMTP",
        ):
            self.assertIn(text, found)

    def test_header_line_without_a_colon_is_searched(self) -> None:
        """Header lines without a colon are searched too, also next to encoded words."""
        found = searchable_text(
            b"Subject:=?utf-8?q?=C3=A9?=\r\nof no\r\n field\r\nX: y\r\n\r\n", headers=True
        )
        self.assertIn("Subject:é\r\nof no field\r\nX: y\r\n", found)

    @given(
        st.lists(
            st.sampled_from(
                (
                    *(
                        b"\n",
                        b"\r\n",
                        b"\r",
                        b"\n ",
                        b"\r\n ",
                        b"\r\n\t",
                        b"\n\r\n ",
                        b"a",
                        b": ",
                        b"=?",
                    ),
                    *(b"=?utf-8?q?=C3=A9?=", b"=?utf-8?b?w6k=?=\r\n =?utf-8?b?w6k=?=", b"\xc3\xa9"),
                )
            )
        ).map(b"".join)
    )
    def test_each_line_of_a_header_is_decoded_by_itself(self, lines: bytes) -> None:
        """A line is decoded as if it were alone, whatever the others are like."""
        header = b"X: y\n" + lines.replace(b"\n\n", b"\n") + b"=?utf-8?q?z?=\n"
        end = header_end(header + b"\n", 0, len(header) + 1)
        header = header if end < 0 else header[:end]
        unfolded = re.sub(rb"\r?\n(?=[ \t])", b"", header.replace(b"\n\t", b"\n "))
        expected = [_line_text(line) for line in unfolded.split(b"\n")]
        if b"=?" in header:
            part = Part(0, body_start=len(header), end=len(header))
            found = "".join(next(iter(searchable_texts(part, header, True))))
            self.assertEqual(found, "\n".join(expected))

    def test_embedded_message_is_searched_part_by_part(self) -> None:
        """Other message types are searched as text, and embedded messages part by part."""
        self.assertIn(
            "Action: failed",
            searchable_text(b"Content-Type: message/delivery-status\r\n\r\nAction: failed\r\n"),
        )
        self.assertEqual(
            searchable_text(b"Content-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\ny"), "y"
        )

    def test_part_with_an_unknown_encoding_is_searched_raw(self) -> None:
        """A part with an unknown encoding is searched without decoding."""
        self.assertEqual(
            searchable_text(b"Mime-Version: 1\r\nContent-Transfer-Encoding: x-y\r\n\r\nabc"), "abc"
        )

    @settings(derandomize=True, deadline=None, max_examples=300)
    @given(mails.hostile)
    def test_text_of_any_message_can_be_encoded(self, data: bytes) -> None:
        """The text of any message can be encoded."""
        (searchable_text(data, headers=True) + preview(parse_mime_tree(data), data)).encode()


class NormalizeTests(SynchronousTestCase):
    def test_case_and_composition_do_not_matter(self) -> None:
        """Case and composition do not matter, but accents do."""
        for first, second in (
            ("Straße", "STRASSE"),
            ("é", "E\u0301"),
            ("ﬁ", "FI"),
            ("ABC", "abc"),
            ("Ⅷ", "viii"),
        ):
            self.assertEqual(normalize(first), normalize(second))
        self.assertNotEqual(normalize("é"), normalize("e"))

    def test_letter_finds_its_accent_at_the_end_only(self) -> None:
        """The rule in ``docs/running.rst``: an accent follows its letter, so only a last letter is found without it."""
        for needle, text in (("cafe", "café"), ("nai", "naïve"), ("ss", "ß"), ("fi", "ﬁ")):
            self.assertIn(normalize(needle), normalize(text))
        for needle, text in (("naive", "naïve"), ("café", "cafe"), ("oe", "œ"), ("o", "ø")):
            self.assertNotIn(normalize(needle), normalize(text))

    def test_texts_equal_in_unicode_casemap_are_equal(self) -> None:
        """Texts that are equal in i;unicode-casemap (RFC 5051, required by I18NLEVEL=1) are equal in SEARCH."""
        first_with_key: dict[str, str] = {}
        for character in map(chr, [*range(0xD800), *range(0xE000, 0x20000)]):
            first = first_with_key.setdefault(collation_key(character), character)
            self.assertEqual(normalize(character), normalize(first))
        self.assertEqual(normalize("yırt"), normalize("YIRT"))

    @settings(derandomize=True, deadline=None, max_examples=300)
    @given(st.text(max_size=20), st.text(max_size=20))
    def test_substrings_stay_substrings(self, text: str, needle: str) -> None:
        """A substring of a text is a substring of its normal form."""
        self.assertIn(normalize(needle), normalize(text + needle + text))
        self.assertEqual(normalize(normalize(text)), normalize(text))

    @given(st.text())
    def test_each_character_is_normalized_by_itself(self, text: str) -> None:
        self.assertEqual(normalize(text), "".join(map(normalize, text)))

    def test_text_larger_than_the_cache_is_normalized(self) -> None:
        """A text with more different characters than the cache holds is normalized like other texts."""
        everything = "".join(map(chr, range(0x10000, 0x20100)))
        self.assertEqual(normalize(everything), "".join(map(normalize, everything)))

    def test_combining_marks_take_linear_time(self) -> None:
        """Half a million combining marks in the wrong order are normalized in linear time."""
        self.assertEqual(len(normalize("a" + "\u0301\u0323" * 250_000)), 500_001)


class PreviewTests(SynchronousTestCase):
    def check(self, data: bytes, expected: str, limit: int = 200) -> None:
        self.assertEqual(preview(parse_mime_tree(data), data, limit), expected)

    def test_preview_has_single_spaces_and_limited_length(self) -> None:
        """White space becomes one space, and the length is limited in characters."""
        self.check(b"\r\n\r\n  Hello\r\n\r\n\tJoe,  \r\n", "Hello Joe,")
        self.check(b"\r\n" + "é".encode() * 300, "é" * 200)
        self.check(b"\r\none two three", "one", limit=4)
        self.check(b"", "")

    def test_quoted_lines_are_used_only_without_others(self) -> None:
        """Quoted lines are used only if there are no other lines."""
        self.check(b"\r\nJoe wrote:\r\n> Hi\r\nYes.\r\n", "Joe wrote: Yes.")
        self.check(b"\r\n> Hi\r\n> there\r\n", "> Hi > there")

    def test_preview_omits_markup(self) -> None:
        """A preview omits markup and elements that are not displayed."""
        head = b"Content-Type: text/html; charset=utf-8\r\n\r\n"
        self.check(
            head
            + b"<html><head><title>T</title></head><style>p{}</style><p>Hi <b>you</b> &amp; me<!-- no -->",
            "Hi you & me",
        )
        self.check(head + b"<script>x", "")
        self.check(head + b"a<br", "a")

    def test_any_character_reference_is_decoded(self) -> None:
        """A character reference of any length is decoded; one to no character becomes U+FFFD."""
        head = b"Content-Type: text/html; charset=utf-8\r\n\r\n"
        for reference, expected in (
            (b"&#233;", "é"),
            (b"&#" + b"0" * 900 + b"65;", "A"),
            (b"&#" + b"9" * 5000 + b";", "\ufffd"),
            (b"&#" + b"9" * 60_000, "\ufffd"),
            (b"&#x" + b"f" * 60_000 + b";", "\ufffd"),
            (b"&#xd800;", "\ufffd"),
            (b"&#;", "&#;"),
        ):
            self.check(head + b"<p>a" + reference + b" b", f"a{expected} b")

    def test_first_part_with_text_is_used(self) -> None:
        """The first text part that contains any text is used."""
        self.check(mails.ALTERNATIVE, "café au lait")
        data = b"Content-Type: multipart/x; boundary=b\r\n\r\n--b\r\n\r\n \r\n--b\r\nContent-Type: text/html\r\n\r\n<i>x</i>\r\n--b--\r\n"
        self.check(data, "x")

    def test_hostile_markup_takes_linear_time(self) -> None:
        """Markup that makes HTML parsers slow takes linear time."""
        for fragment in (b"<!--", b"<", b"<script>", b"&amp", b"<!", b"<a ", b"</", b">\n", b" "):
            data = b"Content-Type: text/html\r\n\r\n" + fragment * ((1 << 20) // len(fragment))
            preview(parse_mime_tree(data), data)
