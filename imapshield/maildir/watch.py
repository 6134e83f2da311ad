"""Watches directories: inotify gives a hint at once, and a poll of the mtimes finds what inotify misses.

inotify alone is not reliable. Its queue can overflow. Network file systems do not report changes by other hosts. The
number of watches of the server is limited by ``fs.inotify.max_user_watches``. In each of these cases the poll finds the
change.

Rules
-----
* The reactor's thread calls no stat() for a poll: a disk that does not answer must not stop the server.
* File watches and polls are shared. A user who watches thousands of mailboxes uses up a share of the watches, and then
  these mailboxes are polled less often; the mailboxes of other users are not.
"""

import inspect
import os
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from imapshield.maildir.inotify import Inotify

POLL_SECONDS = 1.0
"""Seconds between two polls: the longest delay of new mail in IDLE where inotify fails, for a user who watches at most
`MAX_POLLED_PER_USER` directories. A poll calls stat() for each directory."""

MAX_POLLED = 4000
"""Directories in one poll. The others are polled later. stat() takes 2 µs for a directory that the kernel has in
memory."""

MAX_POLLED_PER_USER = 500
"""Directories of one user in one poll. For 18,000 directories a round takes 36 seconds."""

MAX_WATCHES_PER_USER = 4096
"""inotify watches of one user: IDLE needs two, and NOTIFY two for each mailbox. Each takes about a kilobyte of the
kernel's memory. The limit is lower where the system allows few watches (`_watch_shares`)."""

MAX_REMOVED = 500
"""inotify watches that are removed at once, after they were used."""

GATHER_SECONDS = 0.02
"""Seconds between an event and the notification. One delivery causes a handful of inotify events, and they are reported
together."""

_RECENT_SECONDS = 1.0
"""The age of an mtime up to which the directory may change again without another mtime."""

Stamp = tuple[int, int] | None
RunInThread = Callable[[Callable[[], list[list[Stamp]]]], Deferred[list[list[Stamp]]]]


class Watch:
    """A subscription to changes of some directories, as `DirectoryWatcher.watch` returns it."""

    def __init__(
        self,
        watcher: "DirectoryWatcher",
        paths: Sequence[str],
        callback: Callable[[], object],
        user: str,
        must_notify: bool,
    ) -> None:
        self.paths = tuple(paths)
        self.user = user
        self._watcher = watcher
        self._callback = callback
        self._stamps = [_stamp(path) for path in self.paths]
        self._must_notify_again = must_notify or _is_recent(self._stamps)
        self._delayed_call: Any = None
        self._is_running = self._is_notified_while_running = self._is_stopped = False

    def stop(self) -> None:
        """Cancel the subscription: the callback is not called again."""
        if not self._is_stopped:
            self._is_stopped = True
            if self._delayed_call is not None:
                self._delayed_call.cancel()
            self._watcher.remove(self)

    def polled(self, stamps: list[Stamp]) -> bool:
        """Notify if an mtime has changed since the last poll, and once more at the next poll.

        A directory that changes again within the same tick of the kernel's clock keeps its mtime.

        Returns:
            whether an mtime has changed.
        """
        has_changed = stamps != self._stamps
        if has_changed or self._must_notify_again:
            self.notify()
        self._must_notify_again, self._stamps = has_changed, stamps
        return has_changed

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
        run_in_thread: runs a function in a thread, and returns a Deferred of its result. By default it runs at once.
        make_inotify: takes what `Inotify` takes, and returns one, or None to poll only.
        shares: the maximum of inotify watches of the server and of one user; by default `_watch_shares`.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        run_in_thread: RunInThread = maybeDeferred,
        make_inotify: Callable[..., Any] | None = None,
        shares: "WatchShares | None" = None,
    ) -> None:
        self.reactor = reactor
        self._run_in_thread = run_in_thread
        self._make_inotify = make_inotify or _make_inotify
        self._shares = shares or _watch_shares()
        self._watches: dict[str, OrderedDict[Watch, None]] = {}
        self._watches_by_path: dict[str, set[Watch]] = {}
        self._unused_paths: dict[str, None] = {}
        self._users_of_paths: dict[str, str] = {}
        self._inotify_counts: Counter[str] = Counter()
        self._inotify: Any = None
        self._is_inotify_made = self._is_polling_now = False
        self._polling = LoopingCall(self._poll)
        self._polling.clock = reactor

    def watch(
        self,
        paths: Sequence[str],
        callback: Callable[[], object],
        user: str = "",
        *,
        must_notify: bool = True,
    ) -> Watch:
        """Call `callback` whenever something in one of the directories `paths` may have changed.

        If the callback returns a coroutine or a Deferred, it is not called again before that has ended.

        Args:
            paths: the directories.
            callback: the function to call.
            user: the user whose share of watches and polls this takes.
            must_notify: whether to call it once in any case, because the caller has looked at the directories before.
        """
        watch = Watch(self, paths, callback, user, must_notify)
        self._watches.setdefault(user, OrderedDict())[watch] = None
        for path in watch.paths:
            self._watches_by_path.setdefault(path, set()).add(watch)
            self._add_to_inotify(path, user)
        if not self._polling.running:
            self._polling.start(POLL_SECONDS, now=False)
        return watch

    def for_user(self, user: str) -> "UserWatcher":
        """Return what `user` watches directories with."""
        return UserWatcher(self, user)

    def remove(self, watch: Watch) -> None:
        """Forget a stopped watch. The next poll stops watching paths that no other watch has."""
        watches = self._watches[watch.user]
        del watches[watch]
        if not watches:
            del self._watches[watch.user]
        for path in watch.paths:
            others = self._watches_by_path[path]
            others.discard(watch)
            if not others:
                del self._watches_by_path[path]
                self._unused_paths[path] = None
        if not self._watches and self._polling.running:
            self._polling.stop()
            self._close_inotify()

    def stop(self) -> None:
        """Stop every watch and close inotify."""
        for watches in list(self._watches.values()):
            for watch in list(watches):
                watch.stop()

    def _poll(self) -> None:
        self._remove_unused()
        if self._is_polling_now:  # the disk is slow
            return
        batch = list(self._next_watches())
        self._is_polling_now = True

        def stamps() -> list[list[Stamp]]:
            return [[_stamp(path) for path in watch.paths] for watch in batch]

        done = self._run_in_thread(stamps)
        done.addCallback(self._polled, batch)
        done.addBoth(self._poll_ended)

    def _next_watches(self) -> Iterator[Watch]:
        """Yield the watches of the next poll, and put them at the end of their queues.

        Users take turns at being first, so that each is polled if there are more than a poll has room for.
        """
        room = MAX_POLLED
        for user in list(self._watches):
            watches = self._watches.pop(user)
            self._watches[user] = watches
            own_room = min(room, MAX_POLLED_PER_USER)
            for watch in list(watches):
                own_room -= len(watch.paths)
                room -= len(watch.paths)
                watches.move_to_end(watch)
                yield watch
                if own_room <= 0:
                    break
            if room <= 0:
                return

    def _polled(self, stamps: list[list[Stamp]], batch: list[Watch]) -> None:
        for watch, found in zip(batch, stamps, strict=True):
            if watch.polled(found) and watch in self._watches.get(watch.user, ()):
                for path in watch.paths:  # a directory that was removed and made again
                    self._add_to_inotify(path, watch.user)

    def _poll_ended(self, _: object) -> None:
        self._is_polling_now = False

    def _add_to_inotify(self, path: str, user: str) -> None:
        self._unused_paths.pop(path, None)
        if not self._is_inotify_made:
            self._is_inotify_made = True
            self._inotify = self._make_inotify(self.reactor, self._on_change, self._on_overflow)
        if self._inotify is None or path in self._inotify:
            return
        self._forget_user(path)
        total, per_user = self._shares
        has_room = len(self._inotify) < total and self._inotify_counts[user] < per_user
        if has_room and self._inotify.add(path):
            self._users_of_paths[path] = user
            self._inotify_counts[user] += 1

    def _forget_user(self, path: str) -> None:
        user = self._users_of_paths.pop(path, None)
        if user is not None:
            self._inotify_counts[user] -= 1
            if not self._inotify_counts[user]:
                del self._inotify_counts[user]

    def _remove_unused(self) -> None:
        for path in list(self._unused_paths)[:MAX_REMOVED]:
            del self._unused_paths[path]
            self._forget_user(path)
            if self._inotify is not None:
                self._inotify.remove(path)

    def _close_inotify(self) -> None:
        inotify, self._inotify, self._is_inotify_made = self._inotify, None, False
        self._unused_paths.clear()
        self._users_of_paths.clear()
        self._inotify_counts.clear()
        if inotify is not None:
            inotify.close()

    def _on_change(self, path: str) -> None:
        for watch in list(self._watches_by_path.get(path, ())):
            watch.notify()

    def _on_overflow(self) -> None:
        """Notify everybody: the kernel has dropped events, and only the poll would find the changes."""
        for watches in self._watches.values():
            for watch in watches:
                watch.notify()


class UserWatcher:
    """Watches directories for one user (`mailbox.store_helpers.ChangeNotifier`)."""

    def __init__(self, watcher: DirectoryWatcher, user: str) -> None:
        self._watcher = watcher
        self._user = user

    def watch(
        self, paths: Sequence[str], callback: Callable[[], object], *, must_notify: bool = True
    ) -> Watch:
        """Call `DirectoryWatcher.watch` for this user."""
        return self._watcher.watch(paths, callback, self._user, must_notify=must_notify)


class WatchShares(NamedTuple):
    """The maximum of inotify watches: of all users together, and of one."""

    total: int
    per_user: int


def _watch_shares() -> WatchShares:
    """Return half of what the system allows the server's user, because other programs may need watches, too."""
    try:
        with open("/proc/sys/fs/inotify/max_user_watches", encoding="ascii") as file:
            total = int(file.read()) // 2
    except (OSError, ValueError):
        total = 4096
    return WatchShares(total, min(MAX_WATCHES_PER_USER, total // 4))


def _make_inotify(*arguments: Any) -> Inotify | None:
    """Return an `Inotify`, None where it cannot be used."""
    try:
        return Inotify(*arguments)
    except (OSError, AttributeError, TypeError):
        return None


def _stamp(path: str) -> Stamp:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino


def _is_recent(stamps: Sequence[Stamp]) -> bool:
    """Whether a directory may change again without another mtime, because it has just changed."""
    newest = max((stamp[0] for stamp in stamps if stamp is not None), default=0)
    return newest / 1e9 > time.time() - _RECENT_SECONDS
