"""What is done in pieces is done as it would be at once."""

import random
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from imapshield.maildir import message_file
from imapshield.message import charsets, section, text, transfer_encoding
from imapshield.message.chunks import line_chunks

ALPHABETS = (
    (b"QUJD", b"QU", b"\r\n", b" ", b"!", b"x"),
    (b"=41", b"=", b"\r\n", b" ", b"\t", b"x", b"=\r\n"),
    (b"A: b", b" c", b"\t", b"\r\n", b"\n", b"B", b":", b"\r"),
    ("\u00e4", "\u0130", "a", "\u3042", "\ufb01", "\u0131"),
)


class Pieces(SynchronousTestCase):
    def setUp(self) -> None:
        self.random = random.Random(1)

    def some(self, alphabet: tuple[bytes, ...]) -> bytes:
        return b"".join(self.random.choices(alphabet, k=self.random.randrange(40)))

    def small(self, module: object) -> None:
        """Have a piece of that module be a few octets."""
        patched = mock.patch.object(module, "CHUNK_SIZE", 7)
        patched.start()
        self.addCleanup(patched.stop)
        if hasattr(module, "lines"):
            self.patch(module, "lines", lambda octets: line_chunks(octets, 7))

    def test_lines(self) -> None:
        """Pieces end with a line, are no smaller than asked for, and together they are all there was."""
        for _ in range(300):
            octets = self.some(ALPHABETS[2])
            pieces = list(line_chunks(octets, 7))
            self.assertEqual(b"".join(pieces), octets)
            for piece in pieces[:-1]:
                self.assertTrue(piece.endswith(b"\n") and len(piece) >= 7)

    def same(self, module: object, function: object, *alphabets: tuple[bytes, ...]) -> None:
        octets = [self.some(alphabet) for alphabet in alphabets for _ in range(400)]
        before = [function(one) for one in octets]  # type: ignore[operator]
        self.small(module)
        for one, expected in zip(octets, before, strict=True):
            self.assertEqual(function(one), expected, one)  # type: ignore[operator]

    def test_wire(self) -> None:
        """A file to what is sent."""
        self.same(message_file, message_file.to_wire, ALPHABETS[2])

    def test_base64(self) -> None:
        """Base64, whatever stands in it, and where it ends."""
        self.same(transfer_encoding, transfer_encoding.decode_base64, ALPHABETS[0])
        self.assertEqual(transfer_encoding.decode_base64(b"QUJD QU JDQ Q== QUJD"), b"ABCABCA")

    def test_quoted_printable(self) -> None:
        """Quoted-printable."""
        self.same(
            transfer_encoding,
            transfer_encoding.decode_quoted_printable,
            ALPHABETS[1][:3] + ALPHABETS[1][5:],
        )

    def test_fields(self) -> None:
        """HEADER.FIELDS and HEADER.FIELDS.NOT."""
        self.same(section, lambda header: section.header_fields(header, (b"a",)), ALPHABETS[2])
        self.same(
            section, lambda header: section.header_fields(header, (b"A",), True), ALPHABETS[2]
        )

    def test_charset(self) -> None:
        """A character that two pieces share."""
        written = "".join(self.random.choices(ALPHABETS[3], k=200))
        self.small(charsets)
        for charset in (b"utf-8", b"gb18030", b"utf-16", b"utf-7"):
            octets = written.encode(charset.decode())
            self.assertEqual(charsets.to_text(octets, charset), written, charset)

    def test_contains(self) -> None:
        """A text that two pieces share is found, and none that is not there."""
        self.patch(text, "CHUNK_SIZE", 3)
        for _ in range(2000):
            shown = "".join(self.random.choices(ALPHABETS[3], k=self.random.randrange(12)))
            needle = text.normalize("".join(self.random.choices(ALPHABETS[3], k=2)))
            self.assertEqual(text.contains(shown, needle), needle in text.normalize(shown))
        self.assertTrue(text.contains("", ""))
