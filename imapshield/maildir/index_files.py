"""The files of one account's index: the database, what must outlive it, and what shows that it was restored.

``imapshield-uidvalidity`` holds a UIDVALIDITY that no mailbox has exceeded. An index that is built again reads it.

A restored index
----------------
A backup of the index does not know the UIDs that were assigned after it was made. Used as it is, it would assign them
again, to other messages. These signs show that a database is a copy:

* Its inode is not the one that it has recorded: tar, rsync, and cp into a new directory make a new file.
* There is a file ``imapshield.epoch-N`` with an N above the one that it has recorded. Each process begins an epoch at
  its first write, and another one when it closes the index. So a database that ``cp`` has overwritten in place is older
  than the epoch file, which ``cp`` does not know.
* While the database is open, its inode or that of its log changes, or an mtime of them goes back.

Not detected is a whole file system that was set back (a snapshot of a disk or of a virtual machine), and a database
that was copied while the server ran and was put back in place with ``cp`` after that same process was killed.
"""

import os
import secrets
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress

from imapshield.errors import StoreIOError
from imapshield.maildir import files
from imapshield.maildir.entry import Entry, Ownership, naming_errors
from imapshield.maildir.file_rights import file_rights

INDEX_FILE = b"imapshield.sqlite"
UIDVALIDITY_FILE = b"imapshield-uidvalidity"
EPOCH_PREFIX = b"imapshield.epoch-"


class IndexFiles:
    """The index files in one directory.

    Args:
        directory_path: the path of the directory. SQLite opens files by path.

    Attributes:
        path: the path of the database.
        directory: the directory's descriptor, which the caller opens.
        owner: the ownership of new files.
    """

    def __init__(self, directory_path: bytes) -> None:
        self.path = directory_path + b"/" + INDEX_FILE
        self.directory = -1
        self.owner = Ownership(-1, -1, 0o700)
        self._stamps: list[tuple[int, int]] = []

    def create(self) -> bool:
        """Create an empty database file if there is none; return whether this call created it.

        Raises:
            StoreIOError: there is something else than a file.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        is_new = False
        try:
            fd = os.open(INDEX_FILE, flags | os.O_EXCL, 0o600, dir_fd=self.directory)
            is_new = True
        except FileExistsError:
            with naming_errors(self.path):
                fd = os.open(INDEX_FILE, flags, dir_fd=self.directory)
        except OSError as error:
            error.filename = self.path
            raise
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise StoreIOError
            if is_new or (status.st_uid == 0 and status.st_nlink == 1):
                # An older version of imapshield, run as root, made files that belong to root.
                self.owner.give(fd, self.owner.mode & 0o666)
        finally:
            os.close(fd)
        return is_new

    def rights(self) -> AbstractContextManager[None]:
        """Return a context in which SQLite opens and closes the files."""
        return file_rights(self.owner.uid, self.owner.gid)

    def remember(self) -> None:
        """Remember which files were opened, for `is_unchanged`."""
        self._stamps = self._read_stamps()

    def is_unchanged(self) -> bool:
        """Whether the files at the path are those that were opened, and were not set back."""
        try:
            stamps = self._read_stamps()
        except OSError:
            return False
        for (inode, mtime), (old_inode, old_mtime) in zip(stamps, self._stamps, strict=True):
            if old_inode and (inode != old_inode or mtime < old_mtime):
                return False
        self._stamps = stamps
        return True

    def _read_stamps(self) -> list[tuple[int, int]]:
        """Return inode and mtime of the database and of its log; zeros for a log that does not exist."""
        stamps = []
        for path in (self.path, self.path + b"-wal"):
            try:
                status = os.stat(path)
                stamps.append((status.st_ino, status.st_mtime_ns))
            except FileNotFoundError:
                stamps.append((0, 0))
        return stamps

    def detach(self, close: Callable[[], None]) -> None:
        """Close an open database whose file was replaced, without writing into the new file.

        SQLite writes its log into the database when it is closed, unless the file has moved. So the file is moved
        during the call. A log that the restored backup does not contain belongs to the old file and is removed. It is
        recognized by equal mtime and ctime; programs that restore a file set its mtime back.
        """
        database = Entry(self.directory, INDEX_FILE)
        away = Entry(self.directory, INDEX_FILE + b".%b" % secrets.token_hex(8).encode())
        is_there = False
        with suppress(FileNotFoundError):
            files.rename(database, away)
            is_there = True
        close()
        if is_there:
            files.rename(away, database)
        log = Entry(self.directory, INDEX_FILE + b"-wal")
        with suppress(FileNotFoundError):
            status = files.status(log)
            if status.st_mtime_ns == status.st_ctime_ns:
                files.unlink(log)

    def identity(self) -> tuple[int, int]:
        """Return the inode of the database, and the last epoch of which there is a file."""
        epochs = [_epoch(name) for name in files.names(self.directory)]
        inode = files.status(Entry(self.directory, INDEX_FILE)).st_ino
        return inode, max(epochs, default=0)

    def write_epoch(self, epoch: int) -> None:
        """Create the file of an epoch, and remove those of earlier ones."""
        name = EPOCH_PREFIX + b"%d" % epoch
        with suppress(FileExistsError):
            files.create_empty(Entry(self.directory, name), self.owner)
        for other in files.names(self.directory):
            if 0 < _epoch(other) < epoch:
                files.remove(Entry(self.directory, other))

    def uidvalidity(self) -> int:
        """Return the recorded UIDVALIDITY, 0 if there is none."""
        content = files.read_small(Entry(self.directory, UIDVALIDITY_FILE), 20).strip()
        return int(content) if content.isdigit() else 0

    def write_uidvalidity(self, uidvalidity: int) -> None:
        """Record a UIDVALIDITY."""
        entry = Entry(self.directory, UIDVALIDITY_FILE)
        files.replace(entry, b"%d\n" % uidvalidity, self.owner)

    def sync(self) -> None:
        """Put the creation of the files on stable storage."""
        with naming_errors(self.path):
            os.fsync(self.directory)

    def move_aside(self, now: int) -> bytes:
        """Rename a corrupt database and its log; return the new path."""
        aside = b"%b.broken-%d" % (INDEX_FILE, now)
        for suffix in (b"", b"-wal", b"-shm"):
            with suppress(FileNotFoundError):
                files.rename(
                    Entry(self.directory, INDEX_FILE + suffix),
                    Entry(self.directory, aside + suffix),
                )
        return os.path.dirname(self.path) + b"/" + aside


def _epoch(name: bytes) -> int:
    """Return the number of an epoch file, 0 for another name."""
    number = name.removeprefix(EPOCH_PREFIX)
    is_epoch = number != name and number.isdigit() and len(number) <= 18
    return int(number) if is_epoch else 0
