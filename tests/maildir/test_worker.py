"""The calls of one account run in order, one at a time, and not in the reactor's thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import IndexLocked
from imapshield.mailbox.in_place import is_in_place, may_block
from imapshield.mailbox.request import Request, current_request
from imapshield.maildir import in_place_rules
from imapshield.maildir.in_place_rules import SLOW_SECONDS_IN_PLACE, Waits
from imapshield.maildir.job_queue import (
    COMPUTING_SECONDS,
    MAX_USED_SECONDS,
    SLOW_SECONDS,
    SLOW_THREADS,
)
from imapshield.maildir.worker import (
    LOCKED_SECONDS,
    MAX_DELAY,
    MAX_LONG_PAUSE,
    MAX_SHORT_PAUSE,
    SECONDS_BETWEEN_PAUSES,
    SerialWorker,
    SharedThreads,
)
from imapshield.message.pauses import pause_point
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


class StartedThreads:
    """A thread pool that runs each call at once, in a thread of its own."""

    def callInThreadWithCallback(self, on_result: Any, function: Callable[[], Any]) -> None:
        threading.Thread(target=lambda: on_result(True, function())).start()


class Reactor(MemoryReactorClock):
    woken = 0

    def callFromThread(self, f: Callable[..., Any], *args: object, **kwargs: object) -> None:
        self.woken += 1
        f(*args, **kwargs)


class FakeTurn:
    """The connection of a request, which notes the seconds of threads."""

    turn_is_over = False

    def __init__(self, counted: list[float]) -> None:
        self.count_seconds = counted.append

    def add_work(self, count: int) -> None:
        pass


class SerialWorkerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.pool = Pool()
        self.reactor = Reactor()
        self.waits = Waits(0, 0, 0.0)
        self.threads = SharedThreads(
            self.pool, self.reactor, self.sleep, lambda: self.waits, self.cpu_seconds
        )
        self.slept = self.cpu = 0.0
        self.worker = SerialWorker(self.threads)

    def cpu_seconds(self) -> float:
        return self.cpu

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        self.reactor.advance(seconds)

    def compute(self, seconds: float) -> float:
        """Compute for as long, as a job does; return how long it has paused."""
        self.slept = 0.0
        self.reactor.advance(seconds)
        pause_point()
        return self.slept

    def run_short(self, function: Callable[[], Any] = int) -> Deferred[Any]:
        return self.worker.run_short(function, "kind", (1,))

    def warm(self) -> None:
        self.run_short()
        self.pool.step()

    def test_short_call_runs_in_place(self) -> None:
        """The first call of a kind runs in a thread. If it was short, the next one runs at once; it may fail, too."""
        first = self.run_short()
        self.assertNoResult(first)
        self.pool.step()
        self.successResultOf(first)
        self.assertEqual(self.successResultOf(self.run_short(lambda: 5)), 5)
        self.failureResultOf(self.run_short(lambda: 1 // 0), ZeroDivisionError)
        self.assertEqual(self.pool.calls, [])

    def test_short_call_keeps_its_place(self) -> None:
        """A short call does not overtake an earlier call of its account."""
        self.warm()
        order: list[str] = []
        self.worker.run(order.append, "first")
        self.run_short(lambda: order.append("short"))
        self.assertEqual(order, [])
        self.pool.step()
        self.pool.step()
        self.assertEqual(order, ["first", "short"])

    def test_call_in_place_that_would_block(self) -> None:
        """It is repeated in a thread, from its beginning, and before later calls."""
        self.warm()
        order: list[str] = []

        def function() -> str:
            order.append("in place" if is_in_place() else "in a thread")
            may_block()
            return "result"

        result = self.run_short(function)
        self.worker.run(order.append, "later")
        self.assertNoResult(result)
        self.pool.step()
        self.pool.step()
        self.assertEqual(self.successResultOf(result), "result")
        self.assertEqual(order, ["in place", "in a thread", "later"])

    def test_call_in_place_that_takes_long(self) -> None:
        """It is given up at its next pause. If it has waited for a disk, the account then uses threads for a while."""
        self.warm()
        for waits, uses_threads in ((Waits(0, 0, 0.0), False), (Waits(1, 0, 0.0), True)):
            result = self.run_short(lambda: self.wait_in_place(waits))  # noqa: B023
            self.pool.step()
            self.successResultOf(result)
            self.run_short()
            self.assertEqual(bool(self.pool.calls), uses_threads)

    def wait_in_place(self, waits: Waits) -> None:
        if is_in_place():
            self.waits = waits
            self.reactor.advance(2 * SLOW_SECONDS_IN_PLACE)
            pause_point()
            self.fail("not given up")

    def test_waiting_for_the_interpreter_is_not_waiting_for_a_disk(self) -> None:
        """While a call runs in a thread, a call in place that takes long may have waited for that."""
        self.warm()
        SerialWorker(self.threads).run(int)
        self.run_short(lambda: self.wait_in_place(Waits(0, 1, 0.0)))
        self.pool.step()
        self.pool.step()
        self.run_short()
        self.assertEqual(self.pool.calls, [])

    def test_reactor_waits_for_a_short_call_that_writes(self) -> None:
        """It runs in a thread; if it ends in time, its caller has the result at once, and the reactor is not woken."""
        threads = SharedThreads(StartedThreads(), self.reactor)
        self.worker = SerialWorker(threads)
        self.patch(in_place_rules, "AWAITED_SECONDS", 60.0)
        names: list[str] = []
        for _ in range(3):
            result = self.worker.run_short(
                lambda: names.append(threading.current_thread().name), "kind", (1,), writes=True
            )
            if len(names) != 1:
                self.successResultOf(result)
                self.assertEqual(self.reactor.woken, 1)
            while not self.reactor.woken:
                time.sleep(0.001)
        self.assertNotIn(threading.current_thread().name, names)

    def test_reactor_does_not_wait_long_for_a_call_that_writes(self) -> None:
        """If the call does not end in time, the reactor goes on, and the result arrives later. Others are served."""
        self.warm()
        self.patch(in_place_rules, "AWAITED_SECONDS", 0.0)
        result = self.worker.run_short(lambda: 5, "kind", (1,), writes=True)
        self.assertNoResult(result)
        self.pool.step()
        self.assertEqual(self.successResultOf(result), 5)

    def test_kinds_take_no_memory(self) -> None:
        """What is remembered of calls does not contain the mailbox names that clients send."""
        self.worker.run_short(int, ("status", "x" * 60000), (1,))
        self.pool.step()
        self.assertEqual({type(kind) for kind in self.worker.place.kinds}, {int})

    def test_long_call_pauses_for_a_call_in_place(self) -> None:
        """While a call runs in the reactor's thread, a long one in a thread waits."""
        self.warm()
        paused: list[float] = []

        other = SerialWorker(self.threads)
        share = other.share
        other.run(lambda: paused.append(float(self.threads._queue.is_short_running(share, 1.0))))
        self.pool.step()
        self.run_short(
            lambda: paused.append(float(self.threads._queue.is_short_running(share, 1.0)))
        )
        self.assertEqual(paused, [0.0, 1.0])

    def test_long_call_pauses_for_short_ones(self) -> None:
        """A call that computes for long waits while a short one runs, and not for ever; a short call never waits."""
        other = SerialWorker(self.threads)
        paused: list[float] = []

        def long_call() -> None:
            paused.append(self.compute(SLOW_SECONDS / 2))
            paused.append(self.compute(SLOW_SECONDS))
            other.run(int)
            paused.append(self.compute(SECONDS_BETWEEN_PAUSES / 2))
            paused.append(self.compute(SECONDS_BETWEEN_PAUSES))
            self.pool.step()
            paused.append(self.compute(SECONDS_BETWEEN_PAUSES))

        self.worker.run(long_call)
        self.pool.step()
        self.assertEqual(paused[:3] + paused[4:], [0.0] * 4)
        self.assertAlmostEqual(paused[3], MAX_SHORT_PAUSE, 2)

    def test_long_call_pauses_for_an_earlier_one(self) -> None:
        """While two calls compute for long, the later one waits until the earlier one does not compute."""
        other = SerialWorker(self.threads)
        other.share.add(MAX_USED_SECONDS, self.reactor.seconds())
        paused: list[float] = []

        def earlier() -> None:
            paused.append(self.compute(2 * SLOW_SECONDS))
            other.run(lambda: paused.append(self.compute(0)))
            self.pool.step()

        self.worker.run(earlier)
        self.pool.step()
        self.assertEqual(paused[0], 0.0)
        self.assertAlmostEqual(paused[1], COMPUTING_SECONDS, 2)
        self.assertLess(paused[1], MAX_LONG_PAUSE)

    def test_calls_in_the_background_are_not_charged(self) -> None:
        """However much runs in the background of an account, the account is not slow; its calls in between are counted."""
        for _ in range(50):
            self.worker.run_in_background(self.compute, SLOW_SECONDS)
            self.pool.step()
        now = self.reactor.seconds()
        self.assertLess(self.worker.share.used(now), SLOW_SECONDS / 100)
        self.worker.run(self.compute, 2 * SLOW_SECONDS)
        self.pool.step()
        self.assertGreater(self.worker.share.used(self.reactor.seconds()), SLOW_SECONDS)

    def test_call_in_the_background_pauses_for_short_ones_only(self) -> None:
        """A call in the background pauses for short ones from its start, and neither waits for long ones nor they for it."""
        long, short = SerialWorker(self.threads), SerialWorker(self.threads)
        long.share.add(MAX_USED_SECONDS, self.reactor.seconds())
        paused: list[float] = []

        def background() -> None:
            paused.append(self.compute(SECONDS_BETWEEN_PAUSES))
            paused.append(self.compute(SECONDS_BETWEEN_PAUSES))
            long.run(lambda: paused.append(self.compute(0)))
            self.pool.step()
            short.run(int)
            paused.append(self.compute(SECONDS_BETWEEN_PAUSES))
            self.pool.step()

        def long_call() -> None:
            self.compute(2 * SLOW_SECONDS)
            self.worker.run_in_background(lambda: paused.append(self.compute(0)))
            self.pool.step()

        self.worker.run_in_background(background)
        self.pool.step()
        self.assertEqual(paused[:3], [0.0] * 3)
        self.assertAlmostEqual(paused[3], MAX_SHORT_PAUSE, 2)
        self.assertGreater(paused[3], 0)
        long.run(long_call)
        self.pool.step()
        self.assertEqual(paused[4:], [0.0])

    def test_pauses_are_not_charged(self) -> None:
        """What counts as use of the threads is the time of a call without that in which it has paused for others."""
        other = SerialWorker(self.threads)
        now = self.reactor.seconds()

        def call() -> None:
            self.compute(2 * SLOW_SECONDS)
            other.run(int)
            for _ in range(20):
                self.compute(SECONDS_BETWEEN_PAUSES)

        self.worker.run(call)
        self.pool.step()
        self.assertGreater(self.reactor.seconds() - now, 2 * SLOW_SECONDS + 10 * MAX_SHORT_PAUSE)
        used = self.worker.share.used(self.reactor.seconds())
        self.assertAlmostEqual(used, 2 * SLOW_SECONDS + 20 * SECONDS_BETWEEN_PAUSES, 6)

    def test_locked_index_is_not_awaited_in_the_background(self) -> None:
        """A call in the background that finds the index locked fails at once, so that those of clients can go on."""

        def call() -> None:
            raise IndexLocked

        done = self.worker.run_in_background(call)
        self.pool.step()
        self.failureResultOf(done, IndexLocked)

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

    def test_computing_is_counted_for_the_request(self) -> None:
        """A call in a thread is charged with its CPU time to whom asked for it, before its result arrives."""

        def call(seconds: float) -> None:
            self.cpu += seconds
            self.reactor.advance(60)

        counted: list[float] = []
        results = [self.worker.run(call, 64.0)]
        token = current_request.set(Request(FakeTurn(counted)))
        results.append(self.worker.run(call, 2.0))
        results.append(self.worker.run_short(lambda: call(3.0), "kind", ()))
        current_request.reset(token)
        results.append(self.worker.run(call, 32.0))
        results[1].addCallback(lambda _: counted.append(0))
        for _ in results:
            self.pool.step()
        self.assertEqual(counted, [2, 0, 3])

    def test_awaited_call_is_not_counted_twice(self) -> None:
        """A call for which the reactor waits is a part of the time of the reactor, which is counted as well."""
        threads = SharedThreads(
            StartedThreads(), self.reactor, cpu_seconds=iter(range(99)).__next__
        )
        worker = SerialWorker(threads)
        self.patch(in_place_rules, "AWAITED_SECONDS", 60.0)
        counted: list[float] = []
        self.addCleanup(current_request.reset, current_request.set(Request(FakeTurn(counted))))
        for _ in range(3):
            result = worker.run_short(int, "kind", (1,), writes=True)
            while not self.reactor.woken:
                time.sleep(0.001)
            self.successResultOf(result)
        self.assertEqual((counted, self.reactor.woken), ([1], 1))

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
