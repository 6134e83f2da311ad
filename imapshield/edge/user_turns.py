"""`UserTurns`: lets few commands of one user compute at the same time, because of the memory that they need."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakValueDictionary

from twisted.internet.defer import DeferredSemaphore

TURNS_PER_USER = 2
"""SORT and THREAD commands of one user that compute at the same time; others wait.

One of them holds some hundred bytes for each message until its result is known: 290 connections that each sorted 3,000
messages took 350 MB. With two, a small mailbox need not wait for a large one.
"""


class UserTurns:
    """The turns of all users of a server."""

    def __init__(self) -> None:
        # A command that computes or waits keeps the semaphore of its user.
        self._semaphores: WeakValueDictionary[str, DeferredSemaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(
        self, user: str, call_later: Callable[[float, Callable[[], object]], Any]
    ) -> AsyncIterator[None]:
        """Wait for a turn of `user`, which lasts as long as the block.

        Args:
            user: the name of the user.
            call_later: the reactor's `callLater`.
        """
        semaphore = self._semaphores.get(user)
        if semaphore is None:
            semaphore = self._semaphores[user] = DeferredSemaphore(TURNS_PER_USER)
        await semaphore.acquire()
        try:
            yield
        finally:
            # Not at once: hundreds of waiting commands whose connections have ended would recurse.
            call_later(0, semaphore.release)
