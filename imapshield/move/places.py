"""Where a move puts directories on a node, and what it does with whole directories.

Everything is beside the Maildir of the user, in the same file system, so that a rename is one step:

``.imapshield-incoming-MOVE-NAME``
    The copy on the target, until it is accepted. No two moves share one, also where files cannot be locked.
``.imapshield-found-MOVE-NAME``
    On the target: a Maildir of the user that was made while the move ended. Its messages are delivered.
``.imapshield-late-MOVE-NAME``
    On the target: mail that was delivered to the source after the account was closed.
``.imapshield-moved-MOVE-NAME``
    The old copy on the source, after the move.
``.imapshield-stub-NAME``
    A Maildir without mail that takes the place of the old copy, or took it before the user came back.

With ``--index-root``, the index of the user has the same names beside it.
"""

import ctypes
import errno
import hashlib
import math
import os
import stat
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from io import BufferedReader
from typing import NamedTuple

from imapshield.errors import StoreError
from imapshield.maildir.account_state import MOVED_FILE
from imapshield.maildir.paths import MAX_FILE_NAME

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_AT_FDCWD = -100
_EXCHANGE = 2  # RENAME_EXCHANGE of linux/fs.h

_RESERVE = b"imapshield.reserve.tmp"  # no move copies it, and rsync leaves it where it is

RESERVE_BYTES = 4 << 20
"""Bytes that a copy keeps free: more than the index and the directories need when it becomes the mail of the user."""

MOVE_LETTERS = 16
"""Letters and digits that identify a move."""

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

    def moves(self, kind: str) -> list[str]:
        """Return the moves that have directories of a kind, such as ``incoming``, beside the Maildir."""
        any_move = "*" * MOVE_LETTERS
        parent, name = os.path.split(self.beside(f"{kind}-{any_move}").maildir)
        before, after = os.fsdecode(name).split(any_move, 1)
        with suppress(FileNotFoundError):
            names = sorted(map(os.fsdecode, os.listdir(parent)))
            found = [(each, each.removeprefix(before).removesuffix(after)) for each in names]
            return [
                move for each, move in found if each == before + move + after and move.isalnum()
            ]
        return []


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


def exchange(one: bytes, other: bytes) -> bool:
    """Exchange the names of two directories in one step; return False if the system cannot do that."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    return renameat2 is not None and not renameat2(_AT_FDCWD, one, _AT_FDCWD, other, _EXCHANGE)


def reserve_space(directory: bytes) -> None:
    """Let a directory have `RESERVE_BYTES` of its disk, until `free_reserve`, so that the disk cannot be full then.

    Raises:
        OSError: the disk, or a quota of this user, has not so much.
    """
    free_reserve(directory)  # a move that was killed may have made the file only
    path = os.path.join(directory, _RESERVE)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o600)
    except FileExistsError:
        return
    try:
        os.posix_fallocate(fd, 0, RESERVE_BYTES)
    except OSError as error:
        os.unlink(path)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(fd)


def free_reserve(directory: bytes) -> None:
    """Give the space of `reserve_space` back, for what is written next."""
    with suppress(OSError):  # the owner may have made a directory with this name
        os.unlink(os.path.join(directory, _RESERVE))


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
