"""Logs a client in to the backend, with the guard of the shield before it."""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import CancelledError, Deferred

from imapshield.edge.session_io import SessionIO
from imapshield.edge.write_buffer import Disconnected
from imapshield.errors import BadCommand, CommandRefused
from imapshield.front.backend import Backend, ClientAddress
from imapshield.front.backend_client import Answer, BackendClient, Challenge
from imapshield.front.backend_connection import (
    BackendConnection,
    BackendUnavailable,
    LoginUndecided,
)
from imapshield.front.login_route import LoginRerouted, LoginRoute, RoutedChecks
from imapshield.front.nodes import Nodes
from imapshield.front.proxy_v2 import plain_address
from imapshield.front.sasl_user import (
    mailbox_user,
    replace_secret,
    wrong_proof,
    wrong_secret,
)
from imapshield.front.user_map import Query
from imapshield.front.user_sessions import UserSession
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
        session: the session of the user.
        backend: where it is.
    """

    connection: BackendConnection
    answer: Answer
    session: UserSession
    backend: Backend


Checked = tuple[Any, BackendAccount, Callable[[], None]]
"""A login that has succeeded, as a portal returns it: interface, avatar, logout."""

Ask = Callable[[BackendClient, tuple[bytes, ...], bytes | None], Awaitable[Answer]]
"""Logs in on a connection, with the capabilities of the backend and the secret; another one for an unknown user."""


class BackendLogin:
    """The logins of one client.

    Args:
        io: the connection of the client.
        nodes: the backends.
    """

    def __init__(self, io: SessionIO, nodes: Nodes) -> None:
        self._io, self._nodes = io, nodes
        self._ended = False
        self._route: LoginRoute | None = None  # of the last login
        self._waiter: Deferred[None] | None = None

    def close(self) -> None:
        """Begin no login any more, because the connection of the client has ended.

        A password that the backend has got is still checked, so that a wrong one counts. Backends delay the answer to
        it: a guesser would otherwise hang up when there is none at once, and guess as often as it likes.
        """
        self._ended = True
        if self._waiter is not None:
            self._waiter.cancel()

    async def password(self, user: bytes, password: bytes) -> LoggedIn:
        """Log in with LOGIN.

        Raises:
            CommandRefused: as `edge.authentication.Authentication.login` does; so do the others.
        """
        return await self._log_in(
            user,
            password,
            "LOGIN",
            lambda client, names, secret: client.log_in(user, secret or b"", names),
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

        The exchange occupies a connection to the backend for as long as the client likes, so it waits for its turn.
        """
        exchanges, network = self._nodes.exchanges, self._io.network

        async def ask(request: bytes) -> bytes:
            # The client may not answer that its proof is wrong: it would leave or cancel, and nothing would count.
            try:
                is_wrong = decode_base64(request).startswith(b"e=")
            except BadCommand:
                raise BackendUnavailable("its challenge is not base64") from None
            if is_wrong:
                raise UnauthorizedLogin
            response = await challenge(request)
            return (
                response if self._route is None or self._route.is_known else wrong_proof(response)
            )

        await self._wait(exchanges.enter(network))
        try:
            return await self._sasl(mechanism, user, None, message, ask)
        finally:
            exchanges.leave(network)

    async def _sasl(
        self,
        mechanism: bytes,
        user: bytes,
        secret: bytes | None,
        message: bytes,
        challenge: Challenge,
    ) -> LoggedIn:
        def ask(
            client: BackendClient, names: tuple[bytes, ...], sent: bytes | None
        ) -> Awaitable[Answer]:
            first = message if sent == secret else replace_secret(message, sent or b"")
            return client.authenticate(mechanism, first, names, challenge)

        return await self._log_in(user, secret, mechanism.decode(), ask)

    async def _log_in(
        self, user: bytes, secret: bytes | None, mechanism: str, ask: Ask
    ) -> LoggedIn:
        logged_in: LoggedIn | None = None
        cancelled: BadCommand | None = None
        query = self._query(user, mechanism, secret)
        route = self._route = LoginRoute(self._nodes, query, self._wait_for_release)

        async def check() -> Checked:
            nonlocal logged_in, cancelled
            if secret is None:  # it does not wait in a queue
                await route.find(None)
            try:
                found = await route.backend.open(
                    self._address(), lambda client: self._ask(client, route, secret, ask)
                )
            except BadCommand as error:  # the client has cancelled the exchange
                cancelled = error
                raise BackendUnavailable("cancelled") from None
            except BackendUnavailable as error:
                error.node = route.backend.address.node if route.is_known else ""
                raise
            checked = _checked(found, route, user)
            logged_in = found
            return checked

        try:
            await self._io.login(
                user,
                secret,
                mechanism,
                lambda: Deferred.fromCoroutine(check()),
                lambda queue: RoutedChecks(route, queue),
            )
        except CommandRefused:
            if cancelled is not None:
                raise cancelled from None
            raise
        finally:
            route.end()
        assert logged_in is not None
        return logged_in

    async def _ask(
        self, client: BackendClient, route: LoginRoute, secret: bytes | None, ask: Ask
    ) -> LoggedIn:
        """Log in on a connection, unless that has no purpose any more."""
        session, backend = route.session, route.backend
        if self._ended or session.is_leaving:
            client.connection.close()
            if self._ended:
                raise BackendUnavailable("the client has left")
            raise LoginRerouted("the user is being moved")
        session.connected(client.connection)
        # A node that does not have the user must not learn a password.
        sent = secret if route.is_known or secret is None else wrong_secret(secret)
        answer = await ask(client, backend.capabilities, sent)
        return LoggedIn(client.connection, answer, session, backend)

    def _query(self, user: bytes, mechanism: str, secret: bytes | None) -> Query:
        client = self._address().client
        address = "" if client is None else client[0]
        return Query(mailbox_user(user), mechanism, address, secret or b"")

    async def _wait_for_release(self, user: str) -> None:
        """Wait while `user` is held.

        Raises:
            BackendUnavailable: as for `UserHolds.wait`.
            Disconnected: the client has left.
        """
        waiter: Deferred[None] = Deferred()
        await self._wait(waiter, self._nodes.holds.wait(user, waiter))

    async def _wait(self, waiter: Deferred[None], work: Awaitable[None] | None = None) -> None:
        """Wait for `work`, or for `waiter` itself, which is cancelled when the client leaves."""
        self._waiter = waiter
        try:
            await (work or waiter)
        except CancelledError:
            raise Disconnected from None
        finally:
            self._waiter = None
        if self._ended:
            raise Disconnected

    def _address(self) -> ClientAddress:
        return ClientAddress(*map(_host_and_port, self._io.addresses))


def _checked(found: LoggedIn, route: LoginRoute, user: bytes) -> Checked:
    """Return the result of a login that the backend has accepted.

    Raises:
        UnauthorizedLogin: it has refused it, or the map does not have the user.
        BackendUnavailable: the backend refuses it for now.
        LoginRerouted: the user is being moved.
    """
    answer, connection = found.answer, found.connection
    is_accepted = answer.condition == b"OK" and route.is_known
    if is_accepted and not found.session.is_leaving:
        name = user.decode("utf-8", "replace").lower()
        return IAccount, BackendAccount(name), connection.close
    connection.close()
    if is_accepted:
        raise LoginRerouted("the user is being moved")
    if answer.condition == b"NO" and answer.code in _TEMPORARY:
        raise LoginUndecided("the backend refuses the login for now")
    raise UnauthorizedLogin


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
