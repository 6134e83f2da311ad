"""A client and a server in one process, without sockets: what is sent is answered when the clock is turned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from zope.interface import implementer

from imapshield.edge.factory import ShieldedIMAP4Factory
from imapshield.edge.protocol import ShieldedIMAP4Server
from imapshield.events import Event
from imapshield.limits import Limits
from imapshield.mailbox.account_api import IAccount, IMetadata, IQuota
from imapshield.mailbox.storage import IStore
from imapshield.mailbox.store_account import StoreAccount
from imapshield.testing.memory_store import MemoryStore

NOW = 1_700_000_000.0
MAIL = b"From: Ann <ann@example.org>\r\nTo: bob@example.org\r\nSubject: Lunch\r\nDate: Mon, 13 Nov 2023 10:00:00 +0100\r\n\r\nAt noon?\r\n"


class InlineWorker:
    """Runs each job at once."""

    def run(self, fn: Callable[..., Any], *args: object) -> Deferred[Any]:
        return succeed(None).addCallback(lambda _: fn(*args))


class SlowWorker:
    """Keeps jobs until `step` runs the first of them."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Deferred[Any], Callable[..., Any], tuple[object, ...]]] = []

    def run(self, fn: Callable[..., Any], *args: object) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self.jobs.append((done, fn, args))
        return done

    def step(self) -> None:
        done, fn, args = self.jobs.pop(0)
        try:
            value = fn(*args)
        except Exception as error:
            done.errback(error)
        else:
            done.callback(value)


@implementer(IRealm)
class MemoryRealm:
    """An account in memory for whoever comes."""

    def __init__(self, worker: Any = None, store: Callable[[], IStore] | None = None) -> None:
        self.worker = worker or InlineWorker()
        self.accounts: dict[bytes, StoreAccount] = {}
        self.store = store or (lambda: MemoryStore(lambda: NOW))

    def account(self, user: bytes = b"alice") -> StoreAccount:
        if user not in self.accounts:
            self.accounts[user] = StoreAccount(
                user.decode(), self.store, self.worker, features=(IQuota, IMetadata)
            )
        return self.accounts[user]

    def requestAvatar(self, avatarId: Any, mind: object, *interfaces: Any) -> Any:
        account = self.account(avatarId).acquire()
        return IAccount, account, account.close


class Transport(StringTransport):
    """What a server writes to; `full()` makes it a peer that does not read."""

    bufferSize = 0

    def __init__(self, host: str = "127.0.0.1") -> None:
        super().__init__(peerAddress=IPv4Address("TCP", host, 50000))
        self.aborted = False
        self.paused_reading = False

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()

    def pauseProducing(self) -> None:
        self.paused_reading = True

    def resumeProducing(self) -> None:
        self.paused_reading = False


class Server:
    """One process' server in memory: a factory, a clock, and what it told."""

    def __init__(self, *, realm: Any = None, checker: Any = None, **limits: Any) -> None:
        self.clock = Clock()
        self.events: list[Event] = []
        self.realm = realm or MemoryRealm()
        checker = checker or InMemoryUsernamePasswordDatabaseDontUse(alice=b"secret", bob=b"word")
        self.factory = ShieldedIMAP4Factory(
            Portal(self.realm, [checker]),
            limits=Limits(**limits),
            observers=[self.events.append],
            reactor=self.clock,
        )

    def connect(self, host: str = "127.0.0.1") -> Client:
        return Client(self, host)

    def login(self, user: bytes = b"alice", password: bytes = b"secret") -> Client:
        client = self.connect()
        answer = client(b"login LOGIN %b %b" % (user, password))
        assert b"login OK" in answer, answer
        return client

    def events_of(self, kind: type[Any]) -> list[Any]:
        return [fact for fact in self.events if isinstance(fact, kind)]


class Client:
    """One connection. Calling it sends a line and returns all that was answered."""

    def __init__(self, server: Server, host: str) -> None:
        self.server = server
        self.transport = Transport(host)
        protocol = server.factory.buildProtocol(self.transport.getPeer())
        assert isinstance(protocol, ShieldedIMAP4Server)
        self.protocol = protocol
        self.protocol.makeConnection(self.transport)
        self.greeting = self.read()

    def __call__(self, line: bytes) -> bytes:
        return self.send(line + b"\r\n")

    def send(self, data: bytes) -> bytes:
        """Deliver octets as one read, let the server work until it has nothing to do, and return what it wrote."""
        self.protocol.dataReceived(data)
        return self.read()

    def read(self) -> bytes:
        self.run_due_calls()
        value = self.transport.value()
        self.transport.clear()
        return value

    def run_due_calls(self) -> None:
        """Let everything that is due happen."""
        for _ in range(10_000):
            due = [
                c
                for c in self.server.clock.getDelayedCalls()
                if c.getTime() <= self.server.clock.seconds()
            ]
            if not due:
                return
            self.server.clock.advance(0)
        raise AssertionError("the server never comes to rest")

    def lose_connection(self) -> None:
        """The connection ends."""
        from twisted.internet.error import ConnectionLost
        from twisted.python.failure import Failure

        self.protocol.connectionLost(Failure(ConnectionLost()))

    def append(
        self, content: bytes = MAIL, mailbox: bytes = b"INBOX", flags: bytes = b"()"
    ) -> bytes:
        return self.send(
            b"app APPEND %b %b {%d+}\r\n%b\r\n" % (mailbox, flags, len(content), content)
        )
