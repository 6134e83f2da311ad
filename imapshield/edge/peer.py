"""Finds out the address of a connection's peer, and whether the peer is on this machine."""

import re
from dataclasses import dataclass
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from zope.interface import implementer

from imapshield.guard.shares import Connection

_NOT_AN_ADDRESS = re.compile(r"[^0-9A-Za-z.:%]|\A\Z|.{64}")


@implementer(IAddress)
@dataclass(frozen=True, slots=True)
class AdmittedAddress:
    """The address of a connection that `edge.gate.Gate` has admitted, on the way through the factories of a port.

    Attributes:
        address: the client's address.
        counted: the connection, as it is counted; None if it is refused.
    """

    address: IAddress | None
    counted: Connection | None


def address_text(address: IAddress | None) -> str:
    """Return the host of an address as text: "local" for a UNIX socket, "unknown" for anything that is no address."""
    if not isinstance(address, (IPv4Address, IPv6Address)):
        return "local"
    host = str(address.host)
    return (
        "unknown" if _NOT_AN_ADDRESS.search(host) else host
    )  # a PROXY header may contain anything


def identify(transport: Any, has_input: bool) -> tuple[str, bool]:
    """Return the address of a connection's peer as text, and whether the peer is on this machine.

    Behind a PROXY endpoint the address is known only after the PROXY header, that is, when the client's first input
    arrives (`has_input`). Until then the peer is treated as remote. The text is "local" for a UNIX socket, and
    "unknown" for anything that is not an address.
    """
    address = transport.getPeer()
    known = has_input or not _is_proxied(transport)
    host = address_text(address)
    if host == "local":
        return host, known and isinstance(address, UNIXAddress)
    is_loopback = host.startswith("127.") or host in ("::1", "::ffff:127.0.0.1")
    return host, known and is_loopback


def _is_proxied(transport: Any) -> bool:
    return type(transport).__module__.startswith("twisted.protocols.haproxy")
