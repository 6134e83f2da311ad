"""A fake reactor and a fake thread pool: time stands still, and work runs in the test's own thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool


class FakeReactor(Clock):
    """A clock that runs the calls from threads at once, and collects the triggers for the shutdown."""

    def __init__(self) -> None:
        super().__init__()
        self.triggers: list[Callable[[], object]] = []

    def callFromThread(self, call: Callable[..., object], *args: Any, **named: Any) -> None:
        call(*args, **named)

    def addSystemEventTrigger(
        self, phase: str, event: str, call: Callable[[], object]
    ) -> Callable[[], object]:
        self.triggers.append(call)
        return call

    def removeSystemEventTrigger(self, trigger: Callable[[], object]) -> None:
        self.triggers.remove(trigger)


class FakePool(ThreadPool):
    """Runs jobs at once, or in `run_pending` while `paused`."""

    def __init__(self) -> None:
        super().__init__(0, 1)
        self.paused = False
        self.jobs: deque[tuple[Callable[..., object], Callable[..., object], tuple[Any, ...]]] = (
            deque()
        )
        self.jobs_run = 0
        self.state = "new"

    def start(self) -> None:
        self.state = "started"

    def stop(self) -> None:
        self.run_pending()
        self.state = "stopped"

    def adjustPoolsize(self, minthreads: int | None = None, maxthreads: int | None = None) -> None:
        """Let all threads end, as `CheckerThreads.close` wants it: what runs and waits is not waited for."""
        assert (minthreads, maxthreads) == (0, 0)
        self.state = "stopped"

    def callInThreadWithCallback(
        self, onResult: Any, func: Callable[..., object], *args: Any, **kw: Any
    ) -> None:
        assert self.state == "started"
        assert not kw
        self.jobs.append((onResult, func, args))
        if not self.paused:
            self.run_pending()

    def run_pending(self) -> None:
        while self.jobs:
            on_result, func, args = self.jobs.popleft()
            self.jobs_run += 1
            try:
                result = func(*args)
            except BaseException:
                on_result(False, Failure())
            else:
                on_result(True, result)
