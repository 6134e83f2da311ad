"""Proves with inotify that nothing has changed since the last sync, so that NOOP needs no call of the store."""

from collections.abc import Sequence
from typing import Any, Protocol

FRESH_SECONDS = 10.0
"""Seconds after which what a sync has found is not relied on without another one."""


class Watcher(Protocol):
    """What a `Freshness` needs of the `DirectoryWatcher` that made it."""

    reactor: Any

    def add_all(self, freshness: "Freshness") -> bool:
        """Watch all directories of `freshness` with inotify; return whether that is possible."""

    def has_read_all(self) -> bool:
        """Read the events of inotify that there are now, and return whether these are all."""

    def remove_freshness(self, freshness: "Freshness") -> None:
        """Forget a stopped `Freshness`."""


class Freshness:
    """Whether that which a sync has found in some directories still holds, as inotify proves.

    The kernel adds an event to the queue before the program that has changed a directory goes on. So if the queue has
    no event when a client asks for changes, there is no change that the client can know of.
    """

    def __init__(self, watcher: Watcher, paths: Sequence[str], user: str) -> None:
        self.paths = tuple(paths)
        self.user = user
        self._watcher = watcher
        self._is_complete = False
        self._syncs = 0
        self._valid_until = 0.0
        self.has_changed = True

    def begin(self) -> None:
        """Note that a sync begins. It will find what the events until now are about."""
        self._watcher.has_read_all()
        if self.has_changed:
            self._is_complete = self._watcher.add_all(self)
        self._syncs += 1
        self._valid_until = 0.0
        self.has_changed = False
        self._began_at = self._watcher.reactor.seconds()

    def end(self, *, succeeded: bool) -> None:
        """Note that a sync has ended. If others run, one of them has the last word."""
        self._syncs -= 1
        if succeeded and not self._syncs:
            self._valid_until = self._began_at + FRESH_SECONDS

    def is_fresh(self) -> bool:
        """Return whether nothing has changed since the last sync began. False if that is not certain."""
        watcher = self._watcher
        return (
            watcher.reactor.seconds() < self._valid_until
            and self._is_complete
            and watcher.has_read_all()
            and not self.has_changed
        )

    def notify(self) -> None:
        """Note that something has changed."""
        self.has_changed = True

    def stop(self) -> None:
        """Watch the directories no more."""
        self._valid_until = 0.0
        self._watcher.remove_freshness(self)
