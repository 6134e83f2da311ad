"""Parses the PROXY header, with which a proxy tells a server the address of its client (PROXY protocol, versions 1
and 2, of haproxy.org/download/1.8/doc/proxy-protocol.txt).

The header comes before everything else on a connection, also before a TLS handshake.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address

MAX_V1_LENGTH = 107
"""Bytes of a header of version 1 with its CRLF (section 2.1)."""

MAX_V2_LENGTH = 4096
"""Bytes that may follow the first 16 of a header of version 2. Addresses and all fields that HAProxy and the large load
balancers send take less than 1024."""

_V1_BEGIN = b"PROXY "
_V1 = re.compile(rb"PROXY TCP([46]) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) (\d{1,5}) (\d{1,5})\r\n")
_V1_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: .*)?\r\n", re.DOTALL)
_V2_BEGIN = b"\r\n\r\n\0\r\nQUIT\n"
_V2_FIXED = 16
_LOCAL, _PROXY = 0x20, 0x21
_UNSPECIFIED, _TCP4, _TCP6, _UNIX_STREAM = 0x00, 0x11, 0x21, 0x31
_ADDRESS_SIZES = {_TCP4: 12, _TCP6: 36, _UNIX_STREAM: 216}
_CRC32C, _SSL = 0x03, 0x20
_CLIENT_SSL = 0x01


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """What a proxy says about the connection of its client.

    Attributes:
        address: the client's IPv4 or IPv6 address in its usual form; None if the proxy does not know or say it.
        port: the client's port; 0 without an address.
        tls: whether the client has connected to the proxy with TLS (PP2_TYPE_SSL).
        from_proxy: the proxy speaks for itself and has no client, as for a health check (LOCAL).
    """

    address: str | None = None
    port: int = 0
    tls: bool = False
    from_proxy: bool = False


@dataclass(frozen=True, slots=True)
class MalformedHeader:
    """The input does not begin with a PROXY header. `reason` is the text for the log; it holds no input."""

    reason: str


class _Malformed(ValueError):
    pass


def begins_with_header(data: bytes) -> bool:
    """Return whether the first input of a client looks like a PROXY header."""
    return data.startswith((b"PROXY TCP", b"PROXY UNKNOWN", _V2_BEGIN))


class ProxyHeaderReader:
    """Collects the segments of one connection until its PROXY header is complete.

    Attributes:
        rest: the input after the header.
    """

    def __init__(self) -> None:
        self.rest = b""
        self._received = b""

    def feed(self, data: bytes) -> ProxyHeader | MalformedHeader | None:
        """Add `data`. Returns None while the header is incomplete; after another result, do not call it again."""
        self._received += data
        try:
            parsed = _parse(self._received)
        except _Malformed as error:
            self._received = b""
            return MalformedHeader(str(error))
        if parsed is None:
            return None
        header, length = parsed
        self.rest, self._received = self._received[length:], b""
        return header


def _parse(data: bytes) -> tuple[ProxyHeader, int] | None:
    """Return the header at the beginning of `data` and its length, or None if it is incomplete.

    What is wrong with a header depends on its bytes alone, and not on how much of it has arrived at once.
    """
    if data[:1] == b"P":
        if not _V1_BEGIN.startswith(data[: len(_V1_BEGIN)]):
            raise _Malformed("not a PROXY header")
        return _parse_v1(data)
    if not _V2_BEGIN.startswith(data[: len(_V2_BEGIN)]):
        raise _Malformed("not a PROXY header")
    return _parse_v2(data)


def _parse_v1(data: bytes) -> tuple[ProxyHeader, int] | None:
    end = data.find(b"\r\n", 0, MAX_V1_LENGTH) + 2
    if end < 2:
        if len(data) >= MAX_V1_LENGTH:
            raise _Malformed(f"no CRLF in the first {MAX_V1_LENGTH} bytes")
        return None
    line = data[:end]
    if _V1_UNKNOWN.fullmatch(line):
        return ProxyHeader(), end
    match = _V1.fullmatch(line)
    if match is None:
        raise _Malformed("invalid line of version 1")
    version, source, destination, *ports = (group.decode("ascii") for group in match.groups())
    address = _address(version, source)
    _address(version, destination)
    if any(int(port) > 0xFFFF or str(int(port)) != port for port in ports):
        raise _Malformed("invalid port")
    return ProxyHeader(address, int(ports[0])), end


def _address(version: str, text: str) -> str:
    try:
        return _usual(IPv4Address(text) if version == "4" else IPv6Address(text))
    except AddressValueError:
        raise _Malformed(f"invalid IPv{version} address") from None


def _usual(address: IPv4Address | IPv6Address) -> str:
    """Return an address as text. An IPv4 address that is written as IPv6 (::ffff:192.0.2.1) becomes IPv4."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def _parse_v2(data: bytes) -> tuple[ProxyHeader, int] | None:
    # The checks are in the order of the bytes, so that the first one that fails is the same for all segments.
    if len(data) > 12 and data[12] not in (_LOCAL, _PROXY):
        raise _Malformed("unknown version or command")
    if len(data) > 13 and data[12] == _PROXY and data[13] not in (_UNSPECIFIED, *_ADDRESS_SIZES):
        raise _Malformed("not a TCP connection")
    if len(data) < _V2_FIXED:
        return None
    (length,) = struct.unpack_from("!H", data, 14)
    if length > MAX_V2_LENGTH:
        raise _Malformed(f"longer than {MAX_V2_LENGTH} bytes")
    end = _V2_FIXED + length
    if len(data) < end:
        return None
    if data[12] == _LOCAL:
        return ProxyHeader(from_proxy=True), end
    if data[13] == _UNSPECIFIED:  # section 2.2: ignore what follows
        return ProxyHeader(), end
    return _parse_addresses(data[:end]), end


def _parse_addresses(header: bytes) -> ProxyHeader:
    family = header[13]
    fields = _V2_FIXED + _ADDRESS_SIZES[family]
    if len(header) < fields:
        raise _Malformed("no room for the addresses")
    tls = False
    for kind, begin, end in _tlvs(header, fields):
        if kind == _CRC32C:
            _check_crc(header, begin, end)
        elif kind == _SSL:
            if end - begin < 5:
                raise _Malformed("PP2_TYPE_SSL is too short")
            for _ in _tlvs(header[:end], begin + 5):
                pass  # only the structure is checked
            tls = tls or bool(header[begin] & _CLIENT_SSL)
    if family == _UNIX_STREAM:
        return ProxyHeader(tls=tls)
    if family == _TCP4:
        packed, port = struct.unpack_from("!4s4xH", header, _V2_FIXED)
        return ProxyHeader(_usual(IPv4Address(packed)), port, tls)
    packed, port = struct.unpack_from("!16s16xH", header, _V2_FIXED)
    return ProxyHeader(_usual(IPv6Address(packed)), port, tls)


def _tlvs(data: bytes, position: int) -> Iterator[tuple[int, int, int]]:
    """Yield the type of each field from `position` to the end of `data`, and where its value begins and ends."""
    while position < len(data):
        if position + 3 > len(data):
            raise _Malformed("incomplete field")
        kind, length = struct.unpack_from("!BH", data, position)
        begin, position = position + 3, position + 3 + length
        if position > len(data):
            raise _Malformed("incomplete field")
        yield kind, begin, position


def _check_crc(header: bytes, begin: int, end: int) -> None:
    if end - begin != 4:
        raise _Malformed("PP2_TYPE_CRC32C is not four bytes")
    (expected,) = struct.unpack_from("!I", header, begin)
    if crc32c(header[:begin] + bytes(4) + header[end:]) != expected:
        raise _Malformed("wrong CRC32C")


def _crc_of_byte(crc: int) -> int:
    for _ in range(8):
        crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc


_CRC_TABLE = [_crc_of_byte(value) for value in range(256)]


def crc32c(data: bytes) -> int:
    """Return the CRC-32C (Castagnoli) of `data`."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
