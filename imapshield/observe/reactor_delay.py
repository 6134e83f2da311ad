"""`ReactorDelay`: how late the reactor is. Everything that a client waits for waits at least that long."""

from collections.abc import Sequence
from typing import Any

from twisted.internet.task import LoopingCall

CHECK_SECONDS = 0.5
"""Seconds between two measurements: two calls in a second cost nothing, and no delay that users notice is missed."""

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""The upper bounds, in seconds, of the classes in which delays are counted."""


class ReactorDelay:
    """Measures how much later than it should a call runs.

    Args:
        reactor: an `IReactorTime`.

    Attributes:
        counts: how many delays were in each class of `BOUNDS`, and last how many were above.
        total: the sum of all delays, in seconds.
    """

    def __init__(self, reactor: Any) -> None:
        self._now = reactor.seconds
        self._expected: float | None = None
        self._highest = 0.0
        self.counts, self.total = [0] * (len(BOUNDS) + 1), 0.0
        self._loop = LoopingCall(self._measure)
        self._loop.clock = reactor

    def start(self) -> None:
        """Begin to measure."""
        self._expected = self._now() + CHECK_SECONDS
        self._loop.start(CHECK_SECONDS, now=False)

    def stop(self) -> None:
        """Measure no more."""
        if self._loop.running:
            self._loop.stop()

    def _measure(self) -> None:
        now = self._now()
        delay = max(0.0, now - (self._expected if self._expected is not None else now))
        # A LoopingCall that is late skips the calls it has missed, and keeps to its times.
        self._expected = now + CHECK_SECONDS - delay % CHECK_SECONDS
        self._highest = max(self._highest, delay)
        self.total += delay
        self.counts[next((i for i, bound in enumerate(BOUNDS) if delay <= bound), len(BOUNDS))] += 1

    def add(self, counts: Sequence[int], total: float, highest: float) -> None:
        """Add what another process has measured: `counts` and `total` as the attributes, and the largest delay."""
        self.counts = [own + other for own, other in zip(self.counts, counts, strict=True)]
        self.total += total
        self._highest = max(self._highest, highest)

    def take_highest(self) -> float:
        """Return the largest delay since the last call of this method, or the present one if that is larger."""
        highest, self._highest = self._highest, 0.0
        if self._expected is not None:
            highest = max(highest, self._now() - self._expected)
        return highest
