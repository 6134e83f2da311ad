"""`Authentication`: logs a client in through a Twisted Cred portal, with a password or by SASL."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, cast

from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import LoginFailed, UnauthorizedLogin, UnhandledCredentials
from twisted.internet.defer import Deferred, fail
from twisted.mail.imap4 import IllegalClientResponse
from twisted.mail.interfaces import IAccountIMAP

from imapshield.cred import sasl
from imapshield.cred.checkers import CheckerBusy
from imapshield.cred.twisted_mail_account import TwistedMailAccount
from imapshield.edge.channel_binding import channel_bindings
from imapshield.edge.event_reporter import EventReporter
from imapshield.edge.write_buffer import Disconnected
from imapshield.errors import BadCommand, CommandRefused
from imapshield.guard.connection_guard import ConnectionGuard
from imapshield.guard.verdicts import Verdict
from imapshield.mailbox.account_api import IAccount


class AuthenticationHost(Protocol):
    """What `Authentication` needs of the protocol that owns the connection."""

    transport: Any
    reporter: EventReporter
    closed: bool

    def authenticateLogin(self, user: bytes, passwd: bytes) -> Deferred[Any]:
        """Check a password; fires with (interface, avatar, logout)."""

    def log_in(self, user: str, mechanism: str, account: Any, logout: Callable[[], None]) -> None:
        """Continue the connection as `user`."""

    def apply_verdict_later(self, verdict: Verdict) -> None:
        """Apply a verdict after the response that is being written."""


class Authentication:
    """The logins of one connection.

    Args:
        host: the protocol that owns the connection.
        portal: a `twisted.cred.portal.Portal`. Its realm returns an avatar for `IAccount`, or for Twisted's
            `IAccountIMAP`, which is adapted.
        challengers: SASL mechanisms besides PLAIN; name to factory of `IChallengeResponse` credentials.
        guard: counts failed logins.
    """

    def __init__(
        self,
        host: AuthenticationHost,
        portal: Any,
        challengers: dict[bytes, Callable[[], Any]],
        guard: ConnectionGuard,
    ) -> None:
        self._host = host
        self._portal = portal
        self._challengers = challengers
        self._guard = guard

    @property
    def accepts_passwords(self) -> bool:
        """Whether a checker of the portal accepts a user name and a password."""
        return IUsernamePassword in self._portal.listCredentialsInterfaces()

    def sasl_mechanisms(self, *, secure: bool) -> list[bytes]:
        """Return the SASL mechanisms that a checker of the portal accepts; without PLAIN, which the session knows.

        Args:
            secure: whether mechanisms that send a secret may be offered.
        """
        others = {name: make for name, make in self._challengers.items() if name != b"PLAIN"}
        if not others:
            return []
        bindings = channel_bindings(self._host.transport)
        return sasl.offered(others, self._portal, private=secure, bindings=bindings)

    def check_credentials(self, credentials: Any) -> Deferred[Any]:
        """Have the portal check `credentials`; fires with (interface, avatar, logout)."""
        return cast("Deferred[Any]", self._portal.login(credentials, None, IAccount, IAccountIMAP))

    async def log_in_with_password(self, user: bytes, password: bytes, mechanism: str) -> IAccount:
        """Log in with a password; see `SessionIO.login`."""
        # RFC 4616 section 2 forbids an empty password. An LDAP checker would take it for an anonymous bind.
        if not password:
            login: Deferred[Any] = fail(UnauthorizedLogin())
        else:
            login = self._host.authenticateLogin(user, password)
        return await self._finish_login(login, user, mechanism)

    async def log_in_with_sasl(
        self, mechanism: bytes, ask: Callable[[bytes], Awaitable[bytes]]
    ) -> IAccount:
        """Log in with one of the `challengers`; see `SessionIO.login_sasl`."""
        credentials = self._challengers[mechanism]()
        if hasattr(credentials, "bind_channel"):
            credentials.bind_channel(channel_bindings(self._host.transport))
        while True:
            response = await ask(credentials.getChallenge())
            try:
                credentials.setResponse(response)
            except IllegalClientResponse:
                raise BadCommand("Invalid SASL response") from None
            if not credentials.moreChallenges():
                break
        user = getattr(credentials, "username", b"")
        if getattr(credentials, "token", None) == b"":
            login: Deferred[Any] = fail(UnauthorizedLogin())
        else:
            login = self.check_credentials(credentials)
        try:
            return await self._finish_login(login, user, mechanism.decode())
        except CommandRefused:
            if hasattr(credentials, "failure"):  # RFC 7628 section 3.2.3: sent before the NO
                await ask(credentials.failure())
            raise

    async def _finish_login(self, login: Deferred[Any], user: bytes, mechanism: str) -> IAccount:
        """Wait for the portal, and return the account of the user whose login was right."""
        try:
            interface, account, logout = await login
        except CheckerBusy:
            raise CommandRefused(
                b"UNAVAILABLE", "Too many simultaneous logins, try again later"
            ) from None
        except (LoginFailed, UnhandledCredentials):
            self._host.reporter.login_failed(user, mechanism)
            self._host.apply_verdict_later(self._guard.login_failed())
            raise CommandRefused(b"AUTHENTICATIONFAILED", "Authentication failed") from None
        if self._host.closed:
            logout()
            raise Disconnected
        # The account knows its user better than the client's claim, which proves nothing with a bearer token.
        name = getattr(account, "user", "") or user.decode("utf-8", "replace")
        if interface is IAccountIMAP:
            account = TwistedMailAccount(account, name)
        self._host.log_in(name, mechanism, account, logout)
        return cast("IAccount", account)
