"""Transfer encodings are decoded, and damage affects only the damaged bytes."""

from __future__ import annotations

import binascii
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.message import transfer_encoding
from imapshield.message.chunks import CHUNK_SIZE
from imapshield.message.transfer_encoding import decode, decode_base64, decode_quoted_printable


class DecodeTests(SynchronousTestCase):
    def test_base64_ignores_other_bytes(self) -> None:
        """Bytes outside the alphabet are ignored, and data that is cut off is decoded as far as possible."""
        for data, decoded in (
            (b"SGVsbG8=", b"Hello"),
            (b"SGVs\r\nbG8=\r\n", b"Hello"),
            (b"SGVsbG8", b"Hello"),
            (b"SGVsbG8=rest", b"Hello"),
            (b"S G*V-s.bG8=", b"Hello"),
            (b"SGVsb", b"Hel"),
            (b"", b""),
            (b"====", b""),
            (b"SGVs=bG8=", b"Hello"),
            (b"S=GVsbG=8=rest", b"Hello"),
            (b"SGVs=bG8", b"Hello"),
            (b"SGVsbA==bG8=", b"Hell"),
        ):
            self.assertEqual(decode_base64(data), decoded)

    @settings(derandomize=True, deadline=None, max_examples=500)
    @given(st.lists(st.sampled_from([b"A", b"/", b"=", b"==", b"\n", b"abcd"])).map(b"".join))
    def test_large_base64(self, data: bytes) -> None:
        """Data that is larger than a chunk is decoded like smaller data, wherever it has ``=``."""
        decoded = decode_base64(data)
        for size in range(1, 8):
            with mock.patch.object(transfer_encoding, "CHUNK_SIZE", size):
                self.assertEqual(decode_base64(data), decoded)

    def test_stray_padding_in_large_base64(self) -> None:
        """An ``=`` between two complete groups does not end the data, whatever its size."""
        for count in (1, CHUNK_SIZE):
            self.assertEqual(len(decode_base64(b"AAAA=" + b"AAAA" * count)), 3 + 3 * count)

    def test_invalid_quoted_printable_is_not_changed(self) -> None:
        """Invalid escapes are not changed, and white space at line ends is removed."""
        for data, decoded in (
            (b"a=3Db", b"a=b"),
            (b"a=3db", b"a=b"),
            (b"a=\r\nb", b"ab"),
            (b"a= \r\nb", b"ab"),
            (b"a \t\r\nb ", b"a\r\nb"),
            (b"a=ZZ", b"a=ZZ"),
            (b"a_b", b"a_b"),
            (b"a=", b"a"),
        ):
            self.assertEqual(decode_quoted_printable(data), decoded)

    @settings(derandomize=True, deadline=None, max_examples=200)
    @given(st.lists(st.sampled_from([b"\n", b"\r\n", b"\r", b"a", b"=\r\nb"])).map(b"".join))
    def test_line_ends_of_quoted_printable_are_kept(self, data: bytes) -> None:
        """Line ends that are not escaped are not changed, even if CRLF and LF are mixed."""
        self.assertEqual(decode_quoted_printable(data), data.replace(b"=\r\n", b""))

    @settings(derandomize=True, deadline=None, max_examples=200)
    @given(st.binary(max_size=200))
    def test_encoded_data_is_decoded_to_the_same(self, data: bytes) -> None:
        """Encoded data is decoded to the same data."""
        self.assertEqual(decode(binascii.b2a_base64(data), b"base64"), data)
        # With `istext`, the encoder does not escape line ends, and converts all of them to the form of the first one.
        encoded = binascii.b2a_qp(data, quotetabs=True, istext=False)
        self.assertEqual(decode(encoded, b"quoted-printable"), data)
        self.assertEqual(decode(data, b"8bit"), data)

    @settings(derandomize=True, deadline=None, max_examples=200)
    @given(st.binary(max_size=200))
    def test_any_bytes_can_be_decoded(self, data: bytes) -> None:
        """Any bytes can be decoded."""
        decode_base64(data)
        decode_quoted_printable(data)

    def test_hostile_data_takes_linear_time(self) -> None:
        """Megabytes of blanks or padding are decoded in linear time."""
        for fragment in (b" ", b"= ", b"A=", b"=", b" \r\n", b"\t x"):
            decode_base64(fragment * (1 << 20))
            decode_quoted_printable(fragment * (1 << 20))
