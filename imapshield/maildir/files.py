"""Files and directories of a Maildir: written durably, renamed, listed. Raises OSError; `translate` says what it means.

Rules
-----
* A message appears in ``cur/`` whole or not at all: written in ``tmp/``, synced, renamed, and the directory synced.
* No symbolic link is followed to a message: its owner might read with it what only the server may.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable

from imapshield.errors import NoSpace, StoreError, StoreIOError
from imapshield.wire.commands.base import LiteralData

PARTS = (b"cur", b"new", b"tmp")
PIECE = 1 << 20
STALE_SECONDS = 36 * 3600
"""After this long a file in ``tmp/`` belongs to nobody (the Maildir specification)."""

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def translate(error: OSError, note: Callable[[str], None]) -> StoreError:
    """Return what a session should be told of `error`; the operator is told which file."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace()
    name = error.filename
    shown = os.fsdecode(name) if isinstance(name, bytes) else name
    note(f"{shown}: {error.strerror}")
    return StoreIOError()


def make(folder: bytes) -> None:
    """Make a Maildir folder, or what it lacks. The caller syncs its parent."""
    for path in (folder, *(folder + b"/" + part for part in PARTS)):
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)


def sync_directory(path: bytes) -> None:
    """Put names that were made or removed in a directory on stable storage."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def names(path: bytes) -> frozenset[bytes]:
    """Return the file names of a directory that may be messages."""
    return frozenset([name for name in os.listdir(path) if name[:1] != b"."])


def write_message(path: bytes, content: LiteralData, mtime: int) -> None:
    """Write and sync a new file with `mtime`; on failure there is none."""
    fd = os.open(path, _WRITE, 0o600)
    try:
        try:
            offset = 0
            while offset < content.size:
                piece = content.read(offset, min(PIECE, content.size - offset))
                if not piece:
                    raise OSError(errno.EIO, "the message ended early", path)
                _write_all(fd, piece)
                offset += len(piece)
            os.utime(fd, (mtime, mtime))
            os.fsync(fd)
        finally:
            os.close(fd)
    except BaseException:
        remove(path)
        raise


def replace(path: bytes, content: bytes) -> None:
    """Write a small file whole, or leave the old one."""
    temporary = b"%b.%d.tmp" % (path, os.getpid())
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        try:
            _write_all(fd, content)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except BaseException:
        remove(temporary)
        raise
    sync_directory(os.path.dirname(path))


def read_small(path: bytes, limit: int = 16 << 20) -> bytes:
    """Return a small file's content, b"" if there is none."""
    try:
        fd = os.open(path, _READ)
    except FileNotFoundError:
        return b""
    try:
        return read_range(fd, 0, limit)
    finally:
        os.close(fd)


LARGEST = 256 << 20
"""The largest message. One is read whole for most that is asked of it, and takes a few times its size of memory: a file
of three gigabytes in ``cur/``, a hole with nothing in it, took eight."""


def open_message(path: bytes) -> int:
    """Return a descriptor to read a message from."""
    return os.open(path, _READ)


def read_range(fd: int, offset: int, size: int) -> bytes:
    """Return `size` octets from `offset`, fewer only at the end of the file."""
    first = os.pread(fd, size, offset)
    if len(first) == size or not first:
        return first
    pieces = [first]
    got = len(first)
    while got < size:
        piece = os.pread(fd, size - got, offset + got)
        if not piece:
            break
        pieces.append(piece)
        got += len(piece)
    return b"".join(pieces)


def duplicate(source: bytes, target: bytes) -> None:
    """Give a message a second name; where the file system has no hard links, a second file."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (
            errno.EPERM,
            errno.EXDEV,
            errno.EMLINK,
            errno.ENOTSUP,
            errno.EOPNOTSUPP,
            errno.ENOSYS,
        ):
            raise
        _copy(source, target)


def _copy(source: bytes, target: bytes) -> None:
    fd = open_message(source)
    try:
        status = os.fstat(fd)
        write_message(target, _FileOctets(fd, status.st_size), int(status.st_mtime))
    finally:
        os.close(fd)


def remove(path: bytes) -> None:
    """Remove a file, if it can be."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def remove_tree(path: bytes) -> None:
    """Remove what can be removed of a folder. What a symbolic link leads to is not ours to remove."""
    if os.path.islink(path):
        remove(path)
        return
    try:
        with os.scandir(path) as entries:
            inside = [(entry.path, entry.is_dir(follow_symlinks=False)) for entry in entries]
    except OSError:
        return
    for child, is_directory in inside:
        if is_directory:
            remove_tree(child)
        else:
            remove(child)
    with contextlib.suppress(OSError):
        os.rmdir(path)


def sweep(folder: bytes, now: float) -> None:
    """Remove from ``tmp/`` what a crash left there."""
    try:
        with os.scandir(folder + b"/tmp") as entries:
            # ctime, as a second name of an old message has that message's mtime
            stale = [
                e for e in entries if now - e.stat(follow_symlinks=False).st_ctime > STALE_SECONDS
            ]
    except OSError:
        return
    for entry in stale:
        if entry.is_dir(follow_symlinks=False):
            remove_tree(entry.path)
        else:
            remove(entry.path)


def _write_all(fd: int, octets: bytes) -> None:
    view = memoryview(octets)
    while view:
        view = view[os.write(fd, view) :]


class _FileOctets:
    """A file as content to store."""

    binary = False

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        self.size = size

    def read(self, offset: int, size: int) -> bytes:
        return read_range(self.fd, offset, size)

    def close(self) -> None:
        """The one who opened it closes it."""
