"""The SQLite index of one account: connection, transactions, mailbox rows; and what to do when the file is broken.

Rules
-----
* A write transaction (BEGIN IMMEDIATE) is the lock between processes: UIDs are given inside one, from rows read in it.
* A commit survives the end of this process, however it comes, without waiting for the disk (synchronous=NORMAL); only
  the end of the machine can lose the last of them. The messages are files, and are synced; UIDs and MODSEQs that
  clients were told, and the index lost, are never given again: the first to open an index after the machine has
  started leaves a gap of `GAP`. That is a sync less in every APPEND and STORE. What makes or names a mailbox, and so
  gives a UIDVALIDITY, waits for the disk (`durable`).
* Mailbox ids begin at random, so that a session that outlives a rebuilt index holds a key to nothing.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import resources
from typing import Any, NamedTuple

from imapshield.errors import NoSpace, NoSuchMailbox, StoreBusy, StoreError, StoreIOError
from imapshield.maildir import files

FILE = b"imapshield.sqlite"
GIVEN = b"imapshield-uidvalidity"
"""The last UIDVALIDITY given, in a file of its own: it must outlive the index."""
VERSION = 1
BUSY_SECONDS = 10.0
LOG_KEPT = 100_000
"""Expunged messages remembered per mailbox; `floor` says from where on the log is complete."""

_REBUILT_AHEAD = 86_400
"""A burst of new folders runs the account's UIDVALIDITY ahead of the clock, one second each; a rebuilt index begins
this far ahead so as to meet none of those it no longer knows."""


GAP = 1000
"""More UIDs, and more MODSEQs, than a mailbox gives in the seconds that a file system may keep from the disk."""


def boot_id() -> str:
    """Return what names this start of the machine; where nothing does, another name each time."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return secrets.token_hex(8)


class MailboxRow(NamedTuple):
    """A row of `mailbox`."""

    key: int
    name: str
    uidvalidity: int
    uidnext: int
    highestmodseq: int
    recentuid: int
    mailbox_id: bytes
    special_use: bytes
    keywords: bytes
    floor: int
    logged: int
    cur_mtime: int
    cur_ino: int
    new_mtime: int
    new_ino: int
    hot: int
    scanned: float


_BOX = "SELECT id, " + ", ".join(MailboxRow._fields[1:]) + " FROM mailbox WHERE "  # noqa: S608


class Index:
    """One account's database, opened at first use; from one thread at a time.

    Args:
        path: the database file.
        now: seconds since the epoch, for UIDVALIDITY.
        note: told what an operator should know.
    """

    def __init__(self, path: bytes, now: Callable[[], float], note: Callable[[str], None]) -> None:
        self._path = path
        self._given = os.path.join(os.path.dirname(path), GIVEN)
        self._now = now
        self._note = note
        self._db: sqlite3.Connection | None = None
        self._inode = -1
        self._durable = True

    def ready(self) -> None:
        """Open the database unless it is open and still the file of that name. Raises StoreError."""
        if self._db is not None:
            try:
                if os.stat(self._path).st_ino == self._inode:
                    return
            except FileNotFoundError:
                pass
            self._note("the index was replaced by another program; it is opened anew")
            self.close()
        try:
            self._open(ahead=0)
        except sqlite3.Error as error:
            if not _is_corrupt(error):
                raise
            self._set_aside()
            self._open(ahead=_REBUILT_AHEAD)

    def close(self) -> None:
        """Release the database."""
        db, self._db = self._db, None
        if db is not None:
            db.close()

    @property
    def db(self) -> sqlite3.Connection:
        """The open database."""
        assert self._db is not None
        return self._db

    def _open(self, ahead: int) -> None:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.close(fd)
        db = sqlite3.connect(
            os.fsdecode(self._path),
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA cache_size = -1024")  # KiB; a thousand accounts may be open
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                self._create(db, ahead)
            elif version > VERSION:
                self._note("the index was written by a newer version of imapshield")
                raise StoreIOError
        except BaseException:
            db.close()
            raise
        self._db = db
        self._durable = True
        self._inode = os.stat(self._path).st_ino
        self._after_start()

    def _create(self, db: sqlite3.Connection, ahead: int) -> None:
        db.execute("BEGIN IMMEDIATE")
        if db.execute("PRAGMA user_version").fetchone() == (0,):  # nobody else was faster
            schema = resources.files("imapshield.maildir").joinpath("schema.sql").read_text("utf-8")
            statement = ""
            for line in schema.splitlines():
                statement += line.partition("--")[0] + "\n"
                if sqlite3.complete_statement(statement):
                    # not executescript(), which commits first
                    db.execute(statement)
                    statement = ""
            db.execute(
                "INSERT INTO account (id, uidvalidity, boot) VALUES (1, ?, ?)",
                (
                    max(int(self._now()) + (ahead or self._ahead()) - 1, self._last_given()),
                    boot_id(),
                ),
            )
            first = secrets.randbits(40)
            db.execute("INSERT INTO sqlite_sequence VALUES ('mailbox', ?)", (first,))
            db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")

    def _after_start(self) -> None:
        """Leave a gap in UIDs and MODSEQs if the machine has been started since the last write."""
        boot = boot_id()
        if self.db.execute("SELECT boot FROM account").fetchone() == (boot,):
            return
        with self.write(durable=True) as db:
            if db.execute("SELECT boot FROM account").fetchone() != (boot,):
                # the log of expunged messages may have lost its end too, so it begins anew
                db.execute(
                    "UPDATE mailbox SET uidnext = uidnext + ?, highestmodseq = highestmodseq + ?,"
                    " floor = highestmodseq + ?",
                    (GAP, GAP, GAP),
                )
                db.execute("UPDATE account SET boot = ?", (boot,))

    def _ahead(self) -> int:
        """How far ahead of the clock a new index begins: one beside mail that is there may have had another before."""
        root = os.path.dirname(self._path)
        used = any(name.startswith(b".") for name in os.listdir(root))
        for part in (b"cur", b"new"):
            with suppress(FileNotFoundError):
                used = used or bool(os.listdir(os.path.join(root, part)))
        return _REBUILT_AHEAD if used else 0

    def _last_given(self) -> int:
        """The last UIDVALIDITY that an index before this one gave; 0 if there was none."""
        found = files.read_small(self._given, 20).strip()
        return int(found) if found.isdigit() else 0

    def _set_aside(self) -> None:
        """Move a broken database out of the way: nothing in it is needed to show the mail."""
        self.close()
        aside = b"%b.broken-%d" % (self._path, int(self._now()))
        self._note(f"the index is broken; it is now {os.fsdecode(aside)}, and UIDs begin anew")
        os.replace(self._path, aside)
        for suffix in (b"-wal", b"-shm"):
            with suppress(FileNotFoundError):
                os.replace(self._path + suffix, aside + suffix)

    def translate(self, error: sqlite3.Error) -> StoreError:
        """Return what a session should be told, having set a broken database aside."""
        code = _code(error)
        if code == sqlite3.SQLITE_BUSY:
            return StoreBusy()
        if code == sqlite3.SQLITE_FULL:
            return NoSpace()
        self._note(f"the index failed: {error}")
        if _is_corrupt(error):
            try:
                self._set_aside()
            except OSError as failed:
                self._note(f"the broken index cannot be moved: {failed.strerror}")
        return StoreIOError()

    @contextmanager
    def write(self, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """Hold the account's lock; commit at the end or roll everything back."""
        db = self.db
        if durable is not self._durable:
            db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._durable = durable
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Read several things as of one moment."""
        db = self.db
        if db.in_transaction:
            yield db
            return
        db.execute("BEGIN")
        try:
            yield db
        finally:
            db.execute("ROLLBACK")

    def box(self, key: int) -> MailboxRow:
        """Return a mailbox by its key. NoSuchMailbox."""
        row = self.db.execute(_BOX + "id = ?", (key,)).fetchone()
        if row is None:
            raise NoSuchMailbox
        return MailboxRow(*row)

    def named(self, name: str) -> MailboxRow | None:
        """Return a mailbox by its name, None if the index has not met it."""
        row = self.db.execute(_BOX + "name = ?", (name,)).fetchone()
        return None if row is None else MailboxRow(*row)

    def add(
        self, name: str, special_use: bytes, uidvalidity: int = 0, uidnext: int = 1
    ) -> MailboxRow:
        """Add a mailbox, in a write transaction; `uidvalidity` is one found on disk, else a new one is given."""
        db = self.db
        (last,) = db.execute("SELECT uidvalidity FROM account").fetchone()
        given = uidvalidity or min(max(last + 1, int(self._now())), 0xFFFFFFFF)
        db.execute("UPDATE account SET uidvalidity = ?", (max(last, given),))
        # Beside the index too: one that is lost within the second must not give the same again.
        files.replace(self._given, b"%d\n" % max(last, given))
        mailbox_id = b"F" + secrets.token_hex(8).encode()
        row = db.execute(
            "INSERT INTO mailbox (name, uidvalidity, uidnext, mailbox_id, special_use)"
            " VALUES (?, ?, ?, ?, ?)",
            (name, given, uidnext, mailbox_id, special_use),
        )
        assert row.lastrowid is not None
        return self.box(row.lastrowid)

    def set(self, key: int, **columns: object) -> None:
        """Change columns of a mailbox."""
        names = ", ".join(f"{name} = ?" for name in columns)
        self.db.execute(f"UPDATE mailbox SET {names} WHERE id = ?", (*columns.values(), key))  # noqa: S608

    def forget(self, key: int) -> None:
        """Remove a mailbox with all that is known of its messages, in a write transaction."""
        for table in ("answer", "expunged", "message", "metadata"):
            self.db.execute(f"DELETE FROM {table} WHERE mailbox = ?", (key,))  # noqa: S608
        self.db.execute("DELETE FROM mailbox WHERE id = ?", (key,))

    def rows(self, columns: str, key: int, uids: Sequence[int], where: str = "") -> list[Any]:
        """Return `columns` of those of `uids` that exist, by rising UID.

        Clients mostly ask for neighbours, and a range costs a fifth of the same messages one by one.
        """
        if not uids:
            return []
        low, high = min(uids), max(uids)
        query = f"SELECT {columns} FROM message WHERE mailbox = ? AND "  # noqa: S608
        if high - low < len(uids):
            return self.db.execute(
                f"{query} uid BETWEEN ? AND ? {where} ORDER BY uid", (key, low, high)
            ).fetchall()
        return self.db.execute(
            f"{query} uid IN (SELECT value FROM json_each(?)) {where} ORDER BY uid",  # noqa: S608
            (key, as_json(uids)),
        ).fetchall()

    def expunge(self, box: MailboxRow, uids: Sequence[int], modseq: int) -> None:
        """Remove messages and log that they went, in a write transaction."""
        db, some = self.db, as_json(uids)
        among = "uid IN (SELECT value FROM json_each(?))"
        for item, _ in self.items_of(box.key):
            db.execute(
                f"DELETE FROM answer WHERE mailbox = ? AND item = ? AND {among}",  # noqa: S608
                (box.key, item, some),
            )
        db.execute(f"DELETE FROM message WHERE mailbox = ? AND {among}", (box.key, some))  # noqa: S608
        db.execute(
            "INSERT INTO expunged SELECT ?, ?, value FROM json_each(?)", (box.key, modseq, some)
        )
        floor, logged = box.floor, box.logged + len(uids)
        if logged > LOG_KEPT:
            (floor,) = db.execute(
                "SELECT modseq FROM expunged WHERE mailbox = ? ORDER BY modseq DESC LIMIT 1 OFFSET ?",
                (box.key, LOG_KEPT // 2),
            ).fetchone()
            db.execute("DELETE FROM expunged WHERE mailbox = ? AND modseq <= ?", (box.key, floor))
            (logged,) = db.execute(
                "SELECT count(*) FROM expunged WHERE mailbox = ?", (box.key,)
            ).fetchone()
        self.set(box.key, highestmodseq=modseq, floor=floor, logged=logged)

    def items_of(self, key: int) -> list[tuple[int, bytes]]:
        """Return number and text of the items for which the mailbox has answers."""
        return self.db.execute(
            "SELECT id, text FROM item WHERE EXISTS"
            " (SELECT 1 FROM answer WHERE mailbox = ? AND item = item.id)",
            (key,),
        ).fetchall()


def as_json(numbers: Iterable[int]) -> str:
    """Return numbers as json_each() reads them."""
    return json.dumps(list(numbers))


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _is_corrupt(error: sqlite3.Error) -> bool:
    return _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
