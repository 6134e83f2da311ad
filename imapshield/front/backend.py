"""`Backend`: the other IMAP server: connects to it, and knows whether it works."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from imapshield.connection_errors import connection_error
from imapshield.edge.login_checks import LoginChecks
from imapshield.front.backend_address import BackendAddress
from imapshield.front.backend_client import BackendClient
from imapshield.front.backend_connection import BackendConnection, BackendUnavailable, NodeDrained
from imapshield.front.circuit_breaker import CircuitBreaker
from imapshield.front.offered_capabilities import WITHOUT_CHECK
from imapshield.front.proxy_v2 import proxy_header
from imapshield.front.response_stream import MAX_HELD_LINE
from imapshield.limits import Limits

_log = Logger(namespace="imapshield")

T = TypeVar("T")

_SAFE_GREETING = re.compile(rb"[ -~]{1,300}")
"""Each client gets it, so it is short. That of Exchange has less than 200 characters."""


@dataclass(frozen=True, slots=True)
class ClientAddress:
    """Addresses of the connection of a client, each with its port; None if unknown or a UNIX socket."""

    client: tuple[str, int] | None = None
    server: tuple[str, int] | None = None


class Backend:
    """One backend.

    Args:
        address: where it is.
        tls_options: makes Twisted's options of a TLS client; None without TLS.
        reactor: the reactor.
        limits: returns the limits that apply now.
        sends_proxy_header: whether each connection begins with a PROXY header.
        sends_id: whether the address of the client is sent with ID.
        workers: the processes among which the connections are divided.
        connect: makes the connection; for tests. It is called with a factory, as `connect` of an endpoint.

    Attributes:
        capabilities: what the backend offers before the login.
        greeting: the text of its greeting.
        connections: the connections that are open.
        is_draining: whether it gets no further logins.
        is_removed: whether a reload has removed it from the configuration; the sessions on it go on.
        failures: how often it has failed since the start.
        checked_at: when the last check has succeeded, in seconds of the reactor; None before that.
        latency: the seconds that this check has taken, with its connection; None before that.
    """

    def __init__(
        self,
        address: BackendAddress,
        tls_options: Callable[[], Any] | None,
        reactor: Any,
        limits: Callable[[], Limits],
        *,
        sends_proxy_header: bool = False,
        sends_id: bool = False,
        workers: int = 1,
        connect: Callable[[Any], Deferred[Any]] | None = None,
    ) -> None:
        self.address = address
        self.capabilities: tuple[bytes, ...] = WITHOUT_CHECK
        self.greeting = b"IMAP4rev1 ready"
        self.connections = 0
        self.is_draining = self.is_removed = False
        self.failures = 0
        self.checked_at: float | None = None
        self.latency: float | None = None
        self.breaker = CircuitBreaker(lambda: limits().backend_failures)
        self.reactor = reactor
        self.limits = limits
        self._tls_options = tls_options
        self._sends_proxy_header, self._sends_id = sends_proxy_header, sends_id
        self._workers = workers
        self._logged, self._has_answered = "", False
        self._queue: tuple[Limits, LoginChecks] | None = None
        self._connect = connect or self._open_transport
        self._checks = LoopingCall(self.check)
        self._checks.clock = reactor

    def _open_transport(self, factory: Any) -> Deferred[Any]:
        address, seconds = self.address, self.limits().backend_connect_seconds
        endpoint: Any = HostnameEndpoint(self.reactor, address.host, address.port, timeout=seconds)
        if address.kind == "unix":
            endpoint = UNIXClientEndpoint(self.reactor, address.host, timeout=seconds)
        connected: Deferred[Any] = endpoint.connect(factory)
        return connected

    @property
    def state(self) -> str:
        """``new`` before the first check, otherwise ``up`` or ``down``; ``draining`` if the operator wants that.

        ``failing`` is one that has failed, and is still tried; ``removed`` one that has sessions of before a reload.
        """
        if self.is_removed:
            return "removed"
        if self.breaker.is_open:
            return "down"
        if self.is_draining:
            return "draining"
        if self.breaker.failures:
            return "failing"
        return "up" if self.has_answered else "new"

    @property
    def max_connections(self) -> int:
        """Connections at the same time, of this process."""
        share = -(-self.address.connections // self._workers)
        return share or self.limits().max_backend_connections

    @property
    def max_connections_of_server(self) -> int:
        """Connections at the same time, of all workers."""
        return self.address.connections or self.max_connections * self._workers

    @property
    def login_checks(self) -> LoginChecks:
        """The queue of logins of this backend: while it does not answer, those of the others go on."""
        limits, reactor = self.limits(), self.reactor
        if self._queue is None:
            self._queue = limits, LoginChecks(limits, reactor.callLater, reactor.seconds)
        known, queue = self._queue
        if known is not limits:
            self._queue = limits, queue
            queue.set_limits(limits)
        return queue

    @property
    def has_answered(self) -> bool:
        """Whether its capabilities are known, from a check."""
        return self.capabilities is not WITHOUT_CHECK

    def start(self) -> None:
        """Begin to check the backend, at once and regularly."""
        self._checks.start(self.limits().backend_check_seconds)

    def stop(self) -> None:
        """Check no more."""
        if self._checks.running:
            self._checks.stop()

    def remove(self) -> None:
        """Take no logins and make no checks any more. Sessions go on until their users leave."""
        self.is_removed = self.is_draining = True
        self.stop()
        _log.info(
            "--backend {text}: removed; sessions that go on until their users leave: {number}",
            text=self.address.text,
            number=self.connections,
        )

    def check(self, *, is_regular: bool = True) -> Deferred[None]:
        """Check whether the backend answers, and learn its capabilities.

        Another one than the regular checks counts only the first failure: commands that ask again and again would
        otherwise keep logins out of a server that restarts.
        """
        return Deferred.fromCoroutine(self._check(counts=is_regular or not self.breaker.failures))

    def has_answered_since(self, seconds: float) -> bool:
        """Return whether a check has succeeded since a time of the reactor."""
        return self.checked_at is not None and self.checked_at >= seconds

    async def _check(self, *, counts: bool) -> None:
        self._checks.interval = self.limits().backend_check_seconds  # it may have been reloaded
        # A check must not need one of the connections that users have taken.
        begun = self.reactor.seconds()
        try:
            await self._within_time(self._ask, ClientAddress(), is_check=True, counts=counts)
            self.checked_at = self.reactor.seconds()
            self.latency = self.checked_at - begun
        except BackendUnavailable:
            pass  # it is counted and logged
        except Exception:
            _log.failure("--backend {text}: the check failed", text=self.address.text)

    async def _ask(self, client: BackendClient) -> None:
        names = await client.capabilities()
        # Only now: who sends a greeting before STARTTLS has not proved who it is.
        if _SAFE_GREETING.fullmatch(client.greeting_text):
            self.greeting = client.greeting_text
        if len(b" ".join(names)) > MAX_HELD_LINE:
            raise BackendUnavailable("a line of capabilities without an end")
        self.capabilities = names
        client.log_out()

    async def open(self, address: ClientAddress, use: Callable[[BackendClient], Awaitable[T]]) -> T:
        """Connect for a client that logs in, and return the result of `use`.

        Raises:
            BackendUnavailable: the backend cannot be used now; or `use` has raised it.
        """
        if self.is_draining:  # also if it is down, as a node in maintenance may be
            what = "was removed by a reload" if self.is_removed else "is drained"
            raise NodeDrained(f"{self.address.node} {what}")
        if self.breaker.is_open:
            raise BackendUnavailable(self.breaker.reason)
        most = self.max_connections
        if self.connections >= most:
            setting = (
                "connections= of the backend"
                if self.address.connections
                else "--limit max_backend_connections"
            )
            reason = f"all {most} connections are in use; raise {setting}"
            self._failed(reason, counts=False)
            raise BackendUnavailable(reason)
        return await self._within_time(use, address)

    async def _within_time(
        self,
        use: Callable[[BackendClient], Awaitable[T]],
        address: ClientAddress,
        *,
        is_check: bool = False,
        counts: bool = True,
    ) -> T:
        """Connect, and return the result of `use`; the connection ends if that takes too long or fails.

        Only what happens up to the greeting counts as a failure of the backend. A login may fail because of its user,
        whose mail is on a disk that hangs, and must not keep the others out. With the address of the client, only the
        connection itself counts, and checks: the backend may refuse an address that it has banned.
        """
        connection = await self._connected(counts=counts)
        seconds = self.limits().backend_login_seconds
        has_told_address = self._sends_proxy_header or self._sends_id
        late = f"no answer in {seconds:g} seconds"
        timer = self.reactor.callLater(seconds, connection.abort, late)
        ready = False
        try:
            client = await self._begin(connection, address)
            ready = True
            result = await use(client)
        except Exception as error:
            # The client may have left, which is no failure of the backend.
            if isinstance(error, BackendUnavailable) and not connection.was_closed:
                is_its_own = is_check or not (ready or has_told_address)
                self._failed(str(error), counts=counts and is_its_own)
            connection.close()
            raise
        finally:
            if timer.active():
                timer.cancel()
        self._succeeded()
        return result

    async def _connected(self, *, counts: bool) -> BackendConnection:
        """Return a new connection."""
        call_later = self.reactor.callLater
        factory = Factory.forProtocol(lambda: BackendConnection(call_later))
        factory.noisy = False
        seconds = self.limits().backend_connect_seconds
        self.connections += 1
        try:
            # The timeout of the endpoint does not include the resolution of names.
            attempt = self._connect(factory).addTimeout(seconds, self.reactor)
            connection: BackendConnection = await attempt
        except Exception as error:
            self._lost()
            reason = _reason(error, seconds)
            self._failed(reason, counts=counts)
            raise BackendUnavailable(reason) from None
        connection.on_lost = self._lost
        return connection

    async def _begin(self, connection: BackendConnection, address: ClientAddress) -> BackendClient:
        """Do what precedes the first command, up to the greeting over TLS."""
        if self._sends_proxy_header:
            connection.write(proxy_header(address.client, address.server))
        client = BackendClient(connection)
        if self.address.kind == "tls":
            self._start_tls(connection)
        await client.greeting()
        if self.address.kind == "starttls":
            answer = await client.command(b"STARTTLS")
            if answer.condition != b"OK":
                raise BackendUnavailable("it refuses STARTTLS")
            self._start_tls(connection)
        if self._sends_id and address.client is not None and b"ID" in self.capabilities:
            host, port = address.client
            fields = f'"x-originating-ip" "{host}" "x-originating-port" "{port}"'
            await client.command(f"ID ({fields})".encode())
        return client

    def _start_tls(self, connection: BackendConnection) -> None:
        assert self._tls_options is not None
        connection.start_tls(self._tls_options())

    def _lost(self) -> None:
        self.connections -= 1
        # With several workers, the supervising process says when the last user of all has left.
        if self.is_removed and not self.connections and self._workers == 1:
            _log.info("--backend {text}: removed; the last user has left", text=self.address.text)

    def _failed(self, reason: str, *, counts: bool) -> None:
        """Log a failure if it has another reason than the last one, and count it."""
        self.failures += 1
        opened = counts and self.breaker.failed(reason)
        if opened or reason != self._logged:
            self._logged = reason
            _log.warn(
                "--backend {text} cannot be used: {reason}{consequence}",
                text=self.address.text,
                reason=reason,
                consequence="; logins are refused until it answers a check" if opened else "",
            )

    def _succeeded(self) -> None:
        self._logged = ""
        if not self._has_answered:
            self._has_answered = True
            _log.info("--backend {text}: the first check has succeeded", text=self.address.text)
        if self.breaker.succeeded():
            _log.info("--backend {text}: answers again", text=self.address.text)

    def protocol_violation(self, reason: str) -> None:
        """Log that a backend has sent what no IMAP server sends."""
        _log.warn(
            "--backend {text}: {reason}; the connection is ended",
            text=self.address.text,
            reason=reason,
        )


def _reason(error: Exception, seconds: float) -> str:
    """Return why a connection could not be made, in one line."""
    if isinstance(error, (TimeoutError, ConnectTimeout, CancelledError)):
        return f"no connection in {seconds:g} seconds"
    if reason := connection_error(error):
        return reason
    return (str(error) or type(error).__name__).rstrip(".").splitlines()[0]
