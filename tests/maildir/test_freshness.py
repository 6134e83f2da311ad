"""A client that asks for changes is answered without the store only if inotify proves that there are none."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.python.runtime import platform

from imapshield.errors import NoSuchMailbox
from imapshield.mailbox.store_account import StoreAccount
from imapshield.maildir import account_state
from imapshield.maildir.freshness import FRESH_SECONDS
from imapshield.maildir.inotify import WatchShares
from imapshield.maildir.store import MaildirStore
from imapshield.maildir.watch import DirectoryWatcher
from imapshield.testing.in_process import InlineWorker
from tests.maildir.disk import DiskTestCase

if platform.isLinux():

    class FreshnessTests(DiskTestCase):
        def setUp(self) -> None:
            super().setUp()
            self.reactor = MemoryReactorClock()
            self.watcher = DirectoryWatcher(self.reactor)
            self.addCleanup(self.watcher.stop)
            self.store.create("folder", ())
            self.other = self.open_store()
            self.other.mailboxes()
            self.calls = 0
            account = StoreAccount(
                "alice",
                lambda: cast("Any", self.store),
                InlineWorker(),
                change_notifier=self.watcher.for_user("alice"),
            )
            opened = Deferred.fromCoroutine(account.open("folder", True))
            self.mailbox: Any = self.successResultOf(opened)[0]
            self.mailbox.add_listener(lambda change: None, True)
            self.addCleanup(lambda: self.mailbox.remove_listener(None))
            original = self.store.changes

            def changes(*args: Any) -> Any:
                self.calls += 1
                return original(*args)

            self.patch(self.store, "changes", changes)

        def poll(self) -> int:
            """Poll the mailbox as NOOP does, and return how often that asked the store."""
            self.calls = 0
            self.successResultOf(Deferred.fromCoroutine(self.mailbox.poll()))
            return self.calls

        def settle(self) -> None:
            """Poll until the store is not asked."""
            for _ in range(20):
                if not self.poll():
                    return
                self.clock.offset += 10
            self.fail("the store is asked each time")

        def test_unchanged_mailbox_asks_no_store(self) -> None:
            """Polls of a mailbox that does not change do not ask the store, for a limited time."""
            self.settle()
            self.assertEqual([self.poll() for _ in range(5)], [0] * 5)
            self.reactor.advance(FRESH_SECONDS)
            self.assertEqual([self.poll() for _ in range(3)], [1, 0, 0])

        def test_every_change_is_found(self) -> None:
            """A change by another program or another imapshield is found by the next poll, whatever it is."""
            key = self.other.open("folder", False).key
            keywords = [b"k%d" % i for i in range(30)]
            changes: list[Callable[[], object]] = [
                lambda: self.deliver(folder=".folder"),
                lambda: self.deliver(folder=".folder", directory="cur", name="1.a.host:2,S"),
                lambda: self.other.store_flags(key, [1], b"+", [b"\\Flagged"], None, 0),
                lambda: self.other.store_flags(key, [1], b"+", keywords, None, 0),
                lambda: self.other.store_flags(key, [1], b"-", keywords[-1:], None, 0),
                lambda: os.rename(
                    self.path(".folder", "cur", "1.a.host:2,S"),
                    self.path(".folder", "cur", "1.a.host:2,RS"),
                ),
                lambda: os.unlink(self.path(".folder", "cur", "1.a.host:2,RS")),
                lambda: self.other.store_flags(key, [1], b"+", [b"\\Deleted"], None, 0),
                lambda: self.other.expunge(key, [1], 0),
            ]
            for i, change in enumerate(changes):
                self.settle()
                before = self.mailbox.columns.highestmodseq
                change()
                self.assertEqual(self.poll(), 1, i)
                self.assertGreater(self.mailbox.columns.highestmodseq, before, i)

        def test_renamed_and_recreated_folder_is_another(self) -> None:
            """A folder that takes the place of a renamed one is watched in its place."""
            self.settle()
            paths = self.store.traced_paths(self.mailbox.key)
            freshness = self.watcher.for_user("alice").freshness(paths)
            freshness.begin()
            freshness.end(succeeded=True)
            os.rename(self.path(".folder"), self.path(".elsewhere"))
            self.failureResultOf(Deferred.fromCoroutine(self.mailbox.poll()), NoSuchMailbox)
            self.assertFalse(freshness.is_fresh())
            for name in ("new", "cur", "tmp"):
                os.makedirs(self.path(".folder", name))
            freshness.begin()
            freshness.end(succeeded=True)
            self.assertTrue(freshness.is_fresh())
            with open(os.path.join(paths[0], "1.b.host"), "wb"):
                pass
            self.assertFalse(freshness.is_fresh())
            freshness.stop()

        def test_sync_that_fails_or_overlaps_proves_nothing(self) -> None:
            """Only a sync that succeeds proves something, and of several that overlap the last one."""
            freshness = self.watcher.freshness([self.path("cur")], "alice")
            freshness.begin()
            freshness.end(succeeded=False)
            self.assertFalse(freshness.is_fresh())
            freshness.begin()
            freshness.begin()
            freshness.end(succeeded=True)
            self.assertFalse(freshness.is_fresh())
            freshness.end(succeeded=True)
            self.assertTrue(freshness.is_fresh())
            freshness.stop()
            self.assertFalse(freshness.is_fresh())

        def test_lost_events_prove_nothing(self) -> None:
            """If the kernel has dropped events, or makes events without end, nothing is proven."""
            self.settle()
            overflow = struct.pack("iIII", -1, 0x4000, 0, 0)
            for event in (overflow, struct.pack("iIII", -1, 0x100, 0, 0)):
                real = os.read
                self.patch(os, "read", lambda fd, size, event=event: event)
                self.assertEqual(self.poll(), 1)
                self.patch(os, "read", real)
                self.settle()

        def test_directories_that_are_not_watched_prove_nothing(self) -> None:
            """Without inotify, beyond the share of watches, and on a network file system the store is always asked."""
            for shares in (WatchShares(1, 4), WatchShares(4, 1)):
                watcher = DirectoryWatcher(self.reactor, shares=shares)
                freshness = watcher.freshness([self.path("cur"), self.path("new")], "alice")
                freshness.begin()
                freshness.end(succeeded=True)
                self.assertFalse(freshness.is_fresh())
                freshness.stop()
            self.patch(account_state, "reports_all_changes", lambda path: b"/cur" not in path)
            self.assertEqual(self.store.traced_paths(self.mailbox.key), ())
            self.assertEqual([self.poll() for _ in range(3)], [1, 1, 1])

        def test_watches_end_with_the_last_session(self) -> None:
            """When no session has the mailbox selected, its directories are no longer watched."""
            self.settle()
            (inotify,) = self.reactor.readers
            self.assertEqual(len(cast("Any", inotify)), 3)
            for listener in list(self.mailbox._listeners):
                self.mailbox.remove_listener(listener)
            self.assertEqual(self.reactor.readers, set())
            self.assertIsInstance(self.store, MaildirStore)
