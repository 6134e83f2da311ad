"""Linux inotify as a reader of the reactor: one descriptor that reports which of many directories have changed.

Twisted's own ``INotify`` closes itself when a watched directory is removed, so that the others must be added again; it
does not report an overflow of its queue (twisted #6722), and makes several objects for each directory.
"""

import ctypes
import os
import struct
from collections.abc import Callable
from typing import Any

READ_SIZE = 1 << 16
"""Bytes of events that are read in one reactor turn: at least 240 events."""

_CREATE, _DELETE, _MOVED = 0x100, 0x200, 0x40 | 0x80
_ONLY_DIRECTORIES = 0x01000000
_MASK = _CREATE | _DELETE | _MOVED | _ONLY_DIRECTORIES
_OVERFLOW, _IGNORED = 0x4000, 0x8000
_CLOSE_ON_EXEC, _NONBLOCKING = os.O_CLOEXEC, os.O_NONBLOCK
_event = struct.Struct("iIII")


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

    def add(self, path: str) -> bool:
        """Watch a directory; return whether that is possible: it may not exist, or no watches are left."""
        descriptor = self._libc.inotify_add_watch(self._fd, os.fsencode(path), _MASK)
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

    def doRead(self) -> None:
        """Read events, and report each directory once."""
        try:
            data = os.read(self._fd, READ_SIZE)
        except BlockingIOError:
            return
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
