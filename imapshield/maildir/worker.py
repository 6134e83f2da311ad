"""Where blocking calls run: one account's jobs one after another, in a pool of threads that all accounts share."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

T = TypeVar("T")


class SerialWorker:
    """One account's queue in front of a thread pool: never two of its jobs at once, and always in order.

    Args:
        pool: a started `twisted.python.threadpool.ThreadPool`, not the reactor's own, which resolves names.
        reactor: an `IReactorFromThreads`.
    """

    def __init__(self, pool: Any, reactor: Any) -> None:
        self._pool = pool
        self._reactor = reactor
        self._waiting: deque[tuple[Deferred[Any], Callable[..., Any], tuple[object, ...]]] = deque()
        self._busy = False

    def run(self, fn: Callable[..., T], *args: object) -> Deferred[T]:
        """Run ``fn(*args)`` in a thread after all that was handed over before.

        Cancelling is the caller's loss of interest: a job that waits is dropped, one that runs is not stopped.
        """
        done: Deferred[Any] = Deferred(self._cancelled)
        self._waiting.append((done, fn, args))
        if not self._busy:
            self._next()
        return done

    def _cancelled(self, done: Deferred[Any]) -> None:
        self._waiting = deque(job for job in self._waiting if job[0] is not done)

    def _next(self) -> None:
        if not self._waiting:
            return
        self._busy = True
        done, fn, args = self._waiting.popleft()
        deferToThreadPool(self._reactor, self._pool, fn, *args).addBoth(self._ran, done)

    def _ran(self, result: Any, done: Deferred[Any]) -> None:
        # The next job starts first: what the callbacks do here then overlaps with it.
        self._busy = False
        self._next()
        if not done.called:
            done.callback(result)
