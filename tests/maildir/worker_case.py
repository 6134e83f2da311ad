"""A worker whose threads, clock and waits are the test's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from imapshield.maildir.in_place_rules import Waits
from imapshield.maildir.worker import SerialWorker, SharedThreads
from imapshield.message.pauses import pause_point

KIND = ("fetch", "INBOX")


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
    woken = 0

    def callFromThread(self, f: Callable[..., Any], *args: object, **kwargs: object) -> None:
        self.woken += 1
        f(*args, **kwargs)


class WorkerCase(SynchronousTestCase):
    """A test of `worker`, whose calls run when the test says so, and take the time that it says.

    Attributes:
        waits: how often the thread of the reactor has waited.
        slow_volumes: the file systems that were reported, with seconds.
    """

    def setUp(self) -> None:
        self.pool = Pool()
        self.reactor = Reactor()
        self.waits = Waits(0, 0, 0.0)
        self.slow_volumes: list[tuple[Sequence[int], float]] = []
        self.threads = SharedThreads(
            self.pool,
            self.reactor,
            self.sleep,
            lambda: self.waits,
            self.cpu_seconds,
            lambda *slow: self.slow_volumes.append(slow),
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
        return self.worker.run_short(function, KIND, (1,))

    def warm(self) -> None:
        self.run_short()
        self.pool.step()
