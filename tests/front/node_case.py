"""A shield in front of several backends in memory, with a user map that a test fills."""

from __future__ import annotations

from typing import Any

from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.trial.unittest import SynchronousTestCase

from imapshield.control.request_lines import Request
from imapshield.edge.factory import ShieldedIMAP4Factory
from imapshield.front.backend import Backend
from imapshield.front.backend_address import parse_nodes
from imapshield.front.front_parts import BackendChecker, BackendRealm
from imapshield.front.front_session import FrontSession
from imapshield.front.node_commands import NodeCommands
from imapshield.front.nodes import Nodes
from imapshield.front.user_map import Answer, Query, UserMap
from imapshield.limits import Limits
from imapshield.testing.in_process import Client, Server
from tests.front.front_case import CAPABILITIES, Link

NODES = (
    "mail1=tcp:127.0.0.1:1",
    "mail2=tcp:127.0.0.1:2",
    "mail3=tcp:127.0.0.1:3:connections=1",
)


class FakeService:
    """A service that answers when the test wants it.

    Attributes:
        queries: what it was asked, each with the Deferred of its answer.
    """

    text = "fake:"
    caches = True

    def __init__(self) -> None:
        self.queries: list[tuple[Query, Deferred[Answer]]] = []
        self.stopped = False

    async def ask(self, query: Query) -> Answer:
        """Wait for the test."""
        answer: Deferred[Answer] = Deferred()
        self.queries.append((query, answer))
        return await answer

    def answer(self, node: str, number: int = -1, **more: Any) -> None:
        """Answer a query, by default the last one."""
        self.queries[number][1].callback(Answer(node, **more))

    def fail(self, error: Exception) -> None:
        """Let the last query fail."""
        self.queries[-1][1].errback(error)

    def stop(self) -> None:
        """Note that it was stopped."""
        self.stopped = True


class NodeCase(SynchronousTestCase):
    """Each test has three nodes.

    Attributes:
        links: the connections to each node, by its name.
        down: the names of the nodes that refuse connections.
    """

    limits: dict[str, Any] = {}

    def setUp(self) -> None:
        self.server = Server()
        self.clock = self.server.clock
        self.links: dict[str, list[Link]] = {}
        self.down: set[str] = set()
        self.service = FakeService()
        backends = []
        for address in parse_nodes(NODES):
            self.links[address.node] = []
            backends.append(
                Backend(
                    address, None, self.clock, self.get_limits, connect=self._connect(address.node)
                )
            )
            backends[-1].capabilities = tuple(CAPABILITIES.split())
        self.map = UserMap(self.service, self.clock, self.get_limits)
        self.nodes = Nodes(backends, self.clock, self.get_limits, self.map)
        self.commands = NodeCommands(self.nodes)
        self.server.factory = ShieldedIMAP4Factory(
            Portal(BackendRealm(), [BackendChecker()]),
            limits=Limits(**self.limits),
            observers=[self.server.events.append],
            reactor=self.clock,
            make_session=lambda io: FrontSession(io, self.nodes),
        )

    def get_limits(self) -> Limits:
        """Return the limits of the server."""
        return self.server.factory.limits

    def _connect(self, node: str) -> Any:
        def connect(factory: Any) -> Deferred[Any]:
            if node in self.down:
                return fail(ConnectionRefusedError())
            link = Link(factory, b"* OK ready\r\n")
            self.links[node].append(link)
            return succeed(link.protocol)

        return connect

    def ask(self, command: str, **arguments: Any) -> Any:
        """Return the answer of a command of the control socket."""
        handler = self.commands.handlers[command]
        result: Any = handler(Request(command, arguments))
        return self.successResultOf(Deferred.fromCoroutine(result))

    def log_in(self, user: str, node: str) -> Client:
        """Return a client of a user who has logged in on a node, which the map says if it is asked."""
        client = self.server.connect()
        asked = len(self.service.queries)
        client(f"l LOGIN {user} secret".encode())
        if len(self.service.queries) > asked:
            self.service.answer(node)
        self.links[node][-1].send(b"s1 OK done\r\n")
        self.assertEqual(client.read(), b"l OK done\r\n")
        return client
