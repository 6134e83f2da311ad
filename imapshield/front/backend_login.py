"""Logs a client in to the backend, with the guard of the shield before it."""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred

from imapshield.edge.session_io import SessionIO
from imapshield.errors import BadCommand, CommandRefused
from imapshield.front.backend import Backend, ClientAddress
from imapshield.front.backend_client import Answer, BackendClient, Challenge
from imapshield.front.backend_connection import (
    BackendConnection,
    BackendUnavailable,
    LoginUndecided,
)
from imapshield.front.proxy_v2 import plain_address
from imapshield.mailbox.account_api import IAccount
from imapshield.wire.grammar.login import decode_base64

_TEMPORARY = frozenset(
    (b"UNAVAILABLE", b"SERVERBUG", b"INUSE", b"LIMIT", b"CONTACTADMIN", b"PRIVACYREQUIRED")
)
"""Response codes of a login that failed for another reason than its password (RFC 5530)."""

_DUMMY_RESPONSES = {b"OAUTHBEARER": b"AQ==", b"XOAUTH2": b""}
"""What a client answers to the reason of a failure (RFC 7628 section 3.2.3; Google and Microsoft for XOAUTH2)."""


class BackendAccount:
    """The account of a user whose mail is on the backend. Only its name is known here."""

    def __init__(self, user: str) -> None:
        self.user = user


class LoggedIn(NamedTuple):
    """A login that has succeeded.

    Attributes:
        connection: the connection on which the user is logged in.
        answer: what the backend has answered.
    """

    connection: BackendConnection
    answer: Answer


class BackendLogin:
    """The logins of one client.

    Args:
        io: the connection of the client.
        backend: the backend.
    """

    def __init__(self, io: SessionIO, backend: Backend) -> None:
        self._io, self._backend = io, backend
        self._ended = False

    def close(self) -> None:
        """Begin no login any more, because the connection of the client has ended.

        A password that the backend has got is still checked, so that a wrong one counts. Backends delay the answer to
        it: a guesser would otherwise hang up when there is none at once, and guess as often as it likes.
        """
        self._ended = True

    async def password(self, user: bytes, password: bytes) -> LoggedIn:
        """Log in with LOGIN.

        Raises:
            CommandRefused: as `edge.authentication.Authentication.login` does; so do the others.
        """
        names = self._backend.capabilities
        return await self._log_in(
            user, password, "LOGIN", lambda client: client.log_in(user, password, names)
        )

    async def bearer(
        self, mechanism: bytes, user: bytes, secret: bytes, message: bytes
    ) -> LoggedIn:
        """Log in with a SASL mechanism that has one message.

        The reason of a failed OAuth login, which is another challenge, is answered here and kept for the client.

        Raises:
            LoginRefused: the backend has given a reason.
        """
        reason = b""

        async def keep_reason(challenge: bytes) -> bytes:
            nonlocal reason
            if mechanism not in _DUMMY_RESPONSES:
                raise BackendUnavailable("it asks for more than the login needs")
            reason = challenge
            return _DUMMY_RESPONSES[mechanism]

        try:
            return await self._sasl(mechanism, user, secret, message, keep_reason)
        except CommandRefused as refused:
            if reason:
                raise LoginRefused(refused, reason) from None
            raise

    async def exchange(
        self, mechanism: bytes, user: bytes, message: bytes, challenge: Challenge
    ) -> LoggedIn:
        """Log in with a SASL mechanism in which the client answers challenges.

        The exchange occupies a connection to the backend for as long as the client likes, so few of them run at once,
        and one network has at most a quarter of them.
        """
        exchanges, network = self._backend.exchanges, self._io.network
        most = self._backend.limits().max_backend_exchanges
        if len(exchanges) >= most or exchanges.count(network) >= max(1, most // 4):
            raise CommandRefused(b"UNAVAILABLE", "Too many simultaneous logins; try again later")

        async def ask(request: bytes) -> bytes:
            # The client may not answer that its proof is wrong: it would leave or cancel, and nothing would count.
            try:
                is_wrong = decode_base64(request).startswith(b"e=")
            except BadCommand:
                raise BackendUnavailable("its challenge is not base64") from None
            if is_wrong:
                raise UnauthorizedLogin
            return await challenge(request)

        exchanges.append(network)
        try:
            return await self._sasl(mechanism, user, None, message, ask)
        finally:
            exchanges.remove(network)

    async def _sasl(
        self,
        mechanism: bytes,
        user: bytes,
        secret: bytes | None,
        message: bytes,
        challenge: Challenge,
    ) -> LoggedIn:
        names = self._backend.capabilities
        name = mechanism.decode()
        return await self._log_in(
            user,
            secret,
            name,
            lambda client: client.authenticate(mechanism, message, names, challenge),
        )

    async def _log_in(
        self,
        user: bytes,
        secret: bytes | None,
        mechanism: str,
        ask: Callable[[BackendClient], Awaitable[Answer]],
    ) -> LoggedIn:
        logged_in: LoggedIn | None = None
        cancelled: BadCommand | None = None

        async def use(client: BackendClient) -> LoggedIn:
            if self._ended:
                client.connection.close()
                raise BackendUnavailable("the client has left")
            return LoggedIn(client.connection, await ask(client))

        async def check() -> tuple[Any, BackendAccount, Callable[[], None]]:
            nonlocal logged_in, cancelled
            try:
                found = await self._backend.open(self._address(), use)
            except BadCommand as error:  # the client has cancelled the exchange
                cancelled = error
                raise BackendUnavailable("cancelled") from None
            condition, answer = found.answer.condition, found.answer
            if condition != b"OK":
                found.connection.close()
                if condition == b"NO" and answer.code in _TEMPORARY:
                    raise LoginUndecided("the backend refuses the login for now")
                raise UnauthorizedLogin
            logged_in = found
            name = user.decode("utf-8", "replace").lower()
            return IAccount, BackendAccount(name), found.connection.close

        try:
            await self._io.login(user, secret, mechanism, lambda: Deferred.fromCoroutine(check()))
        except CommandRefused:
            if cancelled is not None:
                raise cancelled from None
            raise
        assert logged_in is not None
        return logged_in

    def _address(self) -> ClientAddress:
        return ClientAddress(*map(_host_and_port, self._io.addresses))


def _host_and_port(address: Any) -> tuple[str, int] | None:
    """Return the host and the port of an address; None of a UNIX socket, or if a proxy did not know it."""
    try:
        return str(plain_address(str(address.host))), int(address.port)
    except (AttributeError, ValueError):
        return None


class LoginRefused(Exception):
    """The backend has refused a login and given a reason.

    Attributes:
        refused: the response to the client.
        reason: the challenge, in base64, that the client gets before it.
    """

    def __init__(self, refused: CommandRefused, reason: bytes) -> None:
        super().__init__()
        self.refused, self.reason = refused, reason
