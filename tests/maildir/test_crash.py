"""A process that is killed at any step: several messages that come together are all there, or none is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from unittest import mock

from imapshield.errors import StoreError
from imapshield.mailbox.values import NewMessage
from imapshield.maildir.store import MaildirStore
from imapshield.testing.store_contract import BUDGET, MAIL, SEEN, WHOLE
from imapshield.wire.commands.base import MemoryLiteral
from tests.maildir.disk import DiskTestCase, failing

STEPS = ("link", "rename", "unlink", "fsync", "replace")
OTHER = MAIL.replace(b"Subject: ", b"Subject: another ")
WHOLE_MAIL = b"{%d}\r\n%b" % (len(MAIL), MAIL)


class CrashTests(DiskTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.store.create("A", [])
        for _ in range(3):
            self.put(SEEN, b"$Mine")
        self.key = self.store.open("INBOX", True).key
        self.store.open("A", True)
        self._copies = count()

    @contextmanager
    def killed(self) -> Iterator[list[str]]:
        """Keep a copy of the Maildir as it is before each step."""
        copies: list[str] = []

        def keeping(name):
            real = getattr(os, name)

            def step(*args, **kwargs):
                copies.append(f"{self.root}-{next(self._copies)}")
                shutil.copytree(self.root, copies[-1])
                return real(*args, **kwargs)

            return mock.patch.object(os, name, step)

        patches = [keeping(name) for name in STEPS]
        for patch in patches:
            patch.start()
        try:
            yield copies
        finally:
            for patch in patches:
                patch.stop()

    def opened(self, root: str) -> MaildirStore:
        store = MaildirStore(root, now=self.clock, log_warning=self.warnings.append)
        self.addCleanup(store.close)
        return store

    def whole(self, store: MaildirStore, name: str) -> dict[int, bytes]:
        """Flags by UID, of messages that are whole."""
        flags = self.flags(name, store)
        fetched = store.fetch(store.key(name), sorted(flags), [WHOLE], BUDGET)
        self.assertEqual(list(fetched.uids), sorted(flags))
        self.assertLessEqual({*fetched.columns[0]} if flags else set(), {WHOLE_MAIL})
        return flags

    def all_or_none(self, copies: list[str], known: dict[int, bytes], first: int) -> None:
        found = []
        for root in copies:
            for later in (0, 1.5):  # directories are read again when they have cooled
                self.clock.later += later
                store = self.opened(root)
                self.assertEqual(self.whole(store, "INBOX"), known)
                found.append(self.whole(store, "A"))
                store.close()
            self.assertEqual(found[-2], found[-1])
            self.assertEqual(len(os.listdir(os.path.join(root, ".A", "cur"))), len(found[-1]))
        news = {first + i: known[1] for i in range(3)}
        before = dict.fromkeys(range(1, first), known[1])
        self.assertIn(before, found)
        self.assertIn(before | news, found)
        self.assertEqual([f for f in found if f not in (before, before | news)], [])
        self.assertEqual(self.warnings, [])

    def test_copy(self) -> None:
        """COPY of three."""
        for first in (1, 4):
            with self.killed() as copies:
                copied = self.store.copy(self.key, [1, 2, 3], "A", False, 0)
            self.assertEqual(copied.target_uids, [first, first + 1, first + 2])
            self.assertGreaterEqual(len(copies), 8)
            self.all_or_none(copies, self.flags(), first)

    def test_multiappend(self) -> None:
        """APPEND of three."""
        messages = [NewMessage((SEEN, b"$Mine"), None, MemoryLiteral(MAIL))] * 3
        with self.killed() as copies:
            self.store.append("A", messages)
        self.assertGreater(len(copies), 12)
        self.all_or_none(copies, self.flags(), 1)

    def test_move(self) -> None:
        """MOVE of three: each is in one place, whole."""
        with self.killed() as copies:
            self.store.copy(self.key, [1, 2, 3], "A", True, 0)
        for root in copies:
            store = self.opened(root)
            found = [*self.whole(store, "INBOX").values(), *self.whole(store, "A").values()]
            self.assertEqual(found, [b"\\Seen $Mine"] * 3)

    def test_replace(self) -> None:
        """REPLACE: the old one or the new one is there, whole, at any moment."""
        with self.killed() as copies:
            self.store.replace(self.key, 2, "A", NewMessage((SEEN,), None, MemoryLiteral(MAIL)), 0)
        for root in copies:
            store = self.opened(root)
            there, new = self.whole(store, "INBOX"), self.whole(store, "A")
            self.assertIn(len(there) + len(new), (3, 4))
            self.assertLessEqual({1, 3}, set(there))

    def test_settled_later(self) -> None:
        """Messages that cannot be renamed now are there all the same, for every command, and are renamed later."""
        error = OSError(5, "Input/output error", b"x")
        with failing("rename", error):
            self.store.copy(self.key, [1, 2, 3], "A", False, 0)
        self.assertEqual(len(self.warnings), 1)
        self.assertEqual(len(os.listdir(self.path(".A", "tmp"))), 3)
        self.cool()
        self.deliver(folder=".A")  # a look at the folder does not take them for gone
        self.assertEqual(sorted(self.whole(self.store, "A")), [1, 2, 3, 4])
        key = self.store.key("A")
        self.store.store_flags(key, [1], b"+", [b"\\Deleted"], None, 0)
        self.store.expunge(key, [1], 0)
        self.store.copy(key, [2], "INBOX", False, 0)
        self.store.copy(key, [3], "INBOX", True, 0)
        self.assertEqual(sorted(self.whole(self.store, "INBOX")), [1, 2, 3, 4, 5])
        self.assertEqual(sorted(self.whole(self.store, "A")), [2, 4])
        self.store.copy(self.key, [1, 2], "A", False, 0)
        self.assertEqual(os.listdir(self.path(".A", "tmp")), [])
        self.assertEqual(len(self.cur(".A")), 3)

    def test_taken_from_tmp(self) -> None:
        """What somebody removes from tmp/ is told as expunged, once there is a look."""
        with failing("rename", OSError(5, "Input/output error", b"x")):
            self.store.copy(self.key, [1, 2, 3], "A", False, 0)
        os.unlink(self.path(".A", "tmp", sorted(os.listdir(self.path(".A", "tmp")))[1]))
        self.store.close()
        self.assertEqual(sorted(self.flags("A", self.open_store())), [1, 3])

    def test_failing_copy(self) -> None:
        """A COPY of several that fails leaves nothing in tmp/."""
        for step, after in (("link", 1), ("fsync", 0)):
            with failing(step, OSError(5, "Input/output error", b"x"), after):
                self.assertRaises(StoreError, self.store.copy, self.key, [1, 2, 3], "A", False, 0)
            self.assertEqual(os.listdir(self.path(".A", "tmp")), [])
            self.assertEqual(self.flags("A"), {})
