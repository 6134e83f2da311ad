"""Sequence sets (RFC 9051 ``sequence-set``) as sorted ranges, which are never expanded into numbers.

Rules
-----
* ``1:4294967295`` costs what ``1`` costs: everything here is linear in the number of ranges, plus one sort.
* ``*`` stays symbolic until `largest`, the highest number in the mailbox, is known. ``n:*`` is then
  ``min(n, largest):largest``, so ``*`` alone is the same as ``4294967295:*``.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import sub

from imapshield.errors import BadCommand
from imapshield.wire.pieces import NUMBERS_PER_PIECE, separated

MAX_NUMBER = 0xFFFFFFFF
"""The largest ``number`` (RFC 9051 section 9)."""

# seq-number = nz-number / "*"
# seq-range  = seq-number ":" seq-number
# sequence-set = (seq-number / seq-range) ["," sequence-set]
_NUMBER = rb"(?:[1-9][0-9]{0,9}|\*)"
_NUMBERS = re.compile(rb"[1-9][0-9]{0,9}(?:,[1-9][0-9]{0,9})+")
_ITEM = re.compile(rb"(%b)(?::(%b))?" % (_NUMBER, _NUMBER))


@dataclass(frozen=True, slots=True)
class SequenceSet:
    """A set of sequence numbers or UIDs.

    Args:
        ranges: (first, last) pairs, both inclusive; sorted, disjoint and not adjacent.
        tail: n for a set that also has ``n:*``; 0 for a set without ``*``.
        saved: whether this is ``$``, the saved result of RFC 5182. Only the session knows the messages in it, so the
            set itself is empty. `SAVED` is the one such set.
    """

    ranges: tuple[tuple[int, int], ...] = ()
    tail: int = 0
    saved: bool = False

    @classmethod
    def parse(cls, octets: bytes) -> "SequenceSet":
        """Parse a whole sequence set.

        Raises:
            BadCommand: it is not a sequence set, or a number in it is not between 1 and 4294967295.
        """
        if _NUMBERS.fullmatch(octets) and (single := _single_numbers(octets)):
            return cls(single)
        parsed: list[tuple[int, int]] = []
        tail = 0
        for item in octets.split(b","):
            if item.isdigit():
                first = last = int(item[:11])
                if item[0] == 48:  # "0": numbers are not zero, and have no leading zeros
                    raise BadCommand("Message numbers begin at 1 and have no leading zeros")
            else:
                found = _ITEM.fullmatch(item)
                if found is None:
                    raise BadCommand("Expected a sequence set such as 1:5,7")
                left, right = found.groups()
                if left == b"*" or right == b"*":
                    other = right if left == b"*" else left
                    start = MAX_NUMBER if other is None or other == b"*" else int(other)
                    if start > MAX_NUMBER:
                        raise BadCommand("Message numbers are at most 4294967295")
                    tail = min(tail, start) if tail else start
                    continue
                first, last = int(left), int(right)
                if first > last:
                    first, last = last, first
            if last > MAX_NUMBER:
                raise BadCommand("Message numbers are at most 4294967295")
            parsed.append((first, last))
        return cls(_merged(parsed), tail)

    @classmethod
    def from_numbers(cls, numbers: Iterable[int]) -> "SequenceSet":
        """Make the set of `numbers`, which must be in ascending order: UIDs, sequence numbers or rows."""
        return cls(tuple(runs(numbers)))

    @classmethod
    def complement(cls, numbers: Iterable[int], end: int) -> "SequenceSet":
        """Make the set of the numbers from 1 to ``end - 1`` that are not in `numbers`.

        `numbers` must be in ascending order.
        """
        ranges = []
        first = 1
        for low, high in runs(numbers):
            if low > first:
                ranges.append((first, low - 1))
            first = high + 1
        if end > first:
            ranges.append((first, end - 1))
        return cls(tuple(ranges))

    @property
    def highest(self) -> int:
        """The highest number in the set apart from ``*``; 0 if there is none.

        RFC 9051 makes a sequence number above EXISTS an error.
        """
        return self.ranges[-1][1] if self.ranges else 0

    def __bool__(self) -> bool:
        return bool(self.ranges or self.tail or self.saved)

    def __iter__(self) -> Iterator[int]:
        """Iterate over the numbers, disregarding ``*``. There may be four billion of them."""
        return chain.from_iterable(range(first, last + 1) for first, last in self.ranges)

    def resolve(self, largest: int) -> list[tuple[int, int]]:
        """Return the ranges of the set, as (first, last) pairs, with a number in place of ``*``.

        Args:
            largest: the number that ``*`` stands for: the highest one in the mailbox, or 0 in an empty mailbox, where
                ``*`` matches nothing. The other ranges are returned whole, even above `largest`.
        """
        if not self.tail or largest < 1:
            return list(self.ranges)
        return list(_merged([*self.ranges, (min(self.tail, largest), largest)]))

    def matching_slices(self, numbers: Sequence[int], largest: int) -> list[tuple[int, int]]:
        """Return the non-empty slices (start, stop) of `numbers` that are in the set.

        `numbers` must be in ascending order, without duplicates. Each range costs two bisections, of no more numbers
        than there are between it and the last one: 11,000 ranges take some milliseconds.
        """
        slices: list[tuple[int, int]] = []
        start, end = 0, len(numbers)
        for first, last in self.resolve(largest):
            if start < end and numbers[start] < first:
                start = bisect_left(numbers, first, start, min(end, start + first - numbers[start]))
            if start == end:
                break
            stop = min(end, start + max(0, last - numbers[start] + 1))
            stop = bisect_right(numbers, last, start, stop)
            if stop > start:
                slices.append((start, stop))
                start = stop
        return slices

    def intersection(self, ranges: Iterable[tuple[int, int]]) -> "SequenceSet":
        """Return the numbers that are in the set, disregarding ``*``, and in `ranges`, which must be ascending."""
        return SequenceSet(tuple(chain.from_iterable(self.intersection_parts([*ranges]))))

    def intersection_parts(
        self, ranges: Sequence[tuple[int, int]], size: int = MAX_NUMBER
    ) -> Iterator[list[tuple[int, int]]]:
        """Yield the ranges of `intersection` in parts. Each takes at most `size` steps, and may be empty."""
        own, i, j = self.ranges, 0, 0
        while i < len(own) and j < len(ranges):
            shared: list[tuple[int, int]] = []
            for _ in range(size):
                (a, b), (c, d) = own[i], ranges[j]
                first, last = max(a, c), min(b, d)
                if first <= last:
                    shared.append((first, last))
                i, j = (i + 1, j) if b < d else (i, j + 1)
                if i == len(own) or j == len(ranges):
                    break
            yield shared

    def encode(self) -> bytes:
        """Return the set as it is sent. Parsing the result gives an equal set."""
        if self.saved:
            return b"$"
        items = [b"%d" % a if a == b else b"%d:%d" % (a, b) for a, b in self.ranges]
        if self.tail:
            items.append(b"*" if self.tail == MAX_NUMBER else b"%d:*" % self.tail)
        return b",".join(items)


SAVED = SequenceSet(saved=True)


def compact(numbers: Iterable[int]) -> bytes:
    """Return `numbers` as a comma-separated list in the given order, where ascending neighbours become a range.

    For example 5, 1, 2, 3 becomes ``5,1:3``. COPYUID and the ALL of ESORT need the order.
    """
    return b"".join(compact_pieces(numbers))


def compact_pieces(numbers: "Iterable[int] | SequenceSet") -> Iterator[bytes]:
    """Yield `compact` of `numbers` in pieces. Each but the first begins with a comma, and none divides a range."""
    ranges = numbers.ranges if isinstance(numbers, SequenceSet) else runs(numbers)
    items = (b"%d" % a if a == b else b"%d:%d" % (a, b) for a, b in ranges)
    return separated(items, b",", NUMBERS_PER_PIECE // 2)


def runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield `numbers`, which must be in ascending order, as ranges (first, last)."""
    first = last = -1
    for number in numbers:
        if number == last + 1 and first >= 0:
            last = number
            continue
        if first >= 0:
            yield first, last
        first = last = number
    if first >= 0:
        yield first, last


def _single_numbers(octets: bytes) -> tuple[tuple[int, int], ...]:
    """Return two or more numbers as ranges, or () if they are not in the order of a set or not each a range.

    Clients often name thousands of messages in this way, and to look for ranges takes twice as long.
    """
    numbers = [*map(int, octets.split(b","))]
    if numbers[-1] > MAX_NUMBER or min(map(sub, numbers[1:], numbers)) < 2:
        return ()
    return tuple(zip(numbers, numbers, strict=True))


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
