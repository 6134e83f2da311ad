"""Runs coroutines that pause, without a reactor, and counts their pauses."""

from collections.abc import Coroutine, Iterator
from types import coroutine
from typing import TypeVar

T = TypeVar("T")


def run(work: Coroutine[None, None, T], min_pauses: int = 0) -> T:
    """Return the result of `work`, which awaits `pause` at least `min_pauses` times."""
    pauses = 0
    while True:
        try:
            work.send(None)
        except StopIteration as stopped:
            assert pauses >= min_pauses, pauses
            result: T = stopped.value
            return result
        pauses += 1


@coroutine
def pause() -> Iterator[None]:
    """Suspend the coroutine, so that `run` counts one pause."""
    yield
