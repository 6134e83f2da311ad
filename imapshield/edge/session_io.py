"""`SessionIO`: what a session sees of its connection (`session.connection.Connection`), on Twisted's transport."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ISSLTransport
from twisted.python.failure import Failure

from imapshield.edge.authentication import Authentication
from imapshield.edge.compress import Deflater
from imapshield.edge.event_reporter import EventReporter
from imapshield.edge.input_decoder import InputDecoder
from imapshield.edge.write_buffer import Disconnected, WriteBuffer
from imapshield.guard.connection_guard import ConnectionGuard
from imapshield.guard.verdicts import Verdict
from imapshield.mailbox.account_api import IAccount


class SessionHost(Protocol):
    """What `SessionIO` needs of the protocol that owns the connection."""

    transport: Any
    reporter: EventReporter
    ctx: Any
    canStartTLS: Any
    startedTLS: Any
    closed: bool

    def callLater(self, period: float, func: Callable[[], object]) -> Any:
        """Call `func` in `period` seconds."""

    def clearLineBuffer(self) -> bytes:
        """Drop and return the received bytes that were not processed yet."""

    def update_reading(self) -> None:
        """Pause or resume reading as the guard says."""

    def log_out(self) -> None:
        """Continue the connection without a user."""

    def apply_verdict_later(self, verdict: Verdict) -> None:
        """Apply a verdict after the response that is being written."""

    def command_interrupted(self, failure: Failure) -> None:
        """Handle an exception that a session did not handle."""

    def command_failed(self, command: str, traceback: str) -> str:
        """Report a failure of the server; returns its reference in the log."""

    def reset(self) -> None:
        """Reset the connection."""

    def close(self) -> None:
        """Close the connection after what was written is sent."""


class SessionIO:
    """The connection of one session.

    Args:
        host: the protocol that owns the connection.
        authentication: performs the logins.
        decoder: inflates the input under COMPRESS.
        write_buffer: takes the responses.
        guard: learns which commands are invalid, and which line a command waits for.

    Attributes:
        peer_is_local: whether the peer is on this machine, so that nobody else can read the connection.
    """

    def __init__(
        self,
        host: SessionHost,
        authentication: Authentication,
        decoder: InputDecoder,
        write_buffer: WriteBuffer,
        guard: ConnectionGuard,
    ) -> None:
        self._host = host
        self._authentication = authentication
        self._decoder = decoder
        self._write_buffer = write_buffer
        self._guard = guard
        self.peer_is_local = False
        self._line_waiter: Deferred[bytes] | None = None

    def write(self, data: bytes) -> None:
        """Send `data`."""
        self._write_buffer.write(data)

    def drain(self) -> Deferred[None]:
        """Let other connections have their turn, and wait while the write buffer is full.

        Raises:
            Disconnected: the connection has ended.
        """
        if self._host.closed:
            raise Disconnected
        return self._write_buffer.drain()

    def read_line(self) -> Deferred[bytes]:
        """Return the next line (without CRLF), which belongs to the running command.

        Raises:
            Disconnected: the connection has ended.
        """
        if self._host.closed:
            raise Disconnected
        self._write_buffer.flush()
        self._line_waiter = Deferred()
        self._guard.expect_line()
        self._host.callLater(0, self._host.update_reading)
        return self._line_waiter

    @property
    def awaiting_line(self) -> bool:
        """Whether a command waits for a line."""
        return self._line_waiter is not None

    def line_received(self, line: bytes) -> None:
        """Hand `line` to the command that waits for it."""
        waiter, self._line_waiter = self._line_waiter, None
        if waiter is not None:
            waiter.callback(line)

    def connection_lost(self) -> None:
        """Fail a pending `read_line` with `Disconnected`."""
        waiter, self._line_waiter = self._line_waiter, None
        if waiter is not None:
            waiter.addErrback(lambda _: None)
            waiter.errback(Disconnected())

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return ISSLTransport.providedBy(self._host.transport) or bool(self._host.startedTLS)

    @property
    def secure(self) -> bool:
        """Whether nobody can eavesdrop: TLS, an address of this machine, or a UNIX socket."""
        return self.tls or self.peer_is_local

    @property
    def can_start_tls(self) -> bool:
        """Whether STARTTLS is possible now."""
        return bool(self._host.ctx and self._host.canStartTLS and not self.tls)

    def start_tls(self) -> None:
        """Start TLS. Plaintext that the client sent after STARTTLS is dropped unread (CVE-2011-0411)."""
        self._host.clearLineBuffer()
        self._write_buffer.flush()
        self._host.startedTLS = True
        self._host.transport.startTLS(self._host.ctx)

    @property
    def can_compress(self) -> bool:
        """Whether COMPRESS is possible now."""
        return self._write_buffer.compress is None

    def start_compression(self) -> None:
        """Compress both directions from now on (RFC 4978)."""
        self._write_buffer.flush()
        self._write_buffer.compress = Deflater()
        self._decoder.start_inflating()

    @property
    def accepts_passwords(self) -> bool:
        """Whether a checker accepts a user name and a password."""
        return self._authentication.accepts_passwords

    def sasl_mechanisms(self) -> list[bytes]:
        """Return the SASL mechanisms besides PLAIN that can be offered now."""
        return self._authentication.sasl_mechanisms(secure=self.secure)

    async def login(self, user: bytes, password: bytes, mechanism: str) -> IAccount:
        """Log in with a password.

        Raises:
            CommandRefused: AUTHENTICATIONFAILED, or UNAVAILABLE while too many logins are checked.
        """
        return await self._authentication.log_in_with_password(user, password, mechanism)

    async def login_sasl(
        self, mechanism: bytes, ask: Callable[[bytes], Awaitable[bytes]]
    ) -> IAccount:
        """Log in with one of `sasl_mechanisms`, as `twisted.mail.interfaces.IChallengeResponseIMAP` describes.

        Args:
            mechanism: its name.
            ask: sends a challenge and returns the client's response, both decoded.

        Raises:
            CommandRefused: as `login` does.
            BadCommand: a response is not one of the mechanism.
        """
        return await self._authentication.log_in_with_sasl(mechanism, ask)

    def logged_out(self) -> None:
        """Apply pre-authentication limits again, and end compression (UNAUTHENTICATE, RFC 8437)."""
        self._write_buffer.flush()
        self._write_buffer.compress = None
        self._host.log_out()
        self._decoder.stop_inflating()

    def run_in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` concurrently with the commands."""
        Deferred.fromCoroutine(work).addErrback(self._host.command_interrupted)

    def command_parsed(self) -> None:
        """Note that a command was well-formed."""
        self._guard.command_parsed()

    def bad_command(self, sample: bytes, text: str) -> None:
        """Report an invalid command, of which `sample` is the beginning, and the answer `text`; count it."""
        self._host.reporter.bad_command(sample, text)
        self._host.apply_verdict_later(self._guard.bad_command())

    def command_failed(self, command: str, traceback: str) -> str:
        """Report a failure of the server; returns a reference for the client to quote."""
        return self._host.command_failed(command, traceback)

    def reset(self) -> None:
        """Reset the connection."""
        self._host.reset()

    def close(self) -> None:
        """Close the connection after what was written is sent."""
        self._host.close()
