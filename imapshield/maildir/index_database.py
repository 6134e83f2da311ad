"""The SQLite database of one account: opening it, transactions, and recovery when the file is corrupt or replaced.

The database lies beside the mail as ``imapshield.sqlite``. The name has no leading dot, so no mail program takes the
file for a folder. The mail itself is in the Maildir: a loss of the database loses UIDs and metadata, and no message.

Rules
-----
* A write transaction (BEGIN IMMEDIATE) is the lock between processes that serve the same account. UIDs and MODSEQs are
  allocated inside one, from rows read in it.
* A normal commit does not wait for the disk (``synchronous = NORMAL``). It survives the end of this process in any
  case; a power failure or a kernel crash can lose the last commits. This saves one sync in every APPEND and STORE.
  Messages are files, which are synced. UIDs and MODSEQs that were sent to clients before a power failure must not be
  assigned again. So the first process that opens the index after a reboot skips `BOOT_GAP` of each.
* A commit with ``durable=True`` waits for the disk. Creating and renaming mailboxes, which allocates UIDVALIDITYs, and
  staging need it.
* Mailbox keys start at a random number. A session that holds a key from before the index was rebuilt finds no mailbox.
* SQLite's WAL does not work between hosts on NFS, so only one host can serve an account.
"""

import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import resources

from imapshield.errors import NoSpace, StoreBusy, StoreError, StoreIOError
from imapshield.maildir import files

INDEX_FILE = b"imapshield.sqlite"
UIDVALIDITY_FILE = b"imapshield-uidvalidity"
"""Holds the last UIDVALIDITY that the account has used. It is a separate file because it must outlive the index."""

VERSION = 1
"""The version of schema.sql, stored as ``user_version``."""

BUSY_SECONDS = 10.0
"""Seconds to wait for another process that holds the lock."""

BOOT_GAP = 1000
"""How many UIDs, and how many MODSEQs, are skipped after a reboot: more than a mailbox uses in the seconds of writes
that a power failure can lose."""

REBUILT_MARGIN = 86_400
"""A burst of new mailboxes moves the account's UIDVALIDITY ahead of the clock, by one second for each. The UIDVALIDITYs
of a rebuilt index begin this many seconds ahead of the clock, so they are not those of the lost index."""

_DISK_ERRORS = ("SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM")


def boot_id() -> str:
    """Return an identifier of the current boot; where the system has none, each call returns a different one."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return secrets.token_hex(8)


class IndexDatabase:
    """One account's database, opened by `ensure_open`. It is used from one thread at a time.

    Args:
        path: the database file.
        now: returns seconds since the epoch, for UIDVALIDITYs.
        log_warning: called with one line for the operator.
    """

    def __init__(
        self, path: bytes, now: Callable[[], float], log_warning: Callable[[str], None]
    ) -> None:
        self._path = path
        self._uidvalidity_path = os.path.join(os.path.dirname(path), UIDVALIDITY_FILE)
        self._now = now
        self._log_warning = log_warning
        self._db: sqlite3.Connection | None = None
        self._inode = -1
        self._durable = True

    def ensure_open(self) -> None:
        """Open the database, unless it is open and still the file at its path.

        Raises:
            StoreError: the file was written by a newer version.
            sqlite3.Error: the database cannot be opened.
        """
        if self._db is not None:
            with suppress(FileNotFoundError):
                if os.stat(self._path).st_ino == self._inode:
                    return
            self._log_warning(
                f"another program removed or replaced {os.fsdecode(self._path)} while it was in "
                "use; the file that is "
                "there now, or a new one, is opened. Stop imapshield before restoring a backup "
                "of this file"
            )
            self.close()
        try:
            self._open(rebuilt=False)
        except sqlite3.Error as error:
            if not _is_corrupt(error):
                raise
            self._set_aside()
            self._open(rebuilt=True)

    def close(self) -> None:
        """Close the database."""
        db, self._db = self._db, None
        if db is not None:
            db.close()

    @property
    def db(self) -> sqlite3.Connection:
        """The open database."""
        assert self._db is not None
        return self._db

    @contextmanager
    def write(self, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """Run a block in a write transaction, committed at its end and rolled back if it raises.

        Args:
            durable: whether the commit waits until it is on stable storage.
        """
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
        """Run a block whose queries all see the same state of the database."""
        db = self.db
        if db.in_transaction:
            yield db
            return
        db.execute("BEGIN")
        try:
            yield db
        finally:
            db.execute("ROLLBACK")

    def store_error(self, error: sqlite3.Error) -> StoreError:
        """Return the error that a session sends for `error`, after moving a corrupt database away."""
        code = _sqlite_code(error)
        if code == sqlite3.SQLITE_BUSY:
            return StoreBusy()
        if code == sqlite3.SQLITE_FULL:
            return NoSpace()
        path = os.fsdecode(self._path)
        is_disk_error = getattr(error, "sqlite_errorname", "").startswith(_DISK_ERRORS)
        advice = "; check the disk and the permissions" if is_disk_error else ""
        self._log_warning(f"SQLite error in {path}: {error}{advice}")
        if _is_corrupt(error):
            try:
                self._set_aside()
            except OSError as failure:
                self._log_warning(
                    f"the corrupt index {path} cannot be moved away: {failure.strerror}; remove "
                    "the file, so that a "
                    "new one can be built"
                )
        return StoreIOError()

    def record_uidvalidity(self, uidvalidity: int) -> None:
        """Write the last used UIDVALIDITY beside the index, so that an index rebuilt within the same second differs."""
        files.replace(self._uidvalidity_path, b"%d\n" % uidvalidity)

    def _recorded_uidvalidity(self) -> int:
        content = files.read_small(self._uidvalidity_path, 20).strip()
        return int(content) if content.isdigit() else 0

    def _open(self, rebuilt: bool) -> None:
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
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
                self._create(db, rebuilt)
            elif version > VERSION:
                self._log_warning(
                    f"{os.fsdecode(self._path)} was written by a newer version of imapshield "
                    f"(format {version}; this "
                    f"version reads {VERSION}); upgrade imapshield, or move the file away to "
                    "build a new index, after "
                    "which mail clients download all mail again"
                )
                raise StoreIOError
        except BaseException:
            db.close()
            raise
        self._db = db
        self._durable = True
        self._inode = os.stat(self._path).st_ino
        self._skip_after_boot()

    def _create(self, db: sqlite3.Connection, rebuilt: bool) -> None:
        db.execute("BEGIN IMMEDIATE")
        if db.execute("PRAGMA user_version").fetchone() == (0,):  # no other process was faster
            schema = resources.files("imapshield.maildir").joinpath("schema.sql").read_text("utf-8")
            statement = ""
            for line in schema.splitlines():
                statement += line.partition("--")[0] + "\n"
                if sqlite3.complete_statement(statement):
                    # executescript() would commit first.
                    db.execute(statement)
                    statement = ""
            margin = REBUILT_MARGIN if rebuilt or self._has_mail() else 0
            uidvalidity = max(int(self._now()) + margin - 1, self._recorded_uidvalidity())
            db.execute(
                "INSERT INTO account (id, uidvalidity, boot) VALUES (1, ?, ?)",
                (uidvalidity, boot_id()),
            )
            db.execute("INSERT INTO sqlite_sequence VALUES ('mailbox', ?)", (secrets.randbits(40),))
            db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")

    def _has_mail(self) -> bool:
        """Whether the Maildir has messages or folders, and therefore may have had an index before."""
        root = os.path.dirname(self._path)
        if any(name.startswith(b".") for name in os.listdir(root)):
            return True
        for directory in (b"cur", b"new"):
            with suppress(FileNotFoundError):
                if os.listdir(os.path.join(root, directory)):
                    return True
        return False

    def _skip_after_boot(self) -> None:
        """Skip UIDs and MODSEQs if the system was rebooted since the index was last opened."""
        boot = boot_id()
        if self.db.execute("SELECT boot FROM account").fetchone() == (boot,):
            return
        with self.write(durable=True) as db:
            if db.execute("SELECT boot FROM account").fetchone() != (boot,):
                # The end of the log of expunged messages may be lost too, so the log is complete only from here on.
                db.execute(
                    "UPDATE mailbox SET uidnext = uidnext + ?, highestmodseq = highestmodseq + ?,"
                    " floor = highestmodseq + ?",
                    (BOOT_GAP, BOOT_GAP, BOOT_GAP),
                )
                db.execute("UPDATE account SET boot = ?", (boot,))

    def _set_aside(self) -> None:
        """Move a corrupt database away."""
        self.close()
        aside = b"%b.broken-%d" % (self._path, int(self._now()))
        self._log_warning(
            f"{os.fsdecode(self._path)} is corrupt; it is moved to {os.fsdecode(aside)} and a "
            "new index is built. No "
            "mail is lost, but mail clients download it again. Check the disk; the moved file "
            "may be deleted"
        )
        os.replace(self._path, aside)
        for suffix in (b"-wal", b"-shm"):
            with suppress(FileNotFoundError):
                os.replace(self._path + suffix, aside + suffix)


def _sqlite_code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _is_corrupt(error: sqlite3.Error) -> bool:
    return _sqlite_code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
