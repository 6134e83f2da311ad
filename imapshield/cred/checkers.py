"""Who is it: the checker of hashed passwords, which never hashes on the reactor and never queues without end.

A check takes a tenth of a second of a core and 32 to 64 MiB, and whoever can connect can ask for one. So they run in
two threads, a few wait, and more are refused before any work is done. An honest client that comes back all the time
with the same password is known from last time and costs one keyed hash.
"""

from __future__ import annotations

import hmac
import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from typing import Any, TypeVar

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import LoginFailed, UnauthorizedLogin
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from zope.interface import Interface, implementer

from imapshield.cred import passwords, users
from imapshield.cred.sasl import IScramProof, no_secret

T = TypeVar("T")

THREADS = 2
"""Passwords hashed at once: on a small machine the rest of the server needs a core too."""

WAITING = 32
"""Checks running or waiting before more are refused: 32 in two threads are done within two seconds."""

REMEMBERED = 1000
REMEMBER_SECONDS = 300.0


class Busy(LoginFailed):
    """Nobody can say now whether the login is right: to the client ``NO [UNAVAILABLE]``, so that it tries again
    later and does not ask its user for another password."""


@implementer(ICredentialsChecker)
class PasswordFile:
    """Checks `IUsernamePassword` against a file of ``user:hash`` lines, read again whenever it changes; and
    `IScramProof`, which needs no thread, while all of its hashes are SCRAM's.

    Args:
        path: the file; `users.put` and ``imapshield passwd`` write it.
        reactor: an `IReactorThreads` and `IReactorTime`, also asked to stop the threads when it stops.
        pool: for tests; has the methods of `ThreadPool`.
        waiting: logins that may be under way before more fail with `Busy`.
    """

    credentialInterfaces = (IUsernamePassword, IScramProof)
    _log = Logger()

    def __init__(
        self, path: str, *, reactor: Any, pool: ThreadPool | None = None, waiting: int = WAITING
    ) -> None:
        self.path = os.path.abspath(path)
        self._reactor = reactor
        self._pool = pool or ThreadPool(0, THREADS, "passwords")
        self._waiting = waiting
        self._under_way = 0
        self._started = self._closed = False
        self._reading = threading.Lock()
        self._version: object = None
        self._users: dict[str, str] = {}
        self._secrets: dict[bytes, passwords.ScramSecret] = {}
        self._trouble = ""
        self._secret = secrets.token_bytes(32)
        self._remembered: OrderedDict[str, tuple[str, bytes, float]] = OrderedDict()

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes | tuple[()]]:
        """The user name, as given. Fails with `UnauthorizedLogin`, or with `Busy`."""
        if IScramProof.providedBy(credentials):
            right = credentials.proved and credentials.secrets is self
            return succeed(credentials.username) if right else fail(UnauthorizedLogin())
        try:
            user = users.user_name(credentials.username)
        except users.BadUserName:
            return fail(UnauthorizedLogin())
        digest = blake2b(credentials.password, key=self._secret, digest_size=32).digest()
        if self._knows(user, digest):
            return succeed(credentials.username)
        if self._closed or self._under_way >= self._waiting:
            return fail(Busy("too many logins at once"))
        self._start()
        self._under_way += 1
        checked = deferToThreadPool(
            self._reactor, self._pool, self._check, user, credentials.password
        )
        return checked.addBoth(self._checked, user, digest, credentials.username)

    @property
    def ready(self) -> bool:
        """Whether SCRAM can be offered: a client that prefers it would try it in vain for whoever has another hash."""
        return bool(self._scram())

    def secret(self, user: bytes) -> passwords.ScramSecret:
        """See `sasl.ScramSource`."""
        known = self._scram()
        found = known.get(user)
        if found is not None:
            return found
        other = self._somebody(user, known)
        iterations = passwords.STORED_ITERATIONS if other is None else other.iterations
        return no_secret(self._secret, user, iterations)

    def _somebody(self, user: bytes, known: Mapping[Any, T]) -> T | None:
        """For an unknown name somebody's value, always the same: so they are as common with strangers as with users."""
        number = int.from_bytes(blake2b(user, key=self._secret, digest_size=8).digest())
        return next(islice(known.values(), number % len(known), None)) if known else None

    def _scram(self) -> dict[bytes, passwords.ScramSecret]:
        """The users' secrets, as the file has them now; none if some user has none."""
        try:
            with self._reading:
                self._read()
                return self._secrets
        except Busy:
            return {}

    def close(self) -> None:
        """Stop the threads. Checks that wait fail with `Busy`."""
        if not self._closed:
            self._closed = True
            if self._started:
                self._pool.stop()

    def _start(self) -> None:
        if not self._started:
            self._started = True
            self._pool.start()
            self._reactor.addSystemEventTrigger("during", "shutdown", self.close)

    def _check(self, user: str, password: bytes) -> str | None:
        """In a thread: the user's stored hash if the password is the one."""
        if self._closed:
            raise Busy("the server stops")
        with self._reading:
            self._read()
            known = self._users
        stored = known.get(user)
        # A stranger must not learn from the time it takes who exists: an unknown user is checked against somebody
        # else's hash, whose parameters cost what everybody's cost.
        against = stored or self._somebody(user.encode(), known)
        right = against is not None and passwords.verify(against, password)
        return stored if right else None

    def _checked(
        self, result: str | Failure | None, user: str, digest: bytes, username: bytes
    ) -> bytes | Failure:
        """On the reactor: remember who was right."""
        self._under_way -= 1
        if isinstance(result, Failure):
            if not result.check(Busy):
                self._log.failure("password check failed", failure=result)
            return Failure(Busy("passwords cannot be checked"))
        if result is None:
            return Failure(UnauthorizedLogin())
        self._remembered[user] = (result, digest, self._reactor.seconds() + REMEMBER_SECONDS)
        self._remembered.move_to_end(user)
        while len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)
        return username

    def _knows(self, user: str, digest: bytes) -> bool:
        """Whether this password was right a moment ago and the user's line is still the same."""
        if user not in self._remembered:
            return False
        stored, was, until = self._remembered[user]
        if (
            self._reactor.seconds() > until
            or self._version_now() != self._version
            or self._users.get(user) != stored
        ):
            del self._remembered[user]
            return False
        return hmac.compare_digest(was, digest)

    def _version_now(self) -> object:
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

    def _read(self) -> None:
        """Locked, in a thread or for SCRAM: read the file if it changed, and say once what is wrong with it.

        Raises:
            Busy: it cannot be read, so that nobody can say whether a password is right.
        """
        version = self._version_now()
        if version is not None and version == self._version:
            return
        try:
            with open(self.path, "rb") as file:
                found, problems = users.parse(file.read())
        except OSError as error:
            self._complain(
                "{path}: {problems}; nobody can log in", [error.strerror or "unreadable"]
            )
            raise Busy("the password file cannot be read") from None
        self._users, self._version = found, version
        made = {user.encode(): passwords.scram(stored) for user, stored in found.items()}
        secrets = {user: secret for user, secret in made.items() if secret is not None}
        self._secrets = secrets if len(secrets) == len(found) else {}
        self._complain("{path}: {problems}", problems)

    def _complain(self, text: str, problems: Sequence[str]) -> None:
        trouble = "; ".join(problems[:10]) + (
            f"; and {len(problems) - 10} more" * (len(problems) > 10)
        )
        if trouble and trouble != self._trouble:
            self._log.warn(text, path=self.path, problems=trouble)
        self._trouble = trouble


@implementer(ICredentialsChecker)
class CheckerChain:
    """Several checkers as one: the first that accepts decides; `Busy` if none did and one could not say."""

    _log = Logger()

    def __init__(self, checkers: Sequence[Any]) -> None:
        self.checkers = tuple(checkers)
        interfaces: dict[type[Interface], None] = {}
        for checker in self.checkers:
            interfaces.update(dict.fromkeys(checker.credentialInterfaces))
        self.credentialInterfaces = tuple(interfaces)

    async def _ask(self, credentials: Any) -> Any:
        refused: Exception = UnauthorizedLogin()
        for checker in self.checkers:
            if any(one.providedBy(credentials) for one in checker.credentialInterfaces):
                try:
                    return await maybeDeferred(checker.requestAvatarId, credentials)
                except UnauthorizedLogin:
                    continue
                except LoginFailed as error:
                    refused = error
        raise refused

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        """The first answer that is an avatar."""
        return Deferred.fromCoroutine(self._ask(credentials))
