"""Processing data in chunks has the same result as processing all data at once."""

import random
from collections.abc import Callable, Sequence
from types import ModuleType
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from imapshield.maildir import message_file
from imapshield.message import charsets, section, text, transfer_encoding
from imapshield.message.chunks import line_chunks

BASE64 = (b"QUJD", b"QU", b"\r\n", b" ", b"!", b"x")
QUOTED_PRINTABLE = (b"=41", b"=", b"\r\n", b"x", b"=\r\n")
HEADER = (b"A: b", b" c", b"\t", b"\r\n", b"\n", b"B", b":", b"\r")
CHARACTERS = ("\u00e4", "\u0130", "a", "\u3042", "\ufb01", "\u0131")


class ChunkTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.random = random.Random(1)

    def random_data(self, alphabet: Sequence[bytes]) -> bytes:
        return b"".join(self.random.choices(alphabet, k=self.random.randrange(40)))

    def shrink_chunks(self, module: ModuleType) -> None:
        """Make `module` work in chunks of a few bytes."""
        patched = mock.patch.object(module, "CHUNK_SIZE", 7)
        patched.start()
        self.addCleanup(patched.stop)
        if hasattr(module, "line_chunks"):
            self.patch(module, "line_chunks", lambda data: line_chunks(data, 7))

    def check_same(
        self, module: ModuleType, function: Callable[[bytes], bytes], alphabet: Sequence[bytes]
    ) -> None:
        """Check that a function of `module` returns the same with small chunks, for random data."""
        inputs = [self.random_data(alphabet) for _ in range(400)]
        results = [function(data) for data in inputs]
        self.shrink_chunks(module)
        for data, expected in zip(inputs, results, strict=True):
            self.assertEqual(function(data), expected, data)

    def test_chunks_end_at_line_ends(self) -> None:
        """Chunks end at line ends, have at least the requested size, and together contain the input."""
        for _ in range(300):
            data = self.random_data(HEADER)
            chunks = list(line_chunks(data, 7))
            self.assertEqual(b"".join(chunks), data)
            for chunk in chunks[:-1]:
                self.assertTrue(chunk.endswith(b"\n") and len(chunk) >= 7)

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
            haystack = "".join(self.random.choices(CHARACTERS, k=self.random.randrange(12)))
            needle = text.normalize("".join(self.random.choices(CHARACTERS, k=2)))
            self.assertEqual(text.contains(haystack, needle), needle in text.normalize(haystack))
        self.assertTrue(text.contains("", ""))
