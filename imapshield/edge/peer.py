"""Finds out the address of a connection's client, whether it is on this machine, and whether it has left."""

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

UNKNOWN = IPv4Address("TCP", "unknown", 0)
"""The address of a client whose proxy does not say its address."""


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


@dataclass(frozen=True, slots=True)
class ViaProxy:
    """What `proxy.ProxiedConnection` notes in the attribute ``via_proxy`` of a transport.

    Attributes:
        address: the address of the proxy. The `getPeer` of the transport returns that of the client.
        tls: whether the client uses TLS, which ends at the proxy.
    """

    address: Any
    tls: bool


def address_text(address: IAddress | None) -> str:
    """Return the host of an address as text: "local" for a UNIX socket, "unknown" for anything that is no address.

    An IPv4 address that an IPv6 socket shows as ::ffff:192.0.2.1 becomes IPv4, so that a client has one address only.
    """
    if not isinstance(address, (IPv4Address, IPv6Address)):
        return "local"
    host = _host(address)
    return "unknown" if _NOT_AN_ADDRESS.search(host) else host


def _host(address: IPv4Address | IPv6Address) -> str:
    host = str(address.host)
    rest = host.removeprefix("::ffff:")
    return host if ":" in rest or "." not in rest else rest


def identify(transport: Any) -> tuple[str, bool]:
    """Return the address of a connection's client as text, and whether the client is on this machine.

    A loopback address in the PROXY header of a proxy on another machine is one of that machine.
    """
    if type(transport).__module__.startswith("twisted.protocols.haproxy"):
        # It knows the client only after its first input, and accepts any text as an address.
        return "unknown", False
    address, via = transport.getPeer(), _via_proxy(transport)
    return address_text(address), _is_local(address) and (via is None or _is_local(via.address))


def uses_tls_to_proxy(transport: Any) -> bool:
    """Return whether the client has connected to a configured proxy with TLS, and the proxy has decrypted it."""
    via = _via_proxy(transport)
    return via is not None and via.tls


def _via_proxy(transport: Any) -> ViaProxy | None:
    via = getattr(transport, "via_proxy", None)
    return via if isinstance(via, ViaProxy) else None


def _is_local(address: Any) -> bool:
    if isinstance(address, (IPv4Address, IPv6Address)):
        host = _host(address)
        return host == "::1" or (host.startswith("127.") and not _NOT_AN_ADDRESS.search(host))
    return isinstance(address, UNIXAddress)


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
    """Return the transport below all wrappers (TLS), which has the socket."""
    # Twisted's wrappers also pass on all attributes of the transport below them, so these prove nothing.
    while (below := vars(transport).get("transport")) is not None:
        transport = below
    return transport
