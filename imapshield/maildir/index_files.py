"""The files of one account's index: the database, what must outlive it, and what shows that it was restored.

``imapshield-uidvalidity`` holds a UIDVALIDITY that no mailbox has exceeded. An index that is built again reads it.

A restored index
----------------
A backup of the index does not know the UIDs that were assigned after it was made. Used as it is, it would assign them
again, to other messages. These signs show that a database is a copy:

* Its inode, or the generation of the inode, is not the one that it has recorded: tar, rsync, and cp into a new
  directory make a new file.
* There is a file ``imapshield.epoch-N`` with an N above the one that it has recorded. Each process begins an epoch at
  its first write, and another one when it closes the index. So a database that ``cp`` has overwritten in place is older
  than the epoch file, which ``cp`` does not know.
* While the database is open, its inode or that of its log changes, or an mtime of them goes back.

Not detected is a whole file system that was set back (a snapshot of a disk or of a virtual machine), and a database
that was copied while the server ran and was put back in place with ``cp`` after that same process was killed.
"""

import fcntl
import os
import secrets
import sqlite3
import stat
import struct
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress

from imapshield.errors import StoreIOError
from imapshield.maildir import files
from imapshield.maildir.entry import Entry, Ownership, naming_errors
from imapshield.maildir.file_rights import file_rights
from imapshield.maildir.index_schema import VERSION

INDEX_FILE = b"imapshield.sqlite"
UIDVALIDITY_FILE = b"imapshield-uidvalidity"
EPOCH_PREFIX = b"imapshield.epoch-"


_GET_VERSION = 2 << 30 | struct.calcsize("l") << 16 | ord("v") << 8 | 1  # FS_IOC_GETVERSION


def file_identity(fd: int) -> tuple[int, int]:
    """Return the inode of an open file, and the inode's generation, 0 where the file system has none.

    File systems use the inode of a removed file again, often at once. Its generation is then another one.
    """
    version = bytearray(8)
    with suppress(OSError):
        fcntl.ioctl(fd, _GET_VERSION, version)
    return os.fstat(fd).st_ino, int.from_bytes(version[:4], sys.byteorder)


class IndexFiles:
    """The index files in one directory.

    Args:
        directory_path: the path of the directory. SQLite opens files by path.
        name: the name of the database.

    Attributes:
        path: the path of the database.
        directory: the directory's descriptor, which the caller opens.
        owner: the ownership of new files.
        identity: the inode of the database and the inode's generation, as `create` found them.
    """

    def __init__(self, directory_path: bytes, name: bytes = INDEX_FILE) -> None:
        self.path = directory_path + b"/" + name
        self._name = name
        self._names = name, name + b"-wal"
        self.directory = -1
        self.owner = Ownership(-1, -1, 0o700)
        # The file must not be opened to read its identity while SQLite has it open: to close any descriptor of a file
        # ends all locks of the process on it.
        self.identity = (0, 0)
        self._file = (0, 0)
        # The descriptor that `create` had, which SQLite gets next if no other thread is faster.
        self._number = -1
        self._stamps: list[tuple[int, int, int]] = []

    def create(self) -> bool:
        """Create an empty database file if there is none; return whether this call created it.

        Raises:
            StoreIOError: there is something else than a file.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        is_new = False
        try:
            fd = os.open(self._name, flags | os.O_EXCL, 0o600, dir_fd=self.directory)
            is_new = True
        except FileExistsError:
            with naming_errors(self.path):
                fd = os.open(self._name, flags, dir_fd=self.directory)
        except OSError as error:
            error.filename = self.path
            raise
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise StoreIOError
            self.identity, self._file = file_identity(fd), (status.st_dev, status.st_ino)
            self._number = fd
            if is_new:
                self.owner.give(fd, self.owner.mode & 0o666)
            elif self.owner.uid != -1:
                self._take_from_root(fd)
        finally:
            os.close(fd)
        return is_new

    def _take_from_root(self, fd: int) -> None:
        """Give the database to the owner of the Maildir, if an older version of imapshield made it as root.

        Another file of root, which the owner has moved here, has not the header of such a database (SQLite file format,
        section 1.3). The log of the older version is complete only if it was closed; it is given too if it is one.
        """
        for suffix, is_own in ((b"", _is_index_header), (b"-wal", _is_log_header)):
            entry = Entry(self.directory, self._name + suffix)
            with suppress(FileNotFoundError):
                opened = os.dup(fd) if not suffix else files.open_message(entry)
                try:
                    status = os.fstat(opened)
                    is_roots = status.st_uid == 0 and status.st_nlink == 1
                    if is_roots and is_own(files.read_range(opened, 0, 100)):
                        self.owner.give(opened, self.owner.mode & 0o666)
                finally:
                    os.close(opened)
        shared_memory = Entry(self.directory, self._name + b"-shm")
        with suppress(FileNotFoundError):
            if files.status(shared_memory).st_uid == 0:
                files.remove(shared_memory)  # SQLite builds it again

    def rights(self) -> AbstractContextManager[None]:
        """Return a context in which SQLite opens and closes the files."""
        return file_rights(self.owner.uid, self.owner.gid)

    def remember(self) -> None:
        """Remember which files were opened, for `is_unchanged`."""
        self._stamps = self._read_stamps(self.directory)

    def is_unchanged(self, directory: int) -> bool:
        """Whether the files in an open directory are those that were opened, and were not set back."""
        stamps = self._read_stamps(directory)
        if stamps == self._stamps:
            return True
        for (inode, mtime, ctime), (old_inode, old_mtime, _) in zip(
            stamps, self._stamps, strict=True
        ):
            was_set_back = mtime < old_mtime and mtime != ctime
            if old_inode and (inode != old_inode or was_set_back):
                return False
        self._stamps = stamps
        return True

    def _read_stamps(self, directory: int) -> list[tuple[int, int, int]]:
        """Return inode, mtime and ctime of the database and of its log; zeros for one that does not exist.

        A write gives a file equal times, also after the clock was set back. A program that restores a file sets its
        mtime, but cannot set its ctime.
        """
        stamps = []
        for name in self._names:
            try:
                status = os.stat(name, dir_fd=directory)
                stamps.append((status.st_ino, status.st_mtime_ns, status.st_ctime_ns))
            except FileNotFoundError:
                stamps.append((0, 0, 0))
        return stamps

    def detach(self, close: Callable[[], None]) -> None:
        """Close an open database whose file was replaced, without writing into the new file.

        SQLite writes its log into the database when it is closed, unless the file has moved. So the file is moved
        during the call. A log that the restored backup does not contain belongs to the old file and is removed. It is
        recognized by equal mtime and ctime; programs that restore a file set its mtime back.
        """
        database = Entry(self.directory, self._name)
        away = Entry(self.directory, self._name + b".%b" % secrets.token_hex(8).encode())
        is_there = False
        with suppress(FileNotFoundError):
            files.rename(database, away)
            is_there = True
        close()
        if is_there:
            files.rename(away, database)
        log = Entry(self.directory, self._name + b"-wal")
        with suppress(FileNotFoundError):
            status = files.status(log)
            if status.st_mtime_ns == status.st_ctime_ns:
                files.unlink(log)

    def is_hostile(self) -> bool:
        """Whether a user who is not the server's can change the directory."""
        return os.fstat(self.directory).st_uid not in {0, os.geteuid()}

    def check_others(self) -> None:
        """Check that the other files that SQLite opens are regular files, or do not exist.

        It would wait for ever for the other end of a FIFO.

        Raises:
            StoreIOError: one of them is something else.
        """
        for suffix in (b"-journal", b"-wal", b"-shm"):
            with suppress(FileNotFoundError):
                status = files.status(Entry(self.directory, self._name + suffix))
                if not stat.S_ISREG(status.st_mode):
                    raise StoreIOError

    def is_opened(self) -> bool:
        """Whether this process has the file open that `create` found, and not what a link has put in its place since.

        Where the system has no ``/proc``, that cannot be found out, and is assumed.
        """
        # To look at all descriptors takes long if there are thousands of connections.
        if self._is_file(self._number) or not os.path.isdir("/proc/self/fd"):
            return True
        return any(self._is_file(int(number)) for number in os.listdir(b"/proc/self/fd"))

    def _is_file(self, number: int) -> bool:
        """Whether a descriptor belongs to the file that `create` found."""
        try:
            status = os.fstat(number)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._file

    def read_all(self) -> None:
        """Read the database and its log. SQLite must not have them open.

        Raises:
            OSError: the disk fails.
        """
        for suffix in (b"", b"-wal"):
            with suppress(FileNotFoundError):
                fd = files.open_message(Entry(self.directory, self._name + suffix))
                try:
                    while os.read(fd, 1 << 20):
                        pass
                finally:
                    os.close(fd)

    def last_epoch(self) -> int:
        """Return the last epoch of which there is a file, 0 if there is none."""
        return max(map(_epoch, files.names(self.directory)), default=0)

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

    def remove_all(self) -> None:
        """Remove the database and the other files of SQLite."""
        for suffix in (b"", b"-wal", b"-shm", b"-journal"):
            files.remove(Entry(self.directory, self._name + suffix))

    def status(self, suffix: bytes = b"") -> os.stat_result | None:
        """Return the status of the database, or of the file with its name and `suffix`; None if it does not exist."""
        with suppress(FileNotFoundError):
            return files.status(Entry(self.directory, self._name + suffix))
        return None

    def set_mtime(self, mtime: int) -> None:
        """Set the mtime of the closed database, in nanoseconds."""
        with suppress(OSError), self.rights():
            os.utime(self._name, ns=(mtime, mtime), dir_fd=self.directory, follow_symlinks=False)

    def move_aside(self, now: int) -> bytes:
        """Rename a corrupt database and its log; return the new path."""
        aside = b"%b.broken-%d" % (self._name, now)
        for suffix in (b"", b"-wal", b"-shm"):
            with suppress(FileNotFoundError):
                files.rename(
                    Entry(self.directory, self._name + suffix),
                    Entry(self.directory, aside + suffix),
                )
        return os.path.dirname(self.path) + b"/" + aside


def is_copy(db: sqlite3.Connection, identity: tuple[int, int], last_epoch: int) -> bool:
    """Whether the database describes another file than itself, or an older epoch than the last one."""
    inode, generation, epoch = db.execute("SELECT inode, generation, epoch FROM account").fetchone()
    is_other_generation = 0 not in (generation, identity[1]) and generation != identity[1]
    return epoch < last_epoch or (inode != 0 and (inode != identity[0] or is_other_generation))


def _is_index_header(octets: bytes) -> bool:
    version = int.from_bytes(octets[60:64], "big")
    return octets.startswith(b"SQLite format 3\0") and 1 <= version <= VERSION


def _is_log_header(octets: bytes) -> bool:
    return octets[:4] in (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")


def _epoch(name: bytes) -> int:
    """Return the number of an epoch file, 0 for another name."""
    number = name.removeprefix(EPOCH_PREFIX)
    is_epoch = number != name and number.isdigit() and len(number) <= 18
    return int(number) if is_epoch else 0
