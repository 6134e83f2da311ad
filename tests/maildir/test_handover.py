"""The reactor and a call that writes compute in turns."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from imapshield.maildir import handover
from imapshield.maildir.handover import Handover, wait_for_disk

LONG = 60.0


def acquire(lock: threading.Lock, seconds: float) -> bool:
    return lock.acquire(timeout=seconds)


class HandoverTests(SynchronousTestCase):
    """A call that waits for a disk, in a thread. The disk is a lock, and the test has the reactor's thread."""

    def setUp(self) -> None:
        self.patch(handover, "TURN_SECONDS", LONG)
        self.from_thread: SimpleQueue[tuple[Any, ...]] = SimpleQueue()
        self.ended: list[object] = []
        self.disk = threading.Lock()
        self.disk.acquire()
        self.before_disk: Callable[[], object] = bool

    def start(self, *, is_awaited: bool = True, waits_for_disk: bool = False) -> Handover:
        found = Handover(
            lambda *call: self.from_thread.put(call),
            self.ended.append,
            lambda found: self.ended.append(found.give_turn()),
            acquire,
            is_awaited=is_awaited,
            waits_for_disk=waits_for_disk,
        )
        self.thread = threading.Thread(target=lambda: found.end(True, found.run(self.call)))
        self.thread.start()
        self.addCleanup(self.thread.join)
        return found

    def call(self) -> str:
        self.before_disk()
        wait_for_disk(self.disk.acquire)
        return "result"

    def run_from_thread(self) -> object:
        """Do the next thing that the thread wants the reactor to do, and return what was noted meanwhile."""
        function, *args = self.from_thread.get(timeout=LONG)
        function(*args)
        return self.ended.pop()

    def test_reactor_goes_on_while_a_call_waits_for_a_disk(self) -> None:
        """The call then waits for a turn, and ends in it."""
        found = self.start()
        self.assertFalse(found.wait(LONG))
        self.assertEqual((found.is_late, found.is_at_disk), (False, True))
        self.disk.release()
        self.assertTrue(self.run_from_thread())
        self.assertTrue(found.wait(LONG))
        self.assertEqual(found.result, "result")
        self.assertTrue(self.from_thread.empty())

    def test_reactor_waits_for_a_quick_disk(self) -> None:
        """It is not woken by the call then."""
        self.disk.release()
        self.assertTrue(self.start(waits_for_disk=True).wait(LONG))
        self.assertTrue(self.from_thread.empty())

    def test_quick_disk_that_has_become_slow(self) -> None:
        """The reactor goes on after some time. Whether a turn comes in time or not, the result arrives."""
        found = self.start(waits_for_disk=True)
        while not found.is_at_disk:
            pass
        self.assertFalse(found.wait(0.0))
        self.assertEqual((found.is_late, found.is_at_disk), (True, True))
        self.disk.release()
        self.assertTrue(self.run_from_thread())
        self.assertTrue(found.wait(LONG))

    def test_call_does_not_wait_long_for_its_turn(self) -> None:
        """A reactor that is busy, or has stopped, does not keep the call from ending. Its turn comes too late then."""
        self.patch(handover, "TURN_SECONDS", 0.0)
        found = self.start()
        self.assertFalse(found.wait(LONG))
        self.disk.release()
        self.thread.join()
        self.assertFalse(self.run_from_thread())
        self.assertEqual(self.run_from_thread(), "result")

    def test_result_comes_once(self) -> None:
        """The reactor gets no processor when a call leaves its turn, and the call ends before it does."""
        self.patch(handover, "TURN_SECONDS", 0.0)
        self.disk.release()
        found = self.start()
        self.thread.join()
        self.assertFalse(found.wait(LONG))
        self.assertFalse(self.run_from_thread())
        self.assertEqual(self.run_from_thread(), "result")
        self.assertTrue(self.from_thread.empty())

    def test_call_that_computes_for_long(self) -> None:
        """It gets no further turns."""
        computing = threading.Lock()
        computing.acquire()
        self.before_disk = computing.acquire
        found = self.start()
        self.assertFalse(found.wait(0.0))
        self.assertEqual((found.is_late, found.is_at_disk), (True, False))
        self.disk.release()
        computing.release()
        self.assertEqual(self.run_from_thread(), "result")

    def test_call_that_waits_for_the_disk_often(self) -> None:
        """After some turns, it goes on beside the reactor."""
        self.patch(handover, "TURNS_PER_CALL", 1)
        self.before_disk = partial(wait_for_disk, bool)
        self.disk.release()
        found = self.start()
        self.assertFalse(found.wait(LONG))
        self.assertTrue(self.run_from_thread())
        self.assertFalse(found.wait(LONG))
        self.assertFalse(found.is_late)
        self.assertEqual(self.run_from_thread(), "result")

    def test_call_that_is_not_awaited(self) -> None:
        """It has no turns."""
        self.disk.release()
        self.start(is_awaited=False)
        self.assertEqual(self.run_from_thread(), "result")

    def test_failure_of_a_disk(self) -> None:
        """It is raised in the turn of the call."""

        def fail() -> None:
            raise OSError

        found = Handover(
            lambda *call: call[0](*call[1:]),
            self.ended.append,
            lambda found: self.ended.append(found.give_turn()),
            acquire,
            is_awaited=True,
        )
        self.assertRaises(OSError, found.run, lambda: wait_for_disk(fail))
        self.assertFalse(found.is_at_disk)
