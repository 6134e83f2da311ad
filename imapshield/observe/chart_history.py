"""`ChartHistory`: the last values of some measures, for charts. Pure, and of a fixed size."""

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

SAMPLE_SECONDS = 10.0
"""Seconds between two samples: what changes faster is in the maximum of its interval."""

RANGES: Mapping[str, tuple[int, int]] = {"hour": (1, 360), "day": (6, 1440)}
"""The ranges by name: how many samples are one point, and how many points there are."""


class ChartHistory:
    """Rings of points for each range. A point of several samples has their maximum, so that no peak disappears.

    Args:
        names: the names of the measures.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._rings = {name: _Rings(len(self._names), *shape) for name, shape in RANGES.items()}

    def add(self, values: Mapping[str, float], time: float) -> None:
        """Add a sample.

        Args:
            values: the value of each measure.
            time: seconds since 1970.
        """
        sample = [values[name] for name in self._names]
        for ring in self._rings.values():
            ring.add(sample, time)

    def points(self, range_name: str) -> dict[str, Any]:
        """Return the points of a range, the oldest first: the time of the last one, the seconds between two, and for
        each measure a list of values.
        """
        ring = self._rings[range_name]
        series = dict(zip(self._names, map(ring.values, range(len(self._names))), strict=True))
        return {"time": ring.time, "step": SAMPLE_SECONDS * ring.samples, "series": series}


class _Rings:
    def __init__(self, number: int, samples: int, length: int) -> None:
        self.samples, self.time = samples, 0.0
        self._length, self._count, self._pending = length, 0, 0
        self._values = [array("d", bytes(8 * length)) for _ in range(number)]
        self._highest: list[float] = []

    def add(self, sample: Sequence[float], time: float) -> None:
        self._highest = list(map(max, sample, self._highest)) if self._pending else list(sample)
        self._pending += 1
        if self._pending == self.samples:
            for ring, value in zip(self._values, self._highest, strict=True):
                ring[self._count % self._length] = value
            self._count, self._pending, self.time = self._count + 1, 0, time

    def values(self, number: int) -> list[float]:
        ring, end = self._values[number], self._count % self._length
        if self._count < self._length:
            return ring[:end].tolist()
        return (ring[end:] + ring[:end]).tolist()
