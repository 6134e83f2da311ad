"""Files and directories of a Maildir: written durably, renamed, listed.

The functions raise OSError unless they say otherwise.

Rules
-----
* A file is named by an `Entry`: an open directory and a name in it. No path is resolved again after the directory was
  opened (`open_folders`), and no symbolic link is followed. The owner of the Maildir could otherwise use one to reach
  files that only the server may read or write.
* A message appears in ``cur/`` whole or not at all: it is written and synced in ``tmp/``, that directory is synced, and
  the file is renamed.
* New files and directories get the owner, group and mode of the Maildir they are in (`Ownership`).
"""

import errno
import os
import secrets
import stat
import sys
from collections.abc import Callable, Container, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial

from imapshield.errors import StoreLimitExceeded
from imapshield.maildir.entry import Entry, Ownership, named
from imapshield.maildir.filename import base
from imapshield.maildir.handover import wait_for_disk
from imapshield.maildir.local_disk import may_list, read_at
from imapshield.wire.commands.base import LiteralData

MAX_MESSAGE_SIZE = 256 << 20
"""Bytes of the largest message. For most FETCH items a message is read whole, which takes a few times its size in
memory: a sparse file of three gigabytes in ``cur/`` took eight."""

STALE_SECONDS = 36 * 3600
"""Age in seconds at which a file in ``tmp/`` is removed: 36 hours, after which the Maildir specification regards the
delivery as failed."""

MAX_TREE_LEVELS = 10_000
"""Levels of a folder that is removed. A Maildir has three. Without a limit, an owner who goes on making directories
could occupy a thread of the server."""

_ENCODING = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
_COPY_CHUNK = 1 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NO_HARD_LINKS = (errno.EPERM, errno.EXDEV, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


class UndoSteps(list[Callable[[], object]]):
    """Steps that undo what a ``with`` block has done. If the block raises, all are called, last first.

    They are for files that were made or renamed: a transaction of the index does not undo that. COPY and STORE add a
    step for each message. To collect them in a list costs a fourth of collecting them in an `ExitStack`.
    """

    def __enter__(self) -> "UndoSteps":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.undo()

    def undo(self) -> None:
        """Call all steps, and forget them."""
        with ExitStack() as stack:
            for step in self:
                stack.callback(step)
            self.clear()


@contextmanager
def _opened(entry: Entry, flags: int) -> Iterator[int]:
    try:
        fd = os.open(entry.name, flags, 0o600, dir_fd=entry.directory)
        try:
            yield fd
        finally:
            os.close(fd)
    except FileNotFoundError:  # often expected, and never logged
        raise
    except OSError as error:
        raise named(error, entry) from None


@contextmanager
def at(path: bytes) -> Iterator[Entry]:
    """Yield the entry of a path. It is for commands of an operator, which run with the rights of the Maildir's
    owner."""
    fd = os.open(os.path.dirname(path), _DIRECTORY)
    try:
        yield Entry(fd, os.path.basename(path))
    finally:
        os.close(fd)


def open_directory(entry: Entry, *, follow: bool = False) -> int:
    """Return a descriptor of a directory; `follow` permits a symbolic link."""
    flags = _DIRECTORY if follow else _DIRECTORY | os.O_NOFOLLOW
    return os.open(entry.name, flags, dir_fd=entry.directory)


def make_directory(entry: Entry, owner: Ownership) -> None:
    """Create a directory. If this raises, it does not exist. The caller syncs the parent."""
    try:
        os.mkdir(entry.name, 0o700, dir_fd=entry.directory)
    except OSError as error:
        raise named(error, entry) from None
    with UndoSteps() as undo:
        undo.append(partial(remove_tree, entry))
        with _opened(entry, _DIRECTORY | os.O_NOFOLLOW) as fd:
            owner.give(fd, owner.mode)


def message_names(directory: int) -> frozenset[bytes]:
    """Return the names in an open directory that may be messages: all that do not begin with a dot."""
    return frozenset([name for name in names(directory) if name[:1] != b"."])


def names(directory: int) -> list[bytes]:
    """Return the names in an open directory."""
    may_list(directory)
    # btrfs shows a file that was renamed since the last listing only after the descriptor was rewound.
    os.lseek(directory, 0, os.SEEK_SET)
    return [name.encode(*_ENCODING) for name in os.listdir(directory)]  # as `os.fsencode` does


def names_in(entry: Entry) -> list[bytes]:
    """Return the names in a directory."""
    with _opened(entry, _DIRECTORY | os.O_NOFOLLOW) as fd:
        return names(fd)


def write_message(entry: Entry, content: LiteralData, mtime: int, owner: Ownership) -> None:
    """Write and sync a new file with the given `mtime`. If this raises, the file does not exist."""
    with UndoSteps() as undo, _opened(entry, _WRITE) as fd:
        undo.append(partial(remove, entry))
        offset = 0
        while offset < content.size:
            chunk = content.read(offset, min(_COPY_CHUNK, content.size - offset))
            if not chunk:
                raise OSError(errno.EIO, "the message ended early", entry.name)
            write_all(fd, chunk)
            offset += len(chunk)
        owner.give(fd, owner.mode & 0o666)
        os.utime(fd, (mtime, mtime))
        wait_for_disk(os.fsync, fd)


def create_empty(entry: Entry, owner: Ownership) -> None:
    """Create an empty file."""
    with _opened(entry, _WRITE) as fd:
        owner.give(fd, owner.mode & 0o666)


def create(entry: Entry) -> int:
    """Create a file and return its descriptor.

    Raises:
        FileExistsError: there is something of this name, also if it is a symbolic link to nothing.
    """
    return os.open(entry.name, _WRITE, 0o600, dir_fd=entry.directory)


def replace(entry: Entry, content: bytes, owner: Ownership, *, durable: bool = True) -> None:
    """Write a small file whole. If this raises, the old file is unchanged.

    Args:
        entry: the file.
        content: its new content.
        owner: its ownership.
        durable: whether to wait until the file and its name are on stable storage.
    """
    # The name cannot be guessed, so the owner of the Maildir cannot put a file or a link there first.
    temporary = Entry(entry.directory, b"%b.%b.tmp" % (entry.name, secrets.token_hex(8).encode()))
    with UndoSteps() as undo:
        with _opened(temporary, _WRITE) as fd:
            undo.append(partial(remove, temporary))
            write_all(fd, content)
            owner.give(fd, owner.mode & 0o666)
            if durable:
                os.fsync(fd)
        rename(temporary, entry)
    if not durable:
        return
    try:
        os.fsync(entry.directory)
    except OSError as error:
        raise named(error, entry) from None


def read_small(entry: Entry, limit: int = 16 << 20) -> bytes:
    """Return at most `limit` bytes of a file, b"" if it does not exist or is not a regular file."""
    try:
        with _opened(entry, _READ) as fd:
            return read_range(fd, 0, limit) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    except FileNotFoundError:
        return b""
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a symbolic link, or a socket
            return b""
        raise


def open_message(entry: Entry) -> int:
    """Return a descriptor to read a message from."""
    try:
        return os.open(entry.name, _READ, dir_fd=entry.directory)
    except OSError as error:
        raise named(error, entry) from None


def read_message(fd: int) -> bytes:
    """Return the whole content of an open message, or its first `MAX_MESSAGE_SIZE` bytes."""
    return read_range(fd, 0, min(os.fstat(fd).st_size, MAX_MESSAGE_SIZE))


def read_range(fd: int, offset: int, size: int) -> bytes:
    """Return `size` bytes from `offset`, fewer only at the end of the file."""
    first = read_at(fd, size, offset)
    if len(first) == size or not first:
        return first
    chunks = [first]
    total = len(first)
    while total < size:
        chunk = read_at(fd, size - total, offset + total)
        if not chunk:
            break
        chunks.append(chunk)
        total += len(chunk)
    return b"".join(chunks)


def status(entry: Entry) -> os.stat_result:
    """Return the status of a file, or of a symbolic link itself."""
    return os.stat(entry.name, dir_fd=entry.directory, follow_symlinks=False)


def rename(source: Entry, target: Entry) -> None:
    """Rename a file or directory; a file that has the target's name is replaced."""
    try:
        os.rename(
            source.name, target.name, src_dir_fd=source.directory, dst_dir_fd=target.directory
        )
    except OSError as error:
        raise named(error, source) from None


def duplicate(source: Entry, target: Entry, owner: Ownership) -> None:
    """Give a message a second name, or make a second file where the file system has no hard links.

    Raises:
        StoreLimitExceeded: the message has as many names as the file system permits, 65,000 on ext4. To make a second
            file then would let an account fill the disk with short commands.
        OSError: with ELOOP if the source is a symbolic link.
    """
    if not stat.S_ISREG(status(source).st_mode):
        raise named(OSError(errno.ELOOP, "not a regular file"), source)
    try:
        os.link(
            source.name,
            target.name,
            src_dir_fd=source.directory,
            dst_dir_fd=target.directory,
            follow_symlinks=False,
        )
    except OSError as error:
        if error.errno == errno.EMLINK:
            text = "A message has too many copies; remove some of them, and empty the trash"
            raise StoreLimitExceeded(text) from None
        if error.errno not in _NO_HARD_LINKS:
            raise named(error, source) from None
        with _opened(source, _READ) as fd:
            source_status = os.fstat(fd)
            content = _FileLiteral(fd, source_status.st_size)
            write_message(target, content, int(source_status.st_mtime), owner)


def unlink(entry: Entry) -> None:
    """Remove a file."""
    try:
        os.unlink(entry.name, dir_fd=entry.directory)
    except OSError as error:
        raise named(error, entry) from None


def remove(entry: Entry) -> None:
    """Remove a file; do nothing if that fails."""
    with suppress(OSError):
        unlink(entry)


def rename_back(entry: Entry, original: Entry) -> None:
    """Undo a rename; do nothing if that fails.

    A failure usually means that another program has renamed the file since. The next sync accepts that name.
    """
    with suppress(OSError):
        rename(entry, original)


def remove_tree(entry: Entry) -> None:
    """Remove a file, or as much of a folder as possible. Raises nothing.

    A symbolic link is removed, not what it points to. A folder of any depth takes two descriptors and no recursion,
    because directories inside directories are first moved up.
    """
    with suppress(OSError):
        if not stat.S_ISDIR(status(entry).st_mode):
            unlink(entry)
            return
        with _opened(entry, _DIRECTORY | os.O_NOFOLLOW) as top:
            before: set[bytes] = set()
            for _ in range(MAX_TREE_LEVELS):
                found = set(names(top))
                if found == before:  # it is empty, or nothing more can be removed
                    break
                before = found
                for name in found:
                    _remove_level(Entry(top, name), top)
        os.rmdir(entry.name, dir_fd=entry.directory)


def remove_empty(entry: Entry, file: bytes) -> bool:
    """Remove a directory that contains at most empty directories and a file `file`; return whether that worked."""
    fd = open_directory(entry)
    try:
        for name in names(fd):
            if name == file:
                unlink(Entry(fd, name))
            else:
                os.rmdir(name, dir_fd=fd)
        os.rmdir(entry.name, dir_fd=entry.directory)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            return False
        raise named(error, entry) from None
    finally:
        os.close(fd)
    return True


def _remove_level(entry: Entry, top: int) -> None:
    """Remove a file, or a directory whose subdirectories are moved into the directory `top`. Raises nothing."""
    with suppress(OSError):
        try:
            unlink(entry)
            return
        except (IsADirectoryError, PermissionError):
            pass
        with _opened(entry, _DIRECTORY | os.O_NOFOLLOW) as fd:
            for name in names(fd):
                with suppress(OSError):
                    try:
                        unlink(Entry(fd, name))
                    except (IsADirectoryError, PermissionError):
                        rename(Entry(fd, name), Entry(top, secrets.token_hex(8).encode()))
        os.rmdir(entry.name, dir_fd=entry.directory)


def remove_stale(tmp: int, now: float, kept: Container[bytes]) -> None:
    """Remove from an open ``tmp/`` the files that a crash left there, except those with a base name in `kept`.

    Raises nothing.
    """
    with suppress(OSError):
        for name in names(tmp):
            entry = Entry(tmp, name)
            with suppress(FileNotFoundError):
                # The ctime: a hard link to an old message has that message's mtime.
                if now - status(entry).st_ctime > STALE_SECONDS and base(name) not in kept:
                    remove_tree(entry)


def write_all(fd: int, octets: bytes) -> None:
    """Write all of `octets`."""
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
