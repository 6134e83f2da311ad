"""A disk failure at any step changes no mail: no message is lost, and none is half-written."""

from __future__ import annotations

import errno
import os
import sqlite3
from typing import Any, cast

from imapshield.errors import NoSpace, StoreError, StoreIOError
from imapshield.mailbox.values import NewMessage
from imapshield.testing.store_contract import BUDGET, DELETED, MAIL, SEEN, WHOLE
from imapshield.wire.commands.base import MemoryLiteral
from tests.maildir.disk import MAIL_LITERAL, DiskTestCase, failing, path_of

DISK_FULL = OSError(errno.ENOSPC, "No space left on device", b"some/file")
DISK_ERROR = OSError(errno.EIO, "Input/output error", b"some/file")
DENIED = OSError(errno.EACCES, "Permission denied", b"x")


class ShortLiteral:
    """A literal that ends before its size."""

    size = 1000
    binary = False

    def read(self, offset: int, size: int) -> bytes:
        return MAIL[offset : offset + size]

    def close(self) -> None: ...


class UncommittableDatabase:
    """A database on a disk that is full when a transaction commits."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db

    def __getattr__(self, name: str) -> Any:
        return getattr(self.db, name)

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        if sql == "COMMIT":
            error = sqlite3.OperationalError("disk full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return self.db.execute(sql, *arguments)


class FailingStepTests(DiskTestCase):
    """Each test makes the n-th call of a system call fail, for every n up to the number of calls."""

    def tree(self) -> list[str]:
        """Return the paths of all files except those of the index."""
        return sorted(
            os.path.join(folder, name)
            for folder, _, names in os.walk(self.root)
            for name in names
            if not name.startswith("imapshield")
        )

    def test_failing_append_stores_nothing(self) -> None:
        """An APPEND of three messages that fails at any step stores none of them and leaves no file."""
        self.append(SEEN)
        before, flags_before = self.tree(), self.flags()
        key, keyword_file = self.store.mailbox_key("INBOX"), self.path("dovecot-keywords")
        failures = 0
        for error in (DISK_FULL, DISK_ERROR):
            for name in ("write", "utime", "fsync", "rename", "stat", "replace", "open"):
                for after in range(60):
                    messages = [
                        NewMessage((SEEN, b"$New%d" % failures), None, MemoryLiteral(MAIL))
                    ] * 3
                    try:
                        with failing(name, error, after):
                            self.store.append("INBOX", messages)
                    except StoreError as raised:
                        self.assertIsInstance(
                            raised, NoSpace if error is DISK_FULL else StoreIOError
                        )
                        failures += 1
                        self.assertEqual([f for f in self.tree() if f != keyword_file], before)
                        self.let_mtimes_age()
                        self.assertEqual(self.flags(), flags_before)
                    else:
                        break
                stored = [uid for uid in self.flags() if uid not in flags_before]
                self.assertEqual(len(stored), 3)
                self.store.copy(key, stored, "INBOX", False, 0)
                self.store.store_flags(key, sorted(self.flags()), b"+", [DELETED], None, 0)
                self.store.store_flags(key, [1], b"", [SEEN], None, 0)
                self.store.expunge(key, None, 0)
        self.assertGreater(failures, 2 * 20)

    def test_short_literal_is_not_stored(self) -> None:
        """A literal that ends early is not stored."""
        message = NewMessage((), None, ShortLiteral())
        self.assertRaises(StoreIOError, self.store.append, "INBOX", [message])
        self.assertEqual((self.tree(), self.flags()), ([], {}))

    def test_failing_store_changes_no_message(self) -> None:
        """A STORE that fails at any message changes no message."""
        for _ in range(4):
            self.append()
        self.let_mtimes_age()
        key = self.store.open("INBOX", True).key
        before, flags_before = self.tree(), self.flags()
        modseq = self.store.status("INBOX").highestmodseq
        for after in range(4):
            with failing("rename", DISK_ERROR, after):
                self.assertRaises(
                    StoreIOError, self.store.store_flags, key, [1, 2, 3, 4], b"+", [SEEN], None, 0
                )
            self.assertEqual((self.tree(), self.flags()), (before, flags_before))
            self.assertEqual(self.store.status("INBOX").highestmodseq, modseq)

    def test_failing_rollback_stops_no_other_rollback(self) -> None:
        """A step that cannot be undone does not prevent undoing the earlier steps, and does not hide the error."""
        for _ in range(3):
            self.append()
        self.let_mtimes_age()
        key = self.store.open("INBOX", True).key
        names = self.cur()
        self.let_clock_tick()
        with (
            failing("rename", DISK_FULL, 2),  # the third message fails
            failing("rename", DENIED, 3),  # and the second cannot be renamed back
        ):
            self.assertRaises(
                NoSpace, self.store.store_flags, key, [1, 2, 3], b"+", [SEEN], None, 0
            )
        self.assertEqual(self.cur(), [names[0], names[1] + "S", names[2]])
        self.let_mtimes_age()
        self.assertEqual(self.flags(), {1: b"", 2: SEEN, 3: b""})

    def test_full_disk_is_logged_once_a_minute(self) -> None:
        """A full disk is logged once in a minute, however many commands fail."""
        self.store.create("A", [])
        for seconds, lines in ((0, 1), (1, 1), (60, 2)):
            self.clock.offset += seconds
            with failing("fsync", DISK_FULL):
                self.assertRaises(NoSpace, self.append)
            self.assertEqual(len(self.warnings), lines)
        self.assertEqual(self.warnings[0].partition(":")[0], f"no space for {self.root}")

    def test_failing_copy_or_move_changes_no_mailbox(self) -> None:
        """A COPY or MOVE that fails at any message leaves both mailboxes unchanged."""
        self.store.create("A", [])
        for _ in range(4):
            self.append(SEEN)
        self.let_mtimes_age()
        key = self.store.open("INBOX", True).key
        self.store.open("A", True)
        before, flags_before = self.tree(), self.flags()
        for move, step in ((False, "link"), (True, "rename"), (False, "fsync"), (True, "fsync")):
            for after in range(4 if step != "fsync" else 1):
                with failing(step, DISK_FULL, after):
                    self.assertRaises(NoSpace, self.store.copy, key, [1, 2, 3, 4], "A", move, 0)
                self.let_mtimes_age()
                self.assertEqual(
                    (self.tree(), self.flags(), self.flags("A")), (before, flags_before, {})
                )

    def test_copy_without_hard_links_makes_new_files(self) -> None:
        """On a file system without hard links, COPY makes new files."""
        self.store.create("A", [])
        self.append(SEEN)
        with failing("link", OSError(errno.EPERM, "Operation not permitted")):
            self.store.copy(self.store.mailbox_key("INBOX"), [1], "A", False, 0)
        path = self.path(".A", "cur", self.cur(".A")[0])
        self.assertEqual(os.stat(path).st_nlink, 1)
        self.assertEqual(
            self.store.open("A", True).delta.rows[0].internaldate,
            self.store.open("INBOX", True).delta.rows[0].internaldate,
        )
        fetched = self.store.fetch(self.store.mailbox_key("A"), [1], [WHOLE], BUDGET)
        self.assertEqual(fetched.columns, [[MAIL_LITERAL]])

    def test_move_between_file_systems(self) -> None:
        """A MOVE to a folder on another file system copies the files and removes them, or changes nothing."""
        self.store.create("A", [])
        for _ in range(3):
            self.append(SEEN)
        self.let_mtimes_age()
        key = self.store.open("INBOX", True).key
        real = os.rename

        def rename(source: Any, target: Any, *, src_dir_fd: int, dst_dir_fd: int) -> None:
            if ("/.A/" in path_of(source, src_dir_fd)) != ("/.A/" in path_of(target, dst_dir_fd)):
                raise OSError(errno.EXDEV, "Invalid cross-device link", source, None, target)
            real(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

        def link(source: Any, target: Any, **kwargs: Any) -> None:
            raise OSError(errno.EXDEV, "Invalid cross-device link", source, None, target)

        self.patch(os, "rename", rename)
        self.patch(os, "link", link)
        before = self.tree()
        for step in ("write", "fsync"):
            for after in range(3):
                with failing(step, DISK_FULL, after):
                    self.assertRaises(NoSpace, self.store.copy, key, [1, 2, 3], "A", True, 0)
                self.assertEqual(self.tree(), before)
                self.let_mtimes_age()
                self.assertEqual((len(self.flags()), self.flags("A")), (3, {}))
        moved = self.store.copy(key, [1, 2, 3], "A", True, 0)
        self.assertEqual(moved.target_uids, [1, 2, 3])
        self.let_mtimes_age()
        self.assertEqual((self.flags(), self.flags("A")), ({}, dict.fromkeys((1, 2, 3), SEEN)))
        self.assertEqual(self.cur(), [])
        fetched = self.store.fetch(self.store.mailbox_key("A"), [1, 2, 3], [WHOLE], BUDGET)
        self.assertEqual(fetched.columns, [[MAIL_LITERAL] * 3])

    def test_failing_expunge_reports_what_it_removed(self) -> None:
        r"""An EXPUNGE removes all files that it can; the other messages keep \Deleted. It fails if it removes none."""
        for _ in range(4):
            self.append(DELETED)
        key = self.store.open("INBOX", True).key
        with failing("unlink", DENIED, times=4):
            self.assertRaises(StoreIOError, self.store.expunge, key, None, 0)
        self.assertEqual(len(self.cur()), 4)
        since = self.store.status("INBOX").highestmodseq
        with failing("unlink", DENIED, 1):
            result = self.store.expunge(key, None, since)
        self.assertEqual(([*result.delta.vanished], result.failed), ([1, 3, 4], [2]))
        self.assertEqual((len(self.cur()), self.flags()), (1, {2: DELETED}))
        self.assertEqual([*self.store.expunge(key, None, since).delta.vanished], [1, 2, 3, 4])

    def test_failing_rename_or_delete_changes_nothing(self) -> None:
        """A RENAME that fails half-way renames nothing, and a DELETE that fails deletes nothing."""
        for name in ("A/B", "A/C"):
            self.store.create(name, [])
            self.append(name=name)
        before = self.tree()
        for after in range(3):
            with failing("rename", DISK_ERROR, after):
                self.assertRaises(StoreIOError, self.store.rename, "A", "Z/Y")
            self.assertEqual(self.tree(), before)
        for step in ("rename", "fsync"):
            with failing(step, DISK_ERROR):
                self.assertRaises(StoreIOError, self.store.delete, "A/B")
            self.assertEqual(self.tree(), before)
        self.assertEqual(self.flags("A/B"), {1: b""})

    def test_failing_create_leaves_no_folder(self) -> None:
        """A CREATE that fails leaves no folder."""
        for step, minimum in (("mkdir", 8), ("fsync", 3), ("open", 10)):
            failures = 0
            for after in range(60):
                try:
                    with failing(step, DISK_FULL, after):
                        self.store.create("A/B", [])
                except NoSpace:
                    failures += 1
                    self.assertEqual([info.name for info in self.store.mailboxes()], ["INBOX"])
                    self.assertEqual([name for name in os.listdir(self.root) if name[0] == "."], [])
                else:
                    break
            self.assertGreaterEqual(failures, minimum)
            self.store.delete("A/B")
            self.store.delete("A")

    def test_failing_commit_puts_files_back(self) -> None:
        """If the index cannot commit, the files of an APPEND, MOVE or RENAME are put back."""
        self.store.create("A", [])
        self.append()
        before = self.tree()
        db = self.store._account.index.db
        self.store._account.index._db = cast("sqlite3.Connection", UncommittableDatabase(db))
        self.assertRaises(NoSpace, self.append, SEEN)
        self.assertRaises(
            NoSpace, self.store.copy, self.store.mailbox_key("INBOX"), [1], "A", True, 0
        )
        self.assertRaises(NoSpace, self.store.rename, "A", "B")
        self.store._account.index._db = db
        self.assertEqual(self.tree(), before)
        self.let_mtimes_age()
        self.assertEqual((self.flags(), self.flags("A")), ({1: b""}, {}))

    def test_files_without_a_row_appear_as_new_mail(self) -> None:
        """Files that a crash left without a row appear as new, complete messages."""
        self.append()
        self.store.close()
        os.rename(
            self.path("cur", self.cur()[0]), self.path("cur", "1800000000.crashed,S=5,W=5:2,F")
        )
        self.let_mtimes_age()
        self.assertEqual(self.flags(store=self.open_store()), {2: b"\\Flagged"})


class UnreadableTests(DiskTestCase):
    def test_failing_write_is_logged(self) -> None:
        """The warning about a file that cannot be written names it, and gives advice only about permissions."""
        self.append()
        with failing("fsync", OSError(errno.EIO, "Input/output error")):
            self.assertRaises(StoreIOError, self.append)
        self.assertRegex(
            self.warnings[-1], f"{self.root}/tmp/.*S={len(MAIL)}.*: Input/output error"
        )
        self.assertNotIn("permissions", self.warnings[-1])
        with failing("fsync", OSError(errno.EROFS, "Read-only file system")):
            self.assertRaises(StoreIOError, self.append)
        self.assertIn("permissions", self.warnings[-1])

    def test_unreadable_folder_keeps_its_messages(self) -> None:
        """A folder that cannot be listed is refused, and its messages are not regarded as expunged."""
        self.append()
        self.let_mtimes_age()
        with failing("listdir", PermissionError(errno.EACCES, "Permission denied", b"cur")):
            self.clock.offset += 4000
            self.assertRaises(StoreIOError, self.store.open, "INBOX", True)
        self.assertEqual(self.flags(), {1: b""})

    def test_maildir_that_cannot_be_created_is_one_warning(self) -> None:
        """A Maildir that cannot be created causes one warning and a StoreError."""
        with open(self.path("file"), "wb"):
            pass
        self.root = self.path("file", "below")
        self.assertRaises(StoreIOError, self.open_store().mailboxes)
        self.assertEqual(len(self.warnings), 1)
