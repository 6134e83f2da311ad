"""What a session sees of its connection: `session.connection.Connection` over Twisted's transport and portal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, cast

from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import LoginFailed, UnauthorizedLogin, UnhandledCredentials
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import ISSLTransport
from twisted.mail.imap4 import IllegalClientResponse
from twisted.mail.interfaces import IAccountIMAP

from imapshield import events
from imapshield.cred import sasl
from imapshield.cred.checkers import CheckerBusy
from imapshield.cred.twisted_mail_account import TwistedMailAccount
from imapshield.edge.channel_binding import channel_bindings
from imapshield.edge.compress import Deflater
from imapshield.edge.write_buffer import Disconnected, WriteBuffer
from imapshield.errors import BadCommand, CommandRefused
from imapshield.guard.connection_guard import ConnectionGuard
from imapshield.mailbox.account_api import IAccount

if TYPE_CHECKING:
    from imapshield.edge.protocol import ShieldedIMAP4Server


class SessionIO:
    """One session's connection; `local` says that the peer is on this machine."""

    def __init__(
        self, server: ShieldedIMAP4Server, guard: ConnectionGuard, outbox: WriteBuffer
    ) -> None:
        self._server = server
        self._guard = guard
        self._outbox = outbox
        self.local = False
        self._due: Deferred[bytes] | None = None

    def write(self, data: bytes) -> None:
        """See `Connection`, also for what follows."""
        self._outbox.write(data)

    def drain(self) -> Deferred[None]:
        if self._server.dead:
            raise Disconnected
        return self._outbox.drain()

    def read_line(self) -> Deferred[bytes]:
        if self._server.dead:
            raise Disconnected
        self._outbox.flush()
        self._due = Deferred()
        self._guard.expect_line()
        self._server.callLater(0, self._server.update_reading)
        return self._due

    @property
    def awaiting_line(self) -> bool:
        """Whether a command waits for a line of the client's."""
        return self._due is not None

    def answer(self, line: bytes) -> None:
        """The line has come."""
        due, self._due = self._due, None
        if due is not None:
            due.callback(line)

    def lost(self) -> None:
        """No line will come."""
        due, self._due = self._due, None
        if due is not None:
            due.addErrback(lambda _: None)
            due.errback(Disconnected())

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return ISSLTransport.providedBy(self._server.transport) or self._server.startedTLS

    @property
    def secure(self) -> bool:
        """Whether nobody else can listen: TLS, this machine's own addresses, or a UNIX socket."""
        return self.tls or self.local

    @property
    def accepts_passwords(self) -> bool:
        return IUsernamePassword in self._server.portal.listCredentialsInterfaces()

    @property
    def can_start_tls(self) -> bool:
        return bool(self._server.ctx and self._server.canStartTLS and not self.tls)

    def start_tls(self) -> None:
        """What was sent in the clear behind STARTTLS is thrown away unseen (CVE-2011-0411)."""
        self._server.clearLineBuffer()
        self._outbox.flush()
        self._server.startedTLS = True
        self._server.transport.startTLS(self._server.ctx)

    @property
    def can_compress(self) -> bool:
        return self._outbox.compress is None

    def start_compression(self) -> None:
        self._outbox.flush()
        self._outbox.compress = Deflater()
        self._server.start_inflating()

    def sasl_mechanisms(self) -> list[bytes]:
        """As far as a checker takes them; the session knows PLAIN itself."""
        challengers = self._server.challengers
        others = {name: make for name, make in challengers.items() if name != b"PLAIN"}
        if not others:
            return []
        bindings = channel_bindings(self._server.transport)
        return sasl.offered(others, self._server.portal, private=self.secure, bindings=bindings)

    async def login(self, user: bytes, password: bytes, mechanism: str) -> IAccount:
        # RFC 4616 section 2; LDAP behind a checker would take it for an anonymous bind
        if not password:
            login: Deferred[Any] = fail(UnauthorizedLogin())
        else:
            login = self._server.authenticateLogin(user, password)
        return await self._avatar(login, user, mechanism)

    async def login_sasl(
        self, mechanism: bytes, ask: Callable[[bytes], Awaitable[bytes]]
    ) -> IAccount:
        """Run one of `challengers`, as `twisted.mail.interfaces.IChallengeResponseIMAP` describes them."""
        credentials = self._server.challengers[mechanism]()
        if hasattr(credentials, "bind_channel"):
            credentials.bind_channel(channel_bindings(self._server.transport))
        while True:
            answer = await ask(credentials.getChallenge())
            try:
                credentials.setResponse(answer)
            except IllegalClientResponse:
                raise BadCommand("That is no answer to the challenge") from None
            if not credentials.moreChallenges():
                break
        user = getattr(credentials, "username", b"")
        if getattr(credentials, "token", None) == b"":
            login: Deferred[Any] = fail(UnauthorizedLogin())
        else:
            login = self._server.authenticate_with(credentials)
        try:
            return await self._avatar(login, user, mechanism.decode())
        except CommandRefused:
            if hasattr(credentials, "failure"):  # RFC 7628 section 3.2.3: said before the NO
                await ask(credentials.failure())
            raise

    async def _avatar(self, login: Deferred[Any], user: bytes, mechanism: str) -> IAccount:
        server = self._server
        try:
            interface, account, logout = await login
        except CheckerBusy:
            raise CommandRefused(
                b"UNAVAILABLE", "Too many logins at once; try again soon"
            ) from None
        except (LoginFailed, UnhandledCredentials):
            name = events.printable(user, 64)
            server.report.login_failed(name, mechanism)
            server.apply_verdict_later(self._guard.login_failed())
            raise CommandRefused(
                b"AUTHENTICATIONFAILED", "That user name or password is wrong"
            ) from None
        if server.dead:
            logout()
            raise Disconnected
        # not whom the client says it is: with a token that proves nothing
        name = getattr(account, "user", "") or user.decode("utf-8", "replace")
        if interface is IAccountIMAP:
            account = TwistedMailAccount(account, name)
        server.log_in(name, mechanism, account, logout)
        return cast("IAccount", account)

    def logged_out(self) -> None:
        self._outbox.flush()
        self._outbox.compress = None
        self._server.log_out()

    def run_in_background(self, work: Coroutine[Any, Any, None]) -> None:
        Deferred.fromCoroutine(work).addErrback(self._server.interrupted)

    def command_parsed(self) -> None:
        self._guard.command_parsed()

    def bad_command(self, sample: bytes, text: str) -> None:
        server = self._server
        server.report.bad_command(sample, text)
        server.apply_verdict_later(self._guard.bad_command())

    def command_failed(self, command: str, traceback: str) -> str:
        return self._server.failed(command, traceback)

    def reset(self) -> None:
        self._server.reset()

    def close(self) -> None:
        self._server.close()
