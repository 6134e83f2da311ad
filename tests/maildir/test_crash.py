"""A process is killed at any step: of several messages that are stored together, all are stored or none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from imapshield.errors import StoreError
from imapshield.mailbox.values import NewMessage
from imapshield.maildir.files import STALE_SECONDS
from imapshield.maildir.store import MaildirStore
from imapshield.testing.store_contract import BUDGET, MAIL, SEEN, WHOLE
from imapshield.wire.commands.base import MemoryLiteral
from tests.maildir.disk import MAIL_LITERAL, DiskTestCase, crashed_copy, failing

STEPS = ("link", "rename", "unlink", "fsync")
DISK_ERROR = OSError(5, "Input/output error", b"x")


class CrashTestCase(DiskTestCase):
    """Three messages in INBOX, and an empty mailbox A."""

    def setUp(self) -> None:
        super().setUp()
        self.store.create("A", [])
        for _ in range(3):
            self.append(SEEN, b"$Mine")
        self.key = self.store.open("INBOX", True).key
        self.store.open("A", True)

    def flags_of_complete(self, store: MaildirStore, name: str) -> dict[int, bytes]:
        """Return the flags of every message by UID, after checking that each message is complete."""
        flags = self.flags(name, store)
        fetched = store.fetch(store.mailbox_key(name), sorted(flags), [WHOLE], BUDGET)
        self.assertEqual(list(fetched.uids), sorted(flags))
        self.assertLessEqual({*fetched.columns[0]} if flags else set(), {MAIL_LITERAL})
        return flags


class CrashTests(CrashTestCase):
    @contextmanager
    def copying_before_each_step(self) -> Iterator[list[str]]:
        """Copy the Maildir before each system call that changes it; yield the paths of the copies."""
        copies: list[str] = []

        def copy_before(name: str) -> Any:
            real = getattr(os, name)

            def step(*args: Any, **kwargs: Any) -> Any:
                copies.append(self.mktemp())
                crashed_copy(self.root, copies[-1])
                return real(*args, **kwargs)

            return mock.patch.object(os, name, step)

        patches = [copy_before(name) for name in STEPS]
        for patch in patches:
            patch.start()
        try:
            yield copies
        finally:
            for patch in patches:
                patch.stop()

    def check_all_or_none(self, copies: list[str], inbox: dict[int, bytes], first: int) -> None:
        """Check that every copy has all three messages in A from UID `first` on, or none, and that both cases occur."""
        found = []
        for root in copies:
            for seconds in (0, 1.5):  # directories are read again when their mtimes are trusted
                self.clock.offset += seconds
                store = self.open_store(root)
                self.assertEqual(self.flags_of_complete(store, "INBOX"), inbox)
                found.append(self.flags_of_complete(store, "A"))
                store.close()
            self.assertEqual(found[-2], found[-1])
            self.assertEqual(len(os.listdir(os.path.join(root, ".A", "cur"))), len(found[-1]))
        before = dict.fromkeys(range(1, first), inbox[1])
        after = before | dict.fromkeys(range(first, first + 3), inbox[1])
        self.assertIn(before, found)
        self.assertIn(after, found)
        self.assertEqual([flags for flags in found if flags not in (before, after)], [])
        self.assertEqual(self.warnings, [])

    def test_crash_in_copy_leaves_all_messages_or_none(self) -> None:
        """After a crash in a COPY of three messages, all three are in the target, or none."""
        for first in (1, 4):
            with self.copying_before_each_step() as copies:
                copied = self.store.copy(self.key, [1, 2, 3], "A", False, 0)
            self.assertEqual(copied.target_uids, [first, first + 1, first + 2])
            self.assertGreaterEqual(len(copies), 7)  # 3 links, 1 sync, 3 renames
            self.check_all_or_none(copies, self.flags(), first)

    def test_crash_in_append_leaves_all_messages_or_none(self) -> None:
        """After a crash in an APPEND of three messages, all three are in the mailbox, or none."""
        messages = [NewMessage((SEEN, b"$Mine"), None, MemoryLiteral(MAIL))] * 3
        with self.copying_before_each_step() as copies:
            self.store.append("A", messages)
        self.assertGreaterEqual(len(copies), 12)
        self.check_all_or_none(copies, self.flags(), 1)

    def test_crash_in_move_leaves_all_messages_in_one_mailbox(self) -> None:
        """After a crash in a MOVE, all messages are in the source, or all in the target, and are complete."""
        with self.copying_before_each_step() as copies:
            self.store.copy(self.key, [1, 2, 3], "A", True, 0)
        for root in copies:
            store = self.open_store(root)
            inbox, moved = (
                self.flags_of_complete(store, "INBOX"),
                self.flags_of_complete(store, "A"),
            )
            self.assertEqual([*inbox.values(), *moved.values()], [b"\\Seen $Mine"] * 3)
            self.assertIn(len(moved), (0, 3))

    def test_crash_in_replace_leaves_the_old_or_the_new_message(self) -> None:
        """After a crash in a REPLACE, the old message or the new one exists, not both, and is complete."""
        with self.copying_before_each_step() as copies:
            self.store.replace(self.key, 2, "A", NewMessage((SEEN,), None, MemoryLiteral(MAIL)), 0)
        for root in copies:
            store = self.open_store(root)
            inbox, new = self.flags_of_complete(store, "INBOX"), self.flags_of_complete(store, "A")
            self.assertEqual(len(inbox) + len(new), 3)
            self.assertLessEqual({1, 3}, set(inbox))


class StagingTests(CrashTestCase):
    """Staged messages that could not be published."""

    def test_staged_messages_work_in_every_command(self) -> None:
        """Messages that could not be renamed into cur/ work in every command, and are renamed later."""
        with failing("rename", DISK_ERROR, 1):  # the first one is that of dovecot-keywords
            self.store.copy(self.key, [1, 2, 3], "A", False, 0)
        self.assertEqual(len(self.warnings), 1)
        self.assertEqual(len(self.tmp(".A")), 3)
        self.let_mtimes_age()
        self.deliver(folder=".A")  # a sync of the folder does not regard them as missing
        self.assertEqual(sorted(self.flags_of_complete(self.store, "A")), [1, 2, 3, 4])
        key = self.store.mailbox_key("A")
        self.store.store_flags(key, [1], b"+", [b"\\Deleted"], None, 0)
        self.store.expunge(key, [1], 0)
        self.store.copy(key, [2], "INBOX", False, 0)
        self.store.copy(key, [3], "INBOX", True, 0)
        self.assertEqual(sorted(self.flags_of_complete(self.store, "INBOX")), [1, 2, 3, 4, 5])
        self.assertEqual(sorted(self.flags_of_complete(self.store, "A")), [2, 4])
        self.store.copy(self.key, [1, 2], "A", False, 0)
        self.assertEqual(self.tmp(".A"), [])
        self.assertEqual(len(self.cur(".A")), 3)

    def test_staged_for_days(self) -> None:
        """Staged messages survive a start that comes days after the crash, even if they cannot be published then."""
        with failing("rename", DISK_ERROR):
            self.store.copy(self.key, [1, 2, 3], "INBOX", False, 0)
        self.store.close()
        self.clock.offset += 2 * STALE_SECONDS
        store = self.open_store()
        with failing("rename", DISK_ERROR):
            store.mailboxes()
        self.assertEqual(len(self.tmp()), 3)
        store.close()
        self.assertEqual(len(self.flags_of_complete(self.open_store(), "INBOX")), 6)
        self.assertEqual(self.tmp(), [])

    def test_staged_file_that_was_removed_is_expunged(self) -> None:
        """A staged file that another program removed is expunged by the first sync after publishing."""
        with failing("rename", DISK_ERROR, 1):  # the first one is that of dovecot-keywords
            self.store.copy(self.key, [1, 2, 3], "A", False, 0)
        os.unlink(self.path(".A", "tmp", self.tmp(".A")[1]))
        self.store.close()
        self.assertEqual(sorted(self.flags("A", self.open_store())), [1, 3])

    def test_failing_copy_leaves_nothing_in_tmp(self) -> None:
        """A COPY of several messages that fails leaves nothing in tmp/."""
        for step, after in (("link", 1), ("fsync", 0)):
            with failing(step, DISK_ERROR, after):
                self.assertRaises(StoreError, self.store.copy, self.key, [1, 2, 3], "A", False, 0)
            self.assertEqual(self.tmp(".A"), [])
            self.assertEqual(self.flags("A"), {})
