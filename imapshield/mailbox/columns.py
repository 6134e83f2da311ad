"""What a mailbox knows of each message, in columns, and how a store says that something changed.

Rules
-----
* `Columns` replaces its arrays when messages come or go and never changes one in place, so that a thousand sessions
  that look at the same mailbox share one copy (`mailbox.view`). Flags, MODSEQ and sizes do change in place.
* A flag list is `bytes` ready to send, in canonical order; equal lists are one small number. The number of a list
  that no message has any more is given to another one, so no number is kept across a delta.
* `keywords` are all that there were since the mailbox was opened, by their lower case.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import pairwise

from imapshield.mailbox.deltas import Change, Delta, MessageRow
from imapshield.wire.sequence import SequenceSet

UNKNOWN_SIZE = 0xFFFFFFFFFFFFFFFF
MAX_UNUSED_FLAG_LISTS = 1000
"""Flag lists kept beyond those in use: a client that thinks up a new one for every STORE would have them all kept."""


class Columns:
    """The messages of one mailbox, rising by UID: row i of every array is the same message."""

    __slots__ = (
        "_first_row",
        "_free_ids",
        "_ids",
        "dates",
        "flag_lists",
        "flag_sets",
        "flag_ids",
        "highestmodseq",
        "keywords",
        "modseqs",
        "sizes",
        "uidnext",
        "uids",
    )

    def __init__(self) -> None:
        self.uids = array("I")
        self.flag_ids = array("I")
        self.modseqs = array("Q")
        self.sizes = array("Q")
        self.dates = array("q")
        self.highestmodseq = 1
        self.uidnext = 1
        self.flag_lists: list[bytes] = [b""]
        self.flag_sets: list[frozenset[bytes]] = [frozenset()]
        self.keywords: dict[bytes, bytes] = {}
        self._ids: dict[bytes, int] = {b"": 0}
        self._free_ids: list[int] = []
        self._first_row: tuple[tuple[bytes, int, int], int] = ((b"", 0, 0), -1)

    def flag_id(self, flags: bytes) -> int:
        """The number of this flag list. Keywords differ by case only in the sender's mind (RFC 9051 section 2.3.2)."""
        found = self._ids.get(flags)
        if found is None:
            members = frozenset(flags.lower().split())
            if any(one not in self.keywords for one in members):
                for flag in flags.split():
                    if not flag.startswith(b"\\"):
                        self.keywords.setdefault(flag.lower(), flag)
            if self._free_ids:
                found = self._free_ids.pop()
                self.flag_lists[found], self.flag_sets[found] = flags, members
            else:
                found = len(self.flag_lists)
                self.flag_lists.append(flags)
                self.flag_sets.append(members)
            self._ids[flags] = found
        return found

    def _drop_unused_flag_lists(self) -> None:
        """Let go of the flag lists that no message has, if they are many."""
        if len(self._ids) <= MAX_UNUSED_FLAG_LISTS:
            return
        used = {0, *self.flag_ids}
        if len(self._ids) <= len(used) + MAX_UNUSED_FLAG_LISTS:
            return
        for flags, number in list(self._ids.items()):
            if number not in used:
                del self._ids[flags]
                self.flag_lists[number], self.flag_sets[number] = b"", frozenset()
                self._free_ids.append(number)

    def flag_ids_with(self, flag: bytes) -> set[int]:
        """The numbers of the flag lists that hold `flag`, compared without case."""
        wanted = flag.lower()
        return {i for i, members in enumerate(self.flag_sets) if wanted in members}

    def first_row_without(self, flag: bytes) -> int:
        """The first row whose flags lack `flag`, -1 if there is none; every SELECT asks for it, so it is kept."""
        state = (flag, self.highestmodseq, len(self.uids))
        if self._first_row[0] != state:
            ids = self.flag_ids_with(flag)
            first = next((i for i, flags in enumerate(self.flag_ids) if flags not in ids), -1)
            self._first_row = (state, first)
        return self._first_row[1]

    def row(self, uid: int) -> int | None:
        """The row of message `uid`, or None."""
        i = bisect_left(self.uids, uid)
        return i if i < len(self.uids) and self.uids[i] == uid else None

    def apply(self, delta: Delta) -> Change:
        """Take in `delta` and say what that changed; a delta that was seen already changes nothing."""
        vanished = self._remove(delta.vanished)
        added: list[int] = []
        changed: list[int] = []
        last = self.uids[-1] if self.uids else 0
        fresh: list[MessageRow] = []
        for row in delta.rows:
            if row.uid > last:
                fresh.append(row)
                added.append(row.uid)
                continue
            i = self.row(row.uid)
            if i is None:  # a late row of a message that another delta expunged
                continue
            if row.size is not None:
                self.sizes[i] = row.size
            if row.modseq > self.modseqs[i]:
                self.modseqs[i] = row.modseq
                self.flag_ids[i] = self.flag_id(row.flags)
                changed.append(row.uid)
        if fresh:
            self._extend(fresh)
        self._drop_unused_flag_lists()
        self.highestmodseq = max(self.highestmodseq, delta.highestmodseq)
        self.uidnext = max(self.uidnext, delta.uidnext)
        return Change(added, changed, vanished, delta.recent)

    def _extend(self, rows: Sequence[MessageRow]) -> None:
        self.uids = self.uids + array("I", [row.uid for row in rows])
        self.flag_ids = self.flag_ids + array("I", [self.flag_id(row.flags) for row in rows])
        self.modseqs = self.modseqs + array("Q", [row.modseq for row in rows])
        self.sizes = self.sizes + array(
            "Q", [UNKNOWN_SIZE if row.size is None else row.size for row in rows]
        )
        self.dates = self.dates + array("q", [row.internaldate for row in rows])

    def _remove(self, vanished: SequenceSet) -> list[int]:
        spans = vanished.intersect(self.uids, 0)
        if not spans:
            return []
        gone = _cut(self.uids, spans).tolist()
        ends = [*spans, (len(self.uids), 0)]
        kept = [(after, before) for (_, after), (before, _) in pairwise([(0, 0), *ends])]
        self.uids = _cut(self.uids, kept)
        self.flag_ids = _cut(self.flag_ids, kept)
        self.modseqs = _cut(self.modseqs, kept)
        self.sizes = _cut(self.sizes, kept)
        self.dates = _cut(self.dates, kept)
        return gone

    def set_sizes(self, sizes: Iterable[tuple[int, int]]) -> None:
        """Note sizes that were measured late."""
        for uid, size in sizes:
            i = self.row(uid)
            if i is not None:
                self.sizes[i] = size


def _cut(numbers: array[int], spans: Iterable[tuple[int, int]]) -> array[int]:
    some = array(numbers.typecode)
    for start, stop in spans:
        some.extend(numbers[start:stop])
    return some
