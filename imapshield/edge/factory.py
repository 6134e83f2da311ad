"""`ShieldedIMAP4Factory`: makes a `ShieldedIMAP4Server` for each connection, and closes all of them at shutdown."""

import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IReactorTime, ISSLTransport
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.protocols.policies import TimeoutMixin

from imapshield import events
from imapshield.edge.event_reporter import Observers
from imapshield.edge.peer import AdmittedAddress, address_text
from imapshield.edge.protocol import ShieldedIMAP4Server
from imapshield.edge.session_io import SessionFactory
from imapshield.edge.shared_parts import SharedParts
from imapshield.guard.networks import THIS_MACHINE, NetworkSet
from imapshield.guard.process_guard import ProcessGuard
from imapshield.limits import Limits
from imapshield.wire import encode

_TOO_MANY = encode.untagged(b"BYE", "Too many connections, try again later", b"UNAVAILABLE")


class _Refusal(Protocol):
    """Greets with BYE and closes. With implicit TLS it closes without a word, because a handshake would take time.

    A `edge.gate.Gate` in front of the factory closes refused connections with less work.
    """

    transport: Any

    def __init__(self, text: bytes) -> None:
        self._text = text

    def connectionMade(self) -> None:
        if self._text and not ISSLTransport.providedBy(self.transport):
            self.transport.write(self._text)
        self.transport.loseConnection()


@dataclass(eq=False, repr=False)
class ShieldedIMAP4Factory(ServerFactory):
    """Serves IMAP to the users of `portal`.

    The observers run in the reactor thread, so they must not block.

    Args:
        portal: its realm returns an avatar for `imapshield.mailbox.account_api.IAccount`.
        limits: every limit that applies to a client.
        context_factory: an OpenSSL context factory, which enables STARTTLS.
        observers: called with each `events.Event`.
        reactor: the clock for timeouts; by default the global reactor.
        challengers: SASL mechanisms besides PLAIN; name to factory of challenge credentials.
        make_session: makes the session that executes the commands of a connection; by default an IMAP session on the
            user's account.
        guard: applies the limits of all connections together; by default one that trusts this machine.

    Attributes:
        connections: the servers of all open connections.
        shared: what they share.
    """

    noisy = False
    protocol = ShieldedIMAP4Server

    portal: Portal
    _: KW_ONLY
    limits: Limits = field(default_factory=Limits)
    context_factory: Any = None
    observers: Iterable[events.EventObserver] = ()
    reactor: IReactorTime | None = None
    challengers: dict[bytes, Callable[[], Any]] | None = None
    make_session: SessionFactory | None = None
    guard: ProcessGuard | None = None
    connections: set[ShieldedIMAP4Server] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        self.observers = Observers.of(self.observers)
        self.challengers = dict(self.challengers or {})
        clock = self.reactor
        call_later = TimeoutMixin().callLater if clock is None else clock.callLater
        now = time.monotonic if clock is None else clock.seconds
        self.guard = self.guard or ProcessGuard(
            self.limits, NetworkSet.parse(THIS_MACHINE), secrets.token_bytes(32)
        )
        self.shared = SharedParts.make(self.limits, self.observers, call_later, now, self.guard)
        self._shutdown_waiters: list[Deferred[None]] = []

    def set_limits(self, limits: Limits) -> None:
        """Apply other limits: those of one connection to new connections, those of all together at once."""
        self.limits = limits
        self.shared.set_limits(limits)

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """Return a server for one client, or a protocol that closes at once because the client is refused."""
        if isinstance(addr, AdmittedAddress):
            counted = addr.counted
        else:
            arrival = self.shared.admission.admit(address_text(addr))
            counted = arrival.connection
            if arrival.silent:
                return _Refusal(b"")
        if counted is None:
            return _Refusal(_TOO_MANY)
        server = self.protocol(
            self.challengers,
            self.context_factory,
            limits=self.limits,
            observers=self.observers,
            clock=self.reactor,
            make_session=self.make_session,
            shared=self.shared,
            counted=counted,
        )
        server.factory = self
        server.portal = self.portal
        server.on_lost = self._connection_lost
        self.connections.add(server)
        return server

    def _connection_lost(self, server: ShieldedIMAP4Server) -> None:
        self.connections.discard(server)
        if not self.connections:
            waiters, self._shutdown_waiters = self._shutdown_waiters, []
            for waiter in waiters:
                waiter.callback(None)

    def shutdown(self) -> Deferred[None]:
        """Send BYE to every client and close. Call this once, after the ports have stopped listening.

        Returns:
            A Deferred that fires when all connections are closed, at the latest one second after `closing_seconds`.
        """
        if not self.connections:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._shutdown_waiters.append(done)
        for server in list(self.connections):
            server.bye("Server is shutting down", b"UNAVAILABLE")
        # By then each connection has reset itself. One that has not must not delay the shutdown.
        give_up = server.callLater(self.limits.closing_seconds + 1, self._give_up)
        return done.addCallback(lambda _: give_up.cancel() if give_up.active() else None)

    def _give_up(self) -> None:
        for server in list(self.connections):
            self._connection_lost(server)
