"""A text index whose file is missing, damaged, copied or outdated is built again, and searches are right meanwhile."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
from contextlib import closing

from imapshield.maildir import text_index_file
from tests.maildir.text_index_case import CONTENTS, FILE, TextIndexTestCase


class FileTests(TextIndexTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.uids = self.add_many()

    def check(self, *, is_built_again: bool = True) -> None:
        """Check that searches are right, and that after the next indexing they read only candidates."""
        self.assertEqual(self.search("numberd"), [self.uids[3]])
        self.assertEqual(self.search("nowhere"), [])
        if is_built_again:
            self.index()
            self.index()
            self.assertEqual(self.search("numberd"), [self.uids[3]])
            self.assertEqual(self.read_by("nowhere"), 0)

    def test_closed_index_is_used_again(self) -> None:
        """An index that nobody has changed is used again."""
        self.index()
        for _ in range(3):
            self.reopen()
            self.assertEqual(self.read_by("nowhere"), 0)
            self.assertEqual(self.read_by("numberd"), 1)

    def test_closed_while_it_is_not_used(self) -> None:
        """An index that was closed to free memory is opened by the next search, and no row is looked up again."""
        self.index()
        index = self.store._account.text_index
        self.assertEqual(self.search("numberd"), [self.uids[3]])
        generation = index.generation
        for is_changed in (False, True):
            if is_changed:
                self.add_many()
                self.index()
            self.store.release_memory()
            self.assertFalse(self.has_open(FILE))
            self.assertEqual(self.read_by("nowhere"), 0)
            self.assertEqual(index.generation, generation)
            self.assertTrue(self.has_open(FILE))

    def test_built_again_by_another_process_while_it_was_closed(self) -> None:
        """The rows of a file that another process has built again meanwhile are those of other messages."""
        self.index()
        self.search("numberd")
        self.store.release_memory()
        os.unlink(self.path(FILE))
        other = self.open_store()
        self.addCleanup(other.close)
        key = other.mailbox_key("INBOX")
        while other.index_text(key):
            pass
        other.close()
        generation = self.store._account.text_index.generation
        self.assertEqual(self.search("numberd"), [self.uids[3]])
        self.assertEqual(self.store._account.text_index.generation, generation + 1)

    def has_open(self, name: str) -> bool:
        """Whether the process has the file `name` of the Maildir open."""
        inode = os.stat(self.path(name)).st_ino
        for number in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/self/fd/{number}").st_ino == inode:
                    return True
        return False

    def test_deleted_index(self) -> None:
        """The file and its log can be deleted at any time, together or alone, also while they are open."""
        for is_open in (True, False):
            for suffixes in (("",), ("", "-wal", "-shm"), ("-wal",), ("-shm",)):
                self.index()
                self.assertEqual(self.search("numberd"), [self.uids[3]])
                if not is_open:
                    self.store.close()
                for suffix in suffixes:
                    if os.path.exists(self.path(FILE + suffix)):
                        os.unlink(self.path(FILE + suffix))
                self.store = self.store if is_open else self.open_store()
                self.check()
        self.assertEqual(self.warnings, [])

    def test_damaged_index(self) -> None:
        """A file with other content, of any kind, is built again; the mail is not touched."""
        self.index()
        self.store.close()
        with open(self.path(FILE), "rb") as file:
            content = file.read()
        choose = random.Random("damage")
        for number in range(40):
            damaged = bytearray(content)
            kind = number % 4
            if kind == 0:
                damaged = damaged[: choose.randrange(len(damaged))]
            elif kind == 1:
                damaged = bytearray(choose.randbytes(choose.randrange(10_000)))
            else:
                at, size = choose.randrange(len(damaged)), choose.choice((1, 100, 5000))
                size = min(size, len(damaged) - at)
                damaged[at : at + size] = choose.randbytes(size) if kind == 2 else bytes(size)
            with open(self.path(FILE), "wb") as file:
                file.write(damaged)
            self.store = self.open_store()
            self.check()
            self.store.close()

    def test_index_that_is_damaged_while_it_is_open(self) -> None:
        """An error of SQLite makes SEARCH read all messages, and the file is built again, with one line in the log."""
        self.index()
        self.reopen()
        self.assertEqual(self.read_by("nowhere"), 0)
        db = self.store._account.text_index._db
        assert db is not None
        db.execute("DROP TABLE text_idx")
        self.check()
        self.assertEqual(len(self.warnings), 1)
        self.assertIn("is damaged", self.warnings[0])

    def test_index_that_is_damaged_again_and_again(self) -> None:
        """If the file is damaged each time, the index is given up until the account is opened again."""
        for _ in range(6):
            self.index()
            db = self.store._account.text_index._db
            if db is not None:
                db.execute("UPDATE message SET row = 'x'")
            self.store._account.text_rows.clear()
            self.assertEqual(self.search("numberd"), [self.uids[3]])
        self.assertIn("cannot be used", self.warnings.pop())
        self.assertEqual(len(self.warnings), text_index_file.MAX_REBUILDS)
        self.reopen()
        self.check()

    def test_outdated_index(self) -> None:
        """An index of another version, or with another schema, is built again."""
        for statement in (
            "UPDATE state SET version = 'older'",
            "DELETE FROM state",
            "CREATE TABLE other (a)",
            "DROP TABLE message",
            "DROP TABLE text",
            "UPDATE state SET closed = 'x'",
        ):
            self.index()
            self.store.close()
            status = os.stat(self.path(FILE))
            with closing(sqlite3.connect(self.path(FILE))) as db, db:
                db.execute(statement)
            os.utime(self.path(FILE), ns=(status.st_mtime_ns, status.st_mtime_ns))
            self.store = self.open_store()
            self.check()
        self.assertEqual(self.warnings, [])

    def test_copied_index(self) -> None:
        """A file that was copied or restored is built again: it may have been copied while it was written."""
        self.index()
        self.store.close()
        path = self.path(FILE)
        os.rename(path, path + ".old")
        with open(path + ".old", "rb") as source, open(path, "wb") as target:
            target.write(source.read())
        times = os.stat(path + ".old").st_mtime_ns
        os.utime(path, ns=(times, times))
        self.store = self.open_store()
        self.assertEqual(self.read_by("nowhere"), 16)
        self.check()

    def test_crash(self) -> None:
        """What was committed before a crash is used after it."""
        self.index()
        self.addCleanup(self.store.close)
        self.store = self.open_store()
        self.assertEqual(self.read_by("nowhere"), 0)

    def test_no_file(self) -> None:
        """A directory, or a link to nothing, in place of the file makes SEARCH read all messages."""
        for plant in (os.mkdir, lambda path: os.symlink("/nonexistent/x", path)):
            self.store.close()
            plant(self.path(FILE))
            self.store = self.open_store()
            self.index()
            self.check(is_built_again=False)
            self.assertIn("cannot be used", self.warnings.pop())
            (os.rmdir if os.path.isdir(self.path(FILE)) else os.unlink)(self.path(FILE))
        self.assertEqual(self.warnings, [])

    def test_full_disk(self) -> None:
        """A full disk ends the indexing, with one line in the log, and searches stay right."""
        self.index()
        uids = self.add(*CONTENTS, b"\r\nnumberd again")
        db = self.store._account.text_index._db
        assert db is not None
        db.execute("PRAGMA max_page_count = 1")
        self.index()
        self.index()
        self.assertEqual(self.search("numberd"), [self.uids[3], uids[-1]])
        self.assertEqual(len(self.warnings), 1)
        self.assertIn("full", self.warnings[0])

    def test_disabled(self) -> None:
        """Without the option, there is no file, and an existing one is not used."""
        self.reopen(has_text_index=False)
        self.index()
        self.assertFalse(os.path.exists(self.path(FILE)))
        self.assertEqual(self.search("numberd"), [self.uids[3]])

    def test_no_fts5(self) -> None:
        """With an SQLite that has no FTS5, there is no file, and SEARCH reads all messages."""
        self.patch(text_index_file, "_SCHEMA", ("CREATE VIRTUAL TABLE text USING fts6 (x)",))
        text_index_file._expected_schema.cache_clear()
        self.addCleanup(text_index_file._expected_schema.cache_clear)
        self.assertFalse(text_index_file.is_available())
        self.index()
        self.assertFalse(os.path.exists(self.path(FILE)))
        self.assertEqual(self.search("numberd"), [self.uids[3]])

    def test_unreadable_message(self) -> None:
        """A message that cannot be read is not indexed, and does not stop the indexing of others."""
        name = self.cur()[3]
        os.rename(self.path("cur", name), self.path("kept"))
        os.symlink("/nonexistent", self.path("cur", name))
        self.index()
        self.assertEqual(self.search("numbere"), [self.uids[4]])
        os.unlink(self.path("cur", name))
        os.rename(self.path("kept"), self.path("cur", name))
        self.assertEqual(self.search("numberd"), [self.uids[3]])
