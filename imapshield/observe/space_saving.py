"""`Summary`: who has most of something, in little memory however many there are. Pure.

This is the Space-Saving algorithm (Metwally, Agrawal and El Abbadi, 2005) for items that arrive in batches. It keeps
`capacity` counters. When a batch leaves more, the count of the largest one that must go is subtracted from all, and
what is not positive is dropped. Agarwal et al. (Mergeable Summaries, 2012) prove for this form, and for the sum of two
summaries, too:

* A count is too low by at most `Summary.error`, which is at most ``total / capacity``.
* A key with more than ``total / capacity`` is in the summary.
"""

from collections.abc import Mapping
from typing import Generic, NamedTuple, TypeVar

K = TypeVar("K")


class Share(NamedTuple, Generic[K]):
    """What one key has: at least `amount`, and at most `amount` plus `error`."""

    key: K
    amount: float
    error: float


class Summary(Generic[K]):
    """A summary of what each key has.

    Args:
        capacity: the number of counters.

    Attributes:
        total: what all keys have together; exact.
        error: by how much a count may be too low.
    """

    __slots__ = ("_capacity", "_counts", "error", "total")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._counts: dict[K, float] = {}
        self.total = self.error = 0.0

    def add(self, batch: Mapping[K, float]) -> None:
        """Add to each key what it has in `batch`: numbers that are not negative."""
        counts = self._counts
        for key, count in batch.items():
            if count > 0:
                counts[key] = counts.get(key, 0.0) + count
                self.total += count
        self._prune()

    def merge(self, other: "Summary[K]") -> None:
        """Add all that `other` has seen."""
        total = self.total + other.total
        self.add(other._counts)
        self.total = total
        self.error += other.error

    def _prune(self) -> None:
        counts = self._counts
        if len(counts) > self._capacity:
            least = sorted(counts.values(), reverse=True)[self._capacity]
            self._counts = {key: count - least for key, count in counts.items() if count > least}
            self.error += least

    def __len__(self) -> int:
        return len(self._counts)

    def top(self, number: int) -> list[Share[K]]:
        """Return the keys with most, largest first."""
        largest = sorted(self._counts.items(), key=lambda item: -item[1])[:number]
        return [Share(key, count, self.error) for key, count in largest]
