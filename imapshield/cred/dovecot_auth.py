"""`DovecotAuth`: asks a running Dovecot whether a password is correct, over the socket ``auth-client``.

The protocol is described in Dovecot's documentation ("Dovecot Authentication Protocol v1.2"). Both sides send lines
with tabs between the fields. Dovecot answers when it likes, in any order, with the number of the request.
"""

import base64
import os
from itertools import count
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from imapshield.cred.unavailable import CheckerUnavailable, Outages

MAX_PENDING = 100
"""Requests without an answer; more are refused. The server itself lets fewer checks begin (`max_login_checks`)."""

TIMEOUT_SECONDS = 30.0
"""Dovecot answers a wrong password after two seconds, and a database may take longer."""


class _Protocol(LineOnlyReceiver):
    """One connection to Dovecot.

    Attributes:
        lost: whether the connection has ended.
    """

    delimiter = b"\n"
    MAX_LENGTH = 8192  # Dovecot's own limit

    def __init__(self) -> None:
        self.lost = False
        self._is_ready = False
        self._waiting: list[Deferred[None]] = []
        self._numbers = count(1)
        self._pending: dict[bytes, Deferred[bytes]] = {}

    def connectionMade(self) -> None:
        self.sendLine(b"VERSION\t1\t1")
        self.sendLine(b"CPID\t%d" % os.getpid())

    def lineReceived(self, line: bytes) -> None:
        command, *fields = line.split(b"\t")
        if command == b"VERSION" and fields[:1] != [b"1"]:
            self.close()
        elif command == b"DONE":
            self._is_ready = True
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each.callback(None)
        elif command in (b"OK", b"FAIL", b"CONT") and fields:
            asked = self._pending.pop(fields[0], None)
            if asked is not None:
                _answer(asked, command, fields[1:])

    def lineLengthExceeded(self, line: bytes) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self.transport is not None:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = Failure(CheckerUnavailable())) -> None:  # noqa: B008
        self.lost = True
        waiting: list[Deferred[Any]] = [*self._waiting, *self._pending.values()]
        self._waiting.clear()
        self._pending.clear()
        for each in waiting:
            each.errback(CheckerUnavailable("no connection to Dovecot"))

    def when_ready(self) -> Deferred[None]:
        """Return a Deferred that fires when requests can be sent."""
        if self.lost:
            return fail(CheckerUnavailable("no connection to Dovecot"))
        if self._is_ready:
            return succeed(None)
        waiting: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    def check(self, user: bytes, password: bytes) -> Deferred[bytes]:
        """Ask for one password; fires with the name of the user."""
        if len(self._pending) >= MAX_PENDING:
            return fail(CheckerUnavailable("too many requests"))
        number = b"%d" % next(self._numbers)
        waiting: Deferred[bytes] = Deferred(lambda _: self._forget(number))
        self._pending[number] = waiting
        response = base64.b64encode(b"\0%b\0%b" % (user, password))
        # "secured": the connection of the client is encrypted or local, which the server requires for passwords.
        # "resp" is the last field.
        self.sendLine(
            b"AUTH\t%b\tPLAIN\tservice=imap\tsecured\tno-penalty\tresp=%b" % (number, response)
        )
        return waiting

    def _forget(self, number: bytes) -> None:
        self._pending.pop(number, None)


def _answer(waiting: Deferred[bytes], command: bytes, fields: list[bytes]) -> None:
    """Fire a Deferred with the answer of Dovecot."""
    values = dict(field.partition(b"=")[::2] for field in fields)
    if command == b"FAIL" and b"temp" in values:
        waiting.errback(CheckerUnavailable("Dovecot cannot check passwords now"))
    elif command != b"OK" or not values.get(b"user") or values.keys() & {b"nologin", b"proxy"}:
        waiting.errback(UnauthorizedLogin())
    else:
        waiting.callback(_unescape(values[b"user"]))


def _unescape(value: bytes) -> bytes:
    for escaped, byte in (
        (b"\x01t", b"\t"),
        (b"\x01r", b"\r"),
        (b"\x01n", b"\n"),
        (b"\x010", b"\0"),
    ):
        value = value.replace(escaped, byte)
    return value.replace(b"\x011", b"\x01")


@implementer(ICredentialsChecker)
class DovecotAuth:
    """Checks passwords with a running Dovecot.

    The avatar id is the name that Dovecot returns, which follows its ``auth_username_format``.

    Args:
        path: the UNIX socket, such as ``/run/dovecot/auth-client``.
        reactor: the reactor.
        endpoint: connects to Dovecot, by default at `path`.
    """

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, path: str, *, reactor: Any, endpoint: Any = None) -> None:
        self._reactor = reactor
        self._endpoint = endpoint or UNIXClientEndpoint(reactor, path)
        self._protocol: _Protocol | None = None
        self._outages = Outages(
            f"dovecot:{path}",
            "start Dovecot, and let the user of the server use the socket"
            " (service auth, unix_listener auth-client)",
        )

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        """Return the name of the user.

        It fails with `UnauthorizedLogin`, or with `CheckerUnavailable` if Dovecot does not answer.
        """
        checking = Deferred.fromCoroutine(self._check(credentials.username, credentials.password))
        return self._outages.limit(checking, TIMEOUT_SECONDS, self._reactor)

    async def _check(self, user: bytes, password: bytes) -> bytes:
        protocol = self._protocol
        if protocol is None or protocol.lost:
            protocol = self._protocol = _Protocol()
            connecting = connectProtocol(self._endpoint, protocol)
            connecting.addErrback(self._not_connected, protocol)
        await protocol.when_ready()
        try:
            name = await protocol.check(user, password)
        except UnauthorizedLogin:
            self._outages.over()
            raise
        self._outages.over()
        return name

    def _not_connected(self, failure: Failure, protocol: _Protocol) -> None:
        self._outages.report(failure.getErrorMessage())
        protocol.connectionLost()

    def close(self) -> None:
        """Close the connection."""
        if self._protocol is not None:
            self._protocol.close()
