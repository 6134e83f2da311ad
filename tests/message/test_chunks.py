"""Processing data in chunks has the same result as processing all data at once."""

import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from types import ModuleType
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from imapshield.maildir import message_file
from imapshield.message import charsets, chunks, section, text, transfer_encoding
from imapshield.message.mime_tree import parse_mime_tree

BASE64 = (b"QUJD", b"QU", b"\r\n", b" ", b"!", b"x")
QUOTED_PRINTABLE = (
    b"=41",
    b"=",
    b"\r\n",
    b"\n",
    b"\r",
    b"x",
    b"=\r\n",
    b" ",
    b"\t",
    b" " * 9,
    b"yyyyyyyyyy",
)
HEADER = (b"A: b", b" c", b"\t", b"\r\n", b"\n", b"B", b":", b"\r")
CHARACTERS = ("\u00e4", "\u0130", "a", "\u3042", "\ufb01", "\u0131")


class ChunkTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.random = random.Random(1)

    def random_data(self, alphabet: Sequence[bytes]) -> bytes:
        return b"".join(self.random.choices(alphabet, k=self.random.randrange(40)))

    def shrink_chunks(self, module: ModuleType) -> None:
        """Make `module` work in chunks of a few bytes."""
        for changed in (chunks, module):
            patched = mock.patch.object(changed, "CHUNK_SIZE", 7)
            patched.start()
            self.addCleanup(patched.stop)

    def check_same(
        self, module: ModuleType, function: Callable[[bytes], bytes], alphabet: Sequence[bytes]
    ) -> None:
        """Check that a function of `module` returns the same with small chunks, for random data."""
        inputs = [self.random_data(alphabet) for _ in range(400)]
        results = [function(data) for data in inputs]
        self.shrink_chunks(module)
        for data, expected in zip(inputs, results, strict=True):
            self.assertEqual(function(data), expected, data)

    def test_chunks_do_not_divide_line_ends(self) -> None:
        """Chunks of a range contain the range, and none ends between CR and LF."""
        self.shrink_chunks(chunks)
        for _ in range(300):
            data = self.random_data((b"\r", b"\r\n", b"x"))
            found = list(chunks.chunks(data, 1, len(data) - 1))
            self.assertEqual(b"".join(found), data[1 : len(data) - 1])
            for first, second in pairwise(found):
                self.assertTrue(0 < len(first) <= 7)
                self.assertFalse(first.endswith(b"\r") and second.startswith(b"\n"))

    def test_large_data_is_searched_in_pieces(self) -> None:
        """A needle is found, and line ends are counted, wherever the pieces that are searched end."""
        self.patch(chunks, "SCAN_SIZE", 5)
        for _ in range(1000):
            data = self.random_data((b"ab", b"a", b"\n"))
            start, stop = self.random.randrange(9), self.random.randrange(60)
            self.assertEqual(chunks.count_lines(data, start, stop), data.count(b"\n", start, stop))
            for needle in (b"\n", b"ab", b"aab\n"):
                expected = data.find(needle, start, stop)
                self.assertEqual(chunks.find(data, needle, start, stop), expected)

    def test_line_ends_are_converted_in_chunks(self) -> None:
        """The line ends of a file are converted in chunks."""
        self.check_same(message_file, message_file.to_wire, HEADER)

    def test_base64_is_decoded_in_chunks(self) -> None:
        """Base64 is decoded in chunks, with any content and any length."""
        self.check_same(transfer_encoding, transfer_encoding.decode_base64, BASE64)
        self.assertEqual(transfer_encoding.decode_base64(b"QUJD QU JDQ Q== QUJD"), b"ABCABCA")

    def test_quoted_printable_is_decoded_in_chunks(self) -> None:
        """Quoted-printable is decoded in chunks."""
        self.check_same(
            transfer_encoding, transfer_encoding.decode_quoted_printable, QUOTED_PRINTABLE
        )

    def test_header_fields_are_read_in_chunks(self) -> None:
        """HEADER.FIELDS and HEADER.FIELDS.NOT read a large header in chunks."""
        self.check_same(section, lambda header: section.header_fields(header, (b"a",)), HEADER)
        self.check_same(
            section, lambda header: section.header_fields(header, (b"A",), True), HEADER
        )

    def test_header_is_searched_in_chunks(self) -> None:
        """TEXT searches a large header in chunks that contain whole fields."""

        def search_text(header: bytes) -> bytes:
            part = parse_mime_tree(header + b"\r\n")
            (header_text, _) = text.searchable_texts(part, header + b"\r\n", True)
            return "".join(header_text).encode()

        self.check_same(
            text, search_text, (b"A: =?utf-8?q?=41?=", b"\r\n =?utf-8?q?=41?=\r\n", b"x")
        )

    def test_character_split_between_chunks_is_decoded(self) -> None:
        """A character that is split between two chunks is decoded."""
        expected = "".join(self.random.choices(CHARACTERS, k=200))
        self.shrink_chunks(charsets)
        for charset in (b"utf-8", b"gb18030", b"utf-16", b"utf-7"):
            data = expected.encode(charset.decode())
            self.assertEqual(charsets.to_text(data, charset), expected, charset)

    def test_needle_split_between_chunks_is_found(self) -> None:
        """A needle that is split between two chunks is found, and a needle that is absent is not found."""
        self.patch(text, "CHUNK_SIZE", 3)
        for _ in range(2000):
            sizes = [self.random.randrange(6) for _ in range(3)]
            pieces = ["".join(self.random.choices(CHARACTERS, k=size)) for size in sizes]
            needle = text.normalize("".join(self.random.choices(CHARACTERS, k=2)))
            self.assertEqual(
                text.contains(pieces, needle), needle in text.normalize("".join(pieces))
            )
        self.assertTrue(text.contains([""], ""))
