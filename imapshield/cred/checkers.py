"""Checks passwords against a password file, in threads and with a bounded queue.

Verifying a password takes a tenth of a second of one core and 32 to 64 MiB, and everybody who can connect can cause it.
So passwords are verified in two threads, few logins wait for the threads, and further logins are refused before any
work is done. A correct password is cached, so that the next login with the same password costs one keyed hash.
"""

import hmac
import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from hashlib import blake2b
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred, DeferredList, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from imapshield.cred import decoys, passwords, users
from imapshield.cred.checker_threads import CLOSE_SECONDS, CheckerThreads
from imapshield.cred.rehashing import Rehasher
from imapshield.cred.sasl import IScramProof, fake_secret
from imapshield.cred.unavailable import CheckerUnavailable, TooManyLogins
from imapshield.cred.user_table import UNVERIFIABLE, UserTable
from imapshield.regular_file import open_regular

__all__ = ["CheckerUnavailable", "PasswordFile", "TooManyLogins"]

THREADS = 2
"""Passwords hashed at the same time. On a small machine the rest of the server needs a core too."""

MAX_PENDING = 32
"""Maximum number of running and waiting checks; more are refused. Two threads finish 32 within two seconds.

The server itself lets fewer checks begin (`limits.max_login_checks`). This bounds other programs that use the
checker, and checks that the server has given up.
"""

READ_SECONDS = 5.0
"""Seconds for which a login waits to know whether the file has changed. A network file system may not answer."""

CACHE_SIZE = 1000
"""Users whose correct passwords are known, as keyed hashes."""

CACHE_SECONDS = 300.0
"""Seconds for which a correct password is known."""


@implementer(ICredentialsChecker)
class PasswordFile:
    """Checks logins against a file of ``user:hash`` lines, which is read again whenever it changes.

    It accepts `IUsernamePassword`. It also accepts `IScramProof` while all hashes of the file are SCRAM secrets.

    The file is read in threads of its own, before each login and whenever somebody calls `refresh`. The reactor uses
    the last `UserTable`.

    Args:
        path: the file; `users.set_hash` and ``imapshield passwd`` write it.
        reactor: an `IReactorThreads` and `IReactorTime`; the checker adds a trigger that stops its threads.
        pool: an object with the methods of `ThreadPool` that verifies passwords, for tests.
        reading_pool: one that reads and writes the file, for tests.
        max_pending: the maximum number of running and waiting checks; further logins fail with `TooManyLogins`.
        decoy_key: initial value of the attribute.
        rehashes: initial value of the attribute.

    Attributes:
        decoy_key: a secret of up to 64 bytes that stays the same over restarts. From it come the salts of unknown
            users. None: it is derived from the hash of the first user in the file. Then it changes when that user is
            removed or gets another password, and that user could compute it.
        rehashes: whether a hash of another server is replaced by one of imapshield after its user has logged in, which
            changes the file (`Rehasher`).
        on_gone: called in the reactor's thread with users who could log in and cannot any more.
        outage: why nobody can log in, or some users cannot, and what to do; "" if all can.
    """

    credentialInterfaces = (IUsernamePassword, IScramProof)
    _log = Logger()

    def __init__(
        self,
        path: str,
        *,
        reactor: Any,
        pool: ThreadPool | None = None,
        reading_pool: ThreadPool | None = None,
        max_pending: int = MAX_PENDING,
        decoy_key: bytes | None = None,
        rehashes: bool = False,
    ) -> None:
        self.path = os.path.abspath(path)
        self._reactor = reactor
        self._threads = CheckerThreads(reactor, "passwords", THREADS, max_pending, pool)
        # One to read, and one to write, which waits for the lock of another program. `refresh` bounds what waits.
        self._reading = CheckerThreads(reactor, "users", 2, max_pending + 3, reading_pool)
        self._rehasher = Rehasher(self.path, reactor, self._threads, self._reading)
        self.rehashes = rehashes
        self._read_lock = threading.Lock()  # of threads only: the reactor never waits for it
        self._lines: dict[bytes, users.ParsedLine] = {}
        self._table = UserTable()
        self._waiters: list[Deferred[None]] | None = None  # of a reading that has not begun
        self._is_slow = False  # no reading has ended for `READ_SECONDS`
        self.on_gone: Callable[[Set[str]], object] = lambda _: None
        self._logged_problems = self.outage = ""
        self._key = secrets.token_bytes(32)
        self.decoy_key = decoy_key
        # user → stored hash, keyed digest of the correct password, and when the entry expires
        self._cache: OrderedDict[str, tuple[str, bytes, float]] = OrderedDict()

    @property
    def rehashes(self) -> bool:
        """Whether hashes of other servers are replaced."""
        return self._rehasher.is_on

    @rehashes.setter
    def rehashes(self, is_on: bool) -> None:
        self._rehasher.is_on = is_on

    @property
    def entries(self) -> Mapping[str, users.UserEntry]:
        """The lines of the file when it was read last, by user."""
        return self._table.entries

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes | tuple[()]]:
        """Return the user name as the client sent it. Fails with `UnauthorizedLogin` or `CheckerUnavailable`."""

        async def check() -> bytes | tuple[()]:
            await self.refresh()
            return await self.check_refreshed(credentials)

        return Deferred.fromCoroutine(check())

    async def check_refreshed(self, credentials: Any) -> bytes:
        """Do the same as `requestAvatarId`, without a look at the file: the caller has waited for `refresh`."""
        try:
            user = users.user_name(credentials.username)
        except users.BadUserName:
            raise UnauthorizedLogin from None
        if IScramProof.providedBy(credentials):
            accepted = credentials.proved and credentials.source is self and self.can_log_in(user)
            result: str | None = self._table.hashes.get(user) if accepted else None
            digest = b""
        elif self._is_cached(user, digest := self._digest(credentials.password)):
            return bytes(credentials.username)
        else:
            result = await self._verified(user, credentials.password)
        if result is None:
            raise UnauthorizedLogin
        if digest:
            self._remember(user, result, digest)
            self._rehasher.password_was_right(user, credentials.password, result)
        return bytes(credentials.username)

    def has_user(self, user: bytes) -> bool:
        """Return whether the file had a user of exactly this name when it was read last, who may be disabled."""
        return user.decode("utf-8", "surrogateescape") in self._table.entries

    def is_disabled(self, user: bytes) -> bool:
        """Return whether the line of a user said so when the file was read last."""
        entry = self.entries.get(user.decode("utf-8", "surrogateescape"))
        return entry is not None and entry.is_disabled

    def can_log_in(self, user: str) -> bool:
        """Return whether the file had a usable line of exactly this name when it was read last."""
        return user in self._table.hashes

    def refresh(self) -> Deferred[None]:
        """Read the file in a thread if it has changed, so that `has_user` and `ready` are right.

        Returns:
            A Deferred that fires when that is done, also if the file cannot be read; then the checks that follow fail.
            It fires after `READ_SECONDS` in any case, and at once while an earlier reading takes longer. Then the last
            table is used.
        """
        if self._is_slow or not self._reading.has_room:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        if self._waiters is not None:  # a reading that begins later than this call
            self._waiters.append(waiter)
        else:
            self._waiters = waiters = [waiter]
            self._reading.run(self._read_for_waiters).addBoth(self._has_read, waiters)
        return waiter.addTimeout(READ_SECONDS, self._reactor).addErrback(self._no_answer)

    def _read_for_waiters(self) -> None:
        self._waiters = None  # who comes now wants to know of later changes, too
        self.load()

    def _has_read(self, result: object, waiters: Sequence[Deferred[None]]) -> None:
        self._is_slow = False
        if isinstance(result, Failure):
            self._log.failure("{path} could not be read", failure=result, path=self.path)
        for waiter in [*waiters]:
            waiter.callback(None)

    def _no_answer(self, failure: Failure) -> None:
        failure.trap(defer.TimeoutError)  # the login may also end for another reason
        if not self._is_slow:
            self._is_slow = True
            self._log.warn(
                "{path}: not read within {seconds:g} seconds; logins use what was read last; check its file system",
                path=self.path,
                seconds=READ_SECONDS,
            )

    def is_cached(self, credentials: Any) -> bool:
        """Return whether `requestAvatarId` accepts the password without work, because it was correct recently."""
        try:
            user = users.user_name(credentials.username)
        except users.BadUserName:
            return False
        return self._is_cached(user, self._digest(credentials.password))

    @property
    def ready(self) -> bool:
        """Whether all users had SCRAM secrets when the file was read last.

        Clients that prefer SCRAM would fail for a user with another hash.
        """
        if self._table.version is None:
            self.refresh()
        return bool(self._table.scram_secrets) and self._table.version is not None

    def secret(self, user: bytes) -> passwords.ScramSecret:
        """Return the SCRAM secret of a user, or a fake one for an unknown user (`sasl.ScramSource`)."""
        table, key = self._table, self._salt_key()
        # Also for a known user, so that both take the same time.
        form = decoys.choose(key, user, table.scram_forms)
        fake = fake_secret(key, user, *(form or (passwords.FILE_ITERATIONS,)))
        return table.scram_secrets.get(user) or fake

    def _salt_key(self) -> bytes:
        return self.decoy_key or self._table.decoy_key

    @property
    def problem(self) -> str:
        """What is wrong with the file, as the log has it; "" if nothing is."""
        return self._logged_problems and f"{self.path}: {self._logged_problems}"

    def load(self) -> None:
        """Read the file if it has changed, which may block; its problems are then in the log and in `problem`."""
        with self._read_lock:
            self._read()

    def close(self) -> Deferred[Any]:
        """Write what waits, and stop the threads. Waiting checks fail with `CheckerUnavailable`.

        Fires when nothing runs, or is waited for no longer.
        """
        written = self._rehasher.write().addTimeout(CLOSE_SECONDS, self._reactor)
        closed = written.addBoth(lambda _: self._reading.close())
        return DeferredList([self._threads.close(), closed], consumeErrors=True)

    async def _verified(self, user: str, password: bytes) -> str | None:
        """Return the stored hash of the user if the password is correct."""
        try:
            result: str | None = await self._threads.run(self._check, user, password)
        except (CheckerUnavailable, TooManyLogins, CancelledError):
            raise
        except Exception:
            self._log.failure("the password of {user!r} could not be checked", user=user)
            raise CheckerUnavailable("passwords cannot be checked") from None
        return result

    def _check(self, user: str, password: bytes) -> str | None:
        """Return the user's stored hash if the password is correct. Runs in a thread."""
        if self._threads.closed:
            raise CheckerUnavailable("the server is stopping")
        table = self._table
        if table.version is None:
            raise CheckerUnavailable("the password file cannot be read")
        stored = table.hashes.get(user)
        # The time of a login must not reveal whether the user exists. So the password of an unknown user is verified
        # against the hash of another user, which takes as long.
        cost = decoys.choose(self._salt_key(), user.encode(), table.costs)
        if user in table.lacking or (stored is None and cost == UNVERIFIABLE):
            raise CheckerUnavailable("a package is missing")
        verifiable = stored or (table.examples[cost] if cost else None)
        return stored if verifiable and passwords.verify(verifiable, password) else None

    def _remember(self, user: str, stored: str, digest: bytes) -> None:
        """Cache a correct password."""
        self._cache[user] = (stored, digest, self._reactor.seconds() + CACHE_SECONDS)
        self._cache.move_to_end(user)
        while len(self._cache) > CACHE_SIZE:
            self._cache.popitem(last=False)

    def _digest(self, password: bytes) -> bytes:
        return blake2b(password, key=self._key, digest_size=32).digest()

    def _is_cached(self, user: str, digest: bytes) -> bool:
        """Return whether this password was correct recently and the line of the user has not changed since."""
        if user not in self._cache:
            return False
        stored, cached_digest, expires = self._cache[user]
        if self._reactor.seconds() > expires or self._table.hashes.get(user) != stored:
            del self._cache[user]
            return False
        return self._table.version is not None and hmac.compare_digest(cached_digest, digest)

    def _file_version(self) -> object:
        try:
            status = os.stat(self.path)
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size

    def _read(self) -> None:
        """Read the file if it has changed. Runs with the lock held."""
        version = self._file_version()
        if version is not None and version == self._table.version:
            return
        try:
            with open_regular(self.path) as file:
                entries, problems = users.parse(file.read(), self._lines)
        except OSError as error:
            problem = error.strerror or "cannot be read"
            text = (
                "{path}: {problems}; nobody can log in; make it readable for the user of the server,"
                " or create it with `imapshield passwd {path} USER`"
            )
            self._table = replace(self._table, version=None)
            self.outage = text.format(path=self.path, problems=problem)
            self._log_problems(text, [problem])
            return
        table = self._table.next(version, entries)
        gone = self._table.hashes.keys() - table.hashes.keys()
        self._table = table
        if gone:
            self._reactor.callFromThread(self.on_gone, gone)
        if without := table.without_scram:
            advice = f"`imapshield passwd --scram {self.path} {without}` stores one"
            problems.append(
                f"SCRAM is not offered, because {without} has no SCRAM secret; {advice}"
            )
        if not table.hashes:
            advice = (
                f"no users; nobody can log in; add a user with `imapshield passwd {self.path} USER`"
            )
            problems = ["nobody can log in" if table.lacking else advice, *problems]
        self.outage = ""
        if table.lacking or not table.hashes:
            self.outage = f"{self.path}: {'; '.join(problems[: 1 if table.hashes else 2])}"
        self._log_problems("{path}: {problems}", problems)

    def _log_problems(self, text: str, problems: Sequence[str]) -> None:
        """Log the problems of the file, unless they are the same as the last time."""
        more = [f"and {len(problems) - 10} more"] if len(problems) > 10 else []
        summary = "; ".join([*problems[:10], *more])
        if summary and summary != self._logged_problems:
            self._log.warn(text, path=self.path, problems=summary)
        self._logged_problems = summary
