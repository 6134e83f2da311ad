"""Checks passwords against a password file, in threads and with a bounded queue.

Verifying a password takes a tenth of a second of one core and 32 to 64 MiB, and everybody who can connect can cause it.
So passwords are verified in two threads, few logins wait for the threads, and further logins are refused before any
work is done. A correct password is cached, so that the next login with the same password costs one keyed hash.
"""

import hmac
import json
import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence, Set
from hashlib import blake2b
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from imapshield.cred import decoys, foreign_hashes, passwords, users
from imapshield.cred.checker_threads import CheckerThreads
from imapshield.cred.sasl import IScramProof, fake_secret
from imapshield.cred.unavailable import CheckerUnavailable, TooManyLogins

__all__ = ["CheckerUnavailable", "PasswordFile", "TooManyLogins"]

THREADS = 2
"""Passwords hashed at the same time. On a small machine the rest of the server needs a core too."""

MAX_PENDING = 32
"""Maximum number of running and waiting checks; more are refused. Two threads finish 32 within two seconds.

The server itself lets fewer checks begin (`limits.max_login_checks`). This bounds other programs that use the
checker, and checks that the server has given up.
"""

CACHE_SIZE = 1000
"""Users whose correct passwords are known, as keyed hashes."""

CACHE_SECONDS = 300.0
"""Seconds for which a correct password is known."""


@implementer(ICredentialsChecker)
class PasswordFile:
    """Checks logins against a file of ``user:hash`` lines, which is read again whenever it changes.

    It accepts `IUsernamePassword`. It also accepts `IScramProof`, without a thread, while all hashes of the file are
    SCRAM secrets.

    Args:
        path: the file; `users.set_hash` and ``imapshield passwd`` write it.
        reactor: an `IReactorThreads` and `IReactorTime`; the checker adds a trigger that stops its threads.
        pool: an object with the methods of `ThreadPool`, for tests.
        max_pending: the maximum number of running and waiting checks; further logins fail with `TooManyLogins`.
        decoy_key: initial value of the attribute.
        rehashes: whether a hash of another server becomes one of ours when its user logs in, which changes the file.

    Attributes:
        decoy_key: a secret of up to 64 bytes that stays the same over restarts. From it come the salts of unknown
            users. None: it is derived from the hash of the first user in the file. Then it changes when that user is
            removed or gets another password, and that user could compute it.
        entries: the lines of the file when it was read last, by user.
        on_gone: called in the reactor's thread with users who could log in and cannot any more.
    """

    credentialInterfaces = (IUsernamePassword, IScramProof)
    _log = Logger()

    def __init__(
        self,
        path: str,
        *,
        reactor: Any,
        pool: ThreadPool | None = None,
        max_pending: int = MAX_PENDING,
        decoy_key: bytes | None = None,
        rehashes: bool = False,
    ) -> None:
        self.path = os.path.abspath(path)
        self._reactor = reactor
        self._threads = CheckerThreads(reactor, "passwords", THREADS, max_pending, pool)
        self.rehashes = rehashes
        self._read_lock = threading.Lock()
        self._version: object = None
        self.entries: dict[str, users.UserEntry] = {}
        self.on_gone: Callable[[Set[str]], object] = lambda _: None
        self._hashes: dict[str, str] = {}
        self._rehashing: set[str] = set()
        self._scram_secrets: dict[bytes, passwords.ScramSecret] = {}
        self._logged_problems = ""
        self._key = secrets.token_bytes(32)
        self.decoy_key = decoy_key
        self._derived_decoy_key = self._key
        # How many users have hashes of each cost, an example of each, and how many have secrets of each form.
        self._costs: dict[str, int] = {}
        self._examples: dict[str, str] = {}
        self._scram_forms: dict[tuple[int, int], int] = {}
        # user → stored hash, keyed digest of the correct password, and when the entry expires
        self._cache: OrderedDict[str, tuple[str, bytes, float]] = OrderedDict()

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes | tuple[()]]:
        """Return the user name as the client sent it. Fails with `UnauthorizedLogin` or `CheckerUnavailable`."""
        if IScramProof.providedBy(credentials):
            accepted = credentials.proved and credentials.source is self
            return succeed(credentials.username) if accepted else fail(UnauthorizedLogin())
        try:
            user = users.user_name(credentials.username)
        except users.BadUserName:
            return fail(UnauthorizedLogin())
        digest = self._digest(credentials.password)
        if self._is_cached(user, digest):
            return succeed(credentials.username)
        checked = self._threads.run(self._check, user, credentials.password)
        return checked.addBoth(self._checked, user, digest, credentials)

    def has_user(self, user: bytes) -> bool:
        """Return whether the file had a user of exactly this name when it was read last, who may be disabled."""
        return user.decode("utf-8", "surrogateescape") in self.entries

    def is_disabled(self, user: bytes) -> bool:
        """Return whether the line of a user said so when the file was read last."""
        entry = self.entries.get(user.decode("utf-8", "surrogateescape"))
        return entry is not None and entry.is_disabled

    def can_log_in(self, user: str) -> bool:
        """Return whether the file had a usable line of exactly this name when it was read last."""
        return user in self._hashes

    def is_stale(self) -> bool:
        """Return whether the file has changed since it was read."""
        version = self._file_version()
        return version is None or version != self._version

    def refresh(self) -> Deferred[None] | None:
        """Read the file in a thread if it has changed, so that `has_user` is right; returns None if it has not."""
        if not self._threads.has_room or not self.is_stale():
            return None
        # A file that cannot be read is reported by the check that follows.
        return self._threads.run(self.load).addErrback(lambda _: None)

    def is_cached(self, credentials: Any) -> bool:
        """Return whether `requestAvatarId` accepts the password without work, because it was correct recently."""
        try:
            user = users.user_name(credentials.username)
        except users.BadUserName:
            return False
        return self._is_cached(user, self._digest(credentials.password))

    @property
    def ready(self) -> bool:
        """Whether all users have SCRAM secrets. Clients that prefer SCRAM would fail for a user with another hash."""
        return bool(self._scram())

    def secret(self, user: bytes) -> passwords.ScramSecret:
        """Return the SCRAM secret of a user, or a fake one for an unknown user (`sasl.ScramSource`)."""
        known = self._scram()
        key = self.decoy_key or self._derived_decoy_key
        # Also for a known user, so that both take the same time.
        form = decoys.choose(key, user, self._scram_forms)
        fake = fake_secret(key, user, *(form or (passwords.FILE_ITERATIONS,)))
        return known.get(user) or fake

    def _scram(self) -> dict[bytes, passwords.ScramSecret]:
        """Return the SCRAM secrets of all users in the file; empty if a user has another kind of hash."""
        try:
            with self._read_lock:
                self._read()
                return self._scram_secrets
        except CheckerUnavailable:
            return {}

    @property
    def problem(self) -> str:
        """What is wrong with the file, as the log has it; "" if nothing is."""
        return self._logged_problems and f"{self.path}: {self._logged_problems}"

    def load(self) -> None:
        """Read the file, so that its problems are in the log before somebody cannot log in."""
        self._scram()

    def close(self) -> Deferred[None]:
        """Stop the threads. Waiting checks fail with `CheckerUnavailable`.

        Fires when no check runs, or is waited for no longer.
        """
        return self._threads.close()

    def _check(self, user: str, password: bytes) -> str | None:
        """Return the user's stored hash if the password is correct. Runs in a thread."""
        if self._threads.closed:
            raise CheckerUnavailable("the server is stopping")
        with self._read_lock:
            self._read()
            stored = self._hashes.get(user)
            # The time of a login must not reveal whether the user exists. So the password of an unknown user is
            # verified against the hash of another user, which takes as long.
            key = self.decoy_key or self._derived_decoy_key
            cost = decoys.choose(key, user.encode(), self._costs)
            verifiable = stored or (self._examples[cost] if cost else None)
        return stored if verifiable and passwords.verify(verifiable, password) else None

    def _checked(
        self, result: str | Failure | None, user: str, digest: bytes, credentials: Any
    ) -> bytes | Failure:
        """Return the result of the check, and cache a correct password. Runs on the reactor."""
        if isinstance(result, Failure):
            if result.check(TooManyLogins):
                return result
            if not result.check(CheckerUnavailable):
                self._log.failure(
                    "the password of {user!r} could not be checked", failure=result, user=user
                )
            return Failure(CheckerUnavailable("passwords cannot be checked"))
        if result is None:
            return Failure(UnauthorizedLogin())
        self._cache[user] = (result, digest, self._reactor.seconds() + CACHE_SECONDS)
        self._cache.move_to_end(user)
        while len(self._cache) > CACHE_SIZE:
            self._cache.popitem(last=False)
        self._replace_hash(user, credentials.password, result)
        username: bytes = credentials.username
        return username

    def _replace_hash(self, user: str, password: bytes, stored: str) -> None:
        """Begin to replace a hash of another server that `password` has."""
        has_room = user not in self._rehashing and self._threads.has_room
        if self.rehashes and has_room and foreign_hashes.is_foreign(stored):
            self._rehashing.add(user)
            replaced = self._threads.run(self._rehash, user, password, stored)
            replaced.addBoth(self._rehashed, user)

    def _rehash(self, user: str, password: bytes, stored: str) -> None:
        """Write another hash of a correct password, if the file has the old one still. Runs in a thread."""
        if not self._threads.closed:
            users.set_hash(self.path, user, passwords.hash_password(password), only_if=stored)

    def _rehashed(self, result: object, user: str) -> None:
        self._rehashing.discard(user)
        if not isinstance(result, Failure):
            self._log.info(
                "{path}: new hash of {user_json}", path=self.path, user_json=json.dumps(user)
            )
            return
        self.rehashes = False  # one line is enough
        error = result.value
        reason = error.strerror if isinstance(error, OSError) else type(error).__name__
        self._log.warn(
            "{path}: the hashes of other servers stay, because the file cannot be changed: {reason}; make it and its"
            " directory writable for the user of the server, or use --no-rehash",
            path=self.path,
            reason=reason,
        )

    def _digest(self, password: bytes) -> bytes:
        return blake2b(password, key=self._key, digest_size=32).digest()

    def _is_cached(self, user: str, digest: bytes) -> bool:
        """Return whether this password was correct recently and the line of the user has not changed since."""
        if user not in self._cache:
            return False
        stored, cached_digest, expires = self._cache[user]
        if (
            self._reactor.seconds() > expires
            or self._file_version() != self._version
            or self._hashes.get(user) != stored
        ):
            del self._cache[user]
            return False
        return hmac.compare_digest(cached_digest, digest)

    def _file_version(self) -> object:
        try:
            status = os.stat(self.path)
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size

    def _read(self) -> None:
        """Read the file if it has changed. Runs with the lock held, in a thread or, for SCRAM, on the reactor.

        Raises:
            CheckerUnavailable: the file cannot be read, so no password can be checked.
        """
        version = self._file_version()
        if version is not None and version == self._version:
            return
        try:
            with open(self.path, "rb") as file:
                entries, problems = users.parse(file.read())
        except OSError as error:
            problem = error.strerror or "cannot be read"
            text = (
                "{path}: {problems}; nobody can log in; make it readable for the user of the server,"
                " or create it with `imapshield passwd {path} USER`"
            )
            self._log_problems(text, [problem])
            raise CheckerUnavailable("the password file cannot be read") from None
        hashes = users.usable(entries)
        gone = self._hashes.keys() - hashes.keys()
        self.entries, self._hashes, self._version = entries, hashes, version
        if gone:
            self._reactor.callFromThread(self.on_gone, gone)
        parsed = {user.encode(): passwords.parse_scram(stored) for user, stored in hashes.items()}
        scram_secrets = {user: secret for user, secret in parsed.items() if secret is not None}
        self._scram_secrets = scram_secrets if len(scram_secrets) == len(hashes) else {}
        self._read_decoys()
        without = users.without_scram(hashes)
        if without:
            advice = f"`imapshield passwd --scram {self.path} {without[0]}` stores one"
            problems.append(
                f"SCRAM is not offered, because {without[0]} has no SCRAM secret; {advice}"
            )
        if not hashes:
            advice = f"add a user with `imapshield passwd {self.path} USER`"
            problems = [f"no users; nobody can log in; {advice}", *problems]
        self._log_problems("{path}: {problems}", problems)

    def _read_decoys(self) -> None:
        """Note what the known users have, for the decoys of unknown users."""
        stored, forms = self._hashes.values(), self._scram_secrets.values()
        self._costs = decoys.frequencies(map(passwords.cost, stored))
        self._examples = {passwords.cost(each): each for each in stored}
        self._scram_forms = decoys.frequencies((each.iterations, len(each.salt)) for each in forms)
        first = next(iter(stored), "").encode("utf-8", "surrogateescape")
        self._derived_decoy_key = blake2b(first, key=b"decoys", digest_size=32).digest()

    def _log_problems(self, text: str, problems: Sequence[str]) -> None:
        """Log the problems of the file, unless they are the same as the last time."""
        more = [f"and {len(problems) - 10} more"] if len(problems) > 10 else []
        summary = "; ".join([*problems[:10], *more])
        if summary and summary != self._logged_problems:
            self._log.warn(text, path=self.path, problems=summary)
        self._logged_problems = summary
