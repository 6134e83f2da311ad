"""`CheckerThreads`: runs the blocking work of a checker in a few threads, with a bounded queue."""

from collections.abc import Callable
from functools import partial
from threading import Thread
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from imapshield.cred.unavailable import TooManyLogins

CLOSE_SECONDS = 5.0
"""Seconds that a server which stops waits for calls that run. PAM and LDAP may take longer, or never end."""


class _DaemonPool(ThreadPool):
    """Threads that do not keep the process from ending."""

    threadFactory = staticmethod(partial(Thread, daemon=True))  # type: ignore[assignment]


class CheckerThreads:
    """Threads that start when they are needed, and end with the reactor.

    Args:
        reactor: an `IReactorThreads` and `IReactorTime`; a trigger that stops the threads is added.
        name: the name of the threads, for debuggers.
        threads: how many there are.
        max_pending: the maximum number of running and waiting calls.
        pool: an object with the methods of `ThreadPool`, for tests.

    Attributes:
        closed: whether `close` was called.
    """

    def __init__(
        self, reactor: Any, name: str, threads: int, max_pending: int, pool: ThreadPool | None
    ) -> None:
        self._reactor, self._max_pending = reactor, max_pending
        self._pool = pool or _DaemonPool(0, threads, name)
        self._pending = 0
        self._started = self.closed = False
        self._trigger: Any = None  # ends them with the reactor
        self._closing: Deferred[None] | None = None  # while calls run after `close`

    @property
    def has_room(self) -> bool:
        """Whether `run` accepts another call."""
        return not self.closed and self._pending < self._max_pending

    def run(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Call a function in a thread; fires with its result, or fails with `TooManyLogins`.

        A call whose Deferred is cancelled counts until it has ended, because its thread is not free before.
        """
        if not self.has_room:
            return fail(TooManyLogins())
        if not self._started:
            self._started = True
            self._pool.start()
            self._trigger = self._reactor.addSystemEventTrigger(
                "during", "shutdown", self._shut_down
            )
        self._pending += 1
        result: Deferred[Any] = Deferred()
        running = deferToThreadPool(self._reactor, self._pool, function, *arguments)
        running.addBoth(self._ended).chainDeferred(result)
        return result

    def _ended(self, result: Any) -> Any:
        self._pending -= 1
        if self._closing is not None and not self._pending:
            self._closing.callback(None)
        return result

    def _shut_down(self) -> Deferred[None]:
        self._trigger = None  # the reactor has removed it
        return self.close()

    def close(self) -> Deferred[None]:
        """Let each thread end when it has nothing to do; further calls are refused.

        `ThreadPool.stop` would wait for the calls that run, in the thread of the reactor.

        Returns:
            Fires when no call runs, but after `CLOSE_SECONDS` in any case. A second `close` waits for nothing.
        """
        if self.closed:
            return succeed(None)
        self.closed = True
        if self._trigger is not None:  # each reload may close a checker, and make another one
            self._reactor.removeSystemEventTrigger(self._trigger)
        if self._started:
            self._pool.adjustPoolsize(0, 0)
        if not self._pending:
            return succeed(None)
        self._closing = Deferred()
        return self._closing.addTimeout(CLOSE_SECONDS, self._reactor, lambda *_: None)
