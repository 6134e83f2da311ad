"""Finds out the address of a connection's peer, whether the peer is on this machine, and whether it has left."""

import re
import socket
import sys
from dataclasses import dataclass
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from zope.interface import implementer

from imapshield.guard.shares import Connection

_TCP_CLOSE, _TCP_CLOSE_WAIT = 7, 8
"""States of a TCP connection, of include/net/tcp_states.h of Linux, after the RST and after the FIN of the peer."""

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


def has_left(transport: Any) -> bool:
    """Return whether the peer has closed the connection.

    The reactor notices it only while it reads, and while a login is checked it does not.
    """
    handle = getattr(innermost(transport), "socket", None)
    if handle is None:
        return False
    try:
        if sys.platform == "linux" and handle.family != socket.AF_UNIX:
            info: bytes = handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
            return info[0] in (_TCP_CLOSE, _TCP_CLOSE_WAIT)
        next_byte: bytes = handle.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        return not next_byte
    except BlockingIOError:
        return False
    except OSError:
        return True


def innermost(transport: Any) -> Any:
    """Return the transport below all wrappers (TLS, PROXY), which has the socket."""
    while not hasattr(transport, "socket") and getattr(transport, "transport", None) is not None:
        transport = transport.transport
    return transport
