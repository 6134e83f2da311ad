"""Who is at the other end of a connection."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

_NO_ADDRESS = re.compile(r"[^0-9A-Za-z.:%]|\A\Z|.{64}")


def peer_address(transport: Any) -> tuple[str, bool]:
    """The client's address for logs, and whether it is on this machine."""
    address = transport.getPeer()
    if isinstance(address, (IPv4Address, IPv6Address)):
        host = str(address.host)
        if _NO_ADDRESS.search(host):  # a PROXY header may say anything
            return "unknown", False
        return host, host.startswith("127.") or host in ("::1", "::ffff:127.0.0.1")
    return "local", isinstance(address, UNIXAddress)


def is_proxied(transport: Any) -> bool:
    """Whether a PROXY header (endpoint ``haproxy:``) says first whose connection it is."""
    return type(transport).__module__.startswith("twisted.protocols.haproxy")
