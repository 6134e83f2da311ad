"""Where a move puts directories on a node, which files of a Maildir it copies, and their list, the manifest.

Everything is beside the Maildir of the user, in the same file system, so that a rename is one step:

``.imapshield-incoming-NAME``
    The copy on the target, until it is accepted.
``.imapshield-found-MOVE-NAME``
    On the target: a Maildir of the user that was made while the move ended. Its messages are delivered.
``.imapshield-late-NAME``
    On the target: mail that was delivered to the source after the account was closed.
``.imapshield-moved-MOVE-NAME``
    The old copy on the source, after the move.
``.imapshield-stub-NAME``
    A Maildir without mail that takes the place of the old copy, or took it before the user came back.

With ``--index-root``, the index of the user has the same names beside it.
"""

import ctypes
import hashlib
import math
import os
import stat
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from io import BufferedReader
from typing import NamedTuple

from imapshield.errors import StoreError
from imapshield.maildir.account_state import MOVED_FILE
from imapshield.maildir.filename import base
from imapshield.maildir.index_files import INDEX_FILE
from imapshield.maildir.paths import DIRECTORY_NAMES, MAX_FILE_NAME, is_file_name

MANIFEST = b"imapshield.manifest"
"""In the directory of the index: the files that the account had when it was closed."""

NOT_COPIED = (
    *(b"%b%b" % (INDEX_FILE, suffix) for suffix in (b"-wal", b"-shm", b"-journal")),
    MOVED_FILE,
)
"""Files of a Maildir, or of the directory of an index, that no move copies. The text index is another: it knows that it
is a copy, and is built again. And ``tmp/``: what is delivered there is in ``new/`` a moment later."""

TEXT_INDEX = b"imapshield.search"

_DELIVERED = DIRECTORY_NAMES[:2]
SIZE_BITS = 48
"""Bits of a size in `copied_files`; the checksum is above them."""
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_AT_FDCWD = -100
_EXCHANGE = 2  # RENAME_EXCHANGE of linux/fs.h


Acting = Callable[[bytes], AbstractContextManager[None]]
"""Returns a context in which this process has the rights of the owner of a directory."""


def as_this_user(_directory: bytes) -> AbstractContextManager[None]:
    """Return a context that changes no rights."""
    return nullcontext()


class MoveError(StoreError):
    """A move cannot go on. The text is for the operator: what is wrong, and what to type."""


class TooSlow(MoveError):
    """The pause would be, or was, too long. Nothing has changed."""


class Places(NamedTuple):
    """The directories of one user on one node.

    Attributes:
        maildir: the Maildir.
        index_directory: the directory of the index; the same if the index is in the Maildir.
    """

    maildir: bytes
    index_directory: bytes

    @property
    def has_own_index(self) -> bool:
        """Whether the index is outside the Maildir."""
        return self.maildir != self.index_directory

    def beside(self, kind: str) -> "Places":
        """Return the directories of a kind, such as ``incoming``."""
        return Places(_beside(self.maildir, kind), _beside(self.index_directory, kind))


def _beside(path: bytes, kind: str) -> bytes:
    parent, name = os.path.split(path)
    new_name = b".imapshield-%b-%b" % (kind.encode(), name)
    if len(new_name) > MAX_FILE_NAME:
        digest = hashlib.sha256(name).hexdigest()
        new_name = f".imapshield-{kind}-{digest}".encode()
    return os.path.join(parent, new_name)


def open_file(path: bytes) -> BufferedReader:
    """Open a file that another program may have replaced by a symbolic link or a pipe: neither is followed."""
    return open(os.open(path, _READ), "rb")


def is_maildir(path: bytes) -> bool:
    """Whether there is a Maildir, or something else than an empty directory, at a path."""
    try:
        return bool(os.listdir(path))
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        return True


def stub_text(maildir: bytes) -> str:
    """Return what the stub at a path says; "" if there is none."""
    with suppress(OSError), open_file(os.path.join(maildir, MOVED_FILE)) as file:
        return file.read(1000).decode("utf-8", "replace")
    return ""


def copied_files(places: Places) -> Iterator[tuple[bytes, int]]:
    """Yield the path below the Maildir, and the size, of each file that a move copies, except the index.

    Messages never change. What is in other files, such as subscriptions, may change while the size does not, so a
    checksum is added to the size of these.

    Raises:
        MoveError: a folder is a symbolic link.
    """
    yield from _files_in(places.maildir, b"")
    if places.has_own_index:
        for name, size in _files_in(places.index_directory, b""):
            yield b"//" + name, size  # no file of the Maildir has this path


def _files_in(directory: bytes, below: bytes, levels: int = 3) -> Iterator[tuple[bytes, int]]:
    has_messages = os.path.basename(below[:-1]) in _DELIVERED
    with os.scandir(directory) as entries:
        for entry in entries:
            name = below + entry.name
            if entry.is_symlink():
                raise MoveError(
                    f"{os.fsdecode(entry.path)} is a symbolic link, which is not moved; replace it by what it names"
                )
            if entry.is_dir(follow_symlinks=False):
                if levels and entry.name != b"tmp":
                    yield from _files_in(entry.path, name + b"/", levels - 1)
            elif has_messages or not _is_left_out(entry.name):
                with suppress(FileNotFoundError):  # renamed since
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        checksum = 0 if has_messages else _checksum(entry.path)
                        yield name, status.st_size + checksum


def _checksum(path: bytes) -> int:
    """Return a checksum of a small file, above all sizes of files."""
    with open_file(path) as file:
        return zlib.crc32(file.read()) << SIZE_BITS


def _is_left_out(name: bytes) -> bool:
    return (
        name in NOT_COPIED
        or name in (INDEX_FILE, MANIFEST)
        or name.startswith(TEXT_INDEX)
        or name.endswith(b".tmp")
    )


def write_manifest(places: Places) -> str:
    """Write the manifest of a closed account, and return its digest."""
    index = _digest_of_file(os.path.join(places.index_directory, INDEX_FILE))
    lines = sorted(b"%d %b" % (size, path) for path, size in copied_files(places))
    content = b"\0".join([index.encode(), *lines])
    path = os.path.join(places.index_directory, MANIFEST)
    temporary = path + b".tmp"
    with suppress(FileNotFoundError):
        os.unlink(temporary)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(fd, "wb") as file:
        file.write(content)
    os.rename(temporary, path)
    return hashlib.sha256(content).hexdigest()


class Manifest(NamedTuple):
    """The files of an account when it was closed.

    Attributes:
        digest: of the whole manifest.
        index_digest: the digest of the index.
        files: the size of each file by path.
    """

    digest: str
    index_digest: str
    files: dict[bytes, int]

    @classmethod
    def read(cls, places: Places) -> "Manifest":
        """Read the manifest beside an index.

        Raises:
            OSError: there is none.
            MoveError: it is damaged.
        """
        with open_file(os.path.join(places.index_directory, MANIFEST)) as file:
            content = file.read()
        index, *lines = content.split(b"\0")
        sizes = {}
        for line in lines:
            size, _, path = line.partition(b" ")
            if not size.isdigit():
                text = "is damaged: a line has no size"
                raise MoveError(f"{os.fsdecode(places.index_directory + b'/' + MANIFEST)} {text}")
            sizes[path] = int(size)
        return cls(hashlib.sha256(content).hexdigest(), index.decode(), sizes)

    def difference(self, places: Places) -> str:
        """Return what a copy lacks; "" if it is complete. Mail that was delivered since does not count."""
        if _digest_of_file(os.path.join(places.index_directory, INDEX_FILE)) != self.index_digest:
            return "the index differs"
        found = dict(copied_files(places))
        for path, size in self.files.items():
            if path not in found:
                return f"{os.fsdecode(path)!r} is missing"
            if found[path] != size:
                return f"{os.fsdecode(path)!r} differs"
        return ""

    def late_mail(self, maildir: bytes) -> list[bytes]:
        """Return the paths, below a Maildir, of messages that were delivered after the account was closed."""
        known = {base(os.path.basename(path)) for path in self.files}
        return sorted(
            path for path in delivered_mail(maildir) if base(os.path.basename(path)) not in known
        )


def delivered_mail(maildir: bytes) -> Iterator[bytes]:
    """Yield the paths, below a Maildir, of all messages."""
    with os.scandir(maildir) as entries:
        folders = [
            entry.name
            for entry in entries
            if entry.name[:1] == b"." and entry.is_dir(follow_symlinks=False)
        ]
    for folder in (b"", *folders):
        for part in _DELIVERED:
            path = os.path.join(folder, part)
            with (
                suppress(FileNotFoundError, NotADirectoryError),
                os.scandir(os.path.join(maildir, path)) as found,
            ):
                for entry in found:
                    if is_file_name(entry.name) and entry.is_file(follow_symlinks=False):
                        yield os.path.join(path, entry.name)


def _digest_of_file(path: bytes) -> str:
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def exchange(one: bytes, other: bytes) -> bool:
    """Exchange the names of two directories in one step; return False if the system cannot do that."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    return renameat2 is not None and not renameat2(_AT_FDCWD, one, _AT_FDCWD, other, _EXCHANGE)


def sync_file_system(path: bytes) -> None:
    """Put everything on the file system of a path on stable storage: rsync does not wait for the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
        if syncfs is None:
            os.sync()
        elif syncfs(fd):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
    finally:
        os.close(fd)


def sync_tree(path: bytes, since: float, until: float = math.inf) -> bool:
    """Put all files and directories of a tree on stable storage that have changed since a time.

    Args:
        path: the tree.
        since: the time, as files have it.
        until: when to give up, by the monotonic clock.

    Returns:
        Whether all are.
    """
    for folder, _, names in os.walk(path):
        for each in (*(os.path.join(folder, name) for name in names), folder):
            status = os.lstat(each)
            is_kept = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
            if is_kept and status.st_ctime >= since:
                if time.monotonic() > until:
                    return False
                fd = os.open(each, _READ)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
    return True


def sync_directory(path: bytes) -> None:
    """Put the names in a directory on stable storage."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
