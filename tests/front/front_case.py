"""A shield in front of a backend, both in memory: a test plays the client and the backend."""

from __future__ import annotations

from typing import Any

from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from imapshield.edge.factory import ShieldedIMAP4Factory
from imapshield.front.backend import Backend
from imapshield.front.backend_address import BackendAddress
from imapshield.front.front_parts import BackendChecker, BackendRealm
from imapshield.front.front_session import FrontSession
from imapshield.front.nodes import Nodes
from imapshield.limits import Limits
from imapshield.testing.in_process import Client, Server, Transport

CAPABILITIES = (
    b"IMAP4rev1 SASL-IR LITERAL+ ID STARTTLS COMPRESS=DEFLATE AUTH=PLAIN AUTH=SCRAM-SHA-256"
    b" AUTH=SCRAM-SHA-256-PLUS AUTH=OAUTHBEARER AUTH=XOAUTH2 AUTH=GSSAPI"
)


class BackendTransport(Transport):
    """The shield's side of a connection to the backend."""

    protocol: Any
    high_water_mark = 1 << 62

    def __init__(self) -> None:
        super().__init__()
        self.tls_started: list[Any] = []

    def write(self, data: bytes) -> None:
        """Keep `data`, and pause the producer when that is much."""
        super().write(data)
        if len(self.value()) > self.high_water_mark:
            self.protocol.pauseProducing()

    def startTLS(self, options: Any) -> None:
        """Note that TLS has begun."""
        self.tls_started.append(options)

    def loseConnection(self) -> None:
        """End the connection; an abort is one, too."""
        super().loseConnection()
        self.protocol.connectionLost(Failure(ConnectionDone()))


class Link:
    """The backend's side of one connection."""

    def __init__(self, factory: Any, greeting: bytes) -> None:
        self.protocol = factory.buildProtocol(None)
        self.transport = BackendTransport()
        self.transport.protocol = self.protocol
        self.protocol.makeConnection(self.transport)
        self.send(greeting)

    def send(self, data: bytes) -> None:
        """Deliver what the backend sends."""
        self.protocol.dataReceived(data)

    def received(self) -> bytes:
        """Return what the backend has received since the last call."""
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def read_all(self) -> bytes:
        """Return what the backend has received, after which the shield may write again."""
        data = self.received()
        self.protocol.resumeProducing()
        return data

    def lose(self) -> None:
        """End the connection from the backend's side."""
        self.protocol.connectionLost(Failure(ConnectionDone()))

    @property
    def ended(self) -> bool:
        """Whether the shield has ended the connection."""
        return self.transport.disconnecting or self.transport.aborted


class FrontCase(SynchronousTestCase):
    address = "tcp:127.0.0.1:143"
    limits: dict[str, Any] = {}
    options: dict[str, Any] = {}
    greeting = b"* OK [CAPABILITY IMAP4rev1] Mail server ready.\r\n"

    def setUp(self) -> None:
        self.server = Server()
        self.clock = self.server.clock
        self.links: list[Link] = []
        self.reachable = True
        self.backend = Backend(
            BackendAddress.parse(self.address), None, self.clock,
            lambda: self.server.factory.limits, connect=self._connect, **self.options,
        )  # fmt: skip
        self.backend.capabilities = tuple(CAPABILITIES.split())
        self.nodes = Nodes([self.backend], self.clock, lambda: self.server.factory.limits)
        self.server.factory = ShieldedIMAP4Factory(
            Portal(BackendRealm(), [BackendChecker()]),
            limits=Limits(**self.limits),
            observers=[self.server.events.append],
            reactor=self.clock,
            make_session=lambda io: FrontSession(io, self.nodes),
        )

    def _connect(self, factory: Any) -> Deferred[Any]:
        if not self.reachable:
            return fail(ConnectionRefusedError())
        link = Link(factory, self.greeting)
        self.links.append(link)
        return succeed(link.protocol)

    @property
    def link(self) -> Link:
        """The last connection to the backend."""
        return self.links[-1]

    def log_in(self) -> Client:
        """Return a client that has logged in."""
        client = self.server.connect()
        client(b"l LOGIN alice secret")
        self.link.send(b"s1 OK Logged in\r\n")
        self.assertEqual(client.read(), b"l OK Logged in\r\n")
        self.link.received()
        return client
