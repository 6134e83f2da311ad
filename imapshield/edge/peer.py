"""The address of a connection's peer, and whether the peer is on this machine."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

_NOT_AN_ADDRESS = re.compile(r"[^0-9A-Za-z.:%]|\A\Z|.{64}")


def peer_address(transport: Any) -> tuple[str, bool]:
    """Return the client's address as text, and whether the client is on this machine.

    The text is "local" for a UNIX socket, and "unknown" for what is not an address.
    """
    address = transport.getPeer()
    if isinstance(address, (IPv4Address, IPv6Address)):
        host = str(address.host)
        if _NOT_AN_ADDRESS.search(host):  # a PROXY header may contain anything
            return "unknown", False
        return host, host.startswith("127.") or host in ("::1", "::ffff:127.0.0.1")
    return "local", isinstance(address, UNIXAddress)


def is_proxied(transport: Any) -> bool:
    """Return whether the endpoint is ``haproxy:``, so that a PROXY header gives the client's address."""
    return type(transport).__module__.startswith("twisted.protocols.haproxy")
