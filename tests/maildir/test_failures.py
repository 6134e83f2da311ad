"""A disk that fails at any step leaves all mail as it was, or whole: nothing lost, nothing half-written."""

from __future__ import annotations

import errno
import os
import sqlite3
from typing import Never
from unittest import mock

from imapshield.errors import NoSpace, StoreBusy, StoreError, StoreIOError
from imapshield.mailbox.values import NewMessage
from imapshield.maildir import index as index_module
from imapshield.maildir.index import Index
from imapshield.testing.store_contract import BUDGET, DELETED, ENVELOPE, MAIL, SEEN, WHOLE
from imapshield.wire.commands.base import MemoryLiteral
from tests.maildir.disk import DiskTestCase, failing

FULL = OSError(errno.ENOSPC, "No space left on device", b"some/file")
BROKEN = OSError(errno.EIO, "Input/output error", b"some/file")


class Short:
    """Content that ends before its size."""

    size = 1000
    binary = False

    def read(self, offset: int, size: int) -> bytes:
        return MAIL[offset : offset + size]

    def close(self) -> None: ...


class StepTests(DiskTestCase):
    """Lets the n-th call of a system call fail, for every n that is reached."""

    def tree(self) -> list[str]:
        return sorted(
            os.path.join(folder, name)
            for folder, _, names in os.walk(self.root)
            for name in names
            if not name.startswith("imapshield")
        )

    def test_append(self) -> None:
        """A failing APPEND of three messages stores none of them and leaves no file, whichever step it was."""
        self.put(SEEN)
        before, known = self.tree(), self.flags()
        key, keywords = self.store.key("INBOX"), self.path("dovecot-keywords")
        failures = 0
        for error in (FULL, BROKEN):
            for name in ("write", "utime", "fsync", "rename", "stat", "replace", "open"):
                for after in range(60):
                    messages = [
                        NewMessage((SEEN, b"$New%d" % failures), None, MemoryLiteral(MAIL))
                    ] * 3
                    try:
                        with failing(name, error, after):
                            self.store.append("INBOX", messages)
                    except StoreError as raised:
                        self.assertIsInstance(raised, NoSpace if error is FULL else StoreIOError)
                        failures += 1
                        self.assertEqual([f for f in self.tree() if f != keywords], before)
                        self.cool()
                        self.assertEqual(self.flags(), known)
                    else:
                        break
                stored = [uid for uid in self.flags() if uid not in known]
                self.assertEqual(len(stored), 3)
                self.store.copy(key, stored, "INBOX", False, 0)
                self.store.store_flags(key, sorted(self.flags()), b"+", [DELETED], None, 0)
                self.store.store_flags(key, [1], b"", [SEEN], None, 0)
                self.store.expunge(key, None, 0)
        self.assertGreater(failures, 2 * 20)

    def test_short_content(self) -> None:
        """Content that ends early is not stored."""
        self.assertRaises(StoreIOError, self.store.append, "INBOX", [NewMessage((), None, Short())])
        self.assertEqual((self.tree(), self.flags()), ([], {}))

    def test_store_flags(self) -> None:
        """A STORE that fails at any message changes none."""
        for _ in range(4):
            self.put()
        self.cool()
        key = self.store.open("INBOX", True).key
        before, known, modseq = self.tree(), self.flags(), self.store.status("INBOX").highestmodseq
        for after in range(4):
            with failing("rename", BROKEN, after):
                self.assertRaises(
                    StoreIOError, self.store.store_flags, key, [1, 2, 3, 4], b"+", [SEEN], None, 0
                )
            self.assertEqual((self.tree(), self.flags()), (before, known))
            self.assertEqual(self.store.status("INBOX").highestmodseq, modseq)

    def test_copy_and_move(self) -> None:
        """A COPY or MOVE that fails at any message leaves both mailboxes as they were."""
        self.store.create("A", [])
        for _ in range(4):
            self.put(SEEN)
        self.cool()
        key = self.store.open("INBOX", True).key
        self.store.open("A", True)
        before, known = self.tree(), self.flags()
        for move, step in ((False, "link"), (True, "rename"), (False, "fsync"), (True, "fsync")):
            for after in range(4 if step != "fsync" else 1):
                with failing(step, FULL, after):
                    self.assertRaises(NoSpace, self.store.copy, key, [1, 2, 3, 4], "A", move, 0)
                self.cool()
                self.assertEqual((self.tree(), self.flags(), self.flags("A")), (before, known, {}))

    def test_copy_without_links(self) -> None:
        """Where the file system has no hard links, COPY makes files."""
        self.store.create("A", [])
        self.put(SEEN)
        with failing("link", OSError(errno.EPERM, "Operation not permitted")):
            self.store.copy(self.store.key("INBOX"), [1], "A", False, 0)
        path = self.path(".A", "cur", self.cur(".A")[0])
        self.assertEqual(os.stat(path).st_nlink, 1)
        self.assertEqual(
            self.store.open("A", True).delta.rows[0].internaldate,
            self.store.open("INBOX", True).delta.rows[0].internaldate,
        )
        wire = b"{%d}\r\n%b" % (len(MAIL), MAIL)
        self.assertEqual(
            self.store.fetch(self.store.key("A"), [1], [WHOLE], BUDGET).columns, [[wire]]
        )

    def test_expunge(self) -> None:
        """An EXPUNGE that cannot remove anything says so; one that fails later tells what it removed."""
        for _ in range(3):
            self.put(DELETED)
        key = self.store.open("INBOX", True).key
        with failing("unlink", OSError(errno.EACCES, "Permission denied", b"x")):
            self.assertRaises(StoreIOError, self.store.expunge, key, None, 0)
        self.assertEqual(len(self.cur()), 3)
        since = self.store.status("INBOX").highestmodseq
        with failing("unlink", OSError(errno.EACCES, "Permission denied", b"x"), 1):
            self.assertEqual([*self.store.expunge(key, None, since).vanished], [1])
        self.assertEqual(len(self.cur()), 2)
        self.assertEqual(len(self.notes), 2)

    def test_rename_and_delete(self) -> None:
        """A RENAME that fails half-way renames nothing, a DELETE that fails deletes nothing."""
        for name in ("A/B", "A/C"):
            self.store.create(name, [])
            self.put(name=name)
        before = self.tree()
        for after in range(3):
            with failing("rename", BROKEN, after):
                self.assertRaises(StoreIOError, self.store.rename, "A", "Z/Y")
            self.assertEqual(self.tree(), before)
        for step in ("rename", "fsync"):
            with failing(step, BROKEN):
                self.assertRaises(StoreIOError, self.store.delete, "A/B")
            self.assertEqual(self.tree(), before)
        self.assertEqual(self.flags("A/B"), {1: b""})

    def test_create(self) -> None:
        """A CREATE that fails leaves no folder."""
        for step, most in (("mkdir", 9), ("fsync", 1), ("open", 2)):
            for after in range(most):
                with failing(step, FULL, after):
                    self.assertRaises(NoSpace, self.store.create, "A/B", [])
                self.assertEqual([i.name for i in self.store.mailboxes()], ["INBOX"])
        self.store.create("A/B", [])

    def test_commit_fails(self) -> None:
        """When the index cannot be committed, the files of an APPEND or COPY go again."""
        self.store.create("A", [])
        self.put()
        before = self.tree()
        db = self.store._index._db

        class Failing:
            in_transaction = property(lambda self: db.in_transaction)

            def __getattr__(self, name):
                return getattr(db, name)

            def execute(self, sql, *args):
                if sql == "COMMIT":
                    error = sqlite3.OperationalError("disk full")
                    error.sqlite_errorcode = sqlite3.SQLITE_FULL
                    raise error
                return db.execute(sql, *args)

        self.store._index._db = Failing()
        self.assertRaises(NoSpace, self.put, SEEN)
        self.assertRaises(NoSpace, self.store.copy, self.store.key("INBOX"), [1], "A", True, 0)
        self.assertRaises(NoSpace, self.store.rename, "A", "B")
        self.store._index._db = db
        self.assertEqual(self.tree(), before)
        self.cool()
        self.assertEqual((self.flags(), self.flags("A")), ({1: b""}, {}))

    def test_crash_before_commit(self) -> None:
        """Files that a crash left without a row come up as new mail, whole."""
        self.put()
        self.store.close()
        os.rename(
            self.path("cur", self.cur()[0]), self.path("cur", "1800000000.crashed,S=5,W=5:2,F")
        )
        self.cool()
        store = self.open_store()
        self.assertEqual(self.flags(store=store), {2: b"\\Flagged"})


class UnreadableTests(DiskTestCase):
    def test_message(self) -> None:
        """FETCH answers what comes before an unreadable message, then refuses; the rest can be asked for."""
        for _ in range(3):
            self.put()
        key = self.store.open("INBOX", True).key
        name = self.cur()[1].encode()
        real = os.open

        def refusing(path, *args, **kwargs):
            if isinstance(path, bytes) and path.endswith(name):
                raise PermissionError(errno.EACCES, "Permission denied", path)
            return real(path, *args, **kwargs)

        self.patch(os, "open", refusing)
        for item in (WHOLE, ENVELOPE):
            self.assertEqual(list(self.store.fetch(key, [1, 2, 3], [item], BUDGET).uids), [1])
            self.assertRaises(StoreIOError, self.store.fetch, key, [2, 3], [item], BUDGET)
            self.assertEqual(list(self.store.fetch(key, [3], [item], BUDGET).uids), [3])
        self.assertIn("Permission denied", self.notes[0])
        self.assertEqual(len(self.cur()), 3)

    def test_folder(self) -> None:
        """A folder that cannot be listed is refused, and nothing in it is taken for deleted."""
        self.put()
        self.cool()
        with failing("listdir", PermissionError(errno.EACCES, "Permission denied", b"cur")):
            self.clock.later += 4000
            self.assertRaises(StoreIOError, self.store.open, "INBOX", True)
        self.assertEqual(self.flags(), {1: b""})

    def test_root(self) -> None:
        """A mail root that cannot be made is one note and a StoreError, not a traceback."""
        with open(self.path("file"), "wb"):
            pass
        self.root = self.path("file", "below")
        self.assertRaises(StoreIOError, self.open_store().mailboxes)
        self.assertEqual(len(self.notes), 1)


class IndexTests(DiskTestCase):
    def test_broken_index(self) -> None:
        """A broken index is moved aside with a note; the mail is all there under a new UIDVALIDITY and new keys."""
        self.store.create("A", [])
        self.put(SEEN, b"$Work", name="A")
        before, key = self.store.status("A"), self.store.key("A")
        self.store.close()
        with open(self.path("imapshield.sqlite"), "r+b") as file:
            file.write(b"not a database at all" * 10)
        for name in ("imapshield.sqlite-wal", "imapshield.sqlite-shm"):
            if os.path.exists(self.path(name)):
                os.unlink(self.path(name))
        store = self.open_store()
        self.assertEqual(self.flags("A", store), {1: b"\\Seen $Work"})
        self.assertGreater(store.status("A").uidvalidity, before.uidvalidity)
        self.assertNotEqual(store.key("A"), key)
        self.assertRaises(StoreError, store.fetch, key, [1], [WHOLE], BUDGET)
        self.assertEqual(len(self.notes), 1)
        self.assertTrue([n for n in os.listdir(self.root) if ".broken-" in n])

    def test_broken_while_open(self) -> None:
        """An index that breaks under us costs one command a NO, and is then built anew."""
        self.put()

        def broken(*args) -> Never:
            error = sqlite3.DatabaseError("database disk image is malformed")
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error

        with mock.patch.object(Index, "named", broken):
            self.assertRaises(StoreIOError, self.store.open, "INBOX", True)
        self.assertEqual(self.flags(), {1: b""})
        self.assertEqual(len(self.notes), 2)

    def test_replaced(self) -> None:
        """An index that somebody removes while we run is noticed, and made anew."""
        self.put()
        key = self.store.key("INBOX")
        for name in os.listdir(self.root):
            if name.startswith("imapshield.sqlite"):
                os.unlink(self.path(name))
        self.assertRaises(StoreError, self.store.changes, key, 0, True)
        self.assertEqual(self.flags(), {1: b""})

    def test_newer(self) -> None:
        """An index of a later version is left alone."""
        self.put()
        self.store._index.db.execute("PRAGMA user_version = 99")
        self.assertRaises(StoreIOError, self.open_store().mailboxes)
        self.assertFalse([n for n in os.listdir(self.root) if ".broken-" in n])

    def test_busy(self) -> None:
        """An account whose index somebody holds too long is busy, and nothing is stored."""
        self.patch(index_module, "BUSY_SECONDS", 0.01)
        store = self.open_store()
        store.mailboxes()
        self.store._index.db.execute("BEGIN IMMEDIATE")
        self.assertRaises(
            StoreBusy, store.append, "INBOX", [NewMessage((), None, MemoryLiteral(MAIL))]
        )
        self.store._index.db.execute("ROLLBACK")
        self.assertEqual((self.flags(), os.listdir(self.path("tmp"))), ({}, []))

    def test_forgotten_expunges(self) -> None:
        """What vanished is told right even when the log of it no longer reaches back."""
        self.patch(index_module, "LOG_KEPT", 4)
        for _ in range(8):
            self.put(DELETED)
        self.put()
        key, since = self.store.key("INBOX"), self.store.status("INBOX").highestmodseq
        for uid in range(1, 8):
            self.store.expunge(key, [uid], since)
        self.assertEqual([*self.store.changes(key, since, False).vanished], [1, 2, 3, 4, 5, 6, 7])
        now = self.store.status("INBOX").highestmodseq
        self.assertEqual([*self.store.changes(key, now - 1, False).vanished], [7])
        (logged,) = self.store._index.db.execute("SELECT count(*) FROM expunged").fetchone()
        self.assertLessEqual(logged, 4)
