"""The SQLite database of one account: opening it, transactions, and recovery when the file is corrupt or replaced.

The database lies beside the mail as ``imapshield.sqlite``, or in a directory of its own (``--index-root``). The name
has no leading dot, so no mail program takes the file for a folder. The mail itself is in the Maildir: a loss of the
database loses UIDs and metadata, and no message.

Rules
-----
* A write transaction (BEGIN IMMEDIATE) is the lock between processes that serve the same account. UIDs and MODSEQs are
  allocated inside one, from rows read in it.
* A commit waits until it is on stable storage (``synchronous = FULL``), and no response is sent before. So no UID,
  MODSEQ or UIDVALIDITY that a client has seen is assigned again after a power failure. The commit is also the record of
  what the directories must contain: `recovery` explains why STORE and APPEND do not sync them too.
* A commit with ``durable=False`` does not wait. It is for what is not announced: cached answers, sizes, the times at
  which directories were read.
* Mailbox keys start at a random number. A session that holds a key from before the index was rebuilt finds no mailbox.
* A restored backup of the index is detected when it is opened (`index_files`): then every mailbox gets a new key and a
  new UIDVALIDITY, because UIDs that were assigned after the backup are not known.
* SQLite's WAL does not work between hosts on NFS, so only one host can serve an account.
* The file can belong to a user who writes into it at any moment. So SQLite does not trust its schema.
"""

import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from typing import Any

from imapshield.errors import IndexLocked, NoSpace, StoreBusy, StoreError, StoreIOError
from imapshield.mailbox.in_place import is_in_place, is_late, may_block
from imapshield.maildir.entry import Ownership
from imapshield.maildir.files import UndoSteps
from imapshield.maildir.handover import wait_for_disk
from imapshield.maildir.index_files import IndexFiles, is_copy
from imapshield.maildir.index_handover import usable_version
from imapshield.maildir.index_schema import VERSION, check_schema, create_tables, migrate
from imapshield.maildir.known_rows import MOVES, KnownRows
from imapshield.maildir.sqlite_file import (
    BUSY_SECONDS,
    connect,
    corrupt_error,
    interrupt_if,
    is_corrupt,
    is_disk_error,
    is_disk_full,
    is_locked,
)

FIRST_BUSY_SECONDS = 0.05
"""Seconds to wait for the lock at first, in a server: then the call is repeated later, and its thread is free meanwhile
(`errors.IndexLocked`)."""

REBUILT_MARGIN = 86_400
"""A burst of new mailboxes moves the account's UIDVALIDITY ahead of the clock, by one second for each. The UIDVALIDITYs
of a rebuilt or restored index begin this many seconds ahead of the clock, so they are not those of the lost index."""

UIDVALIDITY_BLOCK = 100
"""The file `index_files.UIDVALIDITY_FILE` is written once for so many new mailboxes: it holds the end of the block. The
first LIST of thousands of folders of another server would otherwise wait for the disk for each."""

_MAX_UIDVALIDITY = 0xFFFFFFFF


class IndexDatabase:
    """One account's database, opened by `open`. It is used from one thread at a time.

    Args:
        directory: the path of the directory of the database file.
        now: returns seconds since the epoch, for UIDVALIDITYs.
        log_warning: called with one line for the operator.
        first_busy_seconds: seconds to wait for the lock in an operation that has not written yet; by default
            `BUSY_SECONDS`.

    Attributes:
        is_restored: whether the database that was opened is a copy of an older state. `renewed` ends that.
        undo_moves: called at the begin of a write transaction if `has_moves`.
        undid_moves: whether the last write transaction has called it.
    """

    def __init__(
        self,
        directory: bytes,
        now: Callable[[], float],
        log_warning: Callable[[str], None],
        *,
        first_busy_seconds: float | None = None,
    ) -> None:
        self._first_busy_seconds = first_busy_seconds
        self._busy_seconds = 0.0
        self._has_written = False
        self.is_restored = False
        self.undo_moves: Callable[[], None] | None = None
        self.undid_moves = False
        self._known = KnownRows()
        self._files = IndexFiles(directory)
        self._now = now
        self._log_warning = log_warning
        self._db: sqlite3.Connection | None = None
        self._durable = True
        self._uidvalidity_limit = 0
        self._refusal = ""
        # The number of the current epoch, None if this opening has not written yet.
        self._epoch: int | None = None

    def begin_operation(self) -> None:
        """Note that a call of the store begins, which has not written anything yet."""
        self._has_written = False
        self._known.expire()
        self._set_busy_seconds(0.0 if is_in_place() else self._first_busy_seconds or BUSY_SECONDS)

    def known(self) -> dict[tuple[object, ...], Any]:
        """Return what was read from the database in its present state, for more of it (`KnownRows`)."""
        return self._known.of(self.db)

    def keeping(self, *kinds: str) -> AbstractContextManager[None]:
        """Keep what is known of these kinds, which the block does not change, in a write transaction (`KnownRows`)."""
        return self._known.keeping(self.db, kinds)

    def _set_busy_seconds(self, seconds: float) -> None:
        if seconds != self._busy_seconds and self._db is not None:
            self._busy_seconds = seconds
            self._db.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")

    def is_open_in(self, directory: int) -> bool:
        """Whether the database is open, and still the file in the directory that has this descriptor."""
        return self._db is not None and self._files.is_unchanged(directory)

    def open(self, fd: int, owner: Ownership, has_mail: Callable[[], bool]) -> None:
        """Open the database. If one is open, its file was replaced.

        Args:
            fd: the descriptor of the directory of the database file.
            owner: the ownership of a new file.
            has_mail: whether the Maildir has mail and may have had an index before.

        Raises:
            StoreError: the file was written by a newer version.
            sqlite3.Error: the database cannot be opened.
        """
        may_block()
        was_replaced = self._db is not None
        if was_replaced:
            self._files.detach(self._close)
        self._files.directory, self._files.owner = fd, owner
        try:
            self._open(has_mail, was_replaced)
        except sqlite3.Error as error:
            if not is_corrupt(error):
                raise
            self._files.read_all()  # raises OSError if that is why SQLite reports damage
            self._set_aside()
            self._open(lambda: True, False)

    def release_memory(self) -> None:
        """Free the pages of the database that are in memory."""
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.execute("PRAGMA shrink_memory")

    def close(self) -> None:
        """Close the database, and end its epoch, so that a later state differs from a backup made until now."""
        if self._db is not None:
            with suppress(sqlite3.Error, OSError, StoreError):
                if self._epoch is not None and self._files.is_unchanged(self._files.directory):
                    self._epoch = None
                    with self.write():
                        pass  # a durable transaction begins an epoch
        self._close()

    def _close(self) -> None:
        db, self._db, self._epoch = self._db, None, None
        self._known.clear()
        if db is not None:
            with self._files.rights():
                db.close()

    @property
    def db(self) -> sqlite3.Connection:
        """The open database."""
        assert self._db is not None
        return self._db

    @contextmanager
    def write(
        self, durable: bool = True, undo: UndoSteps | None = None
    ) -> Iterator[sqlite3.Connection]:
        """Run a block in a write transaction, committed at its end and rolled back if it raises.

        Args:
            durable: whether the commit waits until it is on stable storage.
            undo: steps that are undone before the rollback, while no other process has the lock.
        """
        may_block()
        db = self.db
        if durable is not self._durable:
            db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._durable = durable
        begins_epoch = durable and self._epoch is None
        if self._has_written:
            # The operation is not repeated: to undo half of it needs the lock, too.
            self._set_busy_seconds(BUSY_SECONDS)
        db.execute("BEGIN IMMEDIATE")
        self._has_written = True
        self._known.expire()
        try:
            usable_version(db, self._now)
            self.undid_moves = self.undo_moves is not None and self.has_moves()
            if self.undid_moves and self.undo_moves is not None:
                self.undo_moves()
            yield db
            if begins_epoch:
                self._begin_epoch()
            wait_for_disk(db.execute, "COMMIT")
        except BaseException:
            if begins_epoch:
                self._epoch = None
            try:
                if undo is not None:
                    undo.undo()
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                self._known.clear()
            raise
        if begins_epoch:
            with suppress(OSError):  # without the file, only one kind of restored backup is missed
                self._files.write_epoch(self._epoch or 0)

    def has_moves(self) -> bool:
        """Whether a command was announced and has not ended (`move_log`)."""
        known = self.known()
        if (MOVES,) not in known:
            row = self.db.execute("SELECT 1 FROM moving LIMIT 1").fetchone()
            known[MOVES,] = row is not None
        return bool(known[MOVES,])

    @contextmanager
    def write_unless_full(self, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """Run a block in a write transaction that is not needed: if the disk is full, it is rolled back, and that is
        all.

        For cached answers, and for what a sync finds out. A client can read its mail when the disk is full.
        """
        try:
            with self.write(durable) as db:
                yield db
        except sqlite3.Error as error:
            if not is_disk_full(error):
                raise

    def _begin_epoch(self) -> None:
        self.db.execute(
            "UPDATE account SET epoch = epoch + 1, inode = ?, generation = ?",
            self._files.identity,
        )
        (self._epoch,) = self.db.execute("SELECT epoch FROM account").fetchone()

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Run a block whose queries all see the same state of the database."""
        db = self.db
        if db.in_transaction:
            yield db
            return
        db.execute("BEGIN")
        self._known.expire()
        try:
            yield db
        finally:
            db.execute("ROLLBACK")

    def store_error(self, error: sqlite3.Error) -> StoreError:
        """Return the error that a session sends for `error`, after moving a corrupt database away."""
        if is_locked(error):
            return StoreBusy() if self._has_written else IndexLocked()
        if is_disk_full(error):
            # The next command may then write to the begin of the log, which needs no space.
            if self._db is not None:
                with suppress(sqlite3.Error):
                    self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
            return NoSpace()
        path = os.fsdecode(self._files.path)
        advice = "; check the disk and the permissions" if is_disk_error(error) else ""
        self._log_warning(f"SQLite error in {path}: {error}{advice}")
        if is_corrupt(error) and self._is_damaged():
            try:
                self._set_aside()
            except OSError as failure:
                self._log_warning(
                    f"the corrupt index {path} cannot be moved away: {failure.strerror}; remove the file, so that a "
                    "new one can be built"
                )
        elif is_disk_error(error) or is_corrupt(error):
            self._close()  # The file system may have been detached, which open descriptors would never show.
        return StoreIOError()

    def _is_damaged(self) -> bool:
        """Whether the database itself is damaged: SQLite also reports damage when it cannot read a file."""
        self._close()
        try:
            self._files.read_all()
            with self._files.rights(), closing(connect(os.fsdecode(self._files.path))) as db:
                return bool(db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",))
        except OSError:
            return False
        except sqlite3.Error as error:
            return is_corrupt(error)

    def reserve_uidvalidity(self, uidvalidity: int) -> None:
        """Record in a file that UIDVALIDITYs up to this one are used, so that those of a rebuilt index differ."""
        if uidvalidity > self._uidvalidity_limit:
            self._uidvalidity_limit = uidvalidity + UIDVALIDITY_BLOCK
            self._files.write_uidvalidity(self._uidvalidity_limit)

    def first_uidvalidity(self, margin: int) -> int:
        """Return a number that is at least as large as every UIDVALIDITY that the account has used.

        Args:
            margin: seconds to add to the clock.
        """
        known = max(self._uidvalidity_limit, self._files.uidvalidity())
        return min(max(int(self._now()) + margin - 1, known), _MAX_UIDVALIDITY)

    def renewed(self) -> None:
        """Record, in a write transaction, that this file is the index, and not a copy of it."""
        self.db.execute(
            "UPDATE account SET inode = ?, generation = ?, epoch = ?",
            (*self._files.identity, self._files.last_epoch()),
        )
        self.is_restored = False

    def _open(self, has_mail: Callable[[], bool], was_replaced: bool) -> None:
        is_new = self._files.create()
        # The epoch files are read before the database: another process writes them after its commit.
        last_epoch = self._files.last_epoch()
        is_hostile = self._files.is_hostile()
        if is_hostile:
            self._files.check_others()
        with self._files.rights():
            seconds = self._busy_seconds = self._first_busy_seconds or BUSY_SECONDS
            db = connect(os.fsdecode(self._files.path), exclusive=is_hostile, seconds=seconds)
        interrupt_if(db, is_late)
        try:
            if is_hostile and not self._files.is_opened():
                raise StoreIOError
            version = usable_version(db, self._now, self._log_refusal)
            check_schema(db, version)
            if version == 0:
                self._create(db, has_mail())
            elif version < VERSION:
                migrate(db)
            if is_new:
                self._files.sync()
            self.is_restored = was_replaced or is_copy(db, self._files.identity, last_epoch)
            if self.is_restored and db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                # Its write-ahead log may be that of the file that it replaced.
                raise corrupt_error()
            if self.is_restored:
                what = "removed or replaced while in use" if was_replaced else "restored or copied"
                self._log_warning(
                    f"{os.fsdecode(self._files.path)} was {what}: all mailboxes get a new "
                    "UIDVALIDITY, and mail clients download all mail again"
                )
        except BaseException:
            with self._files.rights():
                db.close()
            raise
        self._db = db
        self._durable = True
        self._files.remember()

    def _log_refusal(self, reason: str) -> None:
        if reason != self._refusal:  # each command tries to open the index
            self._refusal = reason
            self._log_warning(f"{os.fsdecode(self._files.path)} {reason}")

    def _create(self, db: sqlite3.Connection, has_mail: bool) -> None:
        db.execute("BEGIN IMMEDIATE")
        if db.execute("PRAGMA user_version").fetchone() == (0,):  # no other process was faster
            create_tables(db)
            uidvalidity = self.first_uidvalidity(REBUILT_MARGIN if has_mail else 0)
            db.execute(
                "INSERT INTO account (id, uidvalidity, inode, generation, epoch)"
                " VALUES (1, ?, ?, ?, ?)",
                (uidvalidity, *self._files.identity, self._files.last_epoch()),
            )
            db.execute("INSERT INTO sqlite_sequence VALUES ('mailbox', ?)", (secrets.randbits(40),))
            db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")

    def _set_aside(self) -> None:
        """Move a corrupt database away."""
        aside = self._files.move_aside(int(self._now()))
        self._close()
        self._log_warning(
            f"{os.fsdecode(self._files.path)} is corrupt; it is moved to {os.fsdecode(aside)} and a new index is "
            "built. No mail is lost, but mail clients download it again. Check the disk; the moved file may be deleted"
        )
