"""`GuardState`: keeps the bans and the known users of a running server in a `StateFile`.

Rules
-----
* A file that cannot be used is one line in the log. The server goes on, with all of it in memory only, and tries the
  file again every minute. Then what has changed since the error is saved.
* When a file is loaded later than at the start, the bans of the meantime stay. The failed logins and known users of the
  meantime are forgotten, because their hashes have another key.
* The file is written at most once per second, by one thread, and no login waits for it.
* Each second the server looks whether another process has changed the file: `imapshield unban`, or a second server.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, succeed
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


class _Loaded(NamedTuple):
    """A state file and what it has."""

    file: StateFile
    secret: bytes
    clock: float
    bans: Sequence[SavedBan]
    known: Sequence[tuple[bytes, bytes]]
    peaks: str


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
        on_ban: called with each ban that is loaded from the file.
        on_unban: called with the text of each network whose ban was ended by another process.
        on_load: called when the file is loaded, at the start or later.
        on_peaks: called then with a key and the peaks of the file (`control.advisor`).
        failures_key: the key of the hashes of `failures`; None for one that depends on the file.
        changed_peaks: returns the peaks to save, or None; its argument says whether the server stops.
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
        self.on_load: Callable[[], object] = lambda: None
        self.on_peaks: Callable[[bytes, str], object] = lambda _key, _text: None
        self.changed_peaks: Callable[[bool], str | None] = lambda _stopping: None
        self.failures_key: bytes | None = None
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
        self._restart_failures()
        if self._path is not None:
            try:
                self._use(_load(self._path))
            except StateFileError as error:
                self._report(error)
            self._pool.start()
            self._loop.start(SAVE_SECONDS, now=False)

    def _restart_failures(self) -> None:
        self._failures.restart(self.key_of_failures())

    def key_of_failures(self) -> bytes:
        """Return the key of the hashes of failed logins and known users."""
        return self.failures_key or self.secret("login failures")

    def secret(self, name: str) -> bytes:
        """Return 32 bytes that depend on `name` and are the same after a restart. Call it after `start`."""
        return blake2b(name.encode(), key=self._secret, digest_size=32).digest()

    def kept_secret(self, name: str) -> bytes | None:
        """Return what `secret` does, or None if it will be another after a restart, because there is no file."""
        return self.secret(name) if self._secret_is_kept else None

    def stop(self) -> Deferred[None]:
        """Save what has changed, and close the file."""
        if not self._loop.running:
            return succeed(None)
        self._loop.stop()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        try:
            if self._running is not None:
                await self._running
            if self._file is not None:
                await self._save(self._file, force=True)
        finally:
            self._pool.stop()
            if self._file is not None:
                self._file.close()

    def _tick(self) -> None:
        if self._running is None and self._now() >= self._retry_at:
            work = self._load_later() if self._file is None else self._save(self._file)
            self._running = Deferred.fromCoroutine(work)
            self._running.addErrback(self._crashed).addBoth(self._done)

    async def _load_later(self) -> None:
        assert self._path is not None
        try:
            loaded = await deferToThreadPool(self._reactor, self._pool, _load, self._path)
        except StateFileError as error:
            self._report(error)
            return
        self._failed = False
        self._use(loaded)

    def _use(self, loaded: _Loaded) -> None:
        """Take over what is in the file, except about the networks that have been banned without it."""
        now, own, in_file = self._now(), set(self._bans), _by_network(loaded.bans)
        self._file, self._clock_offset = loaded.file, loaded.clock - now
        self._secret, self._secret_is_kept = loaded.secret, True
        self._restart_failures()
        self._bans.restore([ban for network, ban in in_file.items() if network not in own], now)
        for user, addresses in loaded.known:
            self._failures.restore_known(user, addresses, now)
        # What is in the file, but no longer in memory, is removed from the file.
        self._bans.changed = own | (in_file.keys() - set(self._bans))
        known_users = set(self._failures.known_users())
        self._failures.changed_users = {user for user, _ in loaded.known} - known_users
        for active in self._bans.active(now):
            if active.network not in own:
                self.on_ban(active)
        if loaded.file.is_new:
            self._log.info("--state {path}: a new file, without earlier bans", path=self._path)
        self.on_peaks(self.secret("peaks"), loaded.peaks)
        self.on_load()

    def _crashed(self, failure: Failure) -> None:
        self._retry_at = self._now() + RETRY_SECONDS
        self._log.failure("Bug in the use of the --state file", failure)

    def _done(self, _: object) -> None:
        self._running = None

    async def _save(self, file: StateFile, *, force: bool = False) -> None:
        """Exchange the changes with the file, in the thread."""
        now = self._now()
        clock_is_due = force or (len(self._bans) > 0 and now >= self._next_clock)
        if clock_is_due:
            self._bans.forget_ended(now)
        networks, users = self._take_changes()
        changes, peaks = None, self.changed_peaks(force)
        if clock_is_due or networks or users or peaks is not None:
            self._next_clock = now + CLOCK_SECONDS
            changes = Changes(
                {describe(network): self._bans.saved(network, now) for network in networks},
                {user: self._failures.known_addresses(user) for user in users},
                peaks,
            )
        clock = now + self._clock_offset
        try:
            found = await deferToThreadPool(
                self._reactor, self._pool, file.exchange, clock, changes
            )
        except StateFileError as error:
            self._keep_changes(networks, users)
            self._report(error)
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
        now, in_memory, newer = self._now(), set(self._bans), self._bans.changed
        in_file = _by_network(found)
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
        self._bans.forget(network, now)
        if ban is not None and ban.remaining > 0:
            self.on_unban(ban.network)

    def _report(self, error: StateFileError) -> None:
        """Log that the file cannot be used, once until it can be used again."""
        self._retry_at = self._now() + RETRY_SECONDS
        if not self._failed:
            self._log.warn(
                "--state {error}; bans and known users stay in memory; the file is tried every {seconds:.0f} seconds",
                error=error,
                seconds=RETRY_SECONDS,
            )
        self._failed = True


def _load(path: str) -> _Loaded:
    """Open the file, and create it if it is missing.

    Raises:
        StateFileError: it cannot be used.
    """
    file = StateFile(path, create=True)
    try:
        kept = file.bans(), file.known(), file.peaks()
        return _Loaded(file, file.secret(), file.clock(), *kept)
    except StateFileError:
        file.close()
        raise


def _by_network(bans: Sequence[SavedBan]) -> dict[Network, SavedBan]:
    """Return the bans of a file by their networks, without malformed ones."""
    found = {}
    for ban in bans:
        with suppress(ValueError):
            found[ban_target(ban.network)] = ban
    return found
