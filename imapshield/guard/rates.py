"""Rates: `RateTable` limits how often something may happen, `RecentItems` counts what has happened recently."""

import math
import struct
from collections.abc import Callable, Hashable, Iterable
from heapq import nlargest
from itertools import islice, starmap
from operator import itemgetter
from typing import Generic, TypeVar

from imapshield.guard.bounded_table import BoundedTable
from imapshield.guard.login_news import MAX_NEWS, News

K = TypeVar("K", bound=Hashable)

MAX_BURSTS = 2
"""Bursts that a key may have taken in several processes together. With one, each of them could let it take the next as
soon as the first is used up, and in the long run it would have as many times its rate as there are processes."""

_ROUNDING = 1e-6
"""Seconds by which sums of times may be wrong. A caller that waits exactly as long as `take` says must succeed."""


class RateTable:
    """Limits the rate of each key with the generic cell rate algorithm (GCRA, ITU-T I.371).

    A key has one number: the time at which everything that it has taken is used up. So `burst` may be taken at once,
    and `per_second` in the long run.

    Args:
        per_second: how much a key may take per second.
        burst: how much a key may take at once after a pause.
        max_keys: the number of keys that are remembered. One more makes the table forget the key that is nearest to
            having its whole burst again, so the key that has taken most is never the first.
        news: as the attribute.

    Attributes:
        news: collects how much each key takes here, less what is given back, for `add_taken` of other processes. None
            collects nothing.
    """

    def __init__(
        self,
        per_second: float,
        burst: float,
        max_keys: int,
        news: News[Hashable] | None = None,
    ) -> None:
        self._seconds_each = 1 / per_second
        self._burst_seconds = burst / per_second
        self._used_until: BoundedTable[Hashable, float] = BoundedTable(max_keys, float)
        self.news = news

    def __len__(self) -> int:
        return len(self._used_until)

    def take(self, key: Hashable, now: float, cost: float = 1) -> float:
        """Take `cost` for `key`, or nothing if that exceeds the rate.

        Returns:
            0.0 if it was taken, otherwise the seconds after which it can be taken; infinite if it exceeds the burst.
        """
        until = max(self._used_until.get(key, now), now) + cost * self._seconds_each
        wait = until - now - self._burst_seconds
        if wait <= _ROUNDING:
            self._used_until.put(key, until)
            if self.news is not None:
                self.news.add(key, cost)
            return 0.0
        return wait if cost * self._seconds_each <= self._burst_seconds else math.inf

    def taken(self, key: Hashable, now: float) -> float:
        """Return how much `key` has taken that is not used up yet: at most the burst."""
        return max(0.0, self._used_until.get(key, now) - now) / self._seconds_each

    def give_back(self, key: Hashable, now: float, cost: float = 1) -> None:
        """Undo a `take`: what was taken has turned out not to count."""
        until = self._used_until.get(key)
        if until is not None:
            self._used_until.put(key, max(now, until - cost * self._seconds_each))
            if self.news is not None:
                self.news.add(key, -cost)

    def add_taken(self, key: Hashable, amount: float, now: float) -> None:
        """Count what `key` has taken in another process, or given back (`amount` below 0).

        Several processes may let it take a burst each before they know of each other. So it may owe one burst more than
        it has, but not more, or it would wait for too long.
        """
        until = max(self._used_until.get(key, now), now) + amount * self._seconds_each
        if until > now or key in self._used_until:
            self._used_until.put(key, max(now, min(until, now + MAX_BURSTS * self._burst_seconds)))

    def set_taken(self, key: Hashable, amount: float, now: float) -> None:
        """Set how much `key` has taken that is not used up yet."""
        if amount > 0 or key in self._used_until:
            seconds = min(amount * self._seconds_each, MAX_BURSTS * self._burst_seconds)
            self._used_until.put(key, now + max(0.0, seconds))

    def most_taken(self, number: int, now: float) -> list[tuple[Hashable, float]]:
        """Return the keys that have taken most, at most `number`, and how much each has that is not used up yet."""
        rows = [(key, self.taken(key, now)) for key in self._used_until]
        most = nlargest(number, rows, key=itemgetter(1))
        return [(key, amount) for key, amount in most if amount > 0]

    @property
    def rate(self) -> tuple[float, float]:
        """The rate: how much a key may take per second, and at once."""
        return 1 / self._seconds_each, self._burst_seconds / self._seconds_each


class RateNews(Generic[K]):
    """How much each key has taken since it was last reported to other processes.

    What a new key takes is not collected while there are `MAX_NEWS` others. It counts in this process alone.

    Attributes:
        amounts: the keys and their amounts.
        on_first: called with the first that waits.
    """

    def __init__(self) -> None:
        self.amounts: dict[K, float] = {}
        self.on_first: Callable[[], object] = lambda: None

    def add(self, key: K, amount: float, /) -> None:
        """Add `amount`, which is below 0 for what is given back."""
        if not self.amounts:
            self.on_first()
        if key in self.amounts or len(self.amounts) < MAX_NEWS:
            self.amounts[key] = self.amounts.get(key, 0.0) + amount

    def take(self, number: int) -> list[tuple[K, float]]:
        """Remove and return the first `number` keys with their amounts, without those that have given back all."""
        taken: list[tuple[K, float]] = []
        while self.amounts and len(taken) < number:
            keys = list(islice(self.amounts, number - len(taken)))
            taken += [(key, amount) for key in keys if (amount := self.amounts.pop(key))]
        return taken


# An item, and the second in which it was last added. That is below 0 if it was before the start of the machine.
_RECORD = struct.Struct("<8si")


class RecentItems:
    """Counts the distinct items of each key that were added in the last `seconds`.

    Args:
        seconds: how long an item counts after it was last added.
        max_keys: the number of keys that are remembered. One more makes the table forget the key that has had the
            fewest items for the longest time: each of `max_items` outweighs ``seconds / max_items``.
        max_items: the number of items of one key. One more replaces the oldest.
    """

    def __init__(self, seconds: float, max_keys: int, max_items: int) -> None:
        self._seconds = seconds
        self._max_bytes = max_items * _RECORD.size
        # The records of a key, the oldest first. Bytes, because a tuple of tuples takes ten times as much memory.
        self._table: BoundedTable[Hashable, bytes] = BoundedTable(max_keys, self._score)

    def __len__(self) -> int:
        return len(self._table)

    def add(self, key: Hashable, item: bytes, now: float, time: float | None = None) -> int:
        """Add `item`, which has 8 bytes, or renew it. Returns the number of items of `key`.

        Args:
            key: the key.
            item: the item.
            now: the time.
            time: when it happened, if that was before: as another process reports it.
        """
        records, second = self._recent(key, now), math.floor(now if time is None else time)
        at = _find(records, item)
        if at is not None:
            second = max(second, _time(records, at))
            records = records[:at] + records[at + _RECORD.size :]
        if second <= now - self._seconds:
            return len(records) // _RECORD.size
        end = len(records)
        while end and _time(records, end - _RECORD.size) > second:
            end -= _RECORD.size
        records = records[:end] + _RECORD.pack(item, second) + records[end:]
        self._table.put(key, records[-self._max_bytes :])
        return min(len(records), self._max_bytes) // _RECORD.size

    def has(self, key: Hashable, item: bytes, now: float) -> bool:
        """Return whether `item` is among the items of `key`."""
        return _find(self._recent(key, now), item) is not None

    def add_if_room(self, key: Hashable, item: bytes, now: float) -> int:
        """Do what `add` does, unless that would replace another item. Then change nothing, and return 0."""
        records = self._recent(key, now)
        has_room = len(records) < self._max_bytes or _find(records, item) is not None
        return self.add(key, item, now) if has_room else 0

    def count(self, key: Hashable, now: float) -> int:
        """Return the number of items of `key`."""
        return len(self._recent(key, now)) // _RECORD.size

    def time_of(self, key: Hashable, item: bytes) -> float | None:
        """Return the second in which `item` was last added, or None if it is not remembered."""
        records = self._table.get(key, b"")
        at = _find(records, item)
        return None if at is None else _time(records, at)

    def rows(self) -> list[tuple[Hashable, bytes]]:
        """Return all keys and their items, for `merge` of another process with the same clock."""
        return [(key, self._table.get(key, b"")) for key in self._table]

    def merge(self, rows: Iterable[tuple[Hashable, bytes]]) -> None:
        """Add the items of another table, each with the later time."""
        for key, added in rows:
            own = self._table.get(key, b"")
            if own == added:  # most are, in a process that has missed something
                continue
            items = dict(_RECORD.iter_unpack(added))
            times = items | dict(_RECORD.iter_unpack(own))
            times |= {item: max(time, times[item]) for item, time in items.items()}
            # The oldest first, as `_recent` needs them.
            by_time = sorted(times.items(), key=lambda row: row[1])
            records = b"".join(starmap(_RECORD.pack, by_time))
            self._table.put(key, records[-self._max_bytes :])

    def forget(self, key: Hashable) -> None:
        """Forget all items of `key`."""
        self._table.pop(key)

    def _score(self, records: bytes) -> float:
        return (
            _time(records, len(records) - _RECORD.size)
            + self._seconds * len(records) / self._max_bytes
        )

    def _recent(self, key: Hashable, now: float) -> bytes:
        records = self._table.get(key, b"")
        expired = 0
        while expired < len(records) and _time(records, expired) <= now - self._seconds:
            expired += _RECORD.size
        return records[expired:]


def _time(records: bytes, at: int) -> int:
    time: int = _RECORD.unpack_from(records, at)[1]
    return time


def _find(records: bytes, item: bytes) -> int | None:
    """Return where the record of `item` begins, None if there is none."""
    starts = range(0, len(records), _RECORD.size)
    return next((at for at in starts if records.startswith(item, at)), None)
