"""The calls of one account run in order, one at a time, and not in the reactor's thread."""

from __future__ import annotations

import threading

from twisted.internet.defer import CancelledError, Deferred

from imapshield.errors import IndexLocked
from imapshield.maildir.job_queue import SLOW_SECONDS, SLOW_THREADS
from imapshield.maildir.worker import LOCKED_SECONDS, MAX_DELAY, SerialWorker
from imapshield.testing.in_process import InlineWorker
from tests.maildir.worker_case import WorkerCase


class SerialWorkerTests(WorkerCase):
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
        other = SerialWorker(self.threads)
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

    def test_call_that_finds_the_index_locked_is_repeated(self) -> None:
        """A call that finds the index locked is repeated later, and no thread waits for it; calls keep their order."""
        tries: list[int] = []

        def call() -> int:
            tries.append(1)
            if len(tries) < 4:
                raise IndexLocked
            return 7

        first, second = self.worker.run(call), self.worker.run(int)
        for count in range(1, 4):
            self.pool.step()
            self.assertEqual((self.pool.calls, len(tries)), ([], count))
            self.assertNoResult(first)
            self.reactor.advance(MAX_DELAY)
        self.pool.step()
        self.assertEqual(self.successResultOf(first), 7)
        self.assertNoResult(second)
        self.pool.step()
        self.successResultOf(second)

    def test_locked_index_is_not_awaited_in_the_background(self) -> None:
        """A call in the background that finds the index locked fails at once, so that those of clients can go on."""

        def call() -> None:
            raise IndexLocked

        done = self.worker.run_in_background(call)
        self.pool.step()
        self.failureResultOf(done, IndexLocked)

    def test_index_that_stays_locked_is_an_error(self) -> None:
        """A call that finds the index locked for too long fails, and so does one that is cancelled meanwhile."""

        def call() -> None:
            raise IndexLocked

        for is_cancelled in (False, True):
            done = self.worker.run(call)
            steps = 0
            while not done.called:
                self.pool.step()
                if is_cancelled:
                    done.cancel()
                self.reactor.advance(MAX_DELAY)
                steps += 1
            failure = self.failureResultOf(done, CancelledError if is_cancelled else IndexLocked)
            if not is_cancelled:
                reached = failure.value.reached
                self.assertEqual((reached.limit, reached.value), ("LOCKED_SECONDS", LOCKED_SECONDS))
                self.assertGreaterEqual(reached.observed, LOCKED_SECONDS)
            self.assertEqual(steps > LOCKED_SECONDS / MAX_DELAY, not is_cancelled)
            self.assertEqual(self.pool.calls, [])

    def test_long_calls_of_some_accounts_leave_threads_for_others(self) -> None:
        """Accounts whose calls take long do not occupy all threads: a call of another account starts at once."""

        def call() -> None:
            self.reactor.advance(2 * SLOW_SECONDS)

        for worker in [SerialWorker(self.threads) for _ in range(SLOW_THREADS + 1)]:
            for _ in range(20):
                worker.run(call)
        for _ in range(30):
            self.pool.step()
        self.assertEqual(len(self.pool.calls), SLOW_THREADS)
        short = self.worker.run(int)
        self.assertEqual(len(self.pool.calls), SLOW_THREADS + 1)
        self.pool.calls.insert(0, self.pool.calls.pop())
        self.pool.step()
        self.successResultOf(short)
        while self.pool.calls:
            self.pool.step()
            self.reactor.advance(SLOW_SECONDS)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_inline_worker_runs_a_call_immediately(self) -> None:
        """The inline worker runs a call immediately, in this thread."""
        worker = InlineWorker()
        thread_id = self.successResultOf(worker.run(threading.get_ident))
        self.assertEqual(thread_id, threading.get_ident())
        self.assertIsInstance(worker.run(int, "x").addErrback(lambda f: None), Deferred)
