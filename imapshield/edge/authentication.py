"""`Authentication`: logs a client in through a Twisted Cred portal, with a password or by SASL."""

from collections.abc import Awaitable, Callable
from typing import Any, cast

from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import LoginFailed, UnauthorizedLogin, UnhandledCredentials
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ISSLTransport
from twisted.mail.imap4 import IllegalClientResponse
from twisted.mail.interfaces import IAccountIMAP

from imapshield.cred import sasl
from imapshield.cred.checkers import CheckerUnavailable
from imapshield.cred.twisted_mail_account import TwistedMailAccount
from imapshield.edge import peer
from imapshield.edge.channel_binding import channel_bindings
from imapshield.edge.host import Host
from imapshield.edge.write_buffer import Disconnected
from imapshield.errors import BadCommand, CommandRefused
from imapshield.mailbox.account_api import IAccount


class Authentication:
    """The part of `SessionIO` that identifies the peer, and logs users in and out.

    The realm of the host's `portal` returns an avatar for `IAccount`, or for Twisted's `IAccountIMAP`, which is
    adapted. Its `challengers` are the SASL mechanisms besides PLAIN; name to factory of `IChallengeResponse`
    credentials.

    Attributes:
        peer_is_local: whether the peer is on this machine, so that nobody else can read the connection.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._logout: Callable[[], object] | None = None
        self.peer_is_local = False

    def identify_peer(self, *, has_input: bool) -> None:
        """Find out the peer's address. `has_input`: whether the client has sent anything (see `peer.identify`)."""
        transport, reporter = self._host.transport, self._host.reporter
        reporter.peer, self.peer_is_local = peer.identify(transport, has_input)

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return ISSLTransport.providedBy(self._host.transport) or bool(self._host.startedTLS)

    @property
    def secure(self) -> bool:
        """Whether nobody can eavesdrop: TLS, an address of this machine, or a UNIX socket."""
        return self.tls or self.peer_is_local

    @property
    def accepts_passwords(self) -> bool:
        """Whether a checker of the portal accepts a user name and a password."""
        return IUsernamePassword in self._host.portal.listCredentialsInterfaces()

    def sasl_mechanisms(self) -> list[bytes]:
        """Return the SASL mechanisms that can be offered now; without PLAIN, which the session itself implements."""
        host = self._host
        others = {name: make for name, make in host.challengers.items() if name != b"PLAIN"}
        if not others:
            return []
        bindings = channel_bindings(host.transport)
        return sasl.offered(others, host.portal, private=self.secure, bindings=bindings)

    def check_credentials(self, credentials: Any) -> Deferred[Any]:
        """Have the portal check `credentials`; fires with (interface, avatar, logout)."""
        login = self._host.portal.login(credentials, None, IAccount, IAccountIMAP)
        return cast("Deferred[Any]", login)

    async def login(self, user: bytes, password: bytes, mechanism: str) -> IAccount:
        """Log in with a password, which the client sent with LOGIN or `mechanism`.

        Raises:
            CommandRefused: AUTHENTICATIONFAILED, or UNAVAILABLE while too many logins are checked.
        """
        # RFC 4616 section 2 forbids an empty password. An LDAP checker would take it for an anonymous bind.
        login = self._host.authenticateLogin(user, password) if password else None
        return await self._finish_login(login, user, mechanism)

    async def login_sasl(
        self, mechanism: bytes, challenge: Callable[[bytes], Awaitable[bytes]]
    ) -> IAccount:
        """Log in with one of `sasl_mechanisms`, as `twisted.mail.interfaces.IChallengeResponseIMAP` describes.

        Args:
            mechanism: the name of the SASL mechanism.
            challenge: sends a challenge and returns the client's response, both decoded.

        Raises:
            CommandRefused: as `login` does.
            BadCommand: a response is not one of the mechanism.
        """
        credentials = self._host.challengers[mechanism]()
        if hasattr(credentials, "bind_channel"):
            credentials.bind_channel(channel_bindings(self._host.transport))
        while True:
            response = await challenge(credentials.getChallenge())
            try:
                credentials.setResponse(response)
            except IllegalClientResponse:
                raise BadCommand("Invalid SASL response") from None
            if not credentials.moreChallenges():
                break
        is_empty = getattr(credentials, "token", None) == b""
        login = None if is_empty else self.check_credentials(credentials)
        user = getattr(credentials, "username", b"")
        try:
            return await self._finish_login(login, user, mechanism.decode())
        except CommandRefused:
            if hasattr(credentials, "failure"):  # RFC 7628 section 3.2.3: sent before the NO
                await challenge(credentials.failure())
            raise

    async def _finish_login(
        self, login: Deferred[Any] | None, user: bytes, mechanism: str
    ) -> IAccount:
        """Wait for the portal, and log the user in. `login` is None for a secret that no checker may see."""
        host = self._host
        try:
            if login is None:
                raise UnauthorizedLogin
            interface, account, logout = await login
        except CheckerUnavailable as error:
            raise CommandRefused(b"UNAVAILABLE", error.text) from None
        except (LoginFailed, UnhandledCredentials):
            host.reporter.login_failed(user, mechanism)
            host.apply_verdict_later(host.guard.login_failed())
            raise CommandRefused(b"AUTHENTICATIONFAILED", "Authentication failed") from None
        if host.closed:
            logout()
            raise Disconnected
        # The account knows the name of its user. With a bearer token, the name that the client gave proves nothing.
        name = getattr(account, "user", "") or user.decode("utf-8", "replace")
        if interface is IAccountIMAP:
            account = TwistedMailAccount(account, name)
        self._logout = logout
        host.account, host.state = account, "auth"
        host.MAX_LENGTH = host.limits.max_line_length
        host.write_buffer.set_high_water_mark(host.limits.max_unsent_bytes)
        host.guard.login()
        host.setTimeout(host.limits.idle_seconds)
        host.reporter.logged_in(name, mechanism, self.tls)
        return cast("IAccount", account)

    def logged_out(self) -> None:
        """Continue the connection without a user, with the limits that apply before login (RFC 8437)."""
        host = self._host
        self.release_account()
        host.reporter.user, host.state = "", "unauth"
        host.MAX_LENGTH = host.limits.preauth_line_length
        host.write_buffer.set_high_water_mark(host.limits.preauth_unsent_bytes)
        host.guard.logout()
        host.setTimeout(host.limits.preauth_seconds)

    def release_account(self) -> None:
        """Call the logout function that came from the portal, if a user is logged in."""
        logout, self._logout, self._host.account = self._logout, None, None
        if logout is not None:
            logout()
