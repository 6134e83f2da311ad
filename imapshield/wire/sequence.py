"""Sequence sets (RFC 9051 ``sequence-set``): bytes ⇄ sorted intervals that are never expanded.

Rules
-----
* ``1:4294967295`` costs what ``1`` costs: everything here is linear in the number of intervals,
plus one sort.
* ``*`` stays a symbol until `largest`, the highest number in the mailbox, is known. ``n:*`` is then
  ``min(n, largest):largest``, so ``*`` alone is the same as ``4294967295:*``.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from imapshield.errors import BadCommand

MAX_NUMBER = 0xFFFFFFFF

# seq-number = nz-number / "*"
# seq-range  = seq-number ":" seq-number
# sequence-set = (seq-number / seq-range) ["," sequence-set]
_NUMBER = rb"(?:[1-9][0-9]{0,9}|\*)"
_ITEM = re.compile(rb"(%b)(?::(%b))?" % (_NUMBER, _NUMBER))


@dataclass(frozen=True, slots=True)
class SequenceSet:
    """Numbers as `ranges`, sorted, disjoint and not adjacent; `tail` n adds ``n:*``, 0 nothing.

    `saved` stands for ``$``, the saved result of RFC 5182, in a command that takes a sequence set;
    only the session knows what it holds. `SAVED` is that set; of itself it holds nothing.
    """

    ranges: tuple[tuple[int, int], ...] = ()
    tail: int = 0
    saved: bool = False

    @classmethod
    def parse(cls, octets: bytes) -> SequenceSet:
        """Read a whole sequence set; Malformed for anything else, 0 and 4294967296 included."""
        singles: list[tuple[int, int]] = []
        tail = 0
        for item in octets.split(b","):
            if item.isdigit():
                first = last = int(item[:11])
                if item[0] == 48:  # "0": no number here is zero or has leading zeros
                    raise BadCommand("Message numbers start at 1")
            else:
                found = _ITEM.fullmatch(item)
                if found is None:
                    raise BadCommand("Expected a sequence set such as 1:5,7")
                left, right = found.groups()
                if left == b"*" or right == b"*":
                    other = right if left == b"*" else left
                    start = MAX_NUMBER if other is None or other == b"*" else int(other)
                    if start > MAX_NUMBER:
                        raise BadCommand("A message number is out of range")
                    tail = min(tail, start) if tail else start
                    continue
                first, last = int(left), int(right)
                if first > last:
                    first, last = last, first
            if last > MAX_NUMBER:
                raise BadCommand("A message number is out of range")
            singles.append((first, last))
        return cls(_merged(singles), tail)

    @classmethod
    def from_uids(cls, uids: Iterable[int]) -> SequenceSet:
        """Make the set of `uids`, which must rise."""
        return cls(tuple(_runs(uids)))

    @classmethod
    def complement(cls, numbers: Iterable[int], end: int) -> SequenceSet:
        """Make the set of all from 1 up to `end`, that excluded, but for `numbers`, which must rise."""
        ranges = []
        first = 1
        for low, high in _runs(numbers):
            if low > first:
                ranges.append((first, low - 1))
            first = high + 1
        if end > first:
            ranges.append((first, end - 1))
        return cls(tuple(ranges))

    @property
    def highest(self) -> int:
        """The highest number named as a number; 0 when there is none.

        RFC 9051: over EXISTS it is an error.
        """
        return self.ranges[-1][1] if self.ranges else 0

    def __bool__(self) -> bool:
        return bool(self.ranges or self.tail or self.saved)

    def __contains__(self, number: int) -> bool:
        """Whether `number` is named, leaving ``*`` out of account."""
        i = bisect_right(self.ranges, (number, MAX_NUMBER + 1)) - 1
        return i >= 0 and self.ranges[i][0] <= number <= self.ranges[i][1]

    def __iter__(self) -> Iterator[int]:
        """Go through the numbers that are named, ``*`` left out: there may be four thousand million."""
        return chain.from_iterable(range(first, last + 1) for first, last in self.ranges)

    def contains(self, number: int, largest: int) -> bool:
        """Whether `number` is in the set when the highest number is `largest`."""
        in_tail = self.tail > 0 and min(self.tail, largest) <= number <= largest and number > 0
        return in_tail or number in self

    def resolve(self, largest: int) -> list[tuple[int, int]]:
        """Return the intervals, ``*`` being `largest`; numbers above `largest` stay.

        An empty mailbox has largest 0.
        """
        if not self.tail or largest < 1:
            return list(self.ranges)
        return list(_merged([*self.ranges, (min(self.tail, largest), largest)]))

    def matching_slices(self, numbers: Sequence[int], largest: int) -> list[tuple[int, int]]:
        """Find where the set meets `numbers`, which rise, as non-empty slices (start, stop).

        Two bisections an interval: ``1:*`` over a hundred thousand UIDs costs a microsecond.
        """
        met: list[tuple[int, int]] = []
        start, end = 0, len(numbers)
        for first, last in self.resolve(largest):
            start = bisect_left(numbers, first, start)
            if start == end:
                break
            stop = bisect_right(numbers, last, start)
            if stop > start:
                met.append((start, stop))
                start = stop
        return met

    def intersection(self, ranges: Iterable[tuple[int, int]]) -> SequenceSet:
        """Return what is named here, ``*`` left out, and in `ranges`, which must rise."""
        found: list[tuple[int, int]] = []
        mine = iter(self.ranges)
        at = next(mine, None)
        for first, last in ranges:
            while at is not None and at[1] < first:
                at = next(mine, None)
            while at is not None and at[0] <= last:
                found.append((max(first, at[0]), min(last, at[1])))
                if at[1] > last:
                    break
                at = next(mine, None)
        return SequenceSet(_merged(found))

    def encode(self) -> bytes:
        """Return the set as the wire has it; parsing that gives an equal set."""
        if self.saved:
            return b"$"
        items = [b"%d" % a if a == b else b"%d:%d" % (a, b) for a, b in self.ranges]
        if self.tail:
            items.append(b"*" if self.tail == MAX_NUMBER else b"%d:*" % self.tail)
        return b",".join(items)


SAVED = SequenceSet(saved=True)


def compact(numbers: Iterable[int]) -> bytes:
    """Return `numbers` in their own order, rising runs drawn together.

    For COPYUID and for the ALL of ESORT.
    """
    return b",".join([b"%d" % a if a == b else b"%d:%d" % (a, b) for a, b in _runs(numbers)])


def _runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    first = last = -1
    for number in numbers:
        if number == last + 1 and first >= 0:
            last = number
            continue
        if first >= 0:
            runs.append((first, last))
        first = last = number
    if first >= 0:
        runs.append((first, last))
    return runs


def _merged(ranges: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    if len(ranges) < 2:
        return tuple(ranges)
    ranges.sort()
    merged: list[tuple[int, int]] = []
    first, last = ranges[0]
    for a, b in ranges:
        if a > last + 1:
            merged.append((first, last))
            first, last = a, b
        elif b > last:
            last = b
    merged.append((first, last))
    return tuple(merged)
