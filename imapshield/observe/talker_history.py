"""`TalkerHistory`: who did most of the work in each ten seconds of the last minutes, for a chart. Pure.

A point of the chart keeps the largest few of a `Summary`; what all others have is the rest of its total. So the memory
does not grow with addresses: at most 1 MB.
"""

from collections import deque
from collections.abc import Mapping
from itertools import product
from typing import Any, NamedTuple

from imapshield.observe.space_saving import Summary

SUBJECTS = ("address", "network", "user")
MEASURES = ("commands", "octets", "busy")

POINT_SECONDS = 10.0
"""Seconds of a point, as in the other charts."""

POINTS = 120
"""Points of the chart: the last twenty minutes."""

LARGEST = 5
"""Keys of a point, and of the chart."""

CAPACITY = 100
"""Counters of each summary: an error is at most a fiftieth of the total, which a chart hardly shows."""


class _Point(NamedTuple):
    seconds: float
    total: float
    largest: tuple[tuple[str, float], ...]


class TalkerHistory:
    """The points of the chart. `now` is the time in seconds, of a clock that never goes back."""

    def __init__(self, now: float) -> None:
        self._kinds = tuple(product(SUBJECTS, MEASURES))
        self._points: dict[tuple[str, str], deque[_Point]] = {
            kind: deque(maxlen=POINTS) for kind in self._kinds
        }
        self._begin(now)

    def _begin(self, now: float) -> None:
        self._begun = now
        self._totals = dict.fromkeys(self._kinds, 0.0)
        self._summaries: dict[tuple[str, str], Summary[str]] = {
            kind: Summary(CAPACITY) for kind in self._kinds
        }

    def add(self, batches: Mapping[tuple[str, str], Mapping[str, float]], now: float) -> None:
        """Add the work of about a second: for each subject and measure, how much each key has.

        Call this once per second, also if there is none.
        """
        for kind, summary in self._summaries.items():
            if batch := batches.get(kind):
                total = sum(batch.values())
                self._totals[kind] += total
                # Those who have less cannot be among the largest, and a flood has thousands of them.
                least = total / (2 * CAPACITY)
                summary.add({key: amount for key, amount in batch.items() if amount >= least})
        seconds = now - self._begun
        if seconds >= POINT_SECONDS:
            for kind, summary in self._summaries.items():
                largest = tuple((share.key, share.amount) for share in summary.top(LARGEST))
                self._points[kind].append(_Point(seconds, self._totals[kind], largest))
            self._begin(now)

    def chart(self, subject: str, measure: str, now: float) -> dict[str, Any]:
        """Return the points of a chart, the oldest first, in amounts per second.

        Args:
            subject: one of `SUBJECTS`.
            measure: one of `MEASURES`.
            now: the time.

        Returns:
            ``age``: the seconds since the last point; ``step``: those between two points; ``series``: for each of the
            keys that have most in all points together, the largest first, a list of values; ``others``: a list with
            what all others have.
        """
        points = self._points[subject, measure]
        sums: dict[str, float] = {}
        for point in points:
            for key, amount in point.largest:
                sums[key] = sums.get(key, 0.0) + amount
        keys = sorted(sums, key=lambda key: -sums[key])[:LARGEST]
        shown = [dict(point.largest) for point in points]
        series = {
            key: [each.get(key, 0.0) / p.seconds for each, p in zip(shown, points, strict=True)]
            for key in keys
        }
        totals = [point.total / point.seconds for point in points]
        others = [
            max(0.0, total - sum(values))
            for total, *values in zip(totals, *series.values(), strict=True)
        ]
        age = now - self._begun
        return {"age": age, "step": POINT_SECONDS, "series": series, "others": others}
