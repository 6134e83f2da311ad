"""`BackendConnection`: one connection to a backend: lines during the login, and a stream after it."""

import socket
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Protocol

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from imapshield.cred.unavailable import CheckerUnavailable
from imapshield.edge.peer import innermost
from imapshield.edge.write_buffer import send_at_once

MAX_LOGIN_BYTES = 64 << 10
"""Bytes that a backend may send before they are read. It sends a few lines for each step of a login."""

_CLOSED = "closed by the shield"

CLOSING_SECONDS = 5
"""Time in which a connection must close that is not needed any more. After that it is reset."""

LOGOUT_SECONDS = 1
"""Time in which a server must end a session that has said LOGOUT. After that it is reset: a user who moves waits."""

_KEEPALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 20), ("TCP_KEEPCNT", 3))
"""A backend that has vanished without a word is noticed two minutes later, also while a client is in IDLE."""


class BackendUnavailable(CheckerUnavailable):
    """The backend cannot be used now. The argument is for the log."""

    text = "The mail server cannot be reached; try again later"


class NodeDrained(BackendUnavailable):
    """The operator has drained the node: it takes no logins."""

    text = "The mail server is in maintenance; try again later"


class LoginUndecided(BackendUnavailable):
    """The backend has got a password, and has not said whether it is correct."""

    may_be_wrong = True


class ClientSilent(BackendUnavailable):
    """The client has not answered a challenge while the backend waited for it."""


_NO_TLS = ("wrong version number", "packet length too long", "http request", "record layer failure")
"""What OpenSSL says of an answer in the clear, by version and by its first bytes."""


def describe(error: BaseException | None) -> str:
    """Return why a connection has ended, in one line."""
    if isinstance(error, SSL.Error):
        details = error.args[0] if error.args and error.args[0] else [("closed by the backend",)]
        text = str(details[-1][-1] if isinstance(details, list) else details)
        if text in _NO_TLS:
            return "no TLS at this port: use starttls:, or the port for TLS"
        # The reason of OpenSSL for an authority that is unknown and for a certificate that has expired.
        advice = "; add :ca=FILE if its authority is not a public one"
        return f"TLS failed: {text}{advice if text == 'certificate verify failed' else ''}"
    if isinstance(error, VerificationError):
        return "TLS failed: its certificate is for another name; add :name=NAME"
    if isinstance(error, ConnectionDone):
        return "it closed the connection"
    return (str(error) or type(error).__name__).rstrip(".").splitlines()[0]


class Relay(Protocol):
    """What receives the stream after the login."""

    def data_received(self, data: bytes) -> None:
        """Take bytes of the backend."""

    def backend_lost(self, reason: str) -> None:
        """Note that the connection to the backend has ended."""


@implementer(IPushProducer)
class BackendConnection(TwistedProtocol):
    """A connection to a backend.

    Args:
        call_later: the reactor's `callLater`.

    Attributes:
        on_lost: called once when the connection has ended.
        gave_up: whether the shield has ended the connection, because of what the backend does.
        full: whether the backend has not taken enough of what was written: wait with `drained` before writing more.
    """

    transport: Any

    def __init__(self, call_later: Callable[..., Any]) -> None:
        self._call_later = call_later
        self.on_lost: Callable[[], object] = lambda: None
        self.full = self.gave_up = False
        self._buffer = b""
        self._relay: Relay | None = None
        self._lost: str | None = None
        self._waiter: Deferred[None] | None = None
        self._drain_waiter: Deferred[None] | None = None
        self._closing: Any = None
        self._interrupt: Callable[[], None] | None = None

    # Twisted

    def connectionMade(self) -> None:
        """Prepare the socket, and find out when the backend does not read."""
        self.transport.registerProducer(self, True)
        getattr(self.transport, "setTcpNoDelay", lambda _: None)(True)
        handle = getattr(innermost(self.transport), "socket", None)
        if handle is not None and handle.family != socket.AF_UNIX:
            with suppress(OSError):
                handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for name, value in _KEEPALIVE:
                    if hasattr(socket, name):
                        handle.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def dataReceived(self, data: bytes) -> None:
        """Pass `data` on, or keep it until a line is read."""
        if self._lost is not None:
            return
        if self._relay is not None:
            self._relay.data_received(data)
            return
        self._buffer += data
        if len(self._buffer) > MAX_LOGIN_BYTES:
            self.abort("it sends more than a login needs")
        elif b"\n" in data:
            self._wake()

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        """End the waits of all callers, because the connection has ended."""
        self._end(describe(reason.value))
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        self.on_lost()

    def _end(self, reason: str) -> None:
        if self._lost is not None:
            return
        self._lost = reason
        relay, self._relay = self._relay, None
        if self._interrupt is not None:
            self._interrupt()
        self._wake()
        self._wake_writer()
        if relay is not None:
            relay.backend_lost(reason)

    @property
    def was_closed(self) -> bool:
        """Whether this side has closed the connection, because it is not needed any more."""
        return self._lost == _CLOSED

    # During the login

    async def read_line(self) -> bytes:
        """Return the next line, without CRLF.

        Raises:
            BackendUnavailable: the connection has ended, or is not that of a server.
        """
        while (end := self._buffer.find(b"\r\n")) < 0:
            if self._lost is not None:
                raise BackendUnavailable(self._lost)
            self._waiter = Deferred()
            await self._waiter
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        return line

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.callback(None)

    async def unless_lost(self, work: Coroutine[Any, Any, bytes]) -> bytes:
        """Return the result of `work`, for which the client is asked. If the connection ends, do not wait for it.

        Raises:
            ClientSilent: the connection has ended.
        """
        result: Deferred[Any] = Deferred()

        def finish(outcome: Any) -> None:
            self._interrupt = None
            if not result.called:
                result.callback(outcome)

        self._interrupt = lambda: finish(Failure(ClientSilent(self._lost)))
        Deferred.fromCoroutine(work).addBoth(finish)
        found: bytes = await result
        return found

    def start_tls(self, options: Any) -> None:
        """Start TLS; what the backend has sent before is dropped (CVE-2011-0411)."""
        self._buffer = b""
        self.transport.startTLS(options)

    def start_relay(self, relay: Relay) -> None:
        """Pass everything that arrives to `relay` from now on, beginning with what has arrived already."""
        lost, rest = self._lost, self._buffer
        self._relay, self._buffer = relay, b""
        if rest:
            relay.data_received(rest)
        if lost is not None:
            self._relay = None
            relay.backend_lost(lost)

    # Writing

    def write(self, data: bytes) -> None:
        """Send `data`."""
        if self._lost is None:
            if not getattr(self.transport, "TLS", False):
                data = send_at_once(self.transport, data)
            if data:
                self.transport.write(data)

    async def drained(self) -> None:
        """Wait until the backend has taken what was written, or the connection has ended."""
        while self.full and self._lost is None:
            self._drain_waiter = Deferred()
            await self._drain_waiter

    def _wake_writer(self) -> None:
        waiter, self._drain_waiter = self._drain_waiter, None
        if waiter is not None:
            waiter.callback(None)

    def pauseProducing(self) -> None:
        """Called by the transport when it holds much."""
        self.full = True

    def resumeProducing(self) -> None:
        """Called by the transport when it has sent everything."""
        self.full = False
        self._wake_writer()

    def stopProducing(self) -> None:
        """Called by the transport when the connection is lost; `connectionLost` follows."""

    # Reading and the end

    def pause_reading(self) -> None:
        """Read nothing from the backend for now."""
        if self._lost is None:
            self.transport.pauseProducing()

    def resume_reading(self) -> None:
        """Read again."""
        if self._lost is None:
            self.transport.resumeProducing()

    def close(self) -> None:
        """Close the connection without a report."""
        self._relay = None
        if self._lost is None:
            self._end(_CLOSED)
            # A backend that reads nothing, or does not close its side, must not keep the connection.
            self._closing = self._call_later(CLOSING_SECONDS, self.transport.abortConnection)
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def log_out(self, before: bytes = b"") -> None:
        """Send LOGOUT, after the line that ends a command, and let the server close the connection.

        The relay gets no report of the end. The session on the server has ended when the connection has.
        """
        self._relay = None
        if self._lost is None:
            self.transport.write(before + b"s LOGOUT\r\n")
            self._end(_CLOSED)
            self._closing = self._call_later(LOGOUT_SECONDS, self.transport.abortConnection)
            self.transport.resumeProducing()

    def reset(self, reason: str) -> None:
        """End the connection now, also one that is being closed."""
        self._relay = None
        self._end(reason)
        self.transport.abortConnection()

    def abort(self, reason: str) -> None:
        """End the connection for a reason, which all waiting callers get."""
        if self._lost is None:
            self.gave_up = True
            self._end(reason)
            self.transport.abortConnection()
