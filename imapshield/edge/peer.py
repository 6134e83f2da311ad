"""Finds out the address of a connection's peer, and whether the peer is on this machine."""

import re
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

_NOT_AN_ADDRESS = re.compile(r"[^0-9A-Za-z.:%]|\A\Z|.{64}")


def identify(transport: Any, has_input: bool) -> tuple[str, bool]:
    """Return the address of a connection's peer as text, and whether the peer is on this machine.

    Behind a PROXY endpoint the address is known only after the PROXY header, that is, when the client's first input
    arrives (`has_input`). Until then the peer is treated as remote. The text is "local" for a UNIX socket, and
    "unknown" for anything that is not an address.
    """
    address = transport.getPeer()
    known = has_input or not _is_proxied(transport)
    if not isinstance(address, (IPv4Address, IPv6Address)):
        return "local", known and isinstance(address, UNIXAddress)
    host = str(address.host)
    if _NOT_AN_ADDRESS.search(host):  # a PROXY header may contain anything
        return "unknown", False
    is_loopback = host.startswith("127.") or host in ("::1", "::ffff:127.0.0.1")
    return host, known and is_loopback


def _is_proxied(transport: Any) -> bool:
    return type(transport).__module__.startswith("twisted.protocols.haproxy")
