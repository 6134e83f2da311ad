"""A change of a watched directory causes a callback: immediately with inotify, otherwise at the next poll."""

from __future__ import annotations

import os
import shutil
from typing import Never

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.runtime import platform
from twisted.trial.unittest import SynchronousTestCase

from imapshield.maildir.watch import GATHER_SECONDS, POLL_SECONDS, DirectoryWatcher, Watch


def no_inotify(reactor: object) -> None:
    return None


class PollTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.watcher = DirectoryWatcher(self.clock, no_inotify)
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
        self.assertEqual((self.watcher._watches_by_path, self.watcher._watches), ({}, set()))

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
            (notifier,) = self.reactor.readers
            self.assertEqual(len(notifier._watchpaths), 1)
            self.change(self.folders[0])
            self.read()
            self.assertEqual(self.calls, [self.folders[0]])

        def test_removed_directory_keeps_other_watches(self) -> None:
            """Twisted closes its INotify when a watched directory is removed; the other directories get a new one."""
            first, _ = self.watch(0), self.watch(1)
            shutil.rmtree(self.folders[0])
            self.read()
            self.assertIn(self.folders[0], self.calls)
            del self.calls[:]
            self.change(self.folders[1])
            self.read()
            self.assertEqual(self.calls, [self.folders[1]])
            first.stop()

        def test_directories_are_polled_without_free_watches(self) -> None:
            """If the user has no free inotify watches, directories are polled."""
            from twisted.internet.inotify import INotifyError

            class FullINotify:
                def watch(self, *args: object, **kwargs: object) -> Never:
                    raise INotifyError("no watches left")

                def loseConnection(self) -> None: ...

            watcher = DirectoryWatcher(self.reactor, lambda reactor: FullINotify())
            watch = watcher.watch([self.folders[0]], lambda: self.calls.append("called"))
            self.reactor.pump([POLL_SECONDS, GATHER_SECONDS + 0.001])
            self.assertEqual(self.calls, ["called"])
            watch.stop()
            watcher.stop()
