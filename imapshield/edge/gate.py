"""`Gate`: admits the connections of a listening port before anything is made for them, and serves addresses in turn.

Rules
-----
* A connection from a banned address costs its `accept` and its `close`: no transport, no TLS handshake, no greeting.
* An accepted connection waits in the fair queue until it is the turn of its address. So a client that connects and
  resets in a loop delays the others by the cost of its `accept`, which is a tenth of the cost of a connection.
* The connections of an address on probation are begun one by one, at a pace (`ProcessGuard.pace`).
"""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.interfaces import IAddress, IProtocolFactory
from twisted.internet.protocol import Protocol, ServerFactory

from imapshield import events
from imapshield.edge.admission import Admission
from imapshield.edge.fair_queue import FairQueue
from imapshield.edge.peer import AdmittedAddress, address_text
from imapshield.edge.proxy import ProxiedConnection, Proxies
from imapshield.guard.networks import Network
from imapshield.guard.shares import Connection
from imapshield.guard.verdicts import LimitReached

ACCEPT_QUEUE = 4096
"""Connections that the kernel accepts before the server does. Twisted's default of 50 is full at once when a client
connects and resets in a loop; the handshakes of others are then lost, and repeated after a second. Linux lowers the
value to net.core.somaxconn."""

ACCEPTS_PER_TURN = 200
"""Connections that the server accepts in one turn of the reactor, which take about 5 ms."""


@dataclass(eq=False, slots=True)
class _Waiting:
    """A connection whose address has not had its turn yet. It is the first owner of its `Connection`.

    `end` closes the socket.
    """

    gate: "Gate"
    counted: Connection
    end: Callable[[], object]

    def evict(self, reached: LimitReached, *, only_report: bool = False) -> None:
        """Report `reached`, and close the socket unless `only_report`."""
        self.gate.report(self.counted, reached, "none" if only_report else "reset")
        if not only_report:
            self.close()

    def close(self) -> None:
        """Close the socket, and count the connection no more. May be called again."""
        if self.counted.owner is self:
            self.counted.owner = None
            self.end()
            self.gate.forget(self.counted)


class _Admitted(Protocol):
    """Stands for an accepted connection between the two calls of Twisted's port: one for the protocol, and one for the
    transport, which `Gate` delays. Twisted then connects the two, which does nothing."""

    def __init__(self, address: AdmittedAddress) -> None:
        self.address = address

    def makeConnection(self, transport: object) -> None:
        """Do nothing."""


class Gate(ServerFactory):
    """Admits the connections of one port, and passes them to the factory that the port had before.

    The client of a proxy is admitted when the PROXY header with its address has arrived.

    Args:
        port: the listening port, a `twisted.internet.tcp.Port`.
        admission: decides about each connection.
        fair_queue: the queue in which the connections of the server take turns.
        proxies: the proxies whose connections begin with a PROXY header.
        accepts: how many connections are accepted in one turn of the reactor.

    Attributes:
        on_accept: called when a connection was accepted, before anything is known about it; None calls nothing.
    """

    noisy = False
    on_accept: Callable[[], object] | None = None

    def __init__(
        self,
        port: Any,
        admission: Admission,
        fair_queue: FairQueue,
        proxies: Proxies | None = None,
        accepts: int = ACCEPTS_PER_TURN,
    ) -> None:
        self._port, self._accepts = port, accepts
        self._inner: IProtocolFactory = port.factory
        self._make_transport: Callable[..., Any] = port.transport
        self._admission = admission
        self._fair_queue = fair_queue
        self._proxies = proxies
        self._stopped = False
        # address on probation → its connections that wait, the oldest first, with what begins each
        self._paced: dict[Network, dict[Connection, Callable[[], object]]] = {}
        self._timers: dict[Network, Any] = {}

    @classmethod
    def close_off(cls, port: Any, *arguments: Any) -> None:
        """Put a gate in front of the factory of a listening `port`, and make its accept queue long enough.

        Args:
            port: as in the constructor.
            arguments: the other arguments of the constructor.
        """
        gate = cls(port, *arguments)
        port.factory = gate
        # Twisted documents that `transport` may be replaced by anything with the arguments of `tcp.Server`.
        port.transport = gate.wait_for_turn
        port.numberAccepts = min(port.numberAccepts, gate._accepts)
        port.socket.listen(ACCEPT_QUEUE)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Admit one connection. None closes it at once."""
        if self.on_accept is not None:
            self.on_accept()
        self._port.numberAccepts = min(self._port.numberAccepts, self._accepts)
        if self._proxies is not None and self._proxies.include(addr):
            return self._proxies.connection(addr, self._admission, self._admit_client)
        arrival = self._admission.admit(address_text(addr))
        return None if arrival.silent else _Admitted(AdmittedAddress(addr, arrival.connection))

    def _admit_client(self, addr: IAddress | None, connection: ProxiedConnection) -> None:
        """Admit the client of a proxy, and begin its connection when it is the turn of its address."""
        arrival = self._admission.admit(address_text(addr))
        counted = arrival.connection
        if arrival.silent:
            connection.refuse()
        elif counted is None:
            connection.begin(self._inner.buildProtocol(AdmittedAddress(addr, None)))
        else:
            waiting = counted.owner = _Waiting(self, counted, connection.refuse)
            connection.on_end = waiting.close

            def begin() -> None:
                if counted.owner is not waiting:
                    return
                if self._stopped:
                    waiting.close()
                else:
                    connection.begin(self._inner.buildProtocol(AdmittedAddress(addr, counted)))

            self._take_turn(counted, begin)

    def wait_for_turn(self, skt: socket.socket, admitted: Any, *arguments: Any) -> Any:
        """Queue an accepted connection. Twisted calls this instead of the constructor of its transport.

        A connection of a proxy does not wait here: its address says nothing about the client. It waits when the
        header has arrived.

        Args:
            skt: the socket.
            admitted: what `buildProtocol` has returned for it.
            arguments: the other arguments of the constructor.

        Returns:
            the transport for a connection of a proxy, otherwise None.
        """
        if not isinstance(admitted, _Admitted):
            return self._make_transport(skt, admitted, *arguments)
        counted = admitted.address.counted
        if counted is None:
            self._begin(skt, admitted.address, arguments)
            return None
        waiting = counted.owner = _Waiting(self, counted, skt.close)

        def begin() -> None:
            if counted.owner is not waiting:
                return
            if self._stopped or _has_left(skt):
                waiting.close()
            else:
                self._begin(skt, admitted.address, arguments)

        self._take_turn(counted, begin)
        return None

    def _take_turn(self, counted: Connection, begin: Callable[[], object]) -> None:
        """Run `begin` when it is the turn of the address of `counted`, at its pace if it has one."""
        address = counted.networks[0]  # of IPv6 the /64
        if address not in self._paced and not self._admission.pace(counted.address):
            self._fair_queue.add((False, address), begin)
            return
        is_first = address not in self._paced
        self._paced.setdefault(address, {})[counted] = begin
        if is_first:
            self._begin_paced(address)

    def _begin_paced(self, address: Network) -> None:
        waiting = self._paced[address]
        if waiting:
            counted = next(iter(waiting))
            self._fair_queue.add((False, address), waiting.pop(counted))
            pace = self._admission.pace(counted.address)
            self._timers[address] = self._fair_queue.call_later(
                pace, lambda: self._begin_paced(address)
            )
        else:
            del self._paced[address], self._timers[address]

    def forget(self, counted: Connection) -> None:
        """Count a connection that waits, and is closed, no more. It must not take memory until its turn."""
        self._paced.get(counted.networks[0], {}).pop(counted, None)
        self._admission.close(counted)

    def report(self, counted: Connection, reached: LimitReached, action: events.Action) -> None:
        """Report a limit because of which a connection that waits must make room."""
        self._admission.report(counted.address, reached, action)

    def _begin(self, skt: socket.socket, address: AdmittedAddress, arguments: Any) -> None:
        protocol = self._inner.buildProtocol(address)
        if protocol is None:
            skt.close()
        else:
            protocol.makeConnection(self._make_transport(skt, protocol, *arguments))

    def doStart(self) -> None:
        """Do nothing: the port has started the inner factory."""

    def doStop(self) -> None:
        """Stop the inner factory, and close the connections that wait."""
        self._stopped = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for address in list(self._paced):
            for counted in list(self._paced[address]):
                counted.owner.close()
        self._paced.clear()
        self._inner.doStop()


def _has_left(skt: socket.socket) -> bool:
    """Return whether the client has reset the connection, or has closed it and has sent nothing."""
    try:
        if skt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return True
        return not skt.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
