"""What was read from the index is used again only while nothing has changed there."""

from __future__ import annotations

import os
from unittest import mock

from imapshield.errors import NoSuchMailbox
from imapshield.maildir import mailbox_status
from imapshield.testing.store_contract import SEEN
from tests.maildir.disk import DiskTestCase


class KnownRowsTests(DiskTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.append()
        opened = self.store.open("INBOX", True)
        self.key, self.since = opened.key, opened.delta.highestmodseq
        self.clock.offset = 10.0  # the mtimes of the directories are trusted
        self.poll()
        self.statements: list[str] = []
        self.store._account.index.db.set_trace_callback(self.statements.append)

    def poll(self) -> list[tuple[int, bytes]]:
        """Return (uid, flags) of the messages that have changed since `since`."""
        delta = self.store.changes(self.key, self.since, True)
        return [(row.uid, row.flags) for row in delta.rows]

    def test_unchanged_mailbox_is_not_read(self) -> None:
        """A poll that finds nothing asks SQLite for its version, and for nothing else."""
        self.poll()
        self.statements.clear()
        self.assertEqual(self.poll(), [])
        self.assertEqual(self.statements, ["PRAGMA data_version"])

    def test_status_of_an_unchanged_mailbox_counts_nothing(self) -> None:
        """STATUS counts the messages again only if the index has changed, also if another process has changed it."""
        other = self.open_store()
        for number in range(3):
            first = self.store.status("INBOX")
            self.statements.clear()
            self.assertEqual(self.store.status("INBOX"), first)
            self.assertEqual([text for text in self.statements if "count(" in text], [])
            self.assertEqual(first.messages, 1 + number)
            self.append(store=other)

    def test_status_measures_again_what_it_could_not_measure(self) -> None:
        """A status with an upper bound for the size of a message is not used again."""
        self.deliver(content=b"Subject: x\n\ny\n")
        with mock.patch.object(mailbox_status, "MAX_MEASURED_BY_STATUS", 0):
            bound = self.store.status("INBOX")
        self.assertEqual(self.store.status("INBOX").size, bound.size - 2 * 14 + 17)

    def test_unchanged_mailbox_is_not_opened(self) -> None:
        """A poll that finds nothing opens no directory: not of INBOX, and not of another mailbox."""
        self.store.create("A", [])
        for name in ("INBOX", "A"):
            key = self.store.open(name, True).key
            self.clock.offset += 10.0
            self.store.changes(key, 0, True)
            with mock.patch.object(os, "open") as opened:
                self.store.changes(key, 10, True)
            opened.assert_not_called()

    def test_change_by_another_process_is_seen_at_once(self) -> None:
        """A row that another connection has changed is read again by the next call: also one of the same mailbox."""
        other = self.open_store()
        for flag in (b"A", b"B", b"C"):
            other.store_flags(other.open("INBOX", False).key, [1], b"", [flag], None, 0)
            self.assertEqual(self.poll(), [(1, flag)])
            self.assertEqual(self.poll(), [(1, flag)])

    def test_change_that_was_rolled_back_is_not_known(self) -> None:
        """After a rollback the row counts that is in the database."""
        index = self.store._account.index
        before = index.mailbox(self.key)
        with self.assertRaises(ZeroDivisionError), index.write():
            index.update_mailbox(self.key, uidnext=99)
            self.assertEqual(index.mailbox(self.key).uidnext, 99)
            raise ZeroDivisionError
        self.assertEqual(index.mailbox(self.key), before)

    def test_own_changes_are_known(self) -> None:
        """After APPEND and STORE, the row of the mailbox is known by its key and its name, as it is in the index."""
        index = self.store._account.index
        for change in (
            self.append,
            lambda: self.store.store_flags(self.key, [1], b"+", [SEEN], None, 0),
        ):
            change()
            self.statements.clear()
            index.begin_operation()
            known = [index.mailbox(self.key), index.mailbox_named("INBOX")]
            self.assertFalse(index.has_moves())
            self.assertEqual(self.statements, ["PRAGMA data_version"])
            index.known().clear()
            self.assertEqual(known, [index.mailbox(self.key)] * 2)

    def test_renamed_mailbox_is_not_known_by_its_old_name(self) -> None:
        """A mailbox that was renamed after a change is known by its new name alone."""
        self.store.create("A", [])
        self.append(name="A")
        self.store.rename("A", "B")
        index = self.store._account.index
        self.assertIsNone(index.mailbox_named("A"))
        self.assertEqual(self.append(name="B"), 2)

    def test_write_begins_with_what_others_have_committed(self) -> None:
        """A transaction reads rows that another process has changed since the operation has begun."""
        index = self.store._account.index
        index.mailbox(self.key)
        other = self.open_store()
        other.store_flags(other.open("INBOX", False).key, [1], b"+", [SEEN], None, 0)
        with index.write():
            in_transaction = index.mailbox(self.key).highestmodseq
        self.assertEqual(in_transaction, self.since + 1)

    def test_snapshot_begins_with_what_others_have_committed(self) -> None:
        """The rows of a delta and its HIGHESTMODSEQ are of one state, also if the mailbox was read before."""
        index = self.store._account.index
        index.mailbox(self.key)
        other = self.open_store()
        other.store_flags(other.open("INBOX", False).key, [1], b"+", [SEEN], None, 0)
        delta = index.delta_since(self.key, self.since)
        self.assertEqual([row.modseq for row in delta.rows], [self.since + 1])
        self.assertEqual(delta.highestmodseq, self.since + 1)

    def test_mailbox_that_another_process_removes_is_unknown(self) -> None:
        """A mailbox that another process has deleted does not exist for the next call."""
        self.store.create("A", [])
        key = self.store.open("A", True).key
        self.store.changes(key, 0, True)
        self.open_store().delete("A")
        with self.assertRaises(NoSuchMailbox):
            self.store.changes(key, 0, True)

    def test_symbolic_link_to_the_folder_is_no_mailbox(self) -> None:
        """A folder that was moved, with a symbolic link in its place, is refused at once: `cur` and `new` are equal."""
        self.store.create("A", [])
        key = self.store.open("A", True).key
        self.clock.offset += 10.0
        self.store.changes(key, 0, True)
        os.rename(self.path(".A"), self.path(".B"))
        os.symlink(".B", self.path(".A"))
        with self.assertRaises(NoSuchMailbox):
            self.store.changes(key, 0, True)
