"""Connections of proxies: reads their PROXY headers, and gives each client the protocol that it would have without a
proxy.

Rules
-----
* The header comes first, also before a TLS handshake. Nothing is sent before it has arrived.
* Only connections of configured proxies come here. For any other peer, a PROXY header is an invalid command.
"""

from collections.abc import Callable, Iterable
from copy import copy
from typing import Any, Self

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from imapshield import events
from imapshield.edge.admission import Admission
from imapshield.edge.event_reporter import Observers, publish
from imapshield.edge.peer import UNKNOWN, ViaProxy, address_text
from imapshield.guard.networks import NetworkSet
from imapshield.guard.verdicts import LimitReached
from imapshield.limits import Limits
from imapshield.wire.proxy_header import MalformedHeader, ProxyHeader, ProxyHeaderReader


class ProxiedConnection(Protocol):
    """Reads the PROXY header of one connection, and then connects the protocol of the client to the same transport.

    From then on the transport's `getPeer` returns the address of the client, and its attribute ``via_proxy`` is a
    `ViaProxy`. A transport that belongs to a reactor passes all later input directly to the protocol of the client.

    Args:
        on_header: called with the header and this connection, which is not read until `begin` or `refuse` is called.
        clock: an `IReactorTime`.
        seconds: the connection is reset if the header is not complete after this time.
        on_malformed: called with the reason if the input is no PROXY header; the connection is reset.
        on_timeout: called with the seconds that have passed when the time is over.
        on_end: initial value of the attribute.
        on_evict: called with the limit and the action when the connection must make room.

    Attributes:
        on_end: called once, when the header has arrived or the connection has ended before; and once more if the
            connection ends after that and before `begin`, if it was set in between.
    """

    transport: Any

    def __init__(
        self,
        on_header: Callable[[ProxyHeader, "ProxiedConnection"], object],
        clock: IReactorTime,
        seconds: float,
        on_malformed: Callable[[str], object],
        on_timeout: Callable[[float], object] = lambda _: None,
        on_end: Callable[[], object] = lambda: None,
        on_evict: Callable[[LimitReached, events.Action], object] = lambda *_: None,
    ) -> None:
        self._on_header = on_header
        self._clock = clock
        self._seconds = seconds
        self._on_malformed = on_malformed
        self._on_timeout = on_timeout
        self.on_end = on_end
        self._on_evict = on_evict
        self._reader: ProxyHeaderReader | None = ProxyHeaderReader()
        self._header: ProxyHeader | None = None
        self._rest = b""
        self._inner: Any = None

    def connectionMade(self) -> None:
        """Start the time for the header."""
        self._connected_at = self._clock.seconds()
        self._deadline = self._clock.callLater(self._seconds, self._timed_out)

    def dataReceived(self, data: bytes) -> None:
        """Receive a part of the header, or pass `data` to the protocol of the client, also if it comes later."""
        if self._inner is not None:
            self._inner.dataReceived(data)
        elif self._header is not None:
            self._rest += data
        elif self._reader is not None:
            result = self._reader.feed(data)
            if isinstance(result, MalformedHeader):
                self.refuse()
                self._on_malformed(result.reason)
            elif result is not None:
                self._header, self._rest = result, self._reader.rest
                self._header_arrived(result)

    def _header_arrived(self, header: ProxyHeader) -> None:
        self._reader = None
        self._deadline.cancel()
        self._end_of_header()
        self.transport.pauseProducing()
        self._on_header(header, self)

    def begin(self, inner: Any) -> None:
        """Connect `inner`, the protocol of the client, to the transport; None refuses the connection."""
        header, transport = self._header, self.transport
        assert header is not None
        self.on_end = lambda: None
        if inner is None:
            self.refuse()
            return
        self._inner = inner
        proxy = transport.getPeer()
        address = client_address(header, proxy)
        transport.getPeer = lambda: address
        transport.via_proxy = ViaProxy(proxy, header.tls)
        # As STARTTLS does in Twisted. What tests use as transports have no protocol, and pass the input to this one.
        if getattr(transport, "protocol", None) is self:
            transport.protocol = inner
        transport.resumeProducing()
        inner.makeConnection(transport)
        if self._rest:
            inner.dataReceived(self._rest)

    def refuse(self) -> None:
        """Reset the connection."""
        self._reader = None
        if self._deadline.active():
            self._deadline.cancel()
        self.transport.abortConnection()

    def _end_of_header(self) -> None:
        on_end, self.on_end = self.on_end, lambda: None
        on_end()

    def evict(self, reached: LimitReached, *, only_report: bool = False) -> None:
        """Reset the connection, because it must make room: its proxy has too many without a header."""
        self._on_evict(reached, "none" if only_report else "reset")
        if not only_report:
            self.refuse()

    def _timed_out(self) -> None:
        self.refuse()
        self._on_timeout(self._clock.seconds() - self._connected_at)

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        """Stop waiting for the header, or tell the protocol of the client."""
        self._reader = None
        self._end_of_header()
        if self._deadline.active():
            self._deadline.cancel()
        if self._inner is not None:
            self._inner.connectionLost(reason)


def client_address(header: ProxyHeader, proxy: Any) -> Any:
    """Return the address of the client of a PROXY header that came from the address `proxy`.

    It is that of the proxy if the proxy speaks for itself (LOCAL), and `peer.UNKNOWN` if the header has no address.
    """
    if header.from_proxy:
        return proxy
    if header.address is None:
        return UNKNOWN
    kind = IPv6Address if ":" in header.address else IPv4Address
    return kind("TCP", header.address, header.port)


class Proxies:
    """The proxies of a server: reads the headers of their connections.

    Args:
        networks: the addresses of the proxies.
        limits, clock, observers: as in `factory.ShieldedIMAP4Factory`.

    Attributes:
        limits: as above. They may be changed.
    """

    def __init__(
        self,
        networks: NetworkSet,
        limits: Limits,
        clock: IReactorTime,
        observers: Iterable[events.EventObserver],
    ) -> None:
        self._networks: NetworkSet | None = networks
        self.limits = limits
        self._clock = clock
        self._observers = Observers.of(observers)

    def everyone(self) -> Self:
        """Return a copy for a port to which only proxies connect, as with ``--listen haproxy:tcp:1143``."""
        proxies = copy(self)
        proxies._networks = None
        return proxies

    def set_networks(self, networks: NetworkSet) -> None:
        """Take connections of other networks for those of proxies. Does nothing if all peers are proxies."""
        if self._networks is not None:
            self._networks = networks

    def include(self, address: IAddress | None) -> bool:
        """Return whether a peer is a proxy, by the address of its socket."""
        return self._networks is None or address_text(address) in self._networks

    def connection(
        self,
        proxy: IAddress | None,
        admission: Admission,
        admit: Callable[[IAddress | None, ProxiedConnection], object],
    ) -> ProxiedConnection | None:
        """Return the protocol of a connection of the address `proxy`, or None to close it at once.

        Args:
            proxy: the address of the socket, which reports of malformed and missing headers name.
            admission: counts the connection until its header has arrived.
            admit: called with the address of the client and the connection, when the header has arrived.
        """
        host, seconds = address_text(proxy), self.limits.proxy_header_seconds
        counted = admission.admit_proxy(host)
        if counted is None:
            return None

        def malformed(reason: str) -> None:
            publish(events.ProxyHeaderRejected(0, host, reason), self._observers)

        def timed_out(passed: float) -> None:
            reached = LimitReached("proxy_header_seconds", seconds, passed)
            admission.report(host, reached, "reset", passed)

        connection = counted.owner = ProxiedConnection(
            lambda header, connection: admit(client_address(header, proxy), connection),
            self._clock,
            seconds,
            malformed,
            timed_out,
            lambda: admission.close(counted),
            lambda reached, action: admission.report(host, reached, action),
        )
        return connection
