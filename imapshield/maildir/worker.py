"""Runs the blocking calls of an account's store one after another, in a pool of threads that all accounts share."""

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

T = TypeVar("T")


class SerialWorker:
    """One account's queue of calls in front of a thread pool: they run in order, and never two at once.

    Args:
        pool: a started `twisted.python.threadpool.ThreadPool`; not the reactor's own, which resolves host names.
        reactor: an `IReactorFromThreads`.
    """

    def __init__(self, pool: Any, reactor: Any) -> None:
        self._pool = pool
        self._reactor = reactor
        self._queue: deque[tuple[Deferred[Any], Callable[..., Any], tuple[object, ...]]] = deque()
        self._is_busy = False

    def run(self, function: Callable[..., T], *args: object) -> Deferred[T]:
        """Run ``function(*args)`` in a thread after all calls that were queued before.

        If the caller cancels the Deferred, a call that has not started is dropped; one that runs is not stopped.
        """
        done: Deferred[Any] = Deferred(self._cancel)
        self._queue.append((done, function, args))
        if not self._is_busy:
            self._start_next()
        return done

    def _cancel(self, done: Deferred[Any]) -> None:
        self._queue = deque(call for call in self._queue if call[0] is not done)

    def _start_next(self) -> None:
        if not self._queue:
            return
        self._is_busy = True
        done, function, args = self._queue.popleft()
        deferToThreadPool(self._reactor, self._pool, function, *args).addBoth(self._finished, done)

    def _finished(self, result: Any, done: Deferred[Any]) -> None:
        # The next call starts before the callbacks run here, so that they overlap.
        self._is_busy = False
        self._start_next()
        if not done.called:
            done.callback(result)
