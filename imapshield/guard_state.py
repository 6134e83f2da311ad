"""`GuardState`: keeps the bans and the known users of a running server in a `StateFile`.

Rules
-----
* A file that cannot be used is one line in the log. The server goes on, with all of it in memory only.
* The file is written at most once per second, by one thread, and no login waits for it.
* Each second the server looks whether another process has changed the file: `imapshield unban`, or a second server.
"""

import os
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from imapshield.guard.bans import Ban, Bans, SavedBan, ban_target
from imapshield.guard.login_failures import LoginFailures
from imapshield.guard.networks import Network, describe
from imapshield.state_file import Changes, StateFile, StateFileError

SAVE_SECONDS = 1.0
"""Seconds between two looks at the file."""

CLOCK_SECONDS = 10.0
"""Seconds between two changes of the file if only its clock is to be saved. A server that is killed may extend its bans
by as much."""

RETRY_SECONDS = 60.0
"""Seconds after an error until the file is used again."""


class GuardState:
    """Loads the state at the start, and saves what changes.

    Args:
        path: the file; None keeps the state in memory.
        bans: the bans of the server.
        failures: the failed logins and known users of the server.
        reactor: an `IReactorTime` and `IReactorThreads`.
        now: returns the time that `bans` and `failures` get.
        pool: an object with the methods of `ThreadPool`, for tests.

    Attributes:
        on_ban: called with each ban that `start` restores.
        on_unban: called with the text of each network whose ban was removed by another process.
    """

    _log = Logger(namespace="imapshield")

    def __init__(
        self,
        path: str | None,
        bans: Bans,
        failures: LoginFailures,
        *,
        reactor: Any,
        now: Callable[[], float],
        pool: Any = None,
    ) -> None:
        self.on_ban: Callable[[Ban], object] = lambda _: None
        self.on_unban: Callable[[str], object] = lambda _: None
        self._path, self._bans, self._failures = path, bans, failures
        self._reactor, self._now = reactor, now
        self._pool = pool or ThreadPool(0, 1, "state")
        self._file: StateFile | None = None
        self._secret, self._secret_is_kept = os.urandom(32), False
        self._clock_offset = 0.0  # the clock of the file minus the time
        self._running: Deferred[None] | None = None
        self._next_clock = self._retry_at = 0.0
        self._failed = False
        self._loop = LoopingCall(self._tick)
        self._loop.clock = reactor

    def start(self) -> None:
        """Load the file. Call it when the process has its final user, and before the first login."""
        if self._path is not None:
            try:
                self._load(self._path)
            except StateFileError as error:
                self._report(error)
        self._failures.key = self.secret("login failures")
        if self._file is not None:
            self._pool.start()
            self._loop.start(SAVE_SECONDS, now=False)

    def secret(self, name: str) -> bytes:
        """Return 32 bytes that depend on `name` and are the same after a restart. Call it after `start`."""
        return blake2b(name.encode(), key=self._secret, digest_size=32).digest()

    def kept_secret(self, name: str) -> bytes | None:
        """Return what `secret` does, or None if it will be another after a restart, because there is no file."""
        return self.secret(name) if self._secret_is_kept else None

    def stop(self) -> Deferred[None]:
        """Save what has changed, and close the file."""
        if self._loop.running:
            self._loop.stop()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._file is None:
            return
        if self._running is not None:
            await self._running
        await self._save(force=True)
        self._pool.stop()
        self._file.close()
        self._file = None

    def _load(self, path: str) -> None:
        file = StateFile(path, create=True)
        now = self._now()
        try:
            self._secret, clock = file.secret(), file.clock()
            self._secret_is_kept = True
            bans, known = file.bans(), file.known()
            self._bans.restore(bans, now)
            kept = {describe(network) for network in self._bans}
            forgotten = {ban.network: None for ban in bans if ban.network not in kept}
            if forgotten:
                file.save(clock, Changes(forgotten))
        except StateFileError:
            file.close()
            raise
        for user, addresses in known:
            self._failures.restore_known(user, addresses, now)
        self._file, self._clock_offset = file, clock - now
        self._collect_changes()
        for active in self._bans.active(now):
            self.on_ban(active)

    def _tick(self) -> None:
        if self._running is None and self._now() >= self._retry_at:
            self._running = self._save()
            self._running.addBoth(self._saved)

    def _saved(self, _: object) -> None:
        self._running = None

    def _save(self, *, force: bool = False) -> Deferred[None]:
        """Exchange the changes with the file, in the thread."""
        bans, failures, now, file = self._bans, self._failures, self._now(), self._file
        assert file is not None
        everything = bans.changed is None or failures.changed_users is None
        networks: Collection[Network] | None = bans.changed
        users: Collection[bytes] | None = failures.changed_users
        if networks is None or users is None:
            networks, users = set(bans), list(failures.known_users())
        self._collect_changes()
        changes = None
        if force or networks or users or (len(bans) and now >= self._next_clock):
            self._next_clock = now + CLOCK_SECONDS
            changes = Changes(
                {describe(network): bans.saved(network, now) for network in networks},
                {user: failures.known_addresses(user) for user in users},
                everything,
            )
        clock = now + self._clock_offset
        saving = deferToThreadPool(self._reactor, self._pool, file.exchange, clock, changes)
        return saving.addCallbacks(self._merge, self._save_failed, callbackArgs=(networks,))

    def _collect_changes(self) -> None:
        self._bans.changed, self._failures.changed_users = set(), set()

    def _merge(self, found: Sequence[SavedBan] | None, written: Collection[Network]) -> None:
        """Take over the bans that are in the file, except those that this server has just `written`."""
        self._failed = False
        if found is None:
            return
        now, in_file = self._now(), {ban.network for ban in found}
        ours = {describe(network): network for network in self._bans}
        newer = self._bans.changed or set()
        for text, network in ours.items():
            if text not in in_file and network not in written and network not in newer:
                self._bans.unban(text)
                self.on_unban(text)
        for ban in found:
            with suppress(ValueError):
                network = ban_target(ban.network)
                if not (ban.network in ours or network in written or network in newer):
                    self._bans.restore([ban], now)
                    newer.discard(network)

    def _save_failed(self, failure: Failure) -> None:
        # Until the next attempt, changes are not collected: then everything is written.
        self._bans.changed = self._failures.changed_users = None
        self._retry_at = self._now() + RETRY_SECONDS
        self._report(failure.value)

    def _report(self, error: BaseException | None) -> None:
        if not self._failed:
            self._log.warn(
                "--state {error}; until then bans and known users are only in memory", error=error
            )
        self._failed = True
