"""The threads of stores: their number, results and exceptions, and their end."""

import threading
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from imapshield.maildir.store_threads import StoreThreads


class StoreThreadsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.threads = StoreThreads()
        self.addCleanup(self.threads.stop)
        self.results: list[tuple[bool, Any]] = []
        self.ended = threading.Semaphore(0)

    def note(self, *result: Any) -> None:
        self.results.append(result)
        self.ended.release()

    def call(self, function: Any, *args: object) -> tuple[bool, Any]:
        self.threads.callInThreadWithCallback(self.note, function, *args)
        self.ended.acquire()
        return self.results.pop()

    def test_result_and_exception(self) -> None:
        """`on_result` gets the result of a call, or the exception that it raised."""
        self.assertEqual(self.call(divmod, 7, 2), (True, (3, 1)))
        succeeded, error = self.call(divmod, 7, 0)
        self.assertFalse(succeeded)
        self.assertIsInstance(error, ZeroDivisionError)

    def test_a_thread_is_used_again(self) -> None:
        """Calls that follow each other run in one thread, which is not the caller's."""
        found = {self.call(threading.get_ident)[1] for _ in range(5)}
        self.assertEqual(len(found), 1)
        self.assertNotIn(threading.get_ident(), found)

    def test_calls_at_the_same_time_have_threads_of_their_own(self) -> None:
        """A call does not wait for one that runs."""
        both = threading.Barrier(2, timeout=60)
        for _ in range(2):
            self.threads.callInThreadWithCallback(self.note, both.wait)
        for _ in range(2):
            self.ended.acquire()
        self.assertEqual({succeeded for succeeded, _ in self.results}, {True})

    def test_stop(self) -> None:
        """It waits for calls that have begun; the threads end, and later calls are dropped."""
        self.threads.callInThreadWithCallback(self.note, threading.current_thread)
        self.threads.stop()
        ((_, thread),) = self.results
        self.assertFalse(thread.is_alive())
        self.threads.callInThreadWithCallback(self.note, int)
        self.assertEqual(len(self.results), 1)
