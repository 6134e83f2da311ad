"""Watches directories: inotify gives a hint at once, and a poll of the mtimes each second finds what inotify misses.

inotify alone is not reliable. Its queue can overflow, which Twisted does not report (twisted #6722). Network file
systems do not report changes by other hosts. The number of watches of a user is limited by
``fs.inotify.max_user_watches``. In each of these cases the poll finds the change up to a second later.
"""

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
"""Seconds between two polls: the longest delay of new mail in IDLE where inotify fails. A poll calls stat() for each
directory."""

GATHER_SECONDS = 0.02
"""Seconds between an event and the notification. One delivery causes a handful of inotify events, and they are reported
together."""

_IN_DELETE_SELF = 0x400


class Watch:
    """A subscription to changes of some directories, as `DirectoryWatcher.watch` returns it."""

    def __init__(
        self, watcher: "DirectoryWatcher", paths: Sequence[str], callback: Callable[[], object]
    ) -> None:
        self.paths = tuple(paths)
        self._watcher = watcher
        self._callback = callback
        self._stamps = [_stamp(path) for path in self.paths]
        self._must_notify_again = True
        self._delayed_call: Any = None
        self._is_running = self._is_notified_while_running = self._is_stopped = False

    def stop(self) -> None:
        """Cancel the subscription: the callback is not called again."""
        if not self._is_stopped:
            self._is_stopped = True
            if self._delayed_call is not None:
                self._delayed_call.cancel()
            self._watcher.remove(self)

    def poll(self) -> None:
        """Notify if an mtime has changed since the last poll, and once more at the next poll.

        A directory that changes again within the same tick of the kernel's clock keeps its mtime.
        """
        stamps = [_stamp(path) for path in self.paths]
        has_changed = stamps != self._stamps
        if has_changed or self._must_notify_again:
            self.notify()
        self._must_notify_again, self._stamps = has_changed, stamps

    def notify(self) -> None:
        """Call the callback soon, once for all notifications until then."""
        if self._delayed_call is None and not self._is_stopped:
            reactor = self._watcher.reactor
            self._delayed_call = reactor.callLater(GATHER_SECONDS, self._run_callback)

    def _run_callback(self) -> None:
        self._delayed_call = None
        if self._is_running:
            self._is_notified_while_running = True
            return
        self._is_running = True
        try:
            result = self._callback()
        except Exception:
            self._finished(None)
            raise
        if inspect.iscoroutine(result):
            result = Deferred.fromCoroutine(result)
        if isinstance(result, Deferred):
            result.addErrback(self._failed).addBoth(self._finished)
        else:
            self._finished(None)

    def _failed(self, failure: Any) -> None:
        # The mailbox was deleted, or the disk fails. The next command of a client fails for the same reason.
        self._watcher.log.info(
            (
                "clients in IDLE were not told about new mail in {paths}: {reason}. They see it at "
                "their next command."
            ),
            paths=", ".join(self.paths),
            reason=failure.getErrorMessage(),
        )

    def _finished(self, _: object) -> None:
        self._is_running = False
        if self._is_notified_while_running:
            self._is_notified_while_running = False
            self.notify()


class DirectoryWatcher:
    """Watches directories for all accounts of a process.

    Args:
        reactor: an `IReactorTime`; also an `IReactorFDSet` if inotify is to be used.
        make_inotify: takes the reactor and returns a started `INotify`, or None to poll only. By default Twisted's is
            used where the system has inotify.
    """

    log = Logger()

    def __init__(self, reactor: Any, make_inotify: Callable[[Any], Any] | None = None) -> None:
        self.reactor = reactor
        self._make_inotify = make_inotify or _make_inotify
        self._watches: set[Watch] = set()
        self._watches_by_path: dict[str, set[Watch]] = {}
        self._inotify_paths: set[str] = set()
        self._inotify: Any = None
        self._is_inotify_made = False
        self._polling = LoopingCall(self._poll)
        self._polling.clock = reactor

    def watch(self, paths: Sequence[str], callback: Callable[[], object]) -> Watch:
        """Call `callback` whenever something in one of the directories `paths` may have changed.

        If the callback returns a coroutine or a Deferred, it is not called again before that has ended.
        """
        watch = Watch(self, paths, callback)
        self._watches.add(watch)
        for path in watch.paths:
            self._watches_by_path.setdefault(path, set()).add(watch)
            if path not in self._inotify_paths:
                self._add_to_inotify(path)
        if not self._polling.running:
            self._polling.start(POLL_SECONDS, now=False)
        return watch

    def remove(self, watch: Watch) -> None:
        """Forget a stopped watch, and stop watching paths that no other watch has."""
        self._watches.discard(watch)
        for path in watch.paths:
            watches = self._watches_by_path[path]
            watches.discard(watch)
            if not watches:
                del self._watches_by_path[path]
                self._remove_from_inotify(path)
        if not self._watches and self._polling.running:
            self._polling.stop()

    def stop(self) -> None:
        """Stop every watch and close inotify."""
        for watch in list(self._watches):
            watch.stop()
        inotify, self._inotify, self._is_inotify_made = self._inotify, None, False
        if inotify is not None:
            inotify.loseConnection()

    def _poll(self) -> None:
        for watch in list(self._watches):
            watch.poll()

    def _add_to_inotify(self, path: str) -> None:
        if not self._is_inotify_made:
            self._is_inotify_made = True
            self._inotify = self._make_inotify(self.reactor)
        if self._inotify is None:
            return
        from twisted.internet import inotify

        mask = inotify.IN_CREATE | inotify.IN_MOVED_TO | inotify.IN_MOVED_FROM | inotify.IN_DELETE
        try:
            self._inotify.watch(FilePath(path), mask=mask, callbacks=[self._on_inotify_event])
        except inotify.INotifyError:  # no watches left, or no such directory: the poll is enough
            return
        self._inotify_paths.add(path)

    def _add_all_to_inotify(self) -> None:
        for path in self._watches_by_path:
            if path not in self._inotify_paths and os.path.isdir(path):
                self._add_to_inotify(path)

    def _remove_from_inotify(self, path: str) -> None:
        if path in self._inotify_paths:
            from twisted.internet.inotify import INotifyError

            self._inotify_paths.discard(path)
            with suppress(KeyError, INotifyError):  # the directory was removed, and its watch too
                self._inotify.ignore(FilePath(path))

    def _on_inotify_event(self, watched: Any, _changed: Any, mask: int) -> None:
        path = watched.path.asTextMode().path
        if mask & _IN_DELETE_SELF:
            # Twisted closes the whole INotify after this call, so the other directories need a new one.
            self._inotify_paths.clear()
            self._inotify, self._is_inotify_made = None, False
            self.reactor.callLater(0, self._add_all_to_inotify)
        for watch in list(self._watches_by_path.get(path, ())):
            watch.notify()


def _make_inotify(reactor: Any) -> Any:
    """Return a started INotify, None where inotify cannot be used."""
    try:
        from twisted.internet.inotify import INotify

        inotify = INotify(reactor)
        inotify.startReading()
    except Exception:
        # Not Linux, a reactor without file descriptors, or fs.inotify.max_user_instances is reached.
        return None
    return inotify


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino
