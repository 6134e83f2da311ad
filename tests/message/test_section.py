"""BODY[…] and BINARY[…] return the right parts, texts and fields."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import CommandRefused
from imapshield.message.mime_tree import parse_mime_tree
from imapshield.message.section import binary_section, body_section, header_fields
from imapshield.wire.commands.fetch import Section
from tests.message import mails

# The structure of the example in RFC 9051 section 6.4.5.1.
NESTED = (
    b"Subject: top\r\nContent-Type: multipart/mixed; boundary=a\r\n\r\n"
    b"--a\r\nContent-Type: TEXT/PLAIN\r\n\r\none\r\n"
    b"--a\r\nContent-Type: APPLICATION/OCTET-STREAM\r\n\r\ntwo\r\n"
    b"--a\r\nContent-Type: MESSAGE/RFC822\r\nX: 3\r\n\r\n"
    b"Subject: three\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    b"--b\r\nX: 31\r\n\r\nthree one\r\n--b\r\n\r\nthree two\r\n--b--\r\n\r\n"
    b"--a\r\nContent-Type: multipart/mixed; boundary=c\r\nX: 4\r\n\r\n"
    b"--c\r\nContent-Type: IMAGE/GIF\r\nX: 41\r\n\r\nfour one\r\n"
    b"--c\r\nContent-Type: MESSAGE/RFC822\r\n\r\nSubject: four two\r\n\r\nfour two\r\n--c--\r\n"
    b"--a--\r\n"
)


def fetch(
    data: bytes, path: tuple[int, ...], text: bytes = b"", fields: tuple[bytes, ...] = ()
) -> bytes | None:
    found = body_section(parse_mime_tree(data), data, Section(path, text, fields))
    return data[found[0] : found[1]] if isinstance(found, tuple) else found


class BodySectionTests(SynchronousTestCase):
    def check(self, path: tuple[int, ...], text: bytes, expected: bytes | None) -> None:
        self.assertEqual(fetch(NESTED, path, text), expected, (path, text))

    def test_section_without_numbers_belongs_to_the_whole_message(self) -> None:
        """A section without part numbers belongs to the whole message."""
        head = b"Subject: top\r\nContent-Type: multipart/mixed; boundary=a\r\n\r\n"
        self.check((), b"", NESTED)
        self.check((), b"HEADER", head)
        self.check((), b"TEXT", NESTED[len(head) :])
        self.check((), b"MIME", None)

    def test_parts_are_numbered_inside_messages_too(self) -> None:
        """Part numbers follow RFC 9051 section 6.4.5.1, even inside embedded messages."""
        for path, expected in (
            ((1,), b"one"),
            ((2,), b"two"),
            ((3, 1), b"three one"),
            ((3, 2), b"three two"),
            ((4, 1), b"four one"),
            ((4, 2), b"Subject: four two\r\n\r\nfour two"),
            ((4, 2, 1), b"four two"),
        ):
            self.check(path, b"", expected)

    def test_header_text_and_mime_belong_to_the_part(self) -> None:
        """HEADER and TEXT belong to the embedded message, and MIME is the header of the part."""
        self.check((3,), b"MIME", b"Content-Type: MESSAGE/RFC822\r\nX: 3\r\n\r\n")
        self.check(
            (3,), b"HEADER", b"Subject: three\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
        )
        self.check(
            (3,), b"TEXT", b"--b\r\nX: 31\r\n\r\nthree one\r\n--b\r\n\r\nthree two\r\n--b--\r\n"
        )
        self.check((3, 1), b"MIME", b"X: 31\r\n\r\n")
        self.check((4,), b"MIME", b"Content-Type: multipart/mixed; boundary=c\r\nX: 4\r\n\r\n")
        self.check((4, 2), b"HEADER", b"Subject: four two\r\n\r\n")
        self.check((4, 2), b"TEXT", b"four two")
        self.check((1,), b"HEADER", None)
        self.check((1,), b"TEXT", None)
        self.check((4,), b"HEADER", None)

    def test_absent_part_number_finds_nothing(self) -> None:
        """Part numbers that do not exist, such as 0, find nothing."""
        for path in ((0,), (5,), (1, 1), (3, 3), (3, 0), (4, 2, 2), (4, 2, 1, 1), (3, 1, 1)):
            self.check(path, b"", None)

    def test_part_1_of_a_single_part_message_is_its_body(self) -> None:
        """Part 1 of a message that is not a multipart is its body, and MIME is the header of the message."""
        data = b"Subject: x\r\n\r\nbody"
        self.assertEqual(fetch(data, (1,)), b"body")
        self.assertEqual(fetch(data, (1,), b"MIME"), b"Subject: x\r\n\r\n")
        self.assertEqual(fetch(data, (1,), b"HEADER"), None)
        self.assertEqual(fetch(data, (1, 1)), None)
        self.assertEqual(fetch(data, (2,)), None)

    def test_part_1_of_an_embedding_message_is_embedded(self) -> None:
        """Part 1 of a message that is a message/rfc822 is the embedded message."""
        data = b"Content-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\nbody"
        self.assertEqual(fetch(data, (1,)), b"Subject: x\r\n\r\nbody")
        self.assertEqual(fetch(data, (1,), b"HEADER"), b"Subject: x\r\n\r\n")
        self.assertEqual(fetch(data, (1, 1)), b"body")

    def test_header_fields_of_an_embedded_message_are_found(self) -> None:
        """HEADER.FIELDS returns fields of the message, or of an embedded message."""
        self.assertEqual(
            fetch(NESTED, (), b"HEADER.FIELDS", (b"SUBJECT",)), b"Subject: top\r\n\r\n"
        )
        self.assertEqual(
            fetch(NESTED, (3,), b"HEADER.FIELDS", (b"subject",)), b"Subject: three\r\n\r\n"
        )
        self.assertEqual(
            fetch(NESTED, (4, 2), b"HEADER.FIELDS.NOT", (b"X",)), b"Subject: four two\r\n\r\n"
        )
        self.assertEqual(fetch(NESTED, (1,), b"HEADER.FIELDS", (b"X",)), None)

    def test_part_of_an_empty_multipart_is_empty(self) -> None:
        """The part that BODYSTRUCTURE has for an empty multipart is empty, and not NIL."""
        data = (
            b"Mime-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\nno boundary\r\n"
        )
        for path, text, content in (
            ((1,), b"", b""),
            ((1,), b"MIME", b""),
            ((1,), b"TEXT", None),
            ((2,), b"", None),
            ((1, 1), b"", None),
        ):
            self.assertEqual(fetch(data, path, text), content, (path, text))
        self.assertEqual(binary_section(parse_mime_tree(data), data, (1,)), b"")

    def test_no_blank_line_is_added(self) -> None:
        """No blank line is added to "a message that has no body and no blank line" (RFC 9051 section 6.4.5.1)."""
        self.assertEqual(fetch(b"A: 1\r\nB: 2", (), b"HEADER.FIELDS", (b"B",)), b"B: 2")
        self.assertEqual(fetch(b"A: 1\r\nB: 2\r\n", (), b"HEADER.FIELDS", (b"C",)), b"")
        self.assertEqual(fetch(b"A: 1\r\nB: 2\r\n", (), b"HEADER.FIELDS.NOT", (b"B",)), b"A: 1\r\n")

    def test_blank_line_of_a_boundary_ends_the_fields(self) -> None:
        """A blank line that belongs to a boundary still ends the fields of an embedded message."""
        data = b"Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nA: 1\r\n\r\n--b--\r\n"
        self.assertEqual(fetch(data, (1,), b"HEADER"), b"A: 1\r\n")
        self.assertEqual(fetch(data, (1,), b"HEADER.FIELDS", (b"A",)), b"A: 1\r\n\r\n")

    @settings(derandomize=True, deadline=None, max_examples=300)
    @given(
        mails.hostile,
        st.lists(st.integers(0, 4), max_size=4).map(tuple),
        st.sampled_from([b"", b"HEADER", b"TEXT", b"MIME"]),
    )
    def test_section_is_a_range_of_the_message(
        self, data: bytes, path: tuple[int, ...], text: bytes
    ) -> None:
        """In any message, a section is a range of the message."""
        found = body_section(parse_mime_tree(data), data, Section(path, text))
        if found is not None:
            assert isinstance(found, tuple)
            self.assertTrue(0 <= found[0] <= found[1] <= len(data))


class HeaderFieldsTests(SynchronousTestCase):
    HEADER = b"A: 1\r\nno colon\r\nB : 2\r\n\tfold\r\na: 3\r\nAB: 4\r\n\r\n"

    def test_fields_keep_order_spelling_and_repetitions(self) -> None:
        """Fields keep their order, spelling, folds and repetitions, and case does not matter."""
        self.assertEqual(
            header_fields(self.HEADER, (b"b", b"A")), b"A: 1\r\nB : 2\r\n\tfold\r\na: 3\r\n\r\n"
        )
        self.assertEqual(header_fields(self.HEADER, ()), b"\r\n")

    def test_header_fields_not_returns_all_other_lines(self) -> None:
        """HEADER.FIELDS.NOT returns all other lines."""
        self.assertEqual(
            header_fields(self.HEADER, (b"a",), True),
            b"no colon\r\nB : 2\r\n\tfold\r\nAB: 4\r\n\r\n",
        )
        self.assertEqual(header_fields(self.HEADER, (), True), self.HEADER)

    def test_result_has_the_blank_line_of_the_header(self) -> None:
        """The result has a blank line if the header has one."""
        for header, expected in (
            (b"\r\n", b"\r\n"),
            (b"\n", b"\r\n"),
            (b"", b""),
            (b"A: 1", b"A: 1"),
            (b"A: 1\n\n", b"A: 1\n\r\n"),
        ):
            self.assertEqual(header_fields(header, (b"A",)), expected)

    @settings(derandomize=True, deadline=None, max_examples=300)
    @given(mails.hostile)
    def test_header_fields_and_not_return_every_line_once(self, data: bytes) -> None:
        """HEADER.FIELDS and HEADER.FIELDS.NOT together return every line once."""
        header = data[: parse_mime_tree(data).body_start]
        names = (b"From", b"content-type", b"Subject")
        both = header_fields(header, names), header_fields(header, names, exclude=True)
        blank = (
            b"\r\n" if header.endswith((b"\n\r\n", b"\n\n")) or header in (b"\r\n", b"\n") else b""
        )
        self.assertEqual(
            sum(map(len, both)) - len(blank),
            len(header) + header.endswith(b"\n\n") + (header == b"\n"),
        )


class BinaryTests(SynchronousTestCase):
    def check(self, encoding: bytes, body: bytes, expected: bytes) -> None:
        data = b"Content-Type: a/b\r\nContent-Transfer-Encoding: " + encoding + b"\r\n\r\n" + body
        self.assertEqual(binary_section(parse_mime_tree(data), data, (1,)), expected)

    def test_content_of_a_part_is_decoded(self) -> None:
        """The content of a part is decoded, and the default encoding is 7bit."""
        self.check(b"BASE64", b"SGVs\r\nbG8=\r\n", b"Hello")
        self.check(b"quoted-printable (x)", b"a=3D=\r\nb", b"a=b")
        self.check(b"8bit", b"\xff\0", b"\xff\0")
        self.check(b"", b"x", b"x")

    def test_unknown_encoding_is_refused(self) -> None:
        """An unknown encoding is refused with UNKNOWN-CTE (RFC 3516 section 4.3)."""
        with self.assertRaises(CommandRefused) as caught:
            self.check(b"x-uuencode", b"x", b"")
        self.assertEqual(caught.exception.code, b"UNKNOWN-CTE")

    def test_messages_and_multiparts_are_never_encoded(self) -> None:
        """Messages and multiparts are never encoded (RFC 2045 section 6.4)."""
        for kind in (b"multipart/x; boundary=b", b"message/rfc822"):
            data = (
                b"Content-Type: "
                + kind
                + b"\r\nContent-Transfer-Encoding: base64\r\n\r\n--b\r\n\r\nSGVsbG8=\r\n--b--"
            )
            part = parse_mime_tree(data)
            self.assertEqual(binary_section(part, data, ()), data)
            if part.embedded is not None:
                self.assertEqual(binary_section(part, data, (1,)), data[part.body_start :])

    def test_absent_part_is_none(self) -> None:
        """The content of a part that does not exist is None."""
        self.assertIsNone(binary_section(parse_mime_tree(b""), b"", (2,)))

    @settings(derandomize=True, deadline=None, max_examples=200)
    @given(mails.hostile, st.sampled_from([(), (1,), (2,), (1, 1)]))
    def test_binary_section_raises_only_unknown_cte(
        self, data: bytes, path: tuple[int, ...]
    ) -> None:
        """In any message, a part has content, does not exist, or is refused with UNKNOWN-CTE."""
        try:
            binary_section(parse_mime_tree(data), data, path)
        except CommandRefused as refusal:
            self.assertEqual(refusal.code, b"UNKNOWN-CTE")
