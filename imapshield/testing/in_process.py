"""A server and its clients in one process, without sockets, threads or a reactor.

A client delivers bytes to the server, and `Client.read` runs everything that is due before it returns what the server
wrote. Time is a `twisted.internet.task.Clock` that only the test advances, so tests are exact and never wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, execute
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

from imapshield.edge.factory import ShieldedIMAP4Factory
from imapshield.edge.protocol import ShieldedIMAP4Server
from imapshield.events import Event, EventObserver
from imapshield.limits import Limits
from imapshield.mailbox.account_api import IAccount, IMetadata, IQuota
from imapshield.mailbox.store_account import StoreAccount
from imapshield.mailbox.store_helpers import Worker
from imapshield.mailbox.values import DEFAULT_NAMESPACE, Namespace
from imapshield.testing.memory_store import MemoryStore

T = TypeVar("T")
E = TypeVar("E", bound=Event)

NOW = 1_700_000_000.0
"""The time of the stores that `MemoryRealm` makes: 14 November 2023, 22:13:20 UTC."""

MAIL = (
    b"From: Ann <ann@example.org>\r\nTo: bob@example.org\r\nSubject: Lunch\r\n"
    b"Date: Mon, 13 Nov 2023 10:00:00 +0100\r\n\r\nAt noon?\r\n"
)
"""The message that `Client.append` sends by default."""


class InlineWorker:
    """A worker (`mailbox.store_helpers.Worker`) that runs each call at once, in the caller's thread."""

    def run(self, function: Callable[..., T], *args: object) -> Deferred[T]:
        """Call ``function(*args)`` and return a Deferred that already has its result or exception."""
        return execute(function, *args)


class SlowWorker:
    """A worker that keeps calls until the test runs them, to show what happens while a store is busy.

    Attributes:
        jobs: the calls that wait, oldest first, each as (Deferred, function, arguments).
    """

    def __init__(self) -> None:
        self.jobs: list[tuple[Deferred[Any], Callable[..., Any], tuple[object, ...]]] = []

    def run(self, function: Callable[..., T], *args: object) -> Deferred[T]:
        """Keep ``function(*args)`` for `step` and return a Deferred of its result."""
        done: Deferred[T] = Deferred()
        self.jobs.append((done, function, args))
        return done

    def step(self) -> None:
        """Run the oldest call that waits and fire its Deferred."""
        done, function, args = self.jobs.pop(0)
        execute(function, *args).chainDeferred(done)


@implementer(IRealm)
class MemoryRealm:
    """A realm that gives each user an account in memory.

    Args:
        worker: where the store's calls run; by default an `InlineWorker`.
        open_store: makes the store of an account when its first command needs it; by default a `MemoryStore`.
        optional_interfaces: the optional account interfaces that the store supports; by default those of `MemoryStore`.
        namespace: the separator and the prefix of mailbox names.

    Attributes:
        accounts: the accounts made until now, by user name.
    """

    def __init__(
        self,
        worker: Worker | None = None,
        open_store: Callable[[], Any] | None = None,  # as for `StoreAccount`
        optional_interfaces: Iterable[type[Interface]] = (IQuota, IMetadata),
        namespace: Namespace = DEFAULT_NAMESPACE,
    ) -> None:
        self.worker = worker or InlineWorker()
        self.open_store = open_store or (lambda: MemoryStore(lambda: NOW))
        self.optional_interfaces = tuple(optional_interfaces)
        self.namespace = namespace
        self.accounts: dict[bytes, StoreAccount] = {}

    def account(self, user: bytes = b"alice") -> StoreAccount:
        """Return the account of `user`, which all sessions of that user share."""
        if user not in self.accounts:
            self.accounts[user] = StoreAccount(
                user.decode(),
                self.open_store,
                self.worker,
                optional_interfaces=self.optional_interfaces,
                namespace=self.namespace,
            )
        return self.accounts[user]

    def requestAvatar(
        self, avatarId: Any, mind: object, *interfaces: Any
    ) -> tuple[Any, StoreAccount, Callable[[], None]]:
        """Return the account of the user that has logged in (see `IRealm`)."""
        account = self.account(avatarId).acquire()
        return IAccount, account, account.close


class Transport(StringTransport):
    """The server's side of a connection: it keeps what the server writes and how the server left it.

    Args:
        host: the address of the peer.

    Attributes:
        aborted: whether the server reset the connection. ``disconnecting`` says whether it closed it in an orderly way.
        paused_reading: whether the server has stopped reading from this peer.
    """

    bufferSize = 0

    def __init__(self, host: str = "127.0.0.1") -> None:
        super().__init__(peerAddress=IPv4Address("TCP", host, 50000))
        self.aborted = False
        self.paused_reading = False

    def abortConnection(self) -> None:
        """Note that the server reset the connection."""
        self.aborted = True
        super().abortConnection()

    def pauseProducing(self) -> None:
        """Note that the server stopped reading."""
        self.paused_reading = True

    def resumeProducing(self) -> None:
        """Note that the server reads again."""
        self.paused_reading = False


class Server:
    """An IMAP server in memory.

    Args:
        realm: gives users their accounts; by default a `MemoryRealm`.
        checker: checks passwords; by default alice has the password ``secret`` and bob has ``word``.
        clock: the server's time; by default a new one.
        observers: called with each event.
        challengers: SASL mechanisms besides PLAIN, as `ShieldedIMAP4Factory` takes them.
        limits: fields of `imapshield.limits.Limits`, such as ``backlog=3``.

    Attributes:
        clock: the server's time; ``clock.advance(60)`` lets 60 seconds pass.
        events: every `imapshield.events.Event` that the server reported, oldest first.
        factory: the Twisted factory that makes the server's connections.
        realm: the realm of the server.
    """

    def __init__(
        self,
        *,
        # Not `IRealm` and `ICredentialsChecker`: without a plugin, mypy knows no class that is one.
        realm: Any = None,
        checker: Any = None,
        clock: Clock | None = None,
        observers: Iterable[EventObserver] = (),
        challengers: dict[bytes, Callable[[], Any]] | None = None,
        **limits: Any,
    ) -> None:
        self.clock = clock or Clock()
        self.events: list[Event] = []
        self.realm: Any = realm or MemoryRealm()
        checker = checker or InMemoryUsernamePasswordDatabaseDontUse(alice=b"secret", bob=b"word")
        self.factory = ShieldedIMAP4Factory(
            Portal(self.realm, [checker]),
            limits=Limits(**limits),
            observers=[self.events.append, *observers],
            reactor=self.clock,
            challengers=challengers,
        )

    def connect(self, host: str = "127.0.0.1") -> Client:
        """Return a client that has just connected from the address `host` and read the greeting."""
        return Client(self, host)

    def login(self, user: bytes = b"alice", password: bytes = b"secret") -> Client:
        """Return a client that has logged in. Raises AssertionError if the server refuses the login."""
        client = self.connect()
        response = client(b"login LOGIN %b %b" % (user, password))
        if b"login OK" not in response:
            raise AssertionError(response)
        return client

    def events_of(self, kind: type[E]) -> list[E]:
        """Return the events of one class, oldest first."""
        return [event for event in self.events if isinstance(event, kind)]


class Client:
    """One connection to a `Server`. Calling it sends a line and returns everything that the server answered.

    Attributes:
        greeting: what the server sent when the connection was made.
        transport: the server's side of the connection.
        protocol: the server's protocol object.
    """

    def __init__(self, server: Server, host: str) -> None:
        self.server = server
        self.transport = Transport(host)
        protocol = server.factory.buildProtocol(self.transport.getPeer())
        assert isinstance(protocol, ShieldedIMAP4Server)
        self.protocol = protocol
        self.protocol.makeConnection(self.transport)
        self.greeting = self.read()

    def __call__(self, line: bytes) -> bytes:
        """Send `line` and CRLF; return what the server wrote."""
        return self.send(line + b"\r\n")

    def send(self, data: bytes) -> bytes:
        """Deliver `data` in one read, as it is; return what the server wrote."""
        self.protocol.dataReceived(data)
        return self.read()

    def read(self) -> bytes:
        """Run everything that is due; return what the server has written to this client since the last read."""
        self.run_due_calls()
        response: bytes = self.transport.value()
        self.transport.clear()
        return response

    def run_due_calls(self) -> None:
        """Run the server's delayed calls that are due at the present time, and those that they schedule for it."""
        self.server.clock.advance(0)

    def lose_connection(self) -> None:
        """End the connection as if the network had failed."""
        self.protocol.connectionLost(Failure(ConnectionLost()))

    def append(
        self, content: bytes = MAIL, mailbox: bytes = b"INBOX", flags: bytes = b"()"
    ) -> bytes:
        """Send an APPEND with the tag ``app``; return what the server wrote.

        Args:
            content: the message.
            mailbox: the mailbox name as it goes over the wire.
            flags: the flags in parentheses.
        """
        return self.send(
            b"app APPEND %b %b {%d+}\r\n%b\r\n" % (mailbox, flags, len(content), content)
        )
