"""Makes a `ShieldedIMAP4Server` for each connection, and says good-bye to all of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import ServerFactory
from twisted.protocols.policies import TimeoutMixin

from imapshield import events
from imapshield.edge.fair_queue import FairQueue
from imapshield.edge.protocol import ShieldedIMAP4Server
from imapshield.limits import Limits


class ShieldedIMAP4Factory(ServerFactory):
    """Serves IMAP for the users of `portal`.

    Args:
        portal: its realm returns an account for `imapshield.mailbox.interfaces.IAccount`.
        limits: every number that a client can push against.
        context_factory: an OpenSSL context factory, which turns STARTTLS on.
        tell: is told each `facts.Event`.
        reactor: an `IReactorTime`, for tests.
        challengers: SASL mechanisms beside PLAIN, name → factory of challenge credentials.
    """

    noisy = False
    protocol = ShieldedIMAP4Server

    def __init__(
        self,
        portal: Portal,
        *,
        limits: Limits | None = None,
        context_factory: Any = None,
        tell: events.EventObserver = events.ignore,
        reactor: IReactorTime | None = None,
        challengers: dict[bytes, Callable[[], Any]] | None = None,
    ) -> None:
        self.portal = portal
        self.limits = limits or Limits()
        self.tell = tell
        self.connections: set[ShieldedIMAP4Server] = set()
        self._context_factory = context_factory
        self._reactor = reactor
        call_later = TimeoutMixin().callLater if reactor is None else reactor.callLater
        now = time.monotonic if reactor is None else reactor.seconds
        self._turns = FairQueue(call_later, now, self.limits.turn_seconds)
        self._challengers = dict(challengers or {})
        self._emptied: list[Deferred[None]] = []

    def buildProtocol(self, addr: IAddress | None) -> ShieldedIMAP4Server | None:
        """Make a server for one client, unless there are too many already."""
        if len(self.connections) >= self.limits.max_connections:
            seen = len(self.connections) + 1
            self.tell(
                events.LimitTriggered(
                    0,
                    str(getattr(addr, "host", "local")),
                    "max_connections",
                    self.limits.max_connections,
                    seen,
                    "refused",
                )
            )
            return None
        server = self.protocol(
            dict(self._challengers),
            self._context_factory,
            limits=self.limits,
            tell=self.tell,
            clock=self._reactor,
            fair_queue=self._turns,
        )
        server.factory = self
        server.portal = self.portal
        server.on_lost = self._lost
        self.connections.add(server)
        return server

    def _lost(self, server: ShieldedIMAP4Server) -> None:
        self.connections.discard(server)
        if not self.connections:
            emptied, self._emptied = self._emptied, []
            for deferred in emptied:
                deferred.callback(None)

    def shutdown(self) -> Deferred[None]:
        """Say BYE to everybody; fires when all are gone, at most `limits.closing_seconds` later."""
        done: Deferred[None] = Deferred()
        if not self.connections:
            done.callback(None)
            return done
        self._emptied.append(done)
        for server in list(self.connections):
            server.bye("The server is going down; come again in a minute", b"UNAVAILABLE")
        # each resets itself by then; what does not is no reason to stay
        last = server.callLater(self.limits.closing_seconds + 1, self._give_up)
        return done.addCallback(lambda _: last.cancel() if last.active() else None)

    def _give_up(self) -> None:
        for server in list(self.connections):
            self._lost(server)
