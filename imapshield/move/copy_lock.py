"""The lock of the copy on the target: no two commands use it, also when they run on two machines.

The first one would put the copy in place while rsync of the other still removes files in it. Where files cannot be
locked, each move has a copy of its own all the same, and the index on the source is closed for one of them.
"""

import fcntl
import os

from imapshield.move.places import MoveError

_held: list[int] = []


def hold_copy(directory: bytes) -> None:
    """Lock the directory of a copy until this process ends, if there is one. A process moves one user.

    Raises:
        MoveError: another process has locked it.
    """
    fd = _locked(directory)
    if fd is not None:
        while _held:
            os.close(_held.pop())
        _held.append(fd)


def check_free(directory: bytes) -> None:
    """Check that no other process has locked the directory of a copy.

    Raises:
        MoveError: one has.
    """
    fd = _locked(directory)
    if fd is not None:
        os.close(fd)


def _locked(directory: bytes) -> int | None:
    """Return a descriptor with the lock; None if there is no directory, or if this process has its lock already."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    if _held and os.path.sameopenfile(fd, _held[0]):
        os.close(fd)
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        text = "is in use by another command that moves this user here; wait for its end"
        raise MoveError(f"{os.fsdecode(directory)} {text}") from None
    except OSError:
        os.close(fd)  # a network file system cannot lock directories
        return None
    return fd
