"""A reactor and a thread pool that do as they are told."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock
from twisted.python.failure import Failure


class Reactor(Clock):
    """Time that stands still, threads that are this one, and a list of what shutdown would call."""

    def __init__(self) -> None:
        super().__init__()
        self.triggers: list[Callable[[], object]] = []

    def callFromThread(self, call: Callable[..., object], *args: Any, **named: Any) -> None:
        call(*args, **named)

    def addSystemEventTrigger(self, phase: str, event: str, call: Callable[[], object]) -> None:
        self.triggers.append(call)


class Pool:
    """Runs what it is given at once, or when `perform` is called if `held`."""

    def __init__(self, *, held: bool = False) -> None:
        self.held = held
        self.jobs: deque[tuple[Callable[..., object], Callable[..., object], tuple[Any, ...]]] = (
            deque()
        )
        self.ran = 0
        self.state = "new"

    def start(self) -> None:
        self.state = "started"

    def stop(self) -> None:
        self.perform()
        self.state = "stopped"

    def callInThreadWithCallback(
        self, onResult: Callable[[bool, Any], object], func: Callable[..., object], *args: Any
    ) -> None:
        assert self.state == "started"
        self.jobs.append((onResult, func, args))
        if not self.held:
            self.perform()

    def perform(self) -> None:
        while self.jobs:
            on_result, func, args = self.jobs.popleft()
            self.ran += 1
            try:
                result = func(*args)
            except BaseException:
                on_result(False, Failure())
            else:
                on_result(True, result)
