"""Reads files without waiting for a disk, and tells local file systems from those of another host.

A file that is not in memory is read in a thread. Linux says so before it waits (``RWF_NOWAIT``); other systems do not,
and there every message file is read in a thread.
"""

import ctypes
import os
import resource
import time
from collections.abc import Iterable
from functools import cache
from threading import local
from typing import Any

from imapshield.mailbox.in_place import (
    OCTETS_IN_PLACE,
    WouldBlock,
    is_in_place,
    may_block,
    may_read,
)
from imapshield.maildir.in_place_rules import Waits

_LOCAL_TYPES = frozenset(
    {
        0xEF53,  # ext2, ext3, ext4
        0x58465342,  # XFS
        0x9123683E,  # btrfs
        0xF2F52010,  # F2FS
        0x2FC12FC1,  # ZFS
        0xCA451A4E,  # bcachefs
        0x3153464A,  # JFS
        0x52654973,  # ReiserFS
        0x01021994,  # tmpfs
        0x794C7630,  # overlayfs, whose upper directory is local
    }
)
"""Types of file systems (``statfs(2)``) whose answers come from memory, or from a disk of this host. A type that is not
known can be a network, or a program (FUSE)."""

_SIZED_TYPES = frozenset({0xEF53, 0x58465342, 0x9123683E})
"""Those whose directories have a size in bytes that grows with the names: ext4, XFS, btrfs. ZFS counts entries,
bcachefs reports nothing, and overlayfs leaves out the lower directory."""

MAX_DIRECTORY_SIZE = 4096
"""Bytes of the largest directory that is listed in place: that of an empty one on ext4, with room for tens of files."""

_PAGE_SIZE = 4096
"""Bytes of a page, or a divisor of them."""


class _Buffer(local):
    def __init__(self) -> None:
        self.view = memoryview(bytearray(OCTETS_IN_PLACE))


_buffer = _Buffer()

_THREAD: int = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)
_NOWAIT: int | None = getattr(os, "RWF_NOWAIT", None)
_STATFS_SIZE = 512
"""Bytes for ``struct statfs``: more than any system has. It begins with the type, which is a word."""


def waits_of_thread() -> Waits:
    """Return how often the calling thread has waited until now (``getrusage(2)``)."""
    used = resource.getrusage(_THREAD)
    return Waits(used.ru_inblock, used.ru_nvcsw, time.process_time())


def read_at(fd: int, size: int, offset: int) -> bytes:
    """Return at most `size` bytes from `offset`, like `os.pread`.

    Raises:
        WouldBlock: the call runs in place, and some of them are not in memory.
    """
    if not may_read(size):
        return os.pread(fd, size, offset)
    if _NOWAIT is None:
        raise WouldBlock
    # The buffer is used again and again. A new one would be filled with zeros first.
    buffer = _buffer.view[:size]
    try:
        count = os.preadv(fd, [buffer], offset, _NOWAIT)
        if count < size and count and (offset + count) % _PAGE_SIZE == 0:
            # The file ends here, or the next page is not in memory.
            os.preadv(fd, [bytearray(1)], offset + count, _NOWAIT)
    except OSError as error:  # EAGAIN; EOPNOTSUPP of some file systems; a damaged disk
        raise WouldBlock from error
    return bytes(buffer[:count])


class OneVolume:
    """Checks that the directories of a Maildir are on the file system of the Maildir, whose type is known.

    Attributes:
        has_others: whether one is on another file system, which may be on another host: a mount point.
    """

    def __init__(self, device: int = 0) -> None:
        self.has_others = False
        self._device = device

    def checked(self, status: os.stat_result) -> os.stat_result:
        """Return the status of a directory.

        Raises:
            WouldBlock: the call runs in place, and the directory is on another file system.
        """
        if status.st_dev != self._device:
            self.has_others = True
            may_block()
        return status


def may_list(directory: int) -> None:
    """Note that the following code reads the names in an open directory.

    Raises:
        WouldBlock: the call runs in place, and the directory is large, or was, or its size says nothing.
    """
    if not is_in_place():
        return
    is_small = os.fstat(directory).st_size <= MAX_DIRECTORY_SIZE
    if not is_small or _type_of(directory) not in _SIZED_TYPES:
        raise WouldBlock


def volumes(fds: Iterable[int]) -> frozenset[int]:
    """Return the numbers of the file systems of open files; none if one of them may be on another host."""
    numbers = set()
    for fd in fds:
        if _type_of(fd) not in _LOCAL_TYPES:
            return frozenset()
        numbers.add(os.fstat(fd).st_dev)
    return frozenset(numbers)


def _type_of(fd: int) -> int | None:
    """Return the type of the file system of an open file, None if it is not known."""
    status = ctypes.create_string_buffer(_STATFS_SIZE)
    libc = _libc()
    if libc is None or libc.fstatfs(fd, status) != 0:
        return None
    return ctypes.c_long.from_buffer(status).value & 0xFFFFFFFF


@cache
def _libc() -> Any:
    """Return the C library of Linux; None elsewhere, where ``struct statfs`` is another one."""
    if os.uname().sysname != "Linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    return libc if hasattr(libc, "fstatfs") else None
