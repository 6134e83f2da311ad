"""`Rehasher`: replaces the password hashes of other servers by our own, after the logins of their users."""

import json
from collections import deque
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from imapshield.cred import foreign_hashes, passwords, users
from imapshield.cred.checker_threads import CheckerThreads

WRITE_SECONDS = 60.0
"""Seconds for which new hashes are collected before the file is written. On the first day after a migration thousands
of users log in, and each change of the file costs a write of all lines and a read of all lines."""

MAX_QUEUED = 100
"""Passwords that wait for a new hash, one after the other. A further user gets one at a later login."""


class Rehasher:
    """Collects the new hashes of one password file, and writes them together.

    One hash is computed at a time, so that logins have the other threads. A new hash that is not written, because the
    process is killed, is made again at the next login.

    Args:
        path: the file.
        reactor: an `IReactorTime` and `IReactorCore`.
        hashing: computes hashes.
        writing: writes the file.

    Attributes:
        is_on: whether hashes are replaced.
    """

    _log = Logger(namespace="imapshield.cred.checkers")

    def __init__(
        self, path: str, reactor: Any, hashing: CheckerThreads, writing: CheckerThreads
    ) -> None:
        self._path, self._reactor = path, reactor
        self._hashing, self._writing = hashing, writing
        self.is_on = False
        self._queue: deque[tuple[str, bytes, str]] = deque()  # user, password, old hash
        self._is_hashing = False
        self._begun: set[str] = set()  # users whose new hash is computed, waits or is written
        self._waiting: dict[str, tuple[str, str]] = {}  # user → the old and the new hash
        self._trigger: Any = None  # while hashes wait
        self._timer: Any = None

    def password_was_right(self, user: str, password: bytes, stored: str) -> None:
        """Begin to replace the hash `stored` of a user, if it is one of another server and there is time."""
        has_room = user not in self._begun and len(self._queue) < MAX_QUEUED
        if self.is_on and has_room and foreign_hashes.is_foreign(stored):
            self._begun.add(user)
            self._queue.append((user, password, stored))
            self._hash_next()

    def _hash_next(self) -> None:
        if self._queue and not self._is_hashing:
            self._is_hashing = True
            user, password, stored = self._queue.popleft()
            hashed = self._hashing.run(passwords.hash_password, password)
            hashed.addBoth(self._hashed, user, stored)

    def _hashed(self, new: str | Failure, user: str, stored: str) -> None:
        self._is_hashing = False
        if isinstance(new, Failure):  # too many logins; later ones try again
            self._begun.difference_update([user], (each for each, _, _ in self._queue))
            self._queue.clear()
        else:
            self._keep(user, stored, new)
        self._hash_next()

    def _keep(self, user: str, stored: str, new: str) -> None:
        self._waiting[user] = stored, new
        if self._timer is None:
            self._timer = self._reactor.callLater(WRITE_SECONDS, self.write)
            self._trigger = self._reactor.addSystemEventTrigger(
                "before", "shutdown", self._shut_down
            )

    def _shut_down(self) -> Deferred[None]:
        self._trigger = None  # the reactor has removed it
        return self.write()

    def write(self) -> Deferred[None]:
        """Write the new hashes that wait, of users who have the old hash still; fires when that is done."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        trigger, self._trigger = self._trigger, None
        if trigger is not None:
            self._reactor.removeSystemEventTrigger(trigger)
        hashes, self._waiting = self._waiting, {}
        if not hashes:
            return succeed(None)
        written = self._writing.run(users.replace_hashes, self._path, hashes)
        return written.addBoth(self._written, hashes)

    def _written(self, result: list[str] | Failure, hashes: dict[str, tuple[str, str]]) -> None:
        self._begun.difference_update(hashes)
        if not isinstance(result, Failure):
            for user in result:
                self._log.info(
                    "{path}: new hash of {user_json}", path=self._path, user_json=json.dumps(user)
                )
            return
        self.is_on = False  # one line is enough
        error = result.value
        reason = error.strerror if isinstance(error, OSError) else type(error).__name__
        self._log.warn(
            "{path}: the hashes of other servers stay, because the file cannot be changed: {reason}; make it and its"
            " directory writable for the user of the server, or use --no-rehash",
            path=self._path,
            reason=reason,
        )
