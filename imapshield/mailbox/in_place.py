"""Short calls of a store that run in the reactor's thread, where they must not wait for anything.

To hand a call to a thread costs more than most calls take. So a call that is expected to be short runs in place. Where
it would have to wait, or where it would take long, the store raises `WouldBlock`. The call has changed nothing by then,
and is repeated in a thread (`maildir.worker`).
"""

import sys
from collections.abc import Callable
from threading import local
from typing import TypeVar

from imapshield.message.pauses import call_with_pauses, pause_point

T = TypeVar("T")

OCTETS_IN_PLACE = 256 << 10
"""Bytes of message files that one call reads in place: a third of a millisecond of work."""


class WouldBlock(BaseException):
    """A call in place cannot go on without waiting, or for long. It is repeated in a thread.

    This is no failure. So it is no `Exception`: code that handles the failure of a message must not take it for one.
    """


class _Thread(local):
    octets_left: int | None = None


_thread = _Thread()


def is_in_place() -> bool:
    """Return whether the calling code must not wait."""
    return _thread.octets_left is not None


def may_block() -> None:
    """Note that the following code writes, reads a directory, or may take long.

    Raises:
        WouldBlock: the call runs in place.
    """
    if _thread.octets_left is not None:
        raise WouldBlock


def may_read(octets: int) -> bool:
    """Note that the following code reads and processes so many bytes. Return whether it must not wait (`is_in_place`).

    Raises:
        WouldBlock: the call runs in place, and has read too much.
    """
    left = _thread.octets_left
    if left is None:
        return False
    _thread.octets_left = left = left - octets
    if left < 0:
        raise WouldBlock
    return True


def readable_octets() -> int:
    """Return how many bytes `may_read` permits: a call that returns a part of its result can stop before."""
    return sys.maxsize if _thread.octets_left is None else _thread.octets_left


def is_late() -> bool:
    """Return whether the call runs in place, and takes too long. SQLite asks (`Connection.set_progress_handler`)."""
    if _thread.octets_left is None:
        return False
    try:
        pause_point()
    except WouldBlock:
        return True
    return False


def call_in_place(function: Callable[[], T], pause: Callable[[], object]) -> T:
    """Call a function that must not wait.

    Args:
        function: the function.
        pause: called at each `message.pauses.pause_point`; it raises `WouldBlock` if the call takes too long.

    Raises:
        WouldBlock: it would have to wait.
    """
    _thread.octets_left = OCTETS_IN_PLACE
    try:
        return call_with_pauses(function, pause)
    finally:
        _thread.octets_left = None
