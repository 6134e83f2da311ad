"""The database file of a text index: opening, closing, and what happens when it is damaged.

Rules
-----
* A file of another version or with another schema, one that was copied, or changed after it was closed, is removed and
  built again. That is cheap: until then, SEARCH reads the messages.
* No error here reaches a client.
* The file can belong to a user who writes into it at any moment. It has the same precautions as the index
  (`index_files`).
"""

import os
import sqlite3
import sys
import time
import unicodedata
from collections.abc import Callable
from contextlib import closing, suppress
from functools import cache
from typing import Final

from imapshield.errors import StoreIOError
from imapshield.maildir.entry import Ownership
from imapshield.maildir.index_files import IndexFiles
from imapshield.maildir.sqlite_file import connect, is_disk_full, is_locked
from imapshield.message.trigrams import TEXT_VERSION

TEXT_INDEX_FILE = b"imapshield.search"

GROUP: Final = 8
"""Messages that share a row for the rest of their headers."""

ROWS_PER_GROUP: Final = GROUP + 1

BUSY_SECONDS = 0.05
"""Seconds to wait for another process. After that, messages are read, or indexed later."""

CACHE_SIZE = 256
"""KiB of pages in memory. FTS5 reads and writes most pages once: with 1,024, to index takes as long."""

MAX_REBUILDS = 3
"""How often the file is built again while the account is open. A disk that damages it each time is left alone."""

_VERSION = f"{TEXT_VERSION} {unicodedata.unidata_version} {sys.version_info[:3]}"
"""The version of the folding, and what decoding and folding depend on."""

_STATE = (
    "version TEXT NOT NULL, identity TEXT NOT NULL, closed INTEGER NOT NULL, next_row INTEGER NOT NULL,"
    " merged_row INTEGER NOT NULL"
)
_MESSAGE = "id INTEGER PRIMARY KEY, row INTEGER NOT NULL, size INTEGER NOT NULL"
_TEXT = "body, content='', columnsize=0, detail=none, tokenize='trigram case_sensitive 1'"
_SCHEMA = (
    f"CREATE TABLE state ({_STATE})",
    f"CREATE TABLE message ({_MESSAGE})",  # id is the EMAILID as a number, size that of the file
    f"CREATE VIRTUAL TABLE text USING fts5 ({_TEXT})",
)
_READ_SCHEMA = "SELECT hex(type), hex(name), hex(sql) FROM sqlite_schema ORDER BY name"


def _create_tables(db: sqlite3.Connection) -> None:
    for statement in _SCHEMA:
        db.execute(statement)


@cache
def _expected_schema() -> list[tuple[str, str, str]] | None:
    """Return the schema as SQLite stores it; None if this SQLite has no FTS5 with trigrams (3.34)."""
    with closing(sqlite3.connect(":memory:")) as db:
        try:
            _create_tables(db)
        except sqlite3.OperationalError:
            return None
        return db.execute(_READ_SCHEMA).fetchall()


def is_available() -> bool:
    """Whether SQLite can have a text index."""
    return _expected_schema() is not None


class TextIndexFile:
    """The file of the text index of one account. It is used from one thread at a time.

    Args:
        directory_path: the path of the directory of the file.
        is_enabled: whether there is one.
        log_warning: called with one line for the operator.

    Attributes:
        generation: changes whenever rows that were known may have become those of other messages.
        is_locked: whether the last call that failed did so because another process has locked the file.
    """

    def __init__(
        self, directory_path: bytes, is_enabled: bool, log_warning: Callable[[str], None]
    ) -> None:
        self.generation = 0
        self.is_locked = False
        self._files = IndexFiles(directory_path, TEXT_INDEX_FILE)
        self._is_usable = is_enabled
        self._log_warning = log_warning
        self._db: sqlite3.Connection | None = None
        self._closed = 0
        self._has_written = False
        self._rebuilds = 0

    def set_directory(self, fd: int, owner: Ownership) -> None:
        """Set the descriptor of the directory and the ownership of new files."""
        self._files.directory, self._files.owner = fd, owner

    def ensure_open(self, create: bool = False) -> bool:
        """Open the file, unless it is open and still the file at its path; return whether it is open.

        Args:
            create: whether to create it if there is none.
        """
        if not self._is_usable or not is_available():
            return False
        try:
            if self._db is not None and not self._files.is_unchanged(self._files.directory):
                self.close()
            if self._db is None and (create or self._files.status() is not None):
                self._open()
        except (OSError, StoreIOError) as error:
            self._give_up(str(error) or "it is no regular file")
        except sqlite3.Error as error:
            self._fail(error)
        return self._db is not None

    def _open(self) -> None:
        had_log = self._files.status(b"-wal") is not None
        status = self._files.status()
        self._files.create()
        db = self._connect()
        try:
            closed = self._closed_at(db)
            if closed is None or status is None or (status.st_mtime_ns != closed and not had_log):
                if status is not None and status.st_size:
                    self._close_database(db)
                    self._files.remove_all()
                    self._files.create()
                    db = self._connect()
                closed = self._create(db)
        except BaseException:
            self._close_database(db)
            raise
        self._files.remember()
        self._db = db
        # While it was closed, another process may have added rows, but those that were known are still right, unless it
        # built the file again.
        self.generation += closed != self._closed
        self._closed = closed

    def _create(self, db: sqlite3.Connection) -> int:
        closed = time.time_ns()
        db.execute("BEGIN IMMEDIATE")
        # Another process may have been faster.
        if db.execute("SELECT 1 FROM sqlite_schema").fetchone() is None:
            _create_tables(db)
            db.execute(
                "INSERT INTO state VALUES (?, ?, ?, ?, 0)",
                (_VERSION, self._identity, closed, ROWS_PER_GROUP),
            )
        db.execute("COMMIT")
        return closed

    @property
    def _identity(self) -> str:
        """The inode of the file: a copy has another one."""
        return " ".join(map(str, self._files.identity))

    def _connect(self) -> sqlite3.Connection:
        is_hostile = self._files.is_hostile()
        if is_hostile:
            self._files.check_others()
        with self._files.rights():
            db = connect(
                os.fsdecode(self._files.path),
                exclusive=is_hostile,
                seconds=BUSY_SECONDS,
                incremental_vacuum=True,
                cache_size=CACHE_SIZE,
            )
        try:
            if is_hostile and not self._files.is_opened():
                raise StoreIOError
            # A power failure may undo the last commits, but never damages the file.
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA journal_size_limit = 1048576")
            db.execute("PRAGMA cell_size_check = ON")
        except BaseException:
            self._close_database(db)
            raise
        return db

    def _closed_at(self, db: sqlite3.Connection) -> int | None:
        """Return when a file was closed after it was changed; None if it cannot be used."""
        try:
            if db.execute(_READ_SCHEMA).fetchall() == _expected_schema():
                for version, identity, closed in db.execute(
                    "SELECT version, identity, closed FROM state"
                ):
                    is_own = (version, identity) == (_VERSION, self._identity)
                    return closed if is_own and isinstance(closed, int) else None
        except sqlite3.DatabaseError as error:
            if is_locked(error):
                raise
        return None

    def _close_database(self, db: sqlite3.Connection) -> None:
        with self._files.rights():
            db.close()

    def is_as_closed(self) -> bool:
        """Return whether the file is closed, and was neither removed nor changed since."""
        if self._db is not None or not self._is_usable:
            return False
        with suppress(OSError):
            status = self._files.status()
            return status is not None and status.st_mtime_ns == self._closed
        return False

    def close(self, *, is_moved: bool = False) -> None:
        """Close the file, and give it the mtime that it records: so a file that is changed later is recognized.

        Args:
            is_moved: whether the directory is no longer the one that was set.
        """
        db, self._db = self._db, None
        if db is None:
            return
        has_written, self._has_written = self._has_written, False
        with suppress(sqlite3.Error, OSError):
            if is_moved or not self._files.is_unchanged(self._files.directory):
                is_moved = True
            elif has_written:
                self._closed = time.time_ns()
                db.execute("UPDATE state SET closed = ?", (self._closed,))
            else:  # another process may have written
                (self._closed,) = db.execute("SELECT closed FROM state").fetchone()
        with suppress(sqlite3.Error):
            self._close_database(db)
        # A log that is left belongs to another process, which uses the file.
        with suppress(OSError):
            if not is_moved and self._files.status(b"-wal") is None:
                self._files.set_mtime(self._closed)

    def _fail(self, error: sqlite3.Error) -> None:
        """React to an error: wait for a lock, give up on a full disk, and build a damaged file again."""
        if self._db is not None and self._db.in_transaction:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
        self.is_locked = is_locked(error)
        if self.is_locked:
            return
        is_disk_error = getattr(error, "sqlite_errorname", "").startswith(
            ("SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_NOMEM")
        )
        if is_disk_full(error) or is_disk_error or self._rebuilds >= MAX_REBUILDS:
            self._give_up(str(error))
            return
        self._rebuilds += 1
        self._log_warning(
            f"{os.fsdecode(self._files.path)} is damaged ({error}) and is built again; until then, SEARCH reads all"
            " messages"
        )
        self.rebuild()

    def _give_up(self, reason: str) -> None:
        self._is_usable = False
        db, self._db = self._db, None
        if db is not None:
            with suppress(sqlite3.Error):
                self._close_database(db)
        self._log_warning(
            f"{os.fsdecode(self._files.path)} cannot be used: {reason}; SEARCH reads all messages until the account is"
            " opened again"
        )

    def rebuild(self) -> None:
        """Close and remove the file. It is created again when messages are indexed."""
        db, self._db = self._db, None
        self.generation += 1
        if db is not None:
            with suppress(sqlite3.Error):
                self._close_database(db)
        self._files.remove_all()

    @property
    def _open_db(self) -> sqlite3.Connection:
        assert self._db is not None
        return self._db

    def _write(self) -> sqlite3.Connection:
        """Begin a write transaction."""
        db = self._open_db
        db.execute("BEGIN IMMEDIATE")
        self._has_written = True
        return db
