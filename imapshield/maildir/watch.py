"""Tells when something in a directory may have changed: inotify as a hint, the mtime each second as the truth.

inotify cannot be relied on alone. Its queue overflows, which Twisted never tells (twisted #6722); network file systems
do not report what other hosts do; a user's share of watches runs out at ``fs.inotify.max_user_watches``. Then the poll
finds the change up to a second later, and nobody else notices a difference.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.filepath import FilePath

POLL_SECONDS = 1.0
GATHER_SECONDS = 0.02
"""A ring waits this long for its fellows: one delivery is a handful of events."""

_Stamp = tuple[int, int] | None


class Watch:
    """Some watched directories, until `stop`."""

    def __init__(self, watcher: Watcher, paths: Sequence[str], ring: Callable[[], object]) -> None:
        self.paths = tuple(paths)
        self._watcher = watcher
        self._ring = ring
        self._stamps = [_stamp(path) for path in self.paths]
        self._hot = True
        self._pending: Any = None
        self._running = self._again = self._stopped = False

    def stop(self) -> None:
        """Ring no more."""
        if not self._stopped:
            self._stopped = True
            if self._pending is not None:
                self._pending.cancel()
            self._watcher.forget(self)

    def look(self) -> None:
        """Ring if an mtime is another than at the last look, and once more after: a directory that changes again
        within one tick of the kernel's clock shows no other mtime."""
        stamps = [_stamp(path) for path in self.paths]
        changed = stamps != self._stamps
        if changed or self._hot:
            self.hint()
        self._hot, self._stamps = changed, stamps

    def hint(self) -> None:
        """Ring soon."""
        if self._pending is None and not self._stopped:
            self._pending = self._watcher.reactor.callLater(GATHER_SECONDS, self._due)

    def _due(self) -> None:
        self._pending = None
        if self._running:
            self._again = True
            return
        self._running = True
        try:
            result = self._ring()
        except Exception:
            self._rang(None)
            raise
        if inspect.iscoroutine(result):
            result = Deferred.fromCoroutine(result)
        if isinstance(result, Deferred):
            result.addErrback(self._failed).addBoth(self._rang)
        else:
            self._rang(None)

    def _failed(self, failure: Any) -> None:
        # A mailbox that was deleted, a disk that fails: whoever asks next is told. Here it is for the log alone.
        self._watcher.log.info(
            "a watched folder cannot be looked at: {why}", why=failure.getErrorMessage()
        )

    def _rang(self, _: object) -> None:
        self._running = False
        if self._again:
            self._again = False
            self.hint()


class Watcher:
    """Watches directories for all accounts of a process.

    Args:
        reactor: an `IReactorTime`, and `IReactorFDSet` where inotify is to be used.
        notifier: makes an `INotify`, or None to poll only; by default Twisted's where there is one.
    """

    log = Logger()

    def __init__(self, reactor: Any, notifier: Callable[[Any], Any] | None = None) -> None:
        self.reactor = reactor
        self._notifier = notifier or _inotify
        self._watches: set[Watch] = set()
        self._by_path: dict[str, set[Watch]] = {}
        self._hinted: set[str] = set()
        self._inotify: Any = None
        self._tried = False
        self._poll = LoopingCall(self._look)
        self._poll.clock = reactor

    def watch(self, paths: Sequence[str], ring: Callable[[], object]) -> Watch:
        """Call `ring` when something in `paths` may have changed; a coroutine of it is run, one at a time."""
        watch = Watch(self, paths, ring)
        self._watches.add(watch)
        for path in watch.paths:
            self._by_path.setdefault(path, set()).add(watch)
            if path not in self._hinted:
                self._add(path)
        if not self._poll.running:
            self._poll.start(POLL_SECONDS, now=False)
        return watch

    def forget(self, watch: Watch) -> None:
        """Drop a stopped watch, and what only it needed."""
        self._watches.discard(watch)
        for path in watch.paths:
            sharing = self._by_path[path]
            sharing.discard(watch)
            if not sharing:
                del self._by_path[path]
                self._ignore(path)
        if not self._watches and self._poll.running:
            self._poll.stop()

    def stop(self) -> None:
        """Stop every watch and close the notifier."""
        for watch in list(self._watches):
            watch.stop()
        notifier, self._inotify, self._tried = self._inotify, None, False
        if notifier is not None:
            notifier.loseConnection()

    def _look(self) -> None:
        for watch in list(self._watches):
            watch.look()

    def _add(self, path: str) -> None:
        if not self._tried:
            self._tried = True
            self._inotify = self._notifier(self.reactor)
        if self._inotify is None:
            return
        from twisted.internet import inotify

        mask = inotify.IN_CREATE | inotify.IN_MOVED_TO | inotify.IN_MOVED_FROM | inotify.IN_DELETE
        try:
            self._inotify.watch(FilePath(path), mask=mask, callbacks=[self._hint])
        except inotify.INotifyError:  # no watches left, or no such directory: the poll does it
            return
        self._hinted.add(path)

    def _renew(self) -> None:
        for path in self._by_path:
            if path not in self._hinted and os.path.isdir(path):
                self._add(path)

    def _ignore(self, path: str) -> None:
        if path in self._hinted:
            from twisted.internet.inotify import INotifyError

            self._hinted.discard(path)
            with suppress(KeyError, INotifyError):  # the directory went, and its watch with it
                self._inotify.ignore(FilePath(path))

    def _hint(self, watched: Any, _changed: Any, mask: int) -> None:
        path = watched.path.asTextMode().path
        if mask & _IN_DELETE_SELF:
            # Twisted closes the whole notifier when we return, so the other directories need a new one.
            self._hinted.clear()
            self._inotify, self._tried = None, False
            self.reactor.callLater(0, self._renew)
        for watch in list(self._by_path.get(path, ())):
            watch.hint()


_IN_DELETE_SELF = 0x400


def _inotify(reactor: Any) -> Any:
    """Return a started INotify, None where there is none."""
    try:
        from twisted.internet.inotify import INotify

        notifier = INotify(reactor)
        notifier.startReading()
    except Exception:  # not Linux, no reactor of file descriptors, or max_user_instances reached
        return None
    return notifier


def _stamp(path: str) -> _Stamp:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino
