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
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from imapshield.wire.sequence import SequenceSet

UNKNOWN_SIZE = 0xFFFFFFFFFFFFFFFF
UNUSED_LISTS = 1000
"""Flag lists kept beyond those in use: a client that thinks up a new one for every STORE would have them all kept."""


class MessageRow(NamedTuple):
    """One message: `flags` such as ``\\Seen $Junk``, `internaldate` in epoch seconds, `size` None if unmeasured."""

    uid: int
    flags: bytes
    modseq: int
    size: int | None
    internaldate: int


@dataclass(slots=True)
class Delta:
    """Everything that changed after some MODSEQ: new and changed messages by rising UID, and those that went.

    `vanished` may name every UID below `uidnext` that is not there, if the store has forgotten when they went. `recent`
    are new messages which the asker, having claimed them, is the first to hear of.
    """

    rows: list[MessageRow] = field(default_factory=list)
    vanished: SequenceSet = field(default_factory=SequenceSet)
    highestmodseq: int = 1
    uidnext: int = 1
    recent: list[int] = field(default_factory=list)


class Change(NamedTuple):
    """A delta as the listeners hear it: uids only, the rest stands in the columns by now."""

    added: Sequence[int]
    changed: Sequence[int]
    vanished: Sequence[int]
    recent: Sequence[int] = ()


class Columns:
    """The messages of one mailbox, rising by UID: row i of every array is the same message."""

    __slots__ = (
        "_first",
        "_free",
        "_ids",
        "dates",
        "flag_lists",
        "flag_sets",
        "flags",
        "highestmodseq",
        "keywords",
        "modseqs",
        "sizes",
        "uidnext",
        "uids",
    )

    def __init__(self) -> None:
        self.uids = array("I")
        self.flags = array("I")
        self.modseqs = array("Q")
        self.sizes = array("Q")
        self.dates = array("q")
        self.highestmodseq = 1
        self.uidnext = 1
        self.flag_lists: list[bytes] = [b""]
        self.flag_sets: list[frozenset[bytes]] = [frozenset()]
        self.keywords: dict[bytes, bytes] = {}
        self._ids: dict[bytes, int] = {b"": 0}
        self._free: list[int] = []
        self._first: tuple[tuple[bytes, int, int], int] = ((b"", 0, 0), -1)

    def flag_id(self, flags: bytes) -> int:
        """The number of this flag list. Keywords differ by case only in the sender's mind (RFC 9051 section 2.3.2)."""
        found = self._ids.get(flags)
        if found is None:
            members = frozenset(flags.lower().split())
            if any(one not in self.keywords for one in members):
                for flag in flags.split():
                    if not flag.startswith(b"\\"):
                        self.keywords.setdefault(flag.lower(), flag)
            if self._free:
                found = self._free.pop()
                self.flag_lists[found], self.flag_sets[found] = flags, members
            else:
                found = len(self.flag_lists)
                self.flag_lists.append(flags)
                self.flag_sets.append(members)
            self._ids[flags] = found
        return found

    def _sweep(self) -> None:
        """Let go of the flag lists that no message has, if they are many."""
        if len(self._ids) <= UNUSED_LISTS:
            return
        used = {0, *self.flags}
        if len(self._ids) <= len(used) + UNUSED_LISTS:
            return
        for flags, number in list(self._ids.items()):
            if number not in used:
                del self._ids[flags]
                self.flag_lists[number], self.flag_sets[number] = b"", frozenset()
                self._free.append(number)

    def ids_with(self, flag: bytes) -> set[int]:
        """The numbers of the flag lists that hold `flag`, compared without case."""
        wanted = flag.lower()
        return {i for i, members in enumerate(self.flag_sets) if wanted in members}

    def first_without(self, flag: bytes) -> int:
        """The first row whose flags lack `flag`, -1 if there is none; every SELECT asks for it, so it is kept."""
        state = (flag, self.highestmodseq, len(self.uids))
        if self._first[0] != state:
            ids = self.ids_with(flag)
            first = next((i for i, flags in enumerate(self.flags) if flags not in ids), -1)
            self._first = (state, first)
        return self._first[1]

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
                self.flags[i] = self.flag_id(row.flags)
                changed.append(row.uid)
        if fresh:
            self._extend(fresh)
        self._sweep()
        self.highestmodseq = max(self.highestmodseq, delta.highestmodseq)
        self.uidnext = max(self.uidnext, delta.uidnext)
        return Change(added, changed, vanished, delta.recent)

    def _extend(self, rows: Sequence[MessageRow]) -> None:
        self.uids = self.uids + array("I", [row.uid for row in rows])
        self.flags = self.flags + array("I", [self.flag_id(row.flags) for row in rows])
        self.modseqs = self.modseqs + array("Q", [row.modseq for row in rows])
        self.sizes = self.sizes + array(
            "Q", [UNKNOWN_SIZE if row.size is None else row.size for row in rows]
        )
        self.dates = self.dates + array("q", [row.internaldate for row in rows])

    def _remove(self, vanished: SequenceSet) -> list[int]:
        spans = vanished.matching_slices(self.uids, 0)
        if not spans:
            return []
        gone = _cut(self.uids, spans).tolist()
        ends = [*spans, (len(self.uids), 0)]
        kept = [(after, before) for (_, after), (before, _) in pairwise([(0, 0), *ends])]
        self.uids = _cut(self.uids, kept)
        self.flags = _cut(self.flags, kept)
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
