"""Files and directories of a Maildir: written durably, renamed, listed.

The functions raise OSError unless they say otherwise.

Rules
-----
* A message appears in ``cur/`` whole or not at all: it is written in ``tmp/``, synced, renamed, and the directory
  synced.
* No symbolic link to a message is followed: the owner of the Maildir could use one to read files that only the server
  may read.
"""

import errno
import os
import shutil
from collections.abc import Callable, Container, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial

from imapshield.errors import NoSpace, StoreError, StoreIOError
from imapshield.wire.commands.base import LiteralData

MAX_MESSAGE_SIZE = 256 << 20
"""Bytes of the largest message. For most FETCH items a message is read whole, which takes a few times its size in
memory: a sparse file of three gigabytes in ``cur/`` took eight."""

STALE_SECONDS = 36 * 3600
"""Age in seconds at which a file in ``tmp/`` is removed: 36 hours, after which the Maildir specification regards the
delivery as failed."""

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


def store_error(error: OSError, root: bytes, log_warning: Callable[[str], None]) -> StoreError:
    """Return the error that a session sends for `error`, after logging it with the path of the file.

    A full disk is not logged, because the client receives the error.

    Args:
        error: the error.
        root: the Maildir, which is logged if the error has no path.
        log_warning: called with one line for the operator.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace()
    warning = f"cannot read or write {os.fsdecode(error.filename or root)}: {error.strerror}"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        warning += "; check the owner and permissions of the file and its folder"
    log_warning(warning)
    return StoreIOError()


@contextmanager
def naming_errors(path: bytes) -> Iterator[None]:
    """Run a block that uses an open file; an OSError that has no path gets the file's."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or path
        raise


def make_folder(folder: bytes) -> None:
    """Create a Maildir folder, or the directories that it lacks. The caller syncs its parent."""
    for path in (folder, *(folder + b"/" + name for name in _DIRECTORY_NAMES)):
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)


class UndoSteps(list[Callable[[], object]]):
    """Steps that undo what a ``with`` block has done. If the block raises, all are called, last first.

    They are for files that were made or renamed: a transaction of the index does not undo that. COPY and STORE add a
    step for each message. To collect them in a list costs a fourth of collecting them in an `ExitStack`.
    """

    def __enter__(self) -> "UndoSteps":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            with ExitStack() as stack:
                for step in self:
                    stack.callback(step)


@contextmanager
def _opened(path: bytes, flags: int) -> Iterator[int]:
    with naming_errors(path):
        fd = os.open(path, flags, 0o600)
        try:
            yield fd
        finally:
            os.close(fd)


def sync_directory(path: bytes) -> None:
    """Put the creation, renaming and removal of files in a directory on stable storage."""
    with _opened(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) as fd:
        os.fsync(fd)


def message_names(path: bytes) -> frozenset[bytes]:
    """Return the names in a directory that may be messages: all that do not begin with a dot."""
    return frozenset([name for name in os.listdir(path) if name[:1] != b"."])


def write_message(path: bytes, content: LiteralData, mtime: int) -> None:
    """Write and sync a new file with the given `mtime`. If this raises, the file does not exist."""
    with UndoSteps() as undo, _opened(path, _WRITE) as fd:
        undo.append(partial(remove, path))
        offset = 0
        while offset < content.size:
            chunk = content.read(offset, min(_COPY_CHUNK, content.size - offset))
            if not chunk:
                raise OSError(errno.EIO, "the message ended early", path)
            _write_all(fd, chunk)
            offset += len(chunk)
        os.utime(fd, (mtime, mtime))
        os.fsync(fd)


def replace(path: bytes, content: bytes) -> None:
    """Write a small file whole and sync it. If this raises, the old file is unchanged."""
    temporary = b"%b.%d.tmp" % (path, os.getpid())
    with UndoSteps() as undo:
        with _opened(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC) as fd:
            undo.append(partial(remove, temporary))
            _write_all(fd, content)
            os.fsync(fd)
        os.replace(temporary, path)
    sync_directory(os.path.dirname(path))


def read_small(path: bytes, limit: int = 16 << 20) -> bytes:
    """Return at most `limit` bytes of a file, b"" if it does not exist."""
    try:
        with _opened(path, _READ) as fd:
            return read_range(fd, 0, limit)
    except FileNotFoundError:
        return b""


def open_message(path: bytes) -> int:
    """Return a descriptor to read a message from."""
    return os.open(path, _READ)


def read_message(fd: int) -> bytes:
    """Return the whole content of an open message, or its first `MAX_MESSAGE_SIZE` bytes."""
    return read_range(fd, 0, min(os.fstat(fd).st_size, MAX_MESSAGE_SIZE))


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
        with _opened(source, _READ) as fd:
            status = os.fstat(fd)
            write_message(target, _FileLiteral(fd, status.st_size), int(status.st_mtime))


def move(source: bytes, target: bytes) -> None:
    """Rename a message; copy and remove it if the target is on another file system. If this raises, `source` exists."""
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with UndoSteps() as undo:
            duplicate(source, target)
            undo.append(partial(remove, target))
            # A power failure must not undo the first step and keep the second one.
            sync_directory(os.path.dirname(target))
            os.unlink(source)


def remove(path: bytes) -> None:
    """Remove a file; do nothing if that fails."""
    with suppress(OSError):
        os.unlink(path)


def rename_back(path: bytes, original: bytes) -> None:
    """Undo a rename; do nothing if that fails.

    A failure usually means that another program has renamed the file since. The next sync accepts that name.
    """
    with suppress(OSError):
        move(path, original)


def remove_tree(path: bytes) -> None:
    """Remove a file, or as much of a folder as possible. Raises nothing.

    A symbolic link is removed, not what it points to.
    """
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        remove(path)


def remove_stale(folder: bytes, now: float, kept: Container[bytes]) -> None:
    """Remove from ``tmp/`` the files that a crash left there, except those with a name in `kept`. Raises nothing."""
    with suppress(OSError), os.scandir(folder + b"/tmp") as entries:
        for entry in list(entries):
            # The ctime: a hard link to an old message has that message's mtime.
            age = now - entry.stat(follow_symlinks=False).st_ctime
            if age > STALE_SECONDS and entry.name not in kept:
                remove_tree(entry.path)


def _write_all(fd: int, octets: bytes) -> None:
    view = memoryview(octets)
    while view:
        view = view[os.write(fd, view) :]


@dataclass(slots=True, eq=False)
class _FileLiteral:
    """An open file as the content of a new message. The caller closes the descriptor."""

    fd: int
    size: int
    binary: bool = False

    def read(self, offset: int, size: int) -> bytes:
        return read_range(self.fd, offset, size)

    def close(self) -> None: ...
