"""Linux inotify as a reader of the reactor: one descriptor that reports which of many directories have changed.

Twisted's own ``INotify`` closes itself when a watched directory is removed, so that the others must be added again; it
does not report an overflow of its queue (twisted #6722), and makes several objects for each directory.
"""

import ctypes
import os
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

READ_SIZE = 1 << 16
"""Bytes of events that are read in one reactor turn: at least 240 events."""

MAX_READS = 16
"""How often events are read at once, by who wants to know that there are no more."""

MAX_WATCHES_PER_USER = 4096
"""inotify watches of one user: IDLE needs two, and NOTIFY two for each mailbox. Each takes about a kilobyte of the
kernel's memory. The limit is lower where the system allows few watches (`watch_shares`)."""

_CREATE, _DELETE, _MOVED, _MODIFY = 0x100, 0x200, 0x40 | 0x80, 0x2
_ONLY_DIRECTORIES, _ADD_TO_MASK = 0x01000000, 0x20000000
_MASK = _CREATE | _DELETE | _MOVED | _ONLY_DIRECTORIES | _ADD_TO_MASK
_OVERFLOW, _IGNORED = 0x4000, 0x8000
_CLOSE_ON_EXEC, _NONBLOCKING = os.O_CLOEXEC, os.O_NONBLOCK
_event = struct.Struct("iIII")

_LOCAL_FILE_SYSTEMS = frozenset(
    (
        *(0xEF53, 0x58465342, 0x9123683E, 0x01021994),  # ext4, XFS, Btrfs, tmpfs
        *(0xF2F52010, 0x2FC12FC1, 0x794C7630, 0xCA451A4E),  # F2FS, ZFS, overlayfs, bcachefs
    )
)


def reports_all_changes(path: bytes) -> bool:
    """Return whether inotify reports every change in a directory: whether its file system is known to be local."""
    try:
        statfs = ctypes.CDLL(None).statfs
    except AttributeError:
        return False
    result = (ctypes.c_long * 64)()  # struct statfs, which begins with f_type
    return statfs(path, ctypes.byref(result)) == 0 and result[0] in _LOCAL_FILE_SYSTEMS


class WatchShares(NamedTuple):
    """The maximum of inotify watches: of all users together, and of one."""

    total: int
    per_user: int


def watch_shares() -> WatchShares:
    """Return half of what the system allows the server's user, because other programs may need watches, too."""
    try:
        with open("/proc/sys/fs/inotify/max_user_watches", encoding="ascii") as file:
            total = int(file.read()) // 2
    except (OSError, ValueError):
        total = 4096
    return WatchShares(total, min(MAX_WATCHES_PER_USER, total // 4))


class Inotify:
    """One inotify instance.

    Args:
        reactor: an `IReactorFDSet`.
        on_change: called with the path of each directory in which a file was created, removed or renamed, or that was
            removed itself.
        on_overflow: called if the kernel has dropped events.

    Raises:
        OSError: the system has no inotify, or ``fs.inotify.max_user_instances`` is reached.
        AttributeError: the reactor has no file descriptors, or the C library has no inotify.
    """

    def __init__(
        self, reactor: Any, on_change: Callable[[str], object], on_overflow: Callable[[], object]
    ) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        add_reader = reactor.addReader
        self._fd: int = self._libc.inotify_init1(_CLOSE_ON_EXEC | _NONBLOCKING)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self._reactor = reactor
        self._on_change = on_change
        self._on_overflow = on_overflow
        self._paths: dict[int, set[str]] = {}
        self._descriptors: dict[str, int] = {}
        add_reader(self)

    def __contains__(self, path: str) -> bool:
        return path in self._descriptors

    def __len__(self) -> int:
        return len(self._descriptors)

    def add(self, path: str, *, contents: bool = False) -> bool:
        """Watch a directory; return whether that is possible: it may not exist, or no watches are left.

        A path that is watched may have become that of another directory, which is then watched instead.

        Args:
            path: the directory.
            contents: whether to report changes of the content of its files, too.
        """
        mask = _MASK | _MODIFY if contents else _MASK
        descriptor = self._libc.inotify_add_watch(self._fd, os.fsencode(path), mask)
        if self._descriptors.get(path, descriptor) != descriptor:
            self.remove(path)
        if descriptor < 0:
            return False
        self._descriptors[path] = descriptor
        self._paths.setdefault(descriptor, set()).add(path)
        return True

    def remove(self, path: str) -> None:
        """Watch a directory no more. It is no error if it was removed from the disk."""
        descriptor = self._descriptors.pop(path, None)
        if descriptor is None:
            return
        paths = self._paths[descriptor]
        paths.discard(path)
        if not paths:  # two paths may lead to one directory, which has one descriptor
            del self._paths[descriptor]
            self._libc.inotify_rm_watch(self._fd, descriptor)

    def close(self) -> None:
        """End all watches."""
        if self._fd >= 0:
            self._reactor.removeReader(self)
            fd, self._fd = self._fd, -1
            os.close(fd)

    def fileno(self) -> int:
        return self._fd

    def logPrefix(self) -> str:
        return "inotify"

    def connectionLost(self, _reason: object) -> None:
        """The reactor stops."""
        self.close()

    def read_all(self) -> bool:
        """Read the events that there are now; return whether no more are left, as the kernel makes new ones."""
        return not all(self._read() for _ in range(MAX_READS))

    def doRead(self) -> None:
        """Read events, and report each directory once."""
        self._read()

    def _read(self) -> bool:
        """Read events once; return whether there were any."""
        try:
            data = os.read(self._fd, READ_SIZE)
        except BlockingIOError:
            return False
        changed: dict[str, None] = {}
        overflowed = False
        pos = 0
        while pos < len(data):
            descriptor, mask, _, size = _event.unpack_from(data, pos)
            pos += _event.size + size
            overflowed = overflowed or bool(mask & _OVERFLOW)
            changed.update(dict.fromkeys(self._paths.get(descriptor, ())))
            if mask & _IGNORED:  # the directory was removed, and its watch too
                for path in self._paths.pop(descriptor, ()):
                    del self._descriptors[path]
        for path in changed:
            self._on_change(path)
        if overflowed:
            self._on_overflow()
        return True
