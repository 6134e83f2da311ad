"""MOVEs that are interrupted while other processes use the Maildir."""

from __future__ import annotations

import errno
import os
import shutil
from typing import Any
from unittest import mock

from imapshield.errors import NoSuchMailbox, StoreError, StoreIOError, StoreLimitExceeded
from imapshield.maildir import move_log
from imapshield.maildir.files import UndoSteps
from imapshield.testing.store_contract import DELETED, FLAGGED, SEEN
from tests.maildir.disk import DiskTestCase, counting_calls, failing, path_of

KEYWORDS = [b"$%02d" % number for number in range(28)]
"""More than have a letter in file names."""


class Killed(BaseException):
    """The process is killed."""


class InterruptedMoveTests(DiskTestCase):
    """A process is killed in a MOVE of three messages from S to A, after it has renamed two of them."""

    def setUp(self) -> None:
        super().setUp()
        for name in ("S", "A"):
            self.store.create(name, [])
        for _ in range(3):
            self.append(SEEN, *KEYWORDS, name="S")
        self.key = self.store.open("S", True).key
        self.store.open("A", True)
        self.let_mtimes_age()
        self.before = self.flags("S")
        self.other = self.open_store()
        for name in ("INBOX", "S", "A"):
            self.other.open(name, True)

    def interrupt(self) -> None:
        """Interrupt the MOVE."""
        real, calls = os.rename, []

        def rename(source: bytes, target: bytes, **options: Any) -> None:
            if "/.S/" in path_of(source, options["src_dir_fd"]):
                calls.append(source)
                if len(calls) > 2:
                    raise Killed
            real(source, target, **options)

        self.store._account.index.undo_moves = None
        with mock.patch.object(os, "rename", rename), mock.patch.object(UndoSteps, "undo"):
            self.assertRaises(Killed, self.store.copy, self.key, [1, 2, 3], "A", True, 0)
        self.store.close()
        self.assertEqual((len(self.cur(".S")), len(self.cur(".A"))), (1, 2))

    def test_every_write_of_another_process_undoes_it_first(self) -> None:
        """Another process that runs neither loses messages nor finds them in two mailboxes."""
        for name, operation in (
            ("delete", lambda: self.other.delete("A")),
            ("rename", lambda: self.other.rename("A", "B")),
            ("store", lambda: self.other.store_flags(self.key, [1], b"+", [SEEN], None, 0)),
            ("append", lambda: self.append(name="INBOX", store=self.other)),
            ("sync", lambda: self.other.changes(self.key, 0, True)),
        ):
            with self.subTest(name=name):
                self.setUp()
                self.interrupt()
                operation()
                self.assertEqual(
                    (len(self.cur(".S")), self.flags("S", self.other)), (3, self.before)
                )
                if name not in ("delete", "rename"):
                    self.assertEqual(self.flags("A", self.other), {})

    def test_expunge_removes_messages_once(self) -> None:
        """Messages that another process expunges are not in the target of the interrupted MOVE."""
        self.other.store_flags(self.key, [1, 2, 3], b"+", [DELETED], None, 0)
        self.interrupt()
        self.other.expunge(self.key, None, 0)
        self.assertEqual((self.flags("S", self.other), self.flags("A", self.other)), ({}, {}))

    def test_folder_that_another_program_renamed_is_found(self) -> None:
        """The MOVE is undone if another program has renamed the source or the target."""
        for name in ("S", "A"):
            with self.subTest(name=name):
                self.setUp()
                self.interrupt()
                os.rename(self.path("." + name), self.path(".B"))
                names = {"S": "S", "A": "A", name: "B"}
                self.assertEqual(self.flags(names["S"], self.other), self.before)
                self.assertEqual(self.flags(names["A"], self.other), {})

    def test_search_for_a_renamed_folder_opens_no_other(self) -> None:
        """The search for a folder among many needs no descriptor for each."""
        for number in range(50):
            self.other.create(f"Other{number}", [])
        self.interrupt()
        os.rename(self.path(".A"), self.path(".Z"))
        with counting_calls("open") as calls:
            self.other.store_flags(self.key, [1], b"+", [SEEN], None, 0)
        self.assertEqual([path for path in calls if "Other" in path], [])
        self.assertEqual(self.flags("S", self.other), self.before)

    def test_folder_that_is_gone_takes_its_files_along(self) -> None:
        """If the target or its cur/ was removed, the other messages and mailboxes stay, and nothing is blocked."""
        for path in (".A", ".A/cur"):
            with self.subTest(path=path):
                self.setUp()
                self.interrupt()
                shutil.rmtree(self.path(path))
                self.assertEqual(self.flags("S", self.other), {3: self.before[3]})
                self.assertEqual(self.flags("INBOX", self.other), {})
                self.assertRaises(NoSuchMailbox, self.flags, "A", self.other)

    def test_folder_that_cannot_be_read_blocks_only_two_mailboxes(self) -> None:
        """While the MOVE cannot be undone, its mailboxes cannot be used or deleted. After that it is undone."""
        for error in (errno.EACCES, errno.EIO, errno.ENOSPC):
            with self.subTest(error=error):
                self.setUp()
                self.interrupt()
                with failing("rename", OSError(error, "error"), 0, 1000):
                    for name in ("S", "A"):
                        self.assertRaises(StoreError, self.other.open, name, True)
                    self.assertRaises(StoreIOError, self.other.delete, "A")
                    self.assertEqual(self.flags("INBOX", self.other), {})
                self.other.close()
                self.assertEqual(self.flags("S", self.other), self.before)
                self.assertEqual(self.flags("A", self.other), {})

    def test_another_message_with_the_old_name_is_not_replaced(self) -> None:
        """If another program has put other messages under the old names, the moved ones stay in the target."""
        names = self.cur(".S")
        self.interrupt()
        for name in set(names) - set(self.cur(".S")):
            with open(self.path(".S", "cur", name), "wb") as file:
                file.write(b"other")
        self.flags("INBOX", self.other)
        self.append(name="INBOX", store=self.other)
        self.assertEqual((len(self.cur(".S")), len(self.cur(".A"))), (3, 2))

    def test_invalid_entries_are_dropped(self) -> None:
        """Whatever the owner of the mail writes into the table, no file is renamed and nothing is blocked."""
        values: list[tuple[object, object, object]] = [
            (self.key, self.key, names)
            for names in (b"", b"/", b"../x/../y", b"\0/\0", b"x", "text", 5, 1.5, 10**15)
        ]
        values += [("x", b"y", b"a/b"), (-1, 2**62, b"a/b")]
        for row in values:
            with self.subTest(row=row):
                db = self.other._account.index.db
                db.execute("INSERT INTO moving (source, target, names) VALUES (?, ?, ?)", row)
                self.append(name="INBOX", store=self.other)
                self.assertEqual(db.execute("SELECT * FROM moving").fetchall(), [])
                self.assertEqual(self.flags("S", self.other), self.before)

    def test_mailboxes_that_get_new_uids_keep_the_entry(self) -> None:
        """The MOVE is undone after another UIDVALIDITY was given, and removed files stay removed."""
        self.interrupt()
        index = self.other._account.index
        index.undo_moves, hook = None, index.undo_moves
        with index.write():
            index.renew(index.mailbox(self.key))
        index.undo_moves = hook
        self.assertEqual(list(self.flags("S", self.other).values()), list(self.before.values()))
        self.assertEqual(self.flags("A", self.other), {})


class MoveTests(DiskTestCase):
    def setUp(self) -> None:
        super().setUp()
        for name in ("S", "A"):
            self.store.create(name, [])
        self.append(SEEN, name="S")
        self.key = self.store.open("S", True).key
        self.let_mtimes_age()

    def test_flags_of_another_program_are_moved_and_copied(self) -> None:
        """Flags that another program has set since the last sync go along with the message."""
        self.flags("S")
        for number, move in enumerate((False, True), 1):
            with self.subTest(move=move):
                (name,) = self.cur(".S")
                letters = "FRS"[-number:]
                target = name.partition(":")[0] + ":2," + letters
                os.rename(self.path(".S", "cur", name), self.path(".S", "cur", target))
                self.store.copy(self.key, [1], "A", move, 0)
                self.assertEqual(len(self.flags("A")[number].split()), len(letters))

    def test_files_are_put_back_before_other_processes_continue(self) -> None:
        """When a MOVE or RENAME fails, its files are renamed back while the lock of the index is held."""
        db = self.store._account.index.db
        real, locked = os.rename, []

        def rename(*arguments: Any, **options: Any) -> None:
            locked.append(db.in_transaction)
            real(*arguments, **options)

        for operation in (
            lambda: self.store.copy(self.key, [1], "A", True, 0),
            lambda: self.store.rename("S", "B"),
        ):
            locked.clear()
            error = failing("fsync", OSError(errno.EIO, "error"), 0, 100)
            with mock.patch.object(os, "rename", rename), error:
                self.assertRaises(StoreIOError, operation)
            self.assertEqual(locked, [True, True])
            self.assertEqual((len(self.flags("S")), self.flags("A")), (1, {}))

    def test_failed_move_leaves_no_entry(self) -> None:
        """A MOVE that is refused, or fails, leaves no entry."""
        for failure in (
            mock.patch("imapshield.maildir.keywords.MAX_KEYWORDS", 0),
            failing("fsync", OSError(errno.EIO, "error")),
        ):
            self.store.store_flags(self.key, [1], b"+", [FLAGGED, b"$x"], None, 0)
            with failure:
                self.assertRaises(
                    (StoreLimitExceeded, StoreIOError), self.store.copy, self.key, [1], "A", True, 0
                )
            self.assertEqual(len(self.flags("S")), 1)
            db = self.store._account.index.db
            self.assertEqual(db.execute("SELECT * FROM moving").fetchall(), [])

    def test_move_that_another_process_undid_is_announced_again(self) -> None:
        """A write of another process between the two transactions of a MOVE does not make it fail."""
        other = self.open_store()
        other.open("S", True)
        real, calls = move_log.announce, []

        def announce(*arguments: Any) -> Any:
            result = real(*arguments)
            calls.append(result)
            if len(calls) < 3:
                self.append(name="INBOX", store=other)
            return result

        with mock.patch("imapshield.maildir.append_copy.announce", announce):
            self.store.copy(self.key, [1], "A", True, 0)
        self.assertEqual((len(calls), self.flags("S"), self.flags("A")), (3, {}, {1: SEEN}))
