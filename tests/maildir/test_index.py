"""The index survives restarts, and is rebuilt when it is lost, corrupt or replaced."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Never
from unittest import mock

from imapshield.errors import IndexLocked, StoreBusy, StoreError, StoreIOError
from imapshield.mailbox.values import NewMessage
from imapshield.maildir import index, index_database
from imapshield.maildir.index import Index
from imapshield.testing.store_contract import BUDGET, DELETED, ENVELOPE, MAIL, SEEN, WHOLE
from imapshield.wire.commands.base import MemoryLiteral
from imapshield.wire.commands.search import EnvelopeKey
from tests.maildir.disk import DiskTestCase


class RestartTests(DiskTestCase):
    def test_uids_continue_after_a_restart_of_the_process(self) -> None:
        """After a restart of the process UIDs continue without a gap."""
        first = self.append()
        self.store.close()
        self.store = self.open_store()
        self.assertEqual(self.append(), first + 1)


class QueryTests(DiskTestCase):
    def test_change_of_one_message_is_one_transaction(self) -> None:
        """STORE, EXPUNGE and COPY of one message take one transaction, which also reads what the session is told.

        MOVE takes another one, in which it announces what it does.
        """
        self.append()
        self.append(DELETED)
        self.store.create("A", [])
        key = self.store.open("INBOX", True).key
        self.store.mailbox_key("A")
        statements: list[str] = []
        self.store._account.index.db.set_trace_callback(statements.append)
        for change, updates, transactions in (
            (lambda: self.store.store_flags(key, [1], b"+", [SEEN], None, 0), 1, 1),
            (lambda: self.store.copy(key, [1], "A", False, 0), 1, 1),
            (lambda: self.store.copy(key, [1], "A", True, 0), 2, 2),
            (lambda: self.store.expunge(key, [2], 0), 1, 1),
            (self.append, 1, 1),
        ):
            statements.clear()
            change()
            begun = [s for s in statements if s.startswith("BEGIN")]
            self.assertEqual(begun, ["BEGIN IMMEDIATE"] * transactions)
            updated = [s for s in statements if s.startswith("UPDATE mailbox")]
            self.assertEqual(len(updated), updates, updated)

    def test_pages_in_memory(self) -> None:
        """An account that is used has at most three quarters of a mebibyte of the pages of its two databases."""
        account = self.store._account
        self.store.mailboxes()
        self.assertTrue(account.text_index.ensure_open(create=True))
        pages = "PRAGMA cache_size"  # negative: KiB
        sizes = [account.index.db.execute(pages).fetchone()[0]]
        sizes += account.text_index._open_db.execute(pages).fetchone()
        self.assertEqual(sizes, [-512, -256])

    def test_memory_of_an_unused_index_is_freed(self) -> None:
        """SQLite is told to free its pages, once; a closed index has none, and an error is no error of a client."""
        self.store.mailboxes()
        index = self.store._account.index
        statements: list[str] = []
        index.db.set_trace_callback(statements.append)
        self.store.release_memory()
        self.assertEqual(statements, ["PRAGMA shrink_memory"])
        index.db.close()
        self.store.release_memory()
        self.store.close()
        self.store.release_memory()
        self.assertEqual(self.warnings, [])

    def test_what_changed_is_found_without_what_changed_before(self) -> None:
        """The work of finding one changed message does not grow with the messages that changed before."""
        self.store.append("INBOX", [NewMessage((), None, MemoryLiteral(MAIL))] * 300)
        key, uids = self.store.open("INBOX", True).key, range(1, 301)
        since = self.store.store_flags(key, uids, b"+", [SEEN], None, 0).delta.highestmodseq
        self.store.store_flags(key, [7], b"-", [SEEN], None, since)
        steps: list[int] = []
        self.store._account.index.db.set_progress_handler(lambda: steps.append(1), 100)
        delta = self.store.changes(key, since, True)
        self.assertEqual([row.uid for row in delta.rows], [7])
        self.assertLess(len(steps), 5)

    def test_messages_of_a_new_mailbox_are_counted_and_numbered_whatever_their_number(self) -> None:
        """Messages that the index gets with one statement, or with several, have UIDs without gaps, and are counted."""
        for count in (1, 49, 50, 51, 100, 120):
            root = os.path.abspath(self.mktemp())
            os.makedirs(os.path.join(root, "cur"))
            for number in range(count):
                with open(os.path.join(root, "cur", f"17{number:08d}.P1.mx"), "wb") as file:
                    file.write(MAIL)
            store = self.open_store(root)
            self.assertEqual(list(self.flags(store=store)), list(range(1, count + 1)))
            usage = store.quota()
            self.assertEqual((usage.messages, usage.octets), (count, count * len(MAIL)))

    def test_renamed_folder_is_looked_up_by_its_inode(self) -> None:
        """A folder that the index lacks is compared with the others through an index, not one by one."""
        db = self.store._account.index.db
        plan = db.execute(
            "EXPLAIN QUERY PLAN SELECT * FROM mailbox WHERE cur_ino = 1 AND new_ino = 2"
        )
        self.assertIn("USING INDEX mailbox_inode", plan.fetchone()[3])


class LostIndexTests(DiskTestCase):
    def test_lost_index_gets_other_uidvalidities(self) -> None:
        """An index that replaces a lost one has other UIDVALIDITYs, even within the same second."""
        self.clock.base = lambda: 1_800_000_000.0
        uidvalidities = set()
        for damage in (os.unlink, lambda path: os.truncate(path, 0), os.unlink):
            self.append()
            uidvalidities.add(self.store.status("INBOX").uidvalidity)
            self.store.close()
            for suffix in ("-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.path("imapshield.sqlite" + suffix))
            damage(self.path("imapshield.sqlite"))
            self.store = self.open_store()
        uidvalidities.add(self.store.status("INBOX").uidvalidity)
        self.assertEqual(len(uidvalidities), 4)

    def test_corrupt_index_is_moved_away(self) -> None:
        """A corrupt index is moved away with a warning; all mail gets a new UIDVALIDITY and new keys."""
        self.store.create("A", [])
        self.append(SEEN, b"$Work", name="A")
        before, key = self.store.status("A"), self.store.mailbox_key("A")
        self.store.close()
        with open(self.path("imapshield.sqlite"), "r+b") as file:
            file.write(b"not a database at all" * 10)
        for name in ("imapshield.sqlite-wal", "imapshield.sqlite-shm"):
            if os.path.exists(self.path(name)):
                os.unlink(self.path(name))
        store = self.open_store()
        self.assertEqual(self.flags("A", store), {1: b"\\Seen $Work"})
        self.assertGreater(store.status("A").uidvalidity, before.uidvalidity)
        self.assertNotEqual(store.mailbox_key("A"), key)
        self.assertRaises(StoreError, store.fetch, key, [1], [WHOLE], BUDGET)
        self.assertEqual(len(self.warnings), 1)
        self.assertTrue([name for name in os.listdir(self.root) if ".broken-" in name])

    def report_damage(self) -> None:
        """Make one operation fail as SQLite does if it finds damage, or cannot read a file."""

        def fail(*args: object) -> Never:
            error = sqlite3.DatabaseError("database disk image is malformed")
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error

        with mock.patch.object(Index, "mailbox_named", fail):
            self.assertRaises(StoreIOError, self.store.open, "INBOX", True)

    def test_index_corrupted_while_open_is_rebuilt(self) -> None:
        """An index that becomes corrupt while it is open makes one command fail, and is rebuilt."""
        self.append()
        self.store._account.index.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with open(self.path("imapshield.sqlite"), "r+b") as file:
            file.seek(4096)
            file.write(b"x" * 8192)
        self.report_damage()
        self.assertEqual(self.flags(), {1: b""})
        self.assertEqual(len(self.warnings), 2)

    def test_undamaged_index_is_kept(self) -> None:
        """If SQLite has reported damage and there is none, because a file could not be read, the index stays."""
        for _ in range(2):
            self.append()
        self.store.store_flags(self.store.mailbox_key("INBOX"), [1], b"+", [DELETED], None, 0)
        self.store.expunge(self.store.mailbox_key("INBOX"), None, 0)
        before = self.store.status("INBOX")
        self.report_damage()
        self.assertEqual(self.store.status("INBOX"), before)
        self.assertEqual(self.flags(), {2: b""})
        self.assertEqual(len(self.warnings), 1)

    def test_advice(self) -> None:
        """The warning about an SQLite error gives advice about the disk only if the disk or the permissions cause it."""
        for name, has_advice in (
            ("SQLITE_IOERR_WRITE", True),
            ("SQLITE_PERM", True),
            ("SQLITE_TOOBIG", False),
        ):
            error = sqlite3.OperationalError("failed")
            error.sqlite_errorname = name
            self.assertIsInstance(self.store._account.index.store_error(error), StoreIOError)
            self.assertEqual("check the disk" in self.warnings[-1], has_advice)

    def test_index_removed_while_open_is_rebuilt(self) -> None:
        """An index that another program removes while it is open is built again."""
        self.append()
        key = self.store.mailbox_key("INBOX")
        for name in os.listdir(self.root):
            if name.startswith("imapshield.sqlite"):
                os.unlink(self.path(name))
        self.assertRaises(StoreError, self.store.changes, key, 0, True)
        self.assertEqual(self.flags(), {1: b""})

    def test_index_of_a_newer_version_is_not_opened(self) -> None:
        """An index of a newer version is not opened, and not moved away."""
        self.append()
        self.store._account.index.db.execute("PRAGMA user_version = 99")
        self.assertRaises(StoreIOError, self.open_store().mailboxes)
        self.assertFalse([name for name in os.listdir(self.root) if ".broken-" in name])

    def test_busy_index_raises_store_busy(self) -> None:
        """While another process holds the lock for too long, commands fail with StoreBusy and store nothing."""
        self.patch(index_database, "BUSY_SECONDS", 0.01)
        store = self.open_store()
        store.mailboxes()
        self.store._account.index.db.execute("BEGIN IMMEDIATE")
        message = NewMessage((), None, MemoryLiteral(MAIL))
        self.assertRaises(StoreBusy, store.append, "INBOX", [message])
        self.store._account.index.db.execute("ROLLBACK")
        self.assertEqual((self.flags(), self.tmp()), ({}, []))


class LockedIndexTests(DiskTestCase):
    """In a server, a call that finds the index locked gives its thread back, and is repeated."""

    def setUp(self) -> None:
        super().setUp()
        self.uid = self.append()
        self.locked = self.open_store(first_busy_seconds=0.001)
        self.locked.mailboxes()

    @contextmanager
    def lock(self) -> Iterator[None]:
        db = self.store._account.index.db
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("ROLLBACK")

    def test_call_that_has_done_nothing_can_be_repeated(self) -> None:
        """Every change raises IndexLocked while another process holds the lock, and does its work afterwards."""
        key = self.locked.mailbox_key("INBOX")
        message = NewMessage((), None, MemoryLiteral(MAIL))
        calls: list[Callable[[], object]] = [
            lambda: self.locked.append("INBOX", [message]),
            lambda: self.locked.store_flags(key, [self.uid], b"+", [b"\\Seen"], None, 0),
            lambda: self.locked.copy(key, [self.uid], "INBOX", False, 0),
            lambda: self.locked.create("x", ()),
            lambda: self.locked.rename("x", "y"),
            lambda: self.locked.copy(key, [self.uid], "y", True, 0),
            lambda: self.locked.replace(key, self.uid + 1, "y", message, 0),
            lambda: self.locked.set_subscribed("y", True),
            lambda: self.locked.set_metadata("y", {b"/private/comment": b"x"}),
            lambda: self.locked.delete("y"),
            lambda: self.locked.expunge(key, None, 0),
        ]
        for call in calls:
            files = self.all_files()
            with self.lock():
                self.assertRaises(IndexLocked, call)
                self.assertEqual(self.all_files(), files)
            call()
        self.assertEqual(self.tmp(), [])

    def all_files(self) -> set[str]:
        return {
            os.path.join(path, name)
            for path, _, names in os.walk(self.root)
            for name in names
            if not name.startswith("imapshield")
        }

    def test_index_that_is_locked_at_its_opening_can_be_opened_later(self) -> None:
        """A store whose index is locked raises IndexLocked, and opens it later."""
        store = self.open_store(first_busy_seconds=0.001)
        with self.lock():
            self.assertRaises(IndexLocked, store.mailboxes)
        self.assertEqual(len(list(store.mailboxes())), 1)

    def test_mail_is_read_while_the_index_is_locked(self) -> None:
        """FETCH and SEARCH need no lock: what they would add to the index is left out."""
        key = self.locked.mailbox_key("INBOX")
        with self.lock():
            fetched = self.locked.fetch(key, [self.uid], [ENVELOPE], 1000)
            found = self.locked.search(key, [self.uid], EnvelopeKey(b"FROM", "@"))
        self.assertEqual((fetched.uids, found.matching), ([self.uid], [self.uid]))

    def test_call_that_has_written_waits_for_the_lock(self) -> None:
        """A call that has written something is not repeated: it waits for the lock, and fails with StoreBusy."""
        self.patch(index_database, "BUSY_SECONDS", 0.01)
        index = self.locked._account.index
        index.begin_operation()
        with index.write():
            pass
        with self.lock():
            error = self.assertRaises(sqlite3.OperationalError, index.write().__enter__)
        self.assertEqual(type(index.store_error(error)), StoreBusy)
        index.begin_operation()
        self.assertEqual(type(index.store_error(error)), IndexLocked)


class ExpungeLogTests(DiskTestCase):
    def test_truncated_log_still_reports_vanished_messages(self) -> None:
        """Vanished messages are reported even if the log of expunged messages begins after them."""
        self.patch(index, "MAX_LOGGED_EXPUNGES", 4)
        for _ in range(8):
            self.append(DELETED)
        self.append()
        key, since = self.store.mailbox_key("INBOX"), self.store.status("INBOX").highestmodseq
        for uid in range(1, 8):
            self.store.expunge(key, [uid], since)
        self.assertEqual([*self.store.changes(key, since, False).vanished], [1, 2, 3, 4, 5, 6, 7])
        now = self.store.status("INBOX").highestmodseq
        self.assertEqual([*self.store.changes(key, now - 1, False).vanished], [7])
        (logged,) = self.store._account.index.db.execute("SELECT count(*) FROM expunged").fetchone()
        self.assertLessEqual(logged, 4)
