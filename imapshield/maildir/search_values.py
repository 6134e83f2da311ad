"""The values that SEARCH compares, of many messages in one row of the index: so a search reads some tens of rows.

A row has the values of messages whose UIDs differ in their last seven bits only, and its UID is that of the first of
them. Messages that arrive later are added to it. The values of expunged messages stay in a row until its first message
is expunged: they are never asked for. Whatever a row lacks is computed again.

A row is a number of messages, their UIDs, and where the value of each ends, as 32-bit integers in little-endian order;
then the values follow each other.
"""

import sqlite3
import sys
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

ROW_SPAN: Final = 128
"""How many UIDs a row is for."""

MAX_ROW_SIZE: Final = 64 << 10
"""Bytes of values in a row: if it would have more, there are several rows."""

_NUMBER = 4
_ROWS = "FROM answer WHERE mailbox = ? AND item = ? AND uid BETWEEN ? AND ?"


@dataclass(slots=True)
class ValueRow:
    """One row. `uids` are ascending; the value of the message at i is ``data[ends[i - 1] : ends[i]]``."""

    uids: "array[int]"
    ends: "array[int]"
    data: bytes

    @classmethod
    def decode(cls, row: bytes) -> "ValueRow":
        """Return a row of the index. A damaged one has no messages."""
        count = int.from_bytes(row[:_NUMBER], "little")
        middle, start = _NUMBER * (count + 1), _NUMBER * (2 * count + 1)
        if start > len(row):
            return cls(array("I"), array("I"), b"")
        return cls(_numbers(row[_NUMBER:middle]), _numbers(row[middle:start]), row[start:])

    def values(self) -> Iterator[tuple[int, bytes]]:
        """Yield the UID and the value of each message."""
        for uid, (start, end) in zip(self.uids, pairwise((0, *self.ends)), strict=True):
            yield uid, self.data[start:end]

    def containing(self, needle: bytes) -> list[int]:
        """Return the UIDs of the messages whose values contain `needle`, which is not empty."""
        found = []
        data, ends, count = self.data, self.ends, len(self.ends)
        pos = data.find(needle)
        while pos >= 0:
            i = bisect_right(ends, pos)
            if i == count:  # the row is damaged
                break
            if pos + len(needle) <= ends[i]:
                found.append(self.uids[i])
                pos = ends[i] - 1
            pos = data.find(needle, pos + 1)
        return found


def row_bounds(uids: Sequence[int]) -> tuple[int, int]:
    """Return the lowest and the highest UID of the rows that messages are in.

    Args:
        uids: the messages, ascending; at least one.
    """
    return uids[0] - uids[0] % ROW_SPAN, uids[-1] | ROW_SPAN - 1


def read_rows(
    db: sqlite3.Connection, key: int, item: int, uids: Sequence[int]
) -> Iterator[ValueRow]:
    """Yield the rows that may have values of messages, except damaged ones.

    Args:
        db: the index.
        key: the mailbox.
        item: the id of the item.
        uids: the messages, ascending; at least one.
    """
    query = f"SELECT value {_ROWS} ORDER BY uid"
    with closing(db.execute(query, (key, item, *row_bounds(uids)))) as rows:
        for (octets,) in rows:
            row = ValueRow.decode(octets)
            if row.uids:
                yield row


def take_rows(db: sqlite3.Connection, key: int, item: int, low: int, high: int) -> list[bytes]:
    """Remove the rows with UIDs from `low` to `high` that are not nearly full, in a write transaction; return them."""
    condition, parameters = (
        f"{_ROWS} AND length(value) < {MAX_ROW_SIZE // 2}",
        (key, item, low, high),
    )
    taken = db.execute(f"SELECT value {condition}", parameters).fetchall()
    db.execute(f"DELETE {condition}", parameters)
    return [row for (row,) in taken]


def encoded_rows(values: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Yield the UID and the content of each row that has some values.

    Args:
        values: the UID and the value of each message, ascending, of a span of `ROW_SPAN` UIDs.
    """
    uids, ends, texts = array("I"), array("I"), list[bytes]()
    size = 0
    for uid, value in values:
        if uids and size + len(value) > MAX_ROW_SIZE:
            yield uids[0], _encoded(uids, ends, texts)
            uids, ends, texts = array("I"), array("I"), []
            size = 0
        size += len(value)
        uids.append(uid)
        ends.append(size)
        texts.append(value)
    if uids:
        yield uids[0], _encoded(uids, ends, texts)


def merged_rows(
    values: Sequence[tuple[int, bytes]], take: Callable[[int, int], Iterable[bytes]]
) -> Iterator[tuple[int, bytes]]:
    """Yield the rows to write, so that the index has some more values.

    Args:
        values: the UID and the value of each message, ascending.
        take: removes the rows with UIDs between two, as far as they have room, and returns them.
    """
    start = 0
    while start < len(values):
        low, high = row_bounds([values[start][0]])
        stop = bisect_right(values, high, start, key=lambda value: value[0])
        known: dict[int, bytes] = {}
        for row in take(low, high):
            known.update(ValueRow.decode(row).values())
        known.update(values[start:stop])
        yield from encoded_rows(sorted(known.items()))
        start = stop


def _encoded(uids: "array[int]", ends: "array[int]", texts: Sequence[bytes]) -> bytes:
    count = len(uids).to_bytes(_NUMBER, "little")
    return b"".join((count, _octets(uids), _octets(ends), *texts))


def _octets(numbers: "array[int]") -> bytes:
    if sys.byteorder == "big":
        numbers = numbers[:]
        numbers.byteswap()
    return numbers.tobytes()


def _numbers(octets: bytes) -> "array[int]":
    numbers = array("I", octets)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
