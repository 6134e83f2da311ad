"""SQLite: opening a database file, and what its errors mean."""

import sqlite3
from collections.abc import Callable

BUSY_SECONDS = 10.0
"""Seconds to wait for another process that holds the lock."""

CACHE_SIZE = 512
"""KiB of pages in memory of one database: a thousand accounts may be in use. Twice as many make no command faster in a
mailbox of 10,000 messages."""

PROGRESS_STEPS = 5000
"""Steps of SQLite's virtual machine between two questions whether a statement is late: some tenth of a millisecond."""

_DISK_ERRORS = ("SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM")


def connect(
    path: str,
    *,
    exclusive: bool = False,
    seconds: float = BUSY_SECONDS,
    incremental_vacuum: bool = False,
    cache_size: int = CACHE_SIZE,
) -> sqlite3.Connection:
    """Open a database, with all files that SQLite needs for it.

    Args:
        path: the file.
        exclusive: whether no other process may use it. SQLite then needs no shared memory. That is a file of which all
            processes map the pages, so a user who may write into the directory could truncate it, which ends a process
            that reads a page.
        seconds: how long to wait for the lock.
        incremental_vacuum: whether a new file can be made smaller step by step.
        cache_size: KiB of pages in memory.
    """
    db = sqlite3.connect(
        path,
        timeout=seconds,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    try:
        db.execute("PRAGMA trusted_schema = OFF")
        if exclusive:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
        if incremental_vacuum:
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute(f"PRAGMA cache_size = -{cache_size}")
        # Debian's SQLite overwrites each page that is freed, and writes it. An EXPUNGE writes twice as many pages then.
        db.execute("PRAGMA secure_delete = FAST")
        db.execute("BEGIN IMMEDIATE")  # opens the write-ahead log
        db.execute("ROLLBACK")
    except BaseException:
        db.close()
        raise
    return db


def interrupt_if(db: sqlite3.Connection, is_late: Callable[[], bool]) -> None:
    """Interrupt each statement for which `is_late` returns true while it runs."""
    db.set_progress_handler(is_late, PROGRESS_STEPS)


def is_disk_full(error: sqlite3.Error) -> bool:
    """Whether a commit failed because the disk is full."""
    return error_code(error) == sqlite3.SQLITE_FULL


def corrupt_error() -> sqlite3.Error:
    """Return the error that SQLite raises for a damaged file."""
    error = sqlite3.DatabaseError("database disk image is malformed")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def is_locked(error: sqlite3.Error) -> bool:
    """Whether another process holds the lock."""
    return error_code(error) == sqlite3.SQLITE_BUSY


def error_code(error: sqlite3.Error) -> int:
    """Return the primary result code of SQLite, 0 if there is none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_corrupt(error: sqlite3.Error) -> bool:
    """Whether a database is damaged."""
    return error_code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def is_disk_error(error: sqlite3.Error) -> bool:
    """Whether the disk or the rights of the file are the reason."""
    return getattr(error, "sqlite_errorname", "").startswith(_DISK_ERRORS)
