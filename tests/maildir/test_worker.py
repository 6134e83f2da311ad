"""The calls of one account run in order, one at a time, and not in the reactor's thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from imapshield.maildir.worker import SerialWorker
from imapshield.testing.in_process import InlineWorker


class Pool:
    """A thread pool that runs a call when the test calls `step`."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def callInThreadWithCallback(self, *call: Any) -> None:
        self.calls.append(call)

    def step(self) -> None:
        on_result, function, *args = self.calls.pop(0)
        try:
            result = function(*args)
        except Exception:
            on_result(False, Failure())
        else:
            on_result(True, result)


class Reactor(MemoryReactorClock):
    def callFromThread(self, f: Callable[..., Any], *args: object, **kwargs: object) -> None:
        f(*args, **kwargs)


class SerialWorkerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.pool = Pool()
        self.worker = SerialWorker(self.pool, Reactor())

    def test_calls_enter_the_pool_one_at_a_time(self) -> None:
        """A call enters the pool when the previous call has ended, and the order is kept."""
        ran: list[int] = []
        results = [self.worker.run(ran.append, i) for i in range(3)]
        for i in range(3):
            self.assertEqual((len(self.pool.calls), ran), (1, list(range(i))))
            self.assertNoResult(results[i])
            self.pool.step()
            self.successResultOf(results[i])
        self.assertEqual(self.pool.calls, [])

    def test_accounts_do_not_wait_for_each_other(self) -> None:
        """The calls of two accounts do not wait for each other."""
        other = SerialWorker(self.pool, Reactor())
        self.worker.run(int)
        other.run(int)
        self.assertEqual(len(self.pool.calls), 2)

    def test_failure_affects_only_its_own_call(self) -> None:
        """An exception fails the Deferred of its own call, and no other."""
        first, second = self.worker.run(int, "x"), self.worker.run(int, "7")
        self.pool.step()
        self.failureResultOf(first, ValueError)
        self.pool.step()
        self.assertEqual(self.successResultOf(second), 7)

    def test_callback_may_queue_the_next_call(self) -> None:
        """A callback may queue the next call."""
        done = self.worker.run(int, "1").addCallback(lambda n: self.worker.run(int, str(n + 1)))
        self.pool.step()
        self.pool.step()
        self.assertEqual(self.successResultOf(done), 2)

    def test_cancelled_call_does_not_run(self) -> None:
        """A call that is cancelled before it starts does not run; a running call is not stopped."""
        ran: list[int] = []
        first, second = (self.worker.run(ran.append, i) for i in range(2))
        third = self.worker.run(ran.append, 2)
        second.cancel()
        first.cancel()
        self.failureResultOf(second, CancelledError)
        self.failureResultOf(first, CancelledError)
        self.pool.step()
        self.pool.step()
        self.successResultOf(third)
        self.assertEqual(ran, [0, 2])

    def test_long_queue_needs_no_recursion(self) -> None:
        """A long queue is processed without recursion."""
        results = [self.worker.run(int) for _ in range(3000)]
        while self.pool.calls:
            self.pool.step()
        self.assertEqual(sum(map(self.successResultOf, results)), 0)

    def test_inline_worker_runs_a_call_immediately(self) -> None:
        """The inline worker runs a call immediately, in this thread."""
        worker = InlineWorker()
        thread_id = self.successResultOf(worker.run(threading.get_ident))
        self.assertEqual(thread_id, threading.get_ident())
        self.assertIsInstance(worker.run(int, "x").addErrback(lambda f: None), Deferred)
