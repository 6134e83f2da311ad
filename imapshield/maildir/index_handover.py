"""Hands the index of an account over to another machine, so that its UIDs stay and no two machines can use it.

A copied index is taken for a restored backup, because the UIDs that were assigned after the copy are not known
(`index_files`). `imapshield move` is the exception, in these steps, of which each is one transaction or one rename:

1. `close` marks the index as closed for one move, for some seconds. No process can write into it any more: each write
   transaction reads the mark first. Any process may use the index again when the time is over and the next step was
   not done. So if the move is killed, the account is usable again without help.
2. The index is copied with its mark. The mark of the copy names the move and the node.
3. `give_up` makes the mark of the original permanent. It fails if the time was over. From here on, no process uses the
   original again.
4. `accept` removes the mark of the copy, and declares that this file is the index. The copy is one that `give_up` was
   about: it has the same move and node in its mark, and its content was compared with that of the original.

A copy that is made without these steps is taken for a restored backup. A copy with a mark is refused, until the time of
the mark is over; then it is taken for a restored backup, too.

The mark is the table ``handover`` and a ``user_version`` above `MARK`, so that versions of imapshield that do not know
it refuse the index.
"""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import NamedTuple, TypeVar

from imapshield.errors import AccountMoved, IndexTooNew, StoreBusy, StoreError
from imapshield.maildir.index_files import INDEX_FILE, IndexFiles, file_identity
from imapshield.maildir.index_schema import VERSION, check_schema
from imapshield.maildir.sqlite_file import BUSY_SECONDS

T = TypeVar("T")

MARK = 1_000_000
"""Added to the version of an index that is closed."""

_COLUMNS = (
    "move TEXT NOT NULL, node TEXT NOT NULL, expires REAL NOT NULL, given_up INTEGER NOT NULL"
)


class Mark(NamedTuple):
    """What a closed index says.

    Attributes:
        move: identifies the move.
        node: the node that gets the account.
        expires: when the account can be used again, in seconds since the epoch, unless it is given up.
        is_given_up: whether it never can.
    """

    move: str
    node: str
    expires: float
    is_given_up: bool


def usable_version(
    db: sqlite3.Connection, now: Callable[[], float], log: Callable[[str], object] = lambda _: None
) -> int:
    """Return the version of a database that this process may use; a mark whose time is over is removed.

    Args:
        db: the database.
        now: returns seconds since the epoch.
        log: called with the reason if the database cannot be used.

    Raises:
        AccountMoved: it is closed.
        IndexTooNew: a newer version of imapshield wrote it.
    """
    version: int
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version <= VERSION:
        return version
    if version - MARK not in range(VERSION + 1):
        log(
            f"was written by a newer version of imapshield (format {version}; this version reads {VERSION}); upgrade"
            " imapshield, or move the file away to build a new index, after which mail clients download all mail again"
        )
        raise IndexTooNew
    mark = _mark(db)
    if _is_over(mark, now):
        mark = _change(db, lambda db: _remove_mark_if(db, lambda mark: _is_over(mark, now)))
    if mark is None:
        return version - MARK
    node, state = mark.node, "was moved" if mark.is_given_up else "is being moved"
    log(
        f"{state} to the node {node!r} (move {mark.move}); `imapshield move USER {node}` continues that, and says what"
        " is left. To use an old copy of the mail as a backup, remove the file: mail clients then download all mail"
    )
    raise AccountMoved


def mark_of(directory: bytes) -> Mark | None:
    """Return the mark of the index in a directory; None if it is open, or if there is no index."""
    path = directory + b"/" + INDEX_FILE
    if not os.path.exists(path):
        return None
    with closing(_connect(path)) as db:
        return _mark(db)


def close(directory: bytes, mark: Mark) -> None:
    """Close the index in a directory, and put all of it into its file.

    The account must have been opened by this process, so that nothing is left to recover (`recovery.open_account`).

    Raises:
        StoreBusy: another process is using the index, or has left something to recover meanwhile.
        StoreError: it cannot be closed.
    """
    with closing(_connect(directory + b"/" + INDEX_FILE)) as db:
        try:
            db.execute("BEGIN IMMEDIATE")
            if db.execute("PRAGMA user_version").fetchone() != (VERSION,):
                raise StoreError("the index is closed already, or has another version")
            if db.execute(_UNFINISHED).fetchone() is not None:
                raise StoreBusy
            db.execute(f"CREATE TABLE handover ({_COLUMNS})")
            db.execute("INSERT INTO handover VALUES (?, ?, ?, 0)", mark[:3])
            db.execute(f"PRAGMA user_version = {MARK + VERSION}")
            db.execute("COMMIT")
            _empty_log(db)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            raise StoreBusy from None


_UNFINISHED = (
    "SELECT 1 FROM mailbox WHERE highestmodseq > synced_modseq OR hot & 4"
    " UNION ALL SELECT 1 FROM moving UNION ALL SELECT 1 FROM removed WHERE pending LIMIT 1"
)


def reopen(directory: bytes, move: str) -> bool:
    """Remove the mark of a move, unless the account is given up; return whether the index can be used.

    Its mark may be that of another move: then that one goes on.
    """
    with closing(_connect(directory + b"/" + INDEX_FILE)) as db:

        def is_open_for(mark: Mark | None) -> bool:
            return mark is not None and mark.move == move and not mark.is_given_up

        mark = _mark(db)
        if is_open_for(mark):
            mark = _change(db, lambda db: _remove_mark_if(db, is_open_for))
        return mark is None


def give_up(directory: bytes, move: str, now: Callable[[], float]) -> bool:
    """Make the mark of a move permanent; return whether it is.

    It is not if the time of the mark is over, or if it is the mark of another move.

    Args:
        directory: the directory of the index.
        move: the move.
        now: returns seconds since the epoch. It is called when this process has the lock, so that a wait for it counts.
    """
    with closing(_connect(directory + b"/" + INDEX_FILE)) as db:
        query = "UPDATE handover SET given_up = 1 WHERE move = ? AND (given_up OR expires > ?)"
        try:
            changed = _change(db, lambda db: db.execute(query, (move, now())).rowcount)
        except sqlite3.OperationalError:  # there is no mark
            return False
        _empty_log(db)
        return changed == 1


def seal(directory: bytes, move: str, node: str) -> None:
    """Make the mark of a copy permanent, so that no process uses the copy before `accept`.

    Raises:
        StoreError: it is not the copy of this move.
    """
    with closing(_connect(directory + b"/" + INDEX_FILE)) as db:
        _require(_mark(db), directory, move, node)
        _change(db, lambda db: db.execute("UPDATE handover SET given_up = 1"))
        _empty_log(db)


def _require(mark: Mark | None, directory: bytes, move: str, node: str) -> None:
    if mark is None or mark[:2] != (move, node):
        raise StoreError(f"{os.fsdecode(directory)} has not the index of the move {move} to {node}")


def accept(directory: int, path: bytes, move: str, node: str) -> None:
    """Make the copied index in a directory that of the account.

    Args:
        directory: the descriptor of the directory.
        path: its path.
        move: the move in the mark.
        node: the node in the mark.

    Raises:
        StoreError: it is not the copy of this move.
    """
    index_files = IndexFiles(path)
    index_files.directory = directory
    fd = os.open(INDEX_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        identity = file_identity(fd)
    finally:
        os.close(fd)
    epoch = index_files.last_epoch()
    with closing(_connect(path + b"/" + INDEX_FILE)) as db:
        _require(_mark(db), path, move, node)

        def become_live(db: sqlite3.Connection) -> None:
            _remove_mark(db)
            check_schema(db, VERSION)
            db.execute("UPDATE mailbox SET cur_ino = 0, new_ino = 0")
            query = "UPDATE account SET inode = ?, generation = ?, epoch = max(epoch, ?)"
            db.execute(query, (*identity, epoch))

        _change(db, become_live)
        _empty_log(db)


def _mark(db: sqlite3.Connection) -> Mark | None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version < MARK:
        return None
    try:
        row = db.execute("SELECT move, node, expires, given_up FROM handover").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise  # a disk that fails does not make an account usable
        return None  # the owner of the mail may write anything into the file
    move, node, expires, given_up = row or ("", "", 0.0, False)
    is_number = isinstance(expires, int | float)
    return Mark(str(move), str(node), float(expires) if is_number else 0.0, bool(given_up))


def _is_over(mark: Mark | None, now: Callable[[], float]) -> bool:
    return mark is None or (not mark.is_given_up and mark.expires <= now())


def _remove_mark_if(
    db: sqlite3.Connection, condition: Callable[[Mark | None], bool]
) -> Mark | None:
    """Remove the mark if it fulfils a condition, and return the mark that remains.

    The mark is read again in the transaction: `give_up` may have held the lock since it was read.
    """
    mark = _mark(db)
    if mark is not None and not condition(mark):
        return mark
    _remove_mark(db)
    return None


def _remove_mark(db: sqlite3.Connection) -> None:
    db.execute("DROP TABLE IF EXISTS handover")
    db.execute(f"PRAGMA user_version = {VERSION}")


def _change(db: sqlite3.Connection, change: Callable[[sqlite3.Connection], T]) -> T:
    """Run a change in a transaction: in one that has begun, or in a durable one of its own."""
    if db.in_transaction:
        return change(db)
    db.execute("BEGIN IMMEDIATE")
    try:
        result = change(db)
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise
    return result


def _empty_log(db: sqlite3.Connection) -> None:
    """Write the log into the database file.

    Raises:
        StoreBusy: another process is reading.
    """
    if db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
        raise StoreBusy


def _connect(path: bytes) -> sqlite3.Connection:
    db = sqlite3.connect(os.fsdecode(path), isolation_level=None, timeout=BUSY_SECONDS / 10)
    db.execute("PRAGMA trusted_schema = OFF")  # the owner of the mail can write into the index
    db.execute("PRAGMA synchronous = FULL")
    return db
