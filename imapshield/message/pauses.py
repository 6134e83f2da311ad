"""Pauses of computations that take long.

A thread that computes holds the interpreter lock. Any other thread waits for the lock whenever it has waited for
anything else, such as a file or a row of a database: for a command that the reactor and a short call of the store
answer together, this adds up to tens of milliseconds. So code that loops over the content of a message calls
`pause_point` about once in each half millisecond, where the thread that runs the code lets it wait (`maildir.worker`).
"""

from collections.abc import Callable
from threading import local
from typing import TypeVar

T = TypeVar("T")


class _Thread(local):
    pause: Callable[[], object] | None = None


_thread = _Thread()


def pause_point() -> None:
    """Let this thread pause if the code was called by `call_with_pauses`."""
    if _thread.pause is not None:
        _thread.pause()


def call_with_pauses(function: Callable[[], T], pause: Callable[[], object]) -> T:
    """Return ``function()``. In this thread, `pause_point` calls `pause` until then."""
    before, _thread.pause = _thread.pause, pause
    try:
        return function()
    finally:
        _thread.pause = before
