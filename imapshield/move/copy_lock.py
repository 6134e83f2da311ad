"""The lock of the copy on the target: no two commands use it, also when they run on two machines.

The first one would put the copy in place while rsync of the other still removes files in it.
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
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    if _held and os.path.sameopenfile(fd, _held[0]):
        os.close(fd)
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        text = "is in use by another command that moves this user here; wait for its end"
        raise MoveError(f"{os.fsdecode(directory)} {text}") from None
    except OSError:
        os.close(fd)  # a network file system cannot lock directories
        return
    while _held:
        os.close(_held.pop())
    _held.append(fd)
