"""Transfer encodings, whole and damaged."""

from __future__ import annotations

import binascii
import quopri

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.message.transfer_encoding import decode, decode_base64, decode_quoted_printable


class Decoding(SynchronousTestCase):
    def test_base64(self) -> None:
        """What is not of the alphabet is passed over, what is missing at the end is missing."""
        for octets, decoded in (
            (b"SGVsbG8=", b"Hello"),
            (b"SGVs\r\nbG8=\r\n", b"Hello"),
            (b"SGVsbG8", b"Hello"),
            (b"SGVsbG8=rest", b"Hello"),
            (b"S G*V-s.bG8=", b"Hello"),
            (b"SGVsb", b"Hel"),
            (b"", b""),
            (b"====", b""),
        ):
            self.assertEqual(decode_base64(octets), decoded)

    def test_quoted_printable(self) -> None:
        """What is no escape stands as it is; white space at line ends was never content."""
        for octets, decoded in (
            (b"a=3Db", b"a=b"),
            (b"a=3db", b"a=b"),
            (b"a=\r\nb", b"ab"),
            (b"a= \r\nb", b"ab"),
            (b"a \t\r\nb ", b"a\r\nb"),
            (b"a=ZZ", b"a=ZZ"),
            (b"a_b", b"a_b"),
            (b"a=", b"a"),
        ):
            self.assertEqual(decode_quoted_printable(octets), decoded)

    @settings(derandomize=True, deadline=None, max_examples=200)
    @given(st.binary(max_size=200))
    def test_round_trip(self, octets: bytes) -> None:
        """What was encoded is decoded; any octets can be put in."""
        self.assertEqual(decode(binascii.b2a_base64(octets), b"base64"), octets)
        self.assertEqual(
            decode(quopri.encodestring(octets, quotetabs=True), b"quoted-printable"), octets
        )
        self.assertEqual(decode(octets, b"8bit"), octets)
        decode_base64(octets)
        decode_quoted_printable(octets)

    def test_hostile_sizes(self) -> None:
        """Megabytes of blanks or padding."""
        for piece in (b" ", b"= ", b"A=", b"=", b" \r\n", b"\t x"):
            decode_base64(piece * (1 << 20))
            decode_quoted_printable(piece * (1 << 20))
