"""Short calls run in the reactor's thread, or the reactor waits for them; both only while they are known to be short."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

from imapshield.mailbox.in_place import is_in_place, may_block
from imapshield.mailbox.request import Request, current_request
from imapshield.maildir import in_place_rules
from imapshield.maildir.handover import wait_for_disk
from imapshield.maildir.in_place_rules import (
    HANGING_SECONDS,
    SHORT_SECONDS,
    SLOW_SECONDS_IN_PLACE,
    CallKind,
    Waits,
)
from imapshield.maildir.worker import SerialWorker, SharedThreads
from imapshield.message.pauses import pause_point
from tests.maildir.worker_case import KIND, Reactor, WorkerCase


class StartedThreads:
    """A thread pool that runs each call at once, in a thread of its own."""

    def callInThreadWithCallback(
        self, on_result: Any, function: Callable[..., Any], *args: object
    ) -> None:
        threading.Thread(target=lambda: on_result(True, function(*args))).start()


class QueuedReactor(Reactor):
    """A reactor that does what threads want when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.from_threads: SimpleQueue[tuple[Any, ...]] = SimpleQueue()

    def callFromThread(self, *call: Any, **_: object) -> None:
        self.from_threads.put(call)

    def run_next(self) -> None:
        function, *args = self.from_threads.get(timeout=60)
        function(*args)


class FakeTurn:
    """The connection of a request, which notes the seconds of threads."""

    turn_is_over = False

    def __init__(self, counted: list[float]) -> None:
        self.count_seconds = counted.append

    def add_work(self, count: int) -> None:
        pass


class ShortCallTests(WorkerCase):
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

    def wait_in_place(self, waits: Waits, seconds: float = 2 * SLOW_SECONDS_IN_PLACE) -> None:
        if is_in_place():
            self.waits = waits
            self.reactor.advance(seconds)
            pause_point()
            self.fail("not given up")

    def test_call_without_a_processor_is_short(self) -> None:
        """A call in place that took long counts as short if the process has hardly computed meanwhile."""
        self.warm()
        for waits, uses_threads in (
            (Waits(0, 0, 0.0), False),
            (Waits(0, 0, 2 * SHORT_SECONDS), True),
        ):
            self.run_short(lambda: self.delay(waits, 2 * SHORT_SECONDS))  # noqa: B023
            self.reactor.advance(1)
            self.run_short()
            self.assertEqual(bool(self.pool.calls), uses_threads)

    def test_call_in_a_thread_without_a_processor_is_short(self) -> None:
        """A call in a thread is long if it has computed or read for long, not if it has waited for the interpreter."""
        for waits, cpu, uses_threads in (
            (Waits(0, 1, 0.0), 0.0, False),
            (Waits(1, 1, 0.0), 0.0, True),
            (Waits(1, 1, 0.0), 2 * SHORT_SECONDS, True),
        ):
            self.setUp()
            self.run_short(lambda: self.delay(waits, 2 * SHORT_SECONDS, cpu))  # noqa: B023
            self.pool.step()
            self.reactor.advance(1)
            self.run_short()
            self.assertEqual(bool(self.pool.calls), uses_threads)

    def delay(self, waits: Waits, seconds: float, cpu: float = 0.0) -> None:
        self.reactor.advance(seconds)
        self.waits, self.cpu = waits, cpu

    def test_slow_disk_is_reported(self) -> None:
        """If a call in place hangs, its file system is reported, with the time that the call took."""
        self.warm()
        self.run_short(lambda: self.wait_in_place(Waits(1, 0, 0.0), 2 * HANGING_SECONDS))
        self.assertEqual(self.slow_volumes, [([1], 2 * HANGING_SECONDS)])

    def test_first_calls_that_wait_for_a_disk(self) -> None:
        """If first calls in place wait for a disk, other accounts run only their first calls in threads."""
        self.warm()
        self.worker.run_short(
            lambda: self.wait_in_place(Waits(1, 0, 0.0)), ("fetch", "Archive"), (1,)
        )
        self.pool.step()
        self.worker = SerialWorker(self.threads)
        self.warm()
        self.assertEqual(self.successResultOf(self.run_short(lambda: 5)), 5)
        self.worker.run_short(int, ("fetch", "Archive"), (1,))
        self.assertEqual(len(self.pool.calls), 1)

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
                lambda: names.append(threading.current_thread().name), KIND, (1,), writes=True
            )
            if len(names) != 1:
                self.successResultOf(result)
                self.assertEqual(self.reactor.woken, 1)
            while not self.reactor.woken:
                time.sleep(0.001)
        self.assertNotIn(threading.current_thread().name, names)

    def test_reactor_does_not_wait_for_a_slow_disk(self) -> None:
        """Other calls run until the disk is ready. Then the call has a turn, in which it ends."""
        reactor = QueuedReactor()
        threads = SharedThreads(StartedThreads(), reactor)
        self.worker = SerialWorker(threads)
        self.patch(in_place_rules, "AWAITED_SECONDS", 60.0)
        disk = threading.Lock()
        disk.acquire()
        self.worker.run_short(int, KIND, (1,), writes=True)
        reactor.run_next()
        for _ in range(2):
            threads._rules.disk_was_awaited((1,), in_vain=True)
        result = self.worker.run_short(lambda: wait_for_disk(disk.acquire), KIND, (1,), writes=True)
        self.assertNoResult(result)
        disk.release()
        reactor.run_next()
        self.assertTrue(self.successResultOf(result))

    def test_call_without_a_thread(self) -> None:
        """If the system permits no thread, the call fails: nobody may take the exception for its result."""
        self.patch(
            self.pool,
            "callInThreadWithCallback",
            lambda on_result, *_: on_result(False, RuntimeError()),
        )
        self.failureResultOf(self.worker.run(int), RuntimeError)

    def test_turn_that_a_call_leaves_for_a_disk_shows_nothing(self) -> None:
        """Only one in which it computes for long, or ends: the first turn is short on a slow disk, too."""
        noted: list[bool] = []
        self.patch(
            self.threads._rules, "was_awaited", lambda *_, in_vain=False: noted.append(in_vain)
        )
        call: Any = SimpleNamespace(worker=self.worker, kind=CallKind("append"), volumes=(1,))
        for has_ended, is_late in ((False, False), (False, True), (True, False)):
            turn: Any = SimpleNamespace(
                wait=lambda _, has_ended=has_ended: has_ended,
                is_late=is_late,
                is_at_disk=False,
                waits_for_disk=False,
            )
            self.assertEqual(self.threads._wait_for(call, turn), has_ended)
        self.assertEqual(noted, [True, False])

    def test_reactor_does_not_wait_long_for_a_call_that_writes(self) -> None:
        """If the call does not end in time, the reactor goes on, and the result arrives later. Others are served."""
        self.warm()
        self.patch(in_place_rules, "AWAITED_SECONDS", 0.0)
        result = self.worker.run_short(lambda: 5, KIND, (1,), writes=True)
        self.assertNoResult(result)
        self.pool.step()
        self.assertEqual(self.successResultOf(result), 5)

    def test_kinds_take_no_memory(self) -> None:
        """What is remembered of calls does not contain the mailbox names that clients send."""
        self.worker.run_short(int, ("status", "x" * 60000), (1,))
        self.pool.step()
        (kind,) = self.worker.history.kinds
        self.assertEqual(kind, ("status", hash("x" * 60000)))

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

    def test_computing_is_counted_for_the_request(self) -> None:
        """A call in a thread is charged with its CPU time to the session that asked for it, before its result arrives."""

        def call(seconds: float) -> None:
            self.cpu += seconds
            self.reactor.advance(60)

        counted: list[float] = []
        results = [self.worker.run(call, 64.0)]
        token = current_request.set(Request(FakeTurn(counted)))
        results.append(self.worker.run(call, 2.0))
        results.append(self.worker.run_short(lambda: call(3.0), KIND, ()))
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
            result = worker.run_short(int, KIND, (1,), writes=True)
            while not self.reactor.woken:
                time.sleep(0.001)
            self.successResultOf(result)
        self.assertEqual((counted, self.reactor.woken), ([1], 1))
