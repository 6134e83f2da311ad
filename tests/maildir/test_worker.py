"""One account's jobs run one after another, in order, off the reactor's thread."""

from __future__ import annotations

import threading

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from imapshield.maildir.worker import SerialWorker
from imapshield.testing.in_process import InlineWorker


class Pool:
    """A thread pool whose jobs run when the test says so."""

    def __init__(self) -> None:
        self.jobs = []

    def callInThreadWithCallback(self, *job) -> None:
        self.jobs.append(job)

    def step(self) -> None:
        tell, function, *args = self.jobs.pop(0)
        try:
            result = function(*args)
        except Exception:
            tell(False, Failure())
        else:
            tell(True, result)


class Reactor(MemoryReactorClock):
    def callFromThread(self, f, *args, **kwargs) -> None:
        f(*args, **kwargs)


class SerialWorkerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.pool = Pool()
        self.worker = SerialWorker(self.pool, Reactor())

    def test_one_at_a_time(self) -> None:
        """The next job enters the pool when the one before has left it, and order is kept."""
        ran: list[int] = []
        jobs = [self.worker.run(ran.append, i) for i in range(3)]
        for i in range(3):
            self.assertEqual((len(self.pool.jobs), ran), (1, list(range(i))))
            self.assertNoResult(jobs[i])
            self.pool.step()
            self.successResultOf(jobs[i])
        self.assertEqual(self.pool.jobs, [])

    def test_two_accounts(self) -> None:
        """Accounts do not wait for each other."""
        other = SerialWorker(self.pool, Reactor())
        self.worker.run(int)
        other.run(int)
        self.assertEqual(len(self.pool.jobs), 2)

    def test_failure(self) -> None:
        """A job that raises is its caller's failure and nobody else's."""
        first, second = self.worker.run(int, "x"), self.worker.run(int, "7")
        self.pool.step()
        self.failureResultOf(first, ValueError)
        self.pool.step()
        self.assertEqual(self.successResultOf(second), 7)

    def test_asked_again_from_a_callback(self) -> None:
        """A callback may hand over the next job."""
        done = self.worker.run(int, "1").addCallback(lambda n: self.worker.run(int, str(n + 1)))
        self.pool.step()
        self.pool.step()
        self.assertEqual(self.successResultOf(done), 2)

    def test_cancelled_while_waiting(self) -> None:
        """A job that is cancelled before its turn does not run; one that runs goes on, unheard."""
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

    def test_many(self) -> None:
        """A long queue is worked off without recursion."""
        jobs = [self.worker.run(int) for _ in range(3000)]
        while self.pool.jobs:
            self.pool.step()
        self.assertEqual(sum(map(self.successResultOf, jobs)), 0)

    def test_inline(self) -> None:
        """The inline worker runs a job at once, in this thread."""
        worker = InlineWorker()
        here = self.successResultOf(worker.run(threading.get_ident))
        self.assertEqual(here, threading.get_ident())
        self.assertIsInstance(worker.run(int, "x").addErrback(lambda f: None), Deferred)
