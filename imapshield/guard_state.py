"""`GuardState`: keeps the bans and the known users of a running server in a `StateFile`.

Rules
-----
* A file that cannot be used is one line in the log. The server goes on, with all of it in memory only. After an error
  of a file that was loaded, the changes are kept and saved later.
* The file is written at most once per second, by one thread, and no login waits for it.
* Each second the server looks whether another process has changed the file: `imapshield unban`, or a second server.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from imapshield.guard.bans import MAX_BANS, Ban, Bans, SavedBan, ban_target
from imapshield.guard.login_failures import MAX_KNOWN_USERS, LoginFailures
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
        on_unban: called with the text of each network whose ban was ended by another process.
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
        self._next_clock = self._retry_at = 0.0  # seconds of `now`
        self._failed = False
        self._loop = LoopingCall(self._tick)
        self._loop.clock = reactor

    def start(self) -> None:
        """Load the file. Call it when the process has its final user, and before the first login."""
        if self._path is not None:
            try:
                self._load(self._path)
            except StateFileError as error:
                self._report(error, "until the next start")
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
        try:
            if self._running is not None:
                await self._running
            await self._save(force=True)
        finally:
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
            for user, addresses in known:
                self._failures.restore_known(user, addresses, now)
            kept, kept_users = (
                {describe(ban) for ban in self._bans},
                set(self._failures.known_users()),
            )
            forgotten = Changes(
                {ban.network: None for ban in bans if ban.network not in kept},
                {user: b"" for user, _ in known if user not in kept_users},
            )
            if forgotten.bans or forgotten.known:
                file.save(clock, forgotten)
        except StateFileError:
            file.close()
            raise
        self._file, self._clock_offset = file, clock - now
        self._take_changes()
        for active in self._bans.active(now):
            self.on_ban(active)

    def _tick(self) -> None:
        if self._running is None and self._now() >= self._retry_at:
            self._running = Deferred.fromCoroutine(self._save())
            self._running.addErrback(self._crashed).addBoth(self._saved)

    def _crashed(self, failure: Failure) -> None:
        self._retry_at = self._now() + RETRY_SECONDS
        self._log.failure("Bug in the use of the --state file", failure)

    def _saved(self, _: object) -> None:
        self._running = None

    async def _save(self, *, force: bool = False) -> None:
        """Exchange the changes with the file, in the thread."""
        assert self._file is not None
        now = self._now()
        clock_is_due = force or (len(self._bans) > 0 and now >= self._next_clock)
        if clock_is_due:
            self._bans.forget_ended(now)
        networks, users = self._take_changes()
        changes = None
        if clock_is_due or networks or users:
            self._next_clock = now + CLOCK_SECONDS
            changes = Changes(
                {describe(network): self._bans.saved(network, now) for network in networks},
                {user: self._failures.known_addresses(user) for user in users},
            )
        exchange, clock = self._file.exchange, now + self._clock_offset
        try:
            found = await deferToThreadPool(self._reactor, self._pool, exchange, clock, changes)
        except StateFileError as error:
            self._keep_changes(networks, users)
            self._retry_at = self._now() + RETRY_SECONDS
            self._report(error, f"tried again every {RETRY_SECONDS:.0f} seconds")
            return
        self._failed = False
        if found is not None:
            self._merge(found, networks)

    def _take_changes(self) -> tuple[set[Network], set[bytes]]:
        """Return what has changed since the last call, and collect from nothing again."""
        taken = self._bans.changed or set(), self._failures.changed_users or set()
        self._bans.changed, self._failures.changed_users = set(), set()
        return taken

    def _keep_changes(self, networks: set[Network], users: set[bytes]) -> None:
        """Add changes that could not be saved to those that are to be saved next.

        While the file cannot be written for long, what is no longer in memory is left out. Then the file has more
        entries than it should have, until the next start.
        """
        newer_networks, newer_users = self._take_changes()
        networks |= newer_networks
        users |= newer_users
        if len(networks) > MAX_BANS:
            networks.intersection_update(self._bans)
        if len(users) > MAX_KNOWN_USERS:
            users.intersection_update(self._failures.known_users())
        self._bans.changed, self._failures.changed_users = networks, users

    def _merge(self, found: Sequence[SavedBan], written: set[Network]) -> None:
        """Take over which bans other processes have added to the file and removed from it.

        Args:
            found: the bans in the file, before this server has `written` its own changes.
            written: the networks of these. This server knows better about them, and about what has changed since then.
        """
        in_file: dict[Network, SavedBan] = {}
        for ban in found:
            with suppress(ValueError):
                in_file[ban_target(ban.network)] = ban
        now, in_memory, newer = self._now(), set(self._bans), self._bans.changed
        assert newer is not None
        own = written | newer
        for network in in_memory - in_file.keys() - own:
            self._end_ban(network, now)
            newer.discard(network)  # the file has it already
        for network, ban in in_file.items():
            if network not in in_memory and network not in own:
                self._bans.restore([ban], now)
                newer.discard(network)

    def _end_ban(self, network: Network, now: float) -> None:
        ban = self._bans.saved(network, now)
        self._bans.forget(network)
        if ban is not None and ban.remaining > 0:
            self.on_unban(ban.network)

    def _report(self, error: StateFileError, then: str) -> None:
        """Log that the file cannot be used, once until it can be used again."""
        if not self._failed:
            self._log.warn(
                "--state {error}; bans and known users are only in memory, {then}",
                error=error,
                then=then,
            )
        self._failed = True
