"""Files and directories of a Maildir: written durably, renamed, listed.

The functions raise OSError unless they say otherwise.

Rules
-----
* A message appears in ``cur/`` whole or not at all: it is written in ``tmp/``, synced, renamed, and the directory
  synced.
* No symbolic link to a message is followed: the owner of the Maildir could use one to read files that only the server
  may read.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable

from imapshield.errors import NoSpace, StoreError, StoreIOError
from imapshield.wire.commands.base import LiteralData

MAX_MESSAGE_SIZE = 256 << 20
"""Bytes of the largest message. A message is read whole for most FETCH items, and then takes a few times its size of
memory: a sparse file of three gigabytes in ``cur/`` took eight."""

STALE_SECONDS = 36 * 3600
"""Age at which a file in ``tmp/`` is abandoned (the Maildir specification)."""

_DIRECTORY_NAMES = (b"cur", b"new", b"tmp")
_COPY_CHUNK = 1 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_NO_HARD_LINKS = (
    errno.EPERM,
    errno.EXDEV,
    errno.EMLINK,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
)


def store_error(error: OSError, log_warning: Callable[[str], None]) -> StoreError:
    """Return the error that a session sends for `error`, after logging which file it was.

    A full disk is not logged: the client's user learns of it.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace()
    name = error.filename
    path = os.fsdecode(name) if isinstance(name, bytes) else name
    log_warning(
        f"cannot read or write {path}: {error.strerror}; check the owner and permissions of the file and its folder, "
        "and the disk"
    )
    return StoreIOError()


def make_folder(folder: bytes) -> None:
    """Create a Maildir folder, or the directories that it lacks. The caller syncs its parent."""
    for path in (folder, *(folder + b"/" + name for name in _DIRECTORY_NAMES)):
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)


def sync_directory(path: bytes) -> None:
    """Put the creation, renaming and removal of files in a directory on stable storage."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def message_names(path: bytes) -> frozenset[bytes]:
    """Return the names in a directory that may be messages: all that do not begin with a dot."""
    return frozenset([name for name in os.listdir(path) if name[:1] != b"."])


def write_message(path: bytes, content: LiteralData, mtime: int) -> None:
    """Write and sync a new file with the given `mtime`. If this raises, the file does not exist."""
    fd = os.open(path, _WRITE, 0o600)
    try:
        try:
            offset = 0
            while offset < content.size:
                chunk = content.read(offset, min(_COPY_CHUNK, content.size - offset))
                if not chunk:
                    raise OSError(errno.EIO, "the message ended early", path)
                _write_all(fd, chunk)
                offset += len(chunk)
            os.utime(fd, (mtime, mtime))
            os.fsync(fd)
        finally:
            os.close(fd)
    except BaseException:
        remove(path)
        raise


def replace(path: bytes, content: bytes) -> None:
    """Write a small file whole and sync it. If this raises, the old file is unchanged."""
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
    """Return at most `limit` bytes of a file, b"" if it does not exist."""
    try:
        fd = os.open(path, _READ)
    except FileNotFoundError:
        return b""
    try:
        return read_range(fd, 0, limit)
    finally:
        os.close(fd)


def open_message(path: bytes) -> int:
    """Return a descriptor to read a message from."""
    return os.open(path, _READ)


def read_range(fd: int, offset: int, size: int) -> bytes:
    """Return `size` bytes from `offset`, fewer only at the end of the file."""
    first = os.pread(fd, size, offset)
    if len(first) == size or not first:
        return first
    chunks = [first]
    total = len(first)
    while total < size:
        chunk = os.pread(fd, size - total, offset + total)
        if not chunk:
            break
        chunks.append(chunk)
        total += len(chunk)
    return b"".join(chunks)


def duplicate(source: bytes, target: bytes) -> None:
    """Give a message a second name, or make a second file where the file system has no hard links."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        _copy(source, target)


def _copy(source: bytes, target: bytes) -> None:
    fd = open_message(source)
    try:
        status = os.fstat(fd)
        write_message(target, _FileLiteral(fd, status.st_size), int(status.st_mtime))
    finally:
        os.close(fd)


def remove(path: bytes) -> None:
    """Remove a file; do nothing if that fails."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def rename_back(path: bytes, original: bytes) -> None:
    """Undo a rename; do nothing if that fails.

    A failure usually means that another program renamed the file meanwhile, and then its new name is as good.
    """
    with contextlib.suppress(OSError):
        os.rename(path, original)


def remove_tree(path: bytes) -> None:
    """Remove as much of a folder as possible. A symbolic link is removed, not what it points to. Raises nothing."""
    if os.path.islink(path):
        remove(path)
        return
    try:
        with os.scandir(path) as entries:
            children = [(entry.path, entry.is_dir(follow_symlinks=False)) for entry in entries]
    except OSError:
        return
    for child, is_directory in children:
        if is_directory:
            remove_tree(child)
        else:
            remove(child)
    with contextlib.suppress(OSError):
        os.rmdir(path)


def remove_stale(folder: bytes, now: float) -> None:
    """Remove from ``tmp/`` the files that a crash left there. Raises nothing."""
    try:
        with os.scandir(folder + b"/tmp") as entries:
            # The ctime: a hard link to an old message has that message's mtime.
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


class _FileLiteral:
    """An open file as the content of a new message. The caller closes the descriptor."""

    binary = False

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        self.size = size

    def read(self, offset: int, size: int) -> bytes:
        return read_range(self.fd, offset, size)

    def close(self) -> None: ...
