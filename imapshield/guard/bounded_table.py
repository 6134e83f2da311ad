"""`BoundedTable`: a dict with a maximum size. When it is full, a new key replaces the key with the lowest score."""

import heapq
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BoundedTable(Generic[K, V]):
    """At most `max_keys` keys with their values.

    Args:
        max_keys: the maximum number of keys.
        score: returns how much a value is worth keeping. It depends on the value alone, not on the time, so a score is
            best a time: that at which the value loses its meaning.

    The heap has an entry for each key, with the score that the value had at some time. Scores usually grow, so the top
    entry is brought up to date before its key is dropped. An operation costs O(log n), averaged over all operations.
    """

    def __init__(self, max_keys: int, score: Callable[[V], float]) -> None:
        self.max_keys = max_keys
        self._score = score
        self._values: dict[K, V] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._entries = 0  # so that two entries with the same score never compare their keys
        self.get = self._values.get
        self.values = self._values.values

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[K]:
        return iter(self._values)

    def put(self, key: K, value: V) -> K | None:
        """Set the value of `key`. If the key is new and the table is full, first drop the key with the lowest score.

        Returns:
            The dropped key, or None.
        """
        dropped = None
        if key not in self._values:
            if len(self._values) >= self.max_keys:
                dropped = self._drop_lowest()
            self._push(key, value)
        self._values[key] = value
        return dropped

    def pop(self, key: K) -> V | None:
        """Remove `key`, and return its value; None if there is none."""
        value = self._values.pop(key, None)
        if len(self._heap) > 2 * len(self._values) + 100:  # entries of keys that were removed
            self._heap.clear()
            for kept, kept_value in self._values.items():
                self._push(kept, kept_value)
        return value

    def _push(self, key: K, value: V) -> None:
        self._entries += 1
        heapq.heappush(self._heap, (self._score(value), self._entries, key))

    def _drop_lowest(self) -> K:
        while True:
            score, _, key = heapq.heappop(self._heap)
            value = self._values.get(key)
            if value is None:
                continue
            if self._score(value) <= score:
                del self._values[key]
                return key
            self._push(key, value)
