"""A change of a watched directory causes a callback: immediately with inotify, otherwise at the next poll."""

from __future__ import annotations

import os
import shutil
import struct
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.runtime import platform
from twisted.trial.unittest import SynchronousTestCase

from imapshield.maildir.watch import (
    GATHER_SECONDS,
    MAX_POLLED,
    MAX_POLLED_PER_USER,
    POLL_SECONDS,
    DirectoryWatcher,
    Watch,
    WatchShares,
)


def no_inotify(*args: object) -> None:
    return None


class PollTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.watcher = DirectoryWatcher(self.clock, make_inotify=no_inotify)
        self.folder = os.path.abspath(self.mktemp())
        os.makedirs(self.folder)
        self.calls: list[float] = []

    def advance(self, seconds: float = POLL_SECONDS) -> None:
        self.clock.pump([seconds, GATHER_SECONDS + 0.001])

    def callback(self) -> None:
        self.calls.append(self.clock.seconds())

    def change(self) -> None:
        os.utime(self.folder, (1000, 1000))

    def test_change_causes_a_callback_at_the_next_poll(self) -> None:
        """A change causes a callback at the next poll, and one more, because of changes in the same clock tick."""
        watch = self.watcher.watch([self.folder], self.callback)
        self.advance()
        self.assertEqual(len(self.calls), 1)
        for _ in range(5):
            self.advance()
        self.assertEqual(len(self.calls), 1)
        self.change()
        for _ in range(5):
            self.advance()
        self.assertEqual(len(self.calls), 3)
        watch.stop()

    def test_removed_and_recreated_directory_is_a_change(self) -> None:
        """The removal and the creation of a directory are changes."""
        self.watcher.watch([self.folder, self.folder + "/none"], self.callback)
        self.advance()
        del self.calls[:]
        shutil.rmtree(self.folder)
        self.advance()
        self.advance()
        self.advance()
        os.makedirs(self.folder)
        self.advance()
        self.assertEqual(len(self.calls), 3)

    def test_stopped_watch_causes_no_callback(self) -> None:
        """A stopped watch causes no callback, even if one was due; after the last watch there is no poll."""
        watch = self.watcher.watch([self.folder], self.callback)
        other = self.watcher.watch([self.folder], lambda: None)
        watch.notify()
        watch.stop()
        watch.stop()
        self.change()
        self.advance()
        self.assertEqual(self.calls, [])
        other.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual((self.watcher._watches_by_path, self.watcher._watches), ({}, {}))

    def test_notifications_are_combined(self) -> None:
        """Many notifications in a short time cause one callback."""
        watch = self.watcher.watch([self.folder], self.callback)
        for _ in range(50):
            watch.notify()
        self.clock.advance(GATHER_SECONDS)
        self.assertEqual(len(self.calls), 1)

    def test_callbacks_run_one_at_a_time(self) -> None:
        """Notifications while a callback runs cause one more callback after it."""
        running: list[Deferred[None]] = []

        async def callback() -> None:
            running.append(Deferred())
            await running[-1]

        watch = self.watcher.watch([self.folder], callback)
        for _ in range(3):
            watch.notify()
            self.clock.advance(GATHER_SECONDS)
        self.assertEqual(len(running), 1)
        running[0].callback(None)
        self.clock.advance(GATHER_SECONDS)
        self.assertEqual(len(running), 2)
        running[1].errback(ValueError("a disk that fails"))
        watch.notify()
        self.clock.advance(GATHER_SECONDS)
        self.assertEqual(len(running), 3)

    def test_poll_runs_in_a_thread(self) -> None:
        """stat() is called in a thread, and while one poll waits for the disk, there is no other one."""
        polls: list[tuple[Callable[[], Any], Deferred[Any]]] = []

        def run_in_thread(function: Callable[[], Any]) -> Deferred[Any]:
            polls.append((function, Deferred()))
            return polls[-1][1]

        watcher = DirectoryWatcher(self.clock, run_in_thread, no_inotify)
        watcher.watch([self.folder], self.callback, must_notify=False)
        self.change()
        self.advance()
        self.advance()
        self.assertEqual((len(polls), self.calls), (1, []))
        function, done = polls[0]
        done.callback(function())
        self.clock.advance(GATHER_SECONDS)
        self.assertEqual(len(self.calls), 1)
        self.advance()
        self.assertEqual(len(polls), 2)
        watcher.stop()
        polls[1][1].callback(polls[1][0]())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_failed_poll_does_not_end_polling(self) -> None:
        """After a poll that failed there is another one."""
        results: list[Deferred[Any]] = [fail(OSError()), succeed([[None]])]
        watcher = DirectoryWatcher(self.clock, lambda _: results.pop(0), no_inotify)
        watcher.watch([self.folder], self.callback, must_notify=False)
        self.advance()
        self.advance()
        self.assertEqual((len(self.calls), results), (1, []))
        watcher.stop()

    def test_user_with_many_directories_delays_no_other(self) -> None:
        """A user's directories beyond the limit of a poll are polled later, and those of other users at each poll."""
        count = 3 * MAX_POLLED_PER_USER // 2
        for i in range(count):
            self.watcher.watch([f"{self.folder}/{i}"], self.callback, "many")
        own: list[str] = []
        self.watcher.for_user("few").watch([self.folder], lambda: own.append("x"))
        self.advance()
        self.assertEqual((len(self.calls), len(own)), (MAX_POLLED_PER_USER, 1))
        self.advance()
        self.assertEqual(len(self.calls), count)
        self.change()
        self.advance()
        self.assertEqual(len(own), 2)
        self.watcher.stop()

    def test_users_take_turns_if_a_poll_has_no_room_for_all(self) -> None:
        """With more directories than a poll has room for, each user is polled in one of the next polls."""
        polled: Counter[str] = Counter()
        users = MAX_POLLED // MAX_POLLED_PER_USER + 4
        for i in range(users * MAX_POLLED_PER_USER):
            name = str(i % users)
            self.watcher.watch([f"{self.folder}/{i}"], partial(polled.update, [name]), name)
        self.advance()
        self.assertEqual(set(polled.values()), {MAX_POLLED_PER_USER})
        self.assertEqual(len(polled), MAX_POLLED // MAX_POLLED_PER_USER)
        self.advance()
        self.assertEqual(len(polled), users)
        self.watcher.stop()

    def test_directories_are_polled_without_inotify(self) -> None:
        """If the reactor or the system does not support inotify, directories are polled."""
        watcher = DirectoryWatcher(self.clock)
        watcher.watch([self.folder], self.callback)
        self.advance()
        self.assertEqual(len(self.calls), 1)
        watcher.stop()


if platform.isLinux():

    class InotifyTests(SynchronousTestCase):
        """The watcher uses inotify where the system has it; on other systems it only polls directories."""

        def setUp(self) -> None:
            self.reactor = MemoryReactorClock()
            self.watcher = DirectoryWatcher(self.reactor)
            self.addCleanup(self.reactor.advance, 0)
            self.addCleanup(self.watcher.stop)
            self.folders = [os.path.abspath(self.mktemp()) for _ in range(2)]
            for folder in self.folders:
                os.makedirs(folder)
            self.calls: list[str] = []

        def read(self) -> None:
            """Let the reactor read the events of inotify."""
            for reader in list(self.reactor.readers):
                reader.doRead()
            self.reactor.pump([0, GATHER_SECONDS + 0.001])

        def change(self, folder: str) -> None:
            with open(folder + "/x", "wb"):
                pass
            os.rename(folder + "/x", folder + "/y")
            os.unlink(folder + "/y")

        def watch(self, i: int = 0) -> Watch:
            return self.watcher.watch([self.folders[i]], lambda: self.calls.append(self.folders[i]))

        def test_change_causes_an_immediate_callback(self) -> None:
            """A created, removed or renamed file causes a callback for its directory before the next poll."""
            self.watch(0)
            self.watch(1)
            self.change(self.folders[0])
            self.read()
            self.assertEqual(self.calls, [self.folders[0]])

        def test_watches_share_one_inotify(self) -> None:
            """All watches share one INotify, and a directory has one inotify watch until its last watch is stopped."""
            first, second = self.watch(0), self.watch(0)
            self.watch(1)
            self.assertEqual(len(self.reactor.readers), 1)
            first.stop()
            self.change(self.folders[0])
            self.read()
            self.assertEqual(self.calls, [self.folders[0]])
            second.stop()
            self.change(self.folders[0])
            self.read()
            self.assertEqual(self.calls, [self.folders[0]])
            (notifier,) = self.reactor.readers
            self.reactor.advance(POLL_SECONDS)
            self.assertEqual(len(notifier), 1)
            self.watcher.stop()
            self.assertEqual(self.reactor.readers, set())

        def test_removed_directory_keeps_other_watches(self) -> None:
            """A watched directory that is removed and made again causes callbacks, and so do the other directories."""
            first, _ = self.watch(0), self.watch(1)
            shutil.rmtree(self.folders[0])
            self.read()
            self.assertIn(self.folders[0], self.calls)
            del self.calls[:]
            self.change(self.folders[1])
            self.read()
            self.assertEqual(self.calls, [self.folders[1]])
            os.makedirs(self.folders[0])
            self.reactor.pump([POLL_SECONDS, GATHER_SECONDS + 0.001])
            del self.calls[:]
            self.change(self.folders[0])
            self.read()
            self.assertEqual(self.calls, [self.folders[0]])
            first.stop()

        def test_watches_are_shared(self) -> None:
            """A user gets no more inotify watches than the share; stopped watches are available again."""
            watcher = DirectoryWatcher(self.reactor, shares=WatchShares(4, 2))
            paths = [os.path.join(self.folders[0], str(i)) for i in range(6)]
            for path in paths:
                os.makedirs(path)
            watches = [
                watcher.watch([path], lambda: None, "ab"[i // 3]) for i, path in enumerate(paths)
            ]
            (inotify,) = self.reactor.readers
            self.assertEqual([path in inotify for path in paths], [True, True, False] * 2)
            watches[0].stop()
            self.reactor.advance(POLL_SECONDS)
            watcher.watch(paths[2:3], lambda: None, "a")
            self.assertIn(paths[2], inotify)
            watcher.stop()

        def test_overflow_notifies_every_watch(self) -> None:
            """If the kernel has dropped events, every watch is notified."""
            self.watch(0)
            self.watch(1)
            self.patch(os, "read", lambda fd, size: struct.pack("iIII", -1, 0x4000, 0, 0))
            self.read()
            self.assertEqual(self.calls, self.folders)

        def test_two_names_of_one_directory_are_watched(self) -> None:
            """A directory that is watched under two names causes callbacks for both until both are stopped."""
            link = self.folders[0] + "-link"
            os.symlink(self.folders[0], link)
            self.watch(0)
            other = self.watcher.watch([link], lambda: self.calls.append(link))
            self.change(self.folders[0])
            self.read()
            self.assertEqual(sorted(self.calls), [self.folders[0], link])
            other.stop()
            self.reactor.pump([POLL_SECONDS, GATHER_SECONDS + 0.001])
            del self.calls[:]
            self.change(self.folders[0])
            self.read()
            self.assertEqual(self.calls, [self.folders[0]])

        def test_directories_are_polled_without_free_watches(self) -> None:
            """If the user has no free inotify watches, directories are polled."""
            watcher = DirectoryWatcher(self.reactor, shares=WatchShares(0, 0))
            watch = watcher.watch([self.folders[0]], lambda: self.calls.append("called"))
            self.reactor.pump([POLL_SECONDS, GATHER_SECONDS + 0.001])
            self.assertEqual(self.calls, ["called"])
            watch.stop()
            watcher.stop()
