"""A watched folder rings when mail comes: at once by inotify where there is any, by the next poll in any case."""

from __future__ import annotations

import os
import shutil
from typing import Never

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.runtime import platform
from twisted.trial.unittest import SynchronousTestCase

from imapshield.maildir.watch import GATHER_SECONDS, POLL_SECONDS, Watcher


def nothing(reactor) -> None:
    return None


class PollTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.watcher = Watcher(self.clock, nothing)
        self.folder = os.path.abspath(self.mktemp())
        os.makedirs(self.folder)
        self.rung: list[float] = []

    def turn(self, seconds: float = POLL_SECONDS) -> None:
        self.clock.pump([seconds, GATHER_SECONDS + 0.001])

    def ring(self) -> None:
        self.rung.append(self.clock.seconds())

    def change(self, at: int) -> None:
        os.utime(self.folder, (at, at))

    def test_change(self) -> None:
        """A change rings at the next poll, and once more after, for what came in the same tick of the clock."""
        watch = self.watcher.watch([self.folder], self.ring)
        self.turn()
        self.assertEqual(len(self.rung), 1)
        for _ in range(5):
            self.turn()
        self.assertEqual(len(self.rung), 1)
        self.change(1000)
        for _ in range(5):
            self.turn()
        self.assertEqual(len(self.rung), 3)
        watch.stop()

    def test_folder_goes_and_comes(self) -> None:
        """A folder that vanishes or is replaced rings like any change."""
        self.watcher.watch([self.folder, self.folder + "/none"], self.ring)
        self.turn()
        del self.rung[:]
        shutil.rmtree(self.folder)
        self.turn()
        self.turn()
        self.turn()
        os.makedirs(self.folder)
        self.turn()
        self.assertEqual(len(self.rung), 3)

    def test_stop(self) -> None:
        """A stopped watch rings no more, even if it was about to; after the last nothing is polled."""
        watch = self.watcher.watch([self.folder], self.ring)
        other = self.watcher.watch([self.folder], lambda: None)
        watch.hint()
        watch.stop()
        watch.stop()
        self.change(1000)
        self.turn()
        self.assertEqual(self.rung, [])
        other.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual((self.watcher._by_path, self.watcher._watches), ({}, set()))

    def test_gathered(self) -> None:
        """Many hints at once are one ring."""
        watch = self.watcher.watch([self.folder], self.ring)
        for _ in range(50):
            watch.hint()
        self.clock.advance(GATHER_SECONDS)
        self.assertEqual(len(self.rung), 1)

    def test_one_at_a_time(self) -> None:
        """While what a ring began is not done, further hints wait, and become one ring after it."""
        running: list[Deferred[None]] = []

        async def ring() -> None:
            running.append(Deferred())
            await running[-1]

        watch = self.watcher.watch([self.folder], ring)
        for _ in range(3):
            watch.hint()
            self.clock.advance(GATHER_SECONDS)
        self.assertEqual(len(running), 1)
        running[0].callback(None)
        self.clock.advance(GATHER_SECONDS)
        self.assertEqual(len(running), 2)
        running[1].errback(ValueError("a disk that fails"))
        watch.hint()
        self.clock.advance(GATHER_SECONDS)
        self.assertEqual(len(running), 3)

    def test_no_inotify(self) -> None:
        """A reactor without file descriptors, or a system without inotify, polls."""
        watcher = Watcher(self.clock)
        watcher.watch([self.folder], self.ring)
        self.turn()
        self.assertEqual(len(self.rung), 1)
        watcher.stop()


if platform.isLinux():

    class InotifyTests(SynchronousTestCase):
        """Where there is inotify; elsewhere the poll is all there is, and is tested above."""

        def setUp(self) -> None:
            self.reactor = MemoryReactorClock()
            self.watcher = Watcher(self.reactor)
            self.addCleanup(self.reactor.advance, 0)
            self.addCleanup(self.watcher.stop)
            self.folders = [os.path.abspath(self.mktemp()) for _ in range(2)]
            for folder in self.folders:
                os.makedirs(folder)
            self.rung: list[str] = []

        def read(self) -> None:
            """Let the reactor read what inotify has to tell."""
            for reader in list(self.reactor.readers):
                reader.doRead()
            self.reactor.pump([0, GATHER_SECONDS + 0.001])

        def touch(self, folder: str) -> None:
            with open(folder + "/x", "wb"):
                pass
            os.rename(folder + "/x", folder + "/y")
            os.unlink(folder + "/y")

        def watch(self, i: int = 0):
            return self.watcher.watch([self.folders[i]], lambda: self.rung.append(self.folders[i]))

        def test_rings_at_once(self) -> None:
            """A file that comes, goes or is renamed rings before any poll, in its own folder only; files that are read do
            not."""
            self.watch(0)
            self.watch(1)
            self.touch(self.folders[0])
            self.read()
            self.assertEqual(self.rung, [self.folders[0]])

        def test_shared(self) -> None:
            """All watches of a process share one inotify; two of one folder share a watch, which goes with the last."""
            first, second = self.watch(0), self.watch(0)
            self.watch(1)
            self.assertEqual(len(self.reactor.readers), 1)
            first.stop()
            self.touch(self.folders[0])
            self.read()
            self.assertEqual(self.rung, [self.folders[0]])
            second.stop()
            (notifier,) = self.reactor.readers
            self.assertEqual(len(notifier._watchpaths), 1)
            self.touch(self.folders[0])
            self.read()
            self.assertEqual(self.rung, [self.folders[0]])

        def test_folder_deleted(self) -> None:
            """Twisted closes its inotify when a watched folder goes; the others are watched by a new one."""
            first, _ = self.watch(0), self.watch(1)
            shutil.rmtree(self.folders[0])
            self.read()
            self.assertIn(self.folders[0], self.rung)
            del self.rung[:]
            self.touch(self.folders[1])
            self.read()
            self.assertEqual(self.rung, [self.folders[1]])
            first.stop()

        def test_no_watches_left(self) -> None:
            """When the user's watches are used up the poll does it."""
            from twisted.internet.inotify import INotifyError

            class Full:
                def watch(self, *args, **kwargs) -> Never:
                    raise INotifyError("no watches left")

                def loseConnection(self) -> None: ...

            watcher = Watcher(self.reactor, lambda reactor: Full())
            watch = watcher.watch([self.folders[0]], lambda: self.rung.append("rung"))
            self.reactor.pump([POLL_SECONDS, GATHER_SECONDS + 0.001])
            self.assertEqual(self.rung, ["rung"])
            watch.stop()
            watcher.stop()
