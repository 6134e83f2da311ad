"""A long call pauses while others should compute, and what it uses of the threads is counted without its pauses."""

from __future__ import annotations

from threading import Lock

from imapshield.maildir.call_pauses import (
    MAX_LONG_PAUSE,
    MAX_SHORT_PAUSE,
    SECONDS_BETWEEN_PAUSES,
    Pauses,
)
from imapshield.maildir.job_queue import (
    COMPUTING_SECONDS,
    MAX_USED_SECONDS,
    SLOW_SECONDS,
    JobQueue,
    Share,
)
from imapshield.maildir.worker import SerialWorker
from tests.maildir.worker_case import WorkerCase


class PauseTests(WorkerCase):
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

    def test_wait_for_a_turn_is_a_pause(self) -> None:
        """The time that a call waits for a busy reactor is not counted for the account."""
        times = iter([5.0, 5.25])
        pauses = Pauses(JobQueue(), Share(), lambda: next(times), self.fail)
        lock = Lock()
        with lock:
            self.assertFalse(pauses.acquire(lock, 0.0))
        self.assertEqual(pauses.slept, 0.25)
