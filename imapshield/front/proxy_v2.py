"""Writes the PROXY header, version 2, with which the backend learns the address of the client.

The specification is haproxy.org/download/1.8/doc/proxy-protocol.txt; `wire.proxy_header` reads such headers.
"""

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

_BEGIN = b"\r\n\r\n\0\r\nQUIT\n"
_LOCAL = _BEGIN + b"\x20\0\0\0"
"""The command of a connection that the shield makes for itself, such as a health check."""

_TCP4, _TCP6 = 0x11, 0x21


def proxy_header(client: tuple[str, int] | None, server: tuple[str, int] | None) -> bytes:
    """Return the header for a client.

    Args:
        client: the address and port of the client; None if the shield speaks for itself or does not know it.
        server: the address and port to which the client has connected, or None.
    """
    try:
        source = plain_address(client[0]) if client else None
        target = plain_address(server[0]) if server else None
    except ValueError:
        return _LOCAL
    if source is None or client is None:
        return _LOCAL
    target_port = server[1] if server else 0
    if isinstance(source, IPv4Address) and (target is None or isinstance(target, IPv4Address)):
        packed = source.packed + (target or IPv4Address(0)).packed
        family = _TCP4
    else:
        packed = _as_ipv6(source).packed + _as_ipv6(target or IPv6Address(0)).packed
        family = _TCP6
    return (
        struct.pack("!12sBBH", _BEGIN, 0x21, family, len(packed) + 4)
        + packed
        + struct.pack("!HH", client[1], target_port)
    )


def plain_address(text: str) -> IPv4Address | IPv6Address:
    """Return an address without its zone. ::ffff:192.0.2.1, as IPv6 sockets show IPv4, becomes 192.0.2.1.

    Raises:
        ValueError: it is none. Some proxies pass on any text.
    """
    address = ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def _as_ipv6(address: IPv4Address | IPv6Address) -> IPv6Address:
    return (
        IPv6Address(b"\0" * 10 + b"\xff\xff" + address.packed) if address.version == 4 else address
    )
