"""Directories are read only when their mtimes changed or cannot be trusted to show a change."""

from __future__ import annotations

import os

from imapshield.testing.store_contract import SEEN
from tests.maildir.disk import DiskTestCase, counting_calls


class DirectoryTimeTests(DiskTestCase):
    def test_unchanged_directory_is_not_read(self) -> None:
        """An unchanged directory is not listed again."""
        self.append()
        self.let_mtimes_age()
        key = self.store.open("INBOX", True).key
        with counting_calls("listdir") as calls:
            self.store.open("INBOX", True)
            self.store.changes(key, 0, True)
            self.store.status("INBOX")
        self.assertEqual(calls, [])

    def test_new_store_does_not_read_unchanged_directories(self) -> None:
        """A SELECT after the server was started again lists neither cur/ nor new/."""
        self.append()
        self.store.create("A", [])
        self.append(name="A")
        self.let_mtimes_age()
        for name in ("INBOX", "A"):
            self.store.open(name, True)
        self.store.close()
        with counting_calls("listdir") as listed, counting_calls("scandir") as scanned:
            store = self.open_store()
            for name in ("INBOX", "A"):
                self.assertEqual(len(store.open(name, True).delta.rows), 1)
        self.assertEqual([p for p in listed + scanned if p.endswith(("/cur", "/new"))], [])
        self.assertEqual(scanned, [self.root])

    def test_own_changes_are_not_read(self) -> None:
        """A loop of APPEND, STORE and NOOP never lists cur/; it is listed once after the loop."""
        self.clock.base = lambda: os.stat(self.path("cur")).st_mtime + 0.1
        self.store.open("INBOX", True)
        key = self.store.mailbox_key("INBOX")
        with counting_calls("listdir") as calls:
            for _ in range(20):
                uid = self.append()
                self.store.store_flags(key, [uid], b"+", [SEEN], None, 0)
                self.store.changes(key, 0, True)
        self.assertEqual([path for path in calls if path.endswith("/cur")], [])
        self.clock.base = lambda: os.stat(self.path("cur")).st_mtime + 1.1
        with counting_calls("listdir") as calls:
            self.store.open("INBOX", True)
            self.store.open("INBOX", True)
        self.assertEqual(len([path for path in calls if path.endswith("/cur")]), 1)

    def test_change_in_the_same_clock_tick_is_found(self) -> None:
        """A change that did not change the mtime is found when the mtime is old enough to be trusted."""
        self.append()
        self.store.open("INBOX", True)
        (name,) = self.cur()
        status = os.stat(self.path("cur"))
        os.rename(self.path("cur", name), self.path("cur", name + "S"))
        os.utime(self.path("cur"), ns=(status.st_atime_ns, status.st_mtime_ns))
        self.let_mtimes_age()
        self.assertEqual(self.flags(), {1: b"\\Seen"})

    def test_directory_is_read_once_an_hour(self) -> None:
        """Once an hour, a directory is read even if another program restored its mtime."""
        self.append()
        self.let_mtimes_age()
        self.store.open("INBOX", True)
        (name,) = self.cur()
        status = os.stat(self.path("cur"))
        os.rename(self.path("cur", name), self.path("cur", name + "S"))
        os.utime(self.path("cur"), ns=(status.st_atime_ns, status.st_mtime_ns))
        self.assertEqual(self.flags(), {1: b""})
        self.clock.offset += 3601
        self.assertEqual(self.flags(), {1: b"\\Seen"})

    def test_clock_behind_the_file_system_misses_no_change(self) -> None:
        """If the clock is behind that of the file system, no mtime is trusted and no change is missed."""
        self.clock.offset = -1e6
        key = self.store.open("INBOX", True).key
        for i in range(1, 6):
            self.deliver(directory="cur", name=f"{i}.x:2,S")
            self.assertEqual(len(self.store.changes(key, 0, True).rows), i)
