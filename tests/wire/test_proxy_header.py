"""A PROXY header gives the same result in any segments, and input that is none gives a reason."""

from __future__ import annotations

import socket
import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.wire.proxy_header import (
    MAX_V1_LENGTH,
    MAX_V2_LENGTH,
    MalformedHeader,
    ProxyHeader,
    ProxyHeaderReader,
    crc32c,
)

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
IPV4 = socket.inet_aton("192.0.2.7") + socket.inet_aton("192.0.2.8") + struct.pack("!HH", 4444, 143)
IPV6 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::7")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::8")
    + struct.pack("!HH", 4444, 143)
)


def tlv(kind: int, value: bytes) -> bytes:
    """Return one field of a header of version 2."""
    return struct.pack("!BH", kind, len(value)) + value


def v2(payload: bytes, family: int = 0x11, command: int = 0x21) -> bytes:
    """Return a header of version 2."""
    return SIGNATURE + struct.pack("!BBH", command, family, len(payload)) + payload


def ssl_field(client: int) -> bytes:
    """Return the field that says whether the client used TLS, as HAProxy's send-proxy-v2-ssl makes it."""
    return tlv(0x20, struct.pack("!BI", client, 0) + tlv(0x21, b"TLSv1.3"))


def with_crc(payload: bytes, error: int = 0) -> bytes:
    """Return a header of version 2 with a checksum, which is wrong by `error`."""
    zeros = v2(payload + tlv(3, bytes(4)))
    return zeros[:-4] + struct.pack("!I", crc32c(zeros) ^ error)


CLIENT = ProxyHeader("192.0.2.7", 4444)
VALID: list[tuple[bytes, ProxyHeader]] = [
    (b"PROXY TCP4 192.0.2.7 192.0.2.8 4444 143\r\n", CLIENT),
    (b"PROXY TCP6 2001:DB8::7 2001:db8::8 0 65535\r\n", ProxyHeader("2001:db8::7", 0)),
    (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 4444 143\r\n", CLIENT),
    (b"PROXY UNKNOWN\r\n", ProxyHeader()),
    (b"PROXY UNKNOWN ffff::1 whatever\0\xff\n" + b"\r\n", ProxyHeader()),
    (b"PROXY UNKNOWN " + b"x" * (MAX_V1_LENGTH - 16) + b"\r\n", ProxyHeader()),
    (v2(IPV4), CLIENT),
    (v2(IPV6, 0x21), ProxyHeader("2001:db8::7", 4444)),
    (v2(IPV4 + ssl_field(1)), ProxyHeader("192.0.2.7", 4444, tls=True)),
    (v2(IPV4 + tlv(1, b"imap") + ssl_field(7)), ProxyHeader("192.0.2.7", 4444, tls=True)),
    (v2(IPV4 + ssl_field(0)), CLIENT),
    (v2(IPV4 + ssl_field(2)), CLIENT),
    (v2(bytes(216) + ssl_field(1), 0x31), ProxyHeader(tls=True)),
    (v2(b"", 0, 0x20), ProxyHeader(from_proxy=True)),
    (v2(b"\xff" * 40, 0xEE, 0x20), ProxyHeader(from_proxy=True)),
    (v2(b"", 0), ProxyHeader()),
    (v2(b"anything", 0), ProxyHeader()),
    (v2(IPV4 + tlv(4, bytes(MAX_V2_LENGTH - len(IPV4) - 3))), CLIENT),
    (with_crc(IPV4), CLIENT),
    (with_crc(IPV4 + ssl_field(1)), ProxyHeader("192.0.2.7", 4444, tls=True)),
]
MALFORMED: list[tuple[bytes, str]] = [
    (b"a NOOP\r\n", "not a PROXY header"),
    (b"PROXY\r\n", "not a PROXY header"),
    (b"\r\n\r\n\0\r\nQUIT\r\n", "not a PROXY header"),
    (b"\x16\x03\x01\x02\0\x01", "not a PROXY header"),
    (b"PROXY TCP4 192.0.2.7 192.0.2.8 xx 143\r\n", "invalid line of version 1"),
    (b"PROXY TCP4 192.0.2.7 192.0.2.8 4444\r\n", "invalid line of version 1"),
    (b"PROXY TCP4 192.0.2.7  192.0.2.8 44 143\r\n", "invalid line of version 1"),
    (b"PROXY TCP4 192.0.2.7 192.0.2.8 44 143 \r\n", "invalid line of version 1"),
    (b"PROXY TCP4 \xff\xfe 192.0.2.8 44 143\r\n", "invalid line of version 1"),
    (b"PROXY TCP6 fe80::1%eth0 ::1 44 143\r\n", "invalid line of version 1"),
    (b"PROXY TCP4 192.0.2.7\n login 192.0.2.8 44 143\r\n", "invalid line of version 1"),
    (b"PROXY UDP4 192.0.2.7 192.0.2.8 44 143\r\n", "invalid line of version 1"),
    (b"PROXY UNKNOWNX\r\n", "invalid line of version 1"),
    (b"PROXY TCP4 192.0.2.07 192.0.2.8 44 143\r\n", "invalid IPv4 address"),
    (b"PROXY TCP4 2001:db8::7 192.0.2.8 44 143\r\n", "invalid IPv4 address"),
    (b"PROXY TCP4 192.0.2.7 300.0.2.8 44 143\r\n", "invalid IPv4 address"),
    (b"PROXY TCP6 192.0.2.7 ::1 44 143\r\n", "invalid IPv6 address"),
    (b"PROXY TCP6 ::1 ::: 44 143\r\n", "invalid IPv6 address"),
    (b"PROXY TCP4 192.0.2.7 192.0.2.8 65536 143\r\n", "invalid port"),
    (b"PROXY TCP4 192.0.2.7 192.0.2.8 044 143\r\n", "invalid port"),
    (b"PROXY UNKNOWN " + b"x" * MAX_V1_LENGTH + b"\r\n", "no CRLF in the first 107 bytes"),
    (v2(IPV4, command=0x11), "unknown version or command"),
    (v2(IPV4, command=0x22), "unknown version or command"),
    (v2(IPV4, 0x12), "not a TCP connection"),
    (v2(IPV4, 0x41), "not a TCP connection"),
    (v2(IPV4[:-1]), "no room for the addresses"),
    (v2(IPV4, 0x21), "no room for the addresses"),
    (v2(IPV4 + b"\x01\0"), "incomplete field"),
    (v2(IPV4 + b"\x01\0\x02x"), "incomplete field"),
    (v2(IPV4 + tlv(0x20, bytes(4))), "PP2_TYPE_SSL is too short"),
    (v2(IPV4 + tlv(0x20, b"\1" + bytes(4) + b"\x21\0\x05TLS")), "incomplete field"),
    (v2(IPV4 + tlv(3, bytes(3))), "PP2_TYPE_CRC32C is not four bytes"),
    (with_crc(IPV4, error=1), "wrong CRC32C"),
    (v2(bytes(MAX_V2_LENGTH + 1)), "longer than 4096 bytes"),
]


def read(segments: list[bytes]) -> tuple[ProxyHeader | MalformedHeader | None, bytes]:
    """Feed segments to a reader until it has a result. Returns the result and all input after the header."""
    reader = ProxyHeaderReader()
    for index, segment in enumerate(segments):
        result = reader.feed(segment)
        if result is not None:
            return result, reader.rest + b"".join(segments[index + 1 :])
    return None, b""


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut `data` at each of the positions."""
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[begin:end] for begin, end in zip([0, *places], [*places, len(data)], strict=True)]


# Bytes that get far into the parser: beginnings and mutations of headers, and plain garbage.
headers = st.sampled_from([data for data, _ in VALID + MALFORMED])
mutated = st.builds(
    lambda data, at, new: data[: at % len(data)] + new + data[at % len(data) + len(new) :],
    headers,
    st.integers(0, 300),
    st.binary(max_size=4),
)
v1_lines = st.lists(
    st.sampled_from(
        [b"PROXY", b"TCP4", b"TCP6", b"UNKNOWN", b" ", b"::1", b"1.2.3.4", b"1", b"\r\n"]
    )
).map(b"".join)
v2_payloads = st.builds(v2, st.binary(max_size=300), st.integers(0, 255), st.integers(0x1F, 0x22))
inputs = st.one_of(headers, mutated, v1_lines, v2_payloads, st.binary(max_size=300))
cuts = st.lists(st.integers(0, 5000), max_size=6)


class ProxyHeaderTests(SynchronousTestCase):
    def test_valid_headers(self) -> None:
        """Both versions give the client's address, its port, and whether the proxy has decrypted TLS."""
        for data, header in VALID:
            self.assertEqual(read([data + b"a NOOP\r\n"]), (header, b"a NOOP\r\n"), data)

    def test_header_in_single_bytes(self) -> None:
        """A header that arrives byte by byte is incomplete until its last byte, and gives the same result."""
        for data, header in VALID:
            reader = ProxyHeaderReader()
            for number in range(len(data) - 1):
                self.assertIsNone(reader.feed(data[number : number + 1]), data)
            self.assertEqual(reader.feed(data[-1:]), header)
            self.assertEqual(reader.rest, b"")

    def test_malformed_headers(self) -> None:
        """A malformed header gives a reason, which holds nothing of the input."""
        for data, reason in MALFORMED:
            self.assertEqual(read([data])[0], MalformedHeader(reason), data)

    def test_first_byte_decides(self) -> None:
        """Input that cannot become a header is malformed at once, so no proxy waits for an answer."""
        for data in (b"a", b"Q", b"\x16", b"PR0", b"\r\r"):
            self.assertEqual(ProxyHeaderReader().feed(data), MalformedHeader("not a PROXY header"))

    def test_declared_length_is_refused_before_it_arrives(self) -> None:
        """A length above the maximum is malformed when it is declared: nothing of it is stored."""
        result = ProxyHeaderReader().feed(v2(bytes(MAX_V2_LENGTH + 1))[:16])
        self.assertEqual(result, MalformedHeader("longer than 4096 bytes"))

    def test_crc32c_of_rfc_3720(self) -> None:
        """The checksum is that of RFC 3720 appendix B.4."""
        self.assertEqual(crc32c(bytes(32)), 0x8A9136AA)
        self.assertEqual(crc32c(bytes(range(32))), 0x46DD794E)

    @given(inputs, cuts)
    @settings(max_examples=400, deadline=None)
    def test_segments_do_not_matter(self, data: bytes, places: list[int]) -> None:
        """Any input gives the same result in any segments."""
        whole, rest = read([data])
        result, other_rest = read(split(data, places))
        self.assertEqual(result, whole)
        if isinstance(whole, ProxyHeader):
            self.assertEqual(other_rest, rest)

    @given(inputs, st.binary(max_size=20))
    @settings(max_examples=400, deadline=None)
    def test_any_input_is_bounded(self, data: bytes, more: bytes) -> None:
        """No input raises, and after the longest header every input has a result."""
        padded = data + more + bytes(16 + MAX_V2_LENGTH)
        self.assertIsNotNone(read([padded])[0])
