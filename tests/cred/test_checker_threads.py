"""The threads of a checker, and their end."""

from __future__ import annotations

from threading import Event, Thread, current_thread
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase, TestCase

from imapshield.cred.checker_threads import CLOSE_SECONDS, CheckerThreads
from tests.cred.fakes import FakePool, FakeReactor


class CloseTests(SynchronousTestCase):
    """While the pool is paused, calls have begun and not ended."""

    def setUp(self) -> None:
        self.reactor, self.pool = FakeReactor(), FakePool()
        self.pool.paused = True
        self.threads = CheckerThreads(self.reactor, "x", 2, 9, self.pool)

    def test_waits_for_calls(self) -> None:
        """The end is when no call runs. Their results are not lost."""
        results = [self.threads.run(lambda: 7) for _ in range(2)]
        closed = self.threads.close()
        self.assertNoResult(closed)
        self.assertEqual(self.pool.state, "stopped")
        self.pool.run_pending()
        self.assertEqual([self.successResultOf(each) for each in results], [7, 7])
        self.assertIsNone(self.successResultOf(closed))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_does_not_wait_for_ever(self) -> None:
        """A call that does not end is not waited for, and may end later."""
        result = self.threads.run(lambda: 7)
        closed = self.threads.close()
        self.assertIsNone(self.successResultOf(self.threads.close()))
        self.reactor.advance(CLOSE_SECONDS)
        self.assertIsNone(self.successResultOf(closed))
        self.pool.run_pending()
        self.assertEqual(self.successResultOf(result), 7)

    def test_nothing_runs(self) -> None:
        """If nothing runs, the end is at once."""
        self.assertIsNone(self.successResultOf(self.threads.close()))

    def test_leaves_nothing_in_the_reactor(self) -> None:
        """Each reload may close a checker, so the reactor must not keep it until the shutdown."""
        self.threads.run(lambda: 7)
        self.assertEqual(len(self.reactor.triggers), 1)
        self.threads.close()
        self.assertEqual(self.reactor.triggers, [])

    def test_the_shutdown_closes(self) -> None:
        """The shutdown of the reactor, which has removed the trigger itself, lets the threads end."""
        running = self.threads.run(lambda: 7)
        self.reactor.triggers.pop()()
        self.assertTrue(self.threads.closed)
        self.pool.run_pending()
        self.assertEqual(self.successResultOf(running), 7)


class RealThreadTests(TestCase):
    @inlineCallbacks
    def test_threads_end(self) -> Any:
        """Closing returns while a call runs. Waiting calls are made, then the threads end, which are daemons."""
        may_end, started = Event(), Deferred[None]()
        used: set[Thread] = set()
        own: Any = reactor

        def begun() -> None:
            if not started.called:
                started.callback(None)

        def work() -> None:
            own.callFromThread(begun)
            used.add(current_thread())
            may_end.wait(30)

        threads = CheckerThreads(reactor, "x", 2, 9, None)
        calls = [threads.run(work) for _ in range(5)]
        yield started
        closed = threads.close()
        self.assertNoResult(closed)
        may_end.set()
        yield gatherResults([*calls, closed])
        self.assertTrue(used)
        for thread in used:
            self.assertTrue(thread.daemon)
            thread.join(30)
            self.assertFalse(thread.is_alive())
