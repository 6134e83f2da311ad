"""The reading of a directory that follows a change is remembered, and written when the account is closed."""

from __future__ import annotations

import os
from typing import Any
from unittest import mock

from imapshield.mailbox.in_place import call_in_place
from imapshield.maildir import last_readings, sync
from imapshield.maildir.folder_listing import Listing, list_folder
from imapshield.maildir.index import STAGED
from imapshield.maildir.open_folders import Folder
from imapshield.maildir.reconcile import is_unchanged
from imapshield.maildir.staging import Staging
from imapshield.maildir.store import MaildirStore
from imapshield.testing.store_contract import SEEN
from tests.maildir.disk import DiskTestCase, counting_calls, crashed_copy


class LastReadingTests(DiskTestCase):
    def readings(self, store: MaildirStore, *mailboxes: str) -> list[str]:
        """Look at mailboxes; return the ``cur/`` directories that were listed for that."""
        with counting_calls("listdir") as calls:
            for name in mailboxes:
                store.status(name)
        return [path for path in calls if path.endswith("/cur")]

    def test_first_look_after_a_change_runs_in_place(self) -> None:
        """When the second after a STORE is over, the reading needs no transaction, and so no thread."""
        key = self.store.open("INBOX", True).key
        uid = self.append()
        self.store.store_flags(key, [uid], b"+", [SEEN], None, 0)
        since = self.store.changes(key, 0, True).highestmodseq
        self.let_mtimes_age()
        with counting_calls("listdir") as calls:
            for _ in range(3):
                call_in_place(lambda: self.store.changes(key, since, True), lambda: None)
        self.assertEqual([path for path in calls if path.endswith("/cur")], [self.path("cur")])

    def test_reading_is_lost_when_the_server_is_killed(self) -> None:
        """After a crash the directory is read once more."""
        self.append()
        self.let_mtimes_age()
        self.assertEqual(len(self.readings(self.store, "INBOX", "INBOX")), 1)
        copy = self.mktemp()
        crashed_copy(self.root, copy)
        self.store.close()
        self.assertEqual(self.readings(self.open_store(), "INBOX"), [])
        self.assertGreaterEqual(len(self.readings(self.open_store(copy), "INBOX")), 1)

    def test_readings_of_many_mailboxes_are_written(self) -> None:
        """Every mailbox is read a bounded number of times, however few readings are remembered."""
        self.patch(last_readings, "MAX_READINGS", 2)
        names = ["A", "B", "C", "D", "E"]
        for name in names:
            self.store.create(name, [])
            self.append(name=name)
            self.store.status(name)
        self.let_mtimes_age()
        self.assertEqual(len(self.readings(self.store, *names)), 5)
        self.assertEqual(len(self.readings(self.store, *names)), 3)
        self.assertEqual(len(self.readings(self.store, *names)), 0)

    def test_deleted_mailbox_does_not_prevent_writing(self) -> None:
        """When the account is closed, the readings of the mailboxes that are left are written."""
        for name in ("A", "B"):
            self.store.create(name, [])
            self.append(name=name)
            self.store.status(name)
        self.let_mtimes_age()
        self.readings(self.store, "A", "B")
        self.store.delete("A")
        self.store.close()
        self.assertEqual(self.readings(self.open_store(), "B"), [])

    def test_reading_of_another_process_counts(self) -> None:
        """A change by another process makes a remembered reading worthless."""
        self.append()
        self.let_mtimes_age()
        self.readings(self.store, "INBOX")
        other = self.open_store()
        self.append(store=other)
        self.let_mtimes_age()
        self.assertEqual(len(self.readings(self.store, "INBOX", "INBOX")), 1)

    def check_staging(self, *, is_touched: bool) -> None:
        """Let another process stage messages while a directory is read; check that this stays recorded."""
        self.store.create("A", [])
        uids, other = [self.append(), self.append()], self.open_store()
        key = other.open("INBOX", False).key
        self.store.status("A")
        if is_touched:
            os.utime(self.path(".A", "cur"), (1.0, 1.0))
        self.let_mtimes_age()

        def compare(*arguments: Any) -> bool:
            result = is_unchanged(*arguments)
            with mock.patch.object(Staging, "publish"):
                other.copy(key, uids, "A", False, 0)
            return result

        with mock.patch.object(sync, "is_unchanged", compare):
            self.store.status("A")
        mailbox = self.store._account.index.mailbox_named("A")
        self.assertTrue(mailbox and mailbox.directory_flags & STAGED)
        self.append(name="A")
        self.assertEqual(self.tmp(".A"), [])

    def test_staging_by_another_process_is_not_forgotten(self) -> None:
        """A reading that is remembered does not hide that another process has staged messages meanwhile."""
        self.check_staging(is_touched=False)

    def test_staging_by_another_process_is_not_overwritten(self) -> None:
        """Neither does a reading that is written, because another program has changed the time of the directory."""
        self.check_staging(is_touched=True)

    def test_change_during_a_long_reading_is_found(self) -> None:
        """A delivery that the listing has missed is found, if it left the same mtime and the listing took seconds."""
        self.deliver()
        self.let_mtimes_age()
        self.assertEqual(self.store.status("INBOX").messages, 1)
        mtime = int(self.clock() * 1e9)
        os.utime(self.path("new"), ns=(mtime, mtime))

        def list_slowly(folder: Folder, cur: bool) -> Listing:
            listing = list_folder(folder, cur)
            self.deliver()
            os.utime(self.path("new"), ns=(mtime, mtime))
            self.clock.offset += 2.0
            return listing

        with mock.patch.object(sync, "list_folder", list_slowly):
            self.store.status("INBOX")
        self.assertEqual(self.store.status("INBOX").messages, 2)
