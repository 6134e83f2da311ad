"""Threads are shared fairly between accounts, and some are always free for short calls."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.maildir import job_queue
from imapshield.maildir.job_queue import (
    COMPUTING_SECONDS,
    EXTRA_THREADS,
    HALF_LIFE,
    MAX_USED_SECONDS,
    SLOW_SECONDS,
    SLOW_THREADS,
    THREADS,
    JobQueue,
    Share,
)

START = 1_800_000_000.0


def slow_share(now: float = START) -> Share:
    share = Share()
    share.add(MAX_USED_SECONDS, now)
    return share


class JobQueueTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.queue = JobQueue()

    def start(self, now: float = START) -> list[Share]:
        started = []
        while (share := self.queue.start_next(now)) is not None:
            started.append(share)
        return started

    def wait(self, shares: list[Share]) -> None:
        for share in shares:
            self.queue.wait(share)

    def test_least_recent_use_is_first(self) -> None:
        """The account that has used least is first; accounts that have used the same come in their order."""
        shares = [Share() for _ in range(3)]
        shares[0].add(0.05, START)
        shares[1].add(0.01, START)
        new = [Share(), Share()]
        self.wait([*shares[:2], *new])
        self.assertEqual(self.start(), [*new, shares[1], shares[0]])

    def test_long_calls_compute_one_after_another(self) -> None:
        """Of the long calls that compute, the one that has started first goes on; one that waits for a file is passed."""
        first, second = Share(), Share()
        self.wait([first, second])
        self.start()
        second.started_at += 0.01
        now = START + SLOW_SECONDS + 0.02
        first.computed_at = second.computed_at = now
        self.assertFalse(self.queue.others_compute(first, now))
        self.assertTrue(self.queue.others_compute(second, now))
        self.assertFalse(self.queue.others_compute(second, now + COMPUTING_SECONDS))
        self.queue.finish(first, 1.0, now)
        self.assertFalse(self.queue.others_compute(second, now))

    def test_short_calls_are_distinguished_from_long_ones(self) -> None:
        """A call counts as short until it has run for long, unless its account has used much before."""
        short, slow = Share(), slow_share()
        self.wait([short, slow])
        self.start()
        self.assertTrue(self.queue.is_short_running(slow, START + SLOW_SECONDS))
        self.assertFalse(self.queue.is_short_running(short, START + SLOW_SECONDS))
        self.assertFalse(self.queue.is_short_running(slow, START + SLOW_SECONDS + 0.001))

    def test_use_is_forgotten(self) -> None:
        """Half of the use is forgotten in each half-life, and the order of two accounts never changes by that."""
        share = slow_share()
        self.assertAlmostEqual(share.used(START + HALF_LIFE), MAX_USED_SECONDS / 2, 3)
        self.assertAlmostEqual(share.used(START + 3 * HALF_LIFE), MAX_USED_SECONDS / 8, 3)
        self.assertLess(share.used(START + 20), 1e-4)
        self.assertEqual(Share().used(START), 2.0**-64)

    def test_slow_accounts_leave_threads(self) -> None:
        """Any number of slow accounts use some of the threads, and an account that is not slow starts at once."""
        self.wait([slow_share() for _ in range(100)])
        self.assertEqual(len(self.start()), SLOW_THREADS)
        for _ in range(THREADS - SLOW_THREADS):
            share = Share()
            self.queue.wait(share)
            self.assertEqual(self.start(), [share])

    def test_long_calls_get_threads_in_addition(self) -> None:
        """If calls of accounts that were not slow take long, others get a thread in addition, up to a limit."""
        self.wait([Share() for _ in range(100)])
        self.assertEqual(len(self.start(START)), THREADS)
        self.assertEqual(len(self.start(START + SLOW_SECONDS / 2)), 0)
        for i in range(EXTRA_THREADS // THREADS):
            self.assertEqual(len(self.start(START + (2 + 2 * i) * SLOW_SECONDS)), THREADS)
        self.assertEqual(len(self.start(START + 60)), 0)

    def test_slow_accounts_are_served_while_others_keep_coming(self) -> None:
        """An account with much use waits for ten seconds at most, however many others come."""
        for name, number in (("THREADS", 1), ("SLOW_THREADS", 1), ("EXTRA_THREADS", 0)):
            self.patch(job_queue, name, number)
        slow = slow_share()
        self.queue.wait(slow)
        now = START
        while now < START + 30:
            now += 0.01
            self.queue.wait(Share(level=now / HALF_LIFE - 7))  # an account that has used 8 ms
            (started,) = self.start(now)
            if started is slow:
                break
            self.queue.finish(started, 0.008, now)
        self.assertLess(now, START + 11)

    @settings(derandomize=True, deadline=None, max_examples=200)
    @given(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 3)), max_size=60))
    def test_everybody_is_served(self, calls: list[tuple[int, float]]) -> None:
        """Whatever calls come, no limit is exceeded, and all are served."""
        queue, shares, now = JobQueue(), [Share() for _ in range(10)], START
        left = Counter(who for who, _ in calls)
        seconds = dict(calls)
        running: dict[Share, float] = {}
        for who in left:
            queue.wait(shares[who])
        while left:
            while (share := queue.start_next(now)) is not None:
                self.assertNotIn(share, running)
                running[share] = now + seconds[shares.index(share)]
                slow = sum(other.is_slow for other in running)
                self.assertLessEqual(slow, SLOW_THREADS)
                self.assertLessEqual(len(running), THREADS + EXTRA_THREADS)
            now += 0.05
            for share in [share for share, end in running.items() if end <= now]:
                who = shares.index(share)
                queue.finish(share, now - share.started_at, now)
                del running[share]
                left[who] -= 1
                if left[who]:
                    queue.wait(share)
                else:
                    del left[who]
        self.assertFalse(queue.is_waiting)
