"""The reading of a directory that follows a change is remembered, and written when the account is closed."""

from __future__ import annotations

from imapshield.mailbox.in_place import call_in_place
from imapshield.maildir import last_readings
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
