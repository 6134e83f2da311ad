"""The metadata of all messages of one mailbox, in parallel arrays that its sessions share.

Rules
-----
* `Columns` replaces its arrays when messages are added or expunged, and never changes their length in place. A thousand
  sessions that look at the same mailbox therefore share one copy (`mailbox.view`). Flags, MODSEQs and sizes do change
  in place.
* A flag list is `bytes` ready to send, in canonical order. Equal lists have one id, a small integer. The id of a list
  that no message has any more is reused for another list, so no id may be kept across a delta.
* `keywords` contains every keyword that any message had since the mailbox was opened, by its lower-case form.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise
from operator import attrgetter

from imapshield.mailbox.deltas import Change, Delta, MessageRow
from imapshield.wire.sequence import SequenceSet

UNKNOWN_SIZE = 0xFFFFFFFFFFFFFFFF
"""The entry in `Columns.sizes` of a message that has not been measured."""

MAX_UNUSED_FLAG_LISTS = 1000
"""Flag lists kept beyond those in use. Without a limit, a client that makes up a new one for every STORE fills the
memory."""


class Columns:
    r"""The messages of one mailbox, in ascending order of UID: row i of every array is the same message.

    Attributes:
        uids: UIDs.
        flag_ids: ids of flag lists, indexes of `flag_lists` and `flag_sets`.
        modseqs: MODSEQs.
        sizes: RFC822.SIZE in bytes, or `UNKNOWN_SIZE`.
        dates: INTERNALDATE in epoch seconds.
        highestmodseq: HIGHESTMODSEQ of the mailbox.
        uidnext: UIDNEXT of the mailbox.
        flag_lists: flag lists by id, ready to send: ``\Seen $Junk``.
        flag_sets: the same flags by id, in lower case.
        keywords: the keywords seen so far: lower case → the spelling that was seen first.
    """

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
        """Return the id of a flag list, which is added if it is new.

        Keywords are compared without case, but keep the spelling that they came with (RFC 9051 section 2.3.2).
        """
        flag_id = self._ids.get(flags)
        if flag_id is None:
            members = frozenset(flags.lower().split())
            for flag in flags.split():
                if not flag.startswith(b"\\"):
                    self.keywords.setdefault(flag.lower(), flag)
            if self._free_ids:
                flag_id = self._free_ids.pop()
                self.flag_lists[flag_id], self.flag_sets[flag_id] = flags, members
            else:
                flag_id = len(self.flag_lists)
                self.flag_lists.append(flags)
                self.flag_sets.append(members)
            self._ids[flags] = flag_id
        return flag_id

    def _drop_unused_flag_lists(self) -> None:
        """Free the ids of flag lists that no message has, if there are more than `MAX_UNUSED_FLAG_LISTS`."""
        if len(self._ids) <= MAX_UNUSED_FLAG_LISTS:
            return
        used = {0, *self.flag_ids}
        if len(self._ids) <= len(used) + MAX_UNUSED_FLAG_LISTS:
            return
        for flags, flag_id in list(self._ids.items()):
            if flag_id not in used:
                del self._ids[flags]
                self.flag_lists[flag_id], self.flag_sets[flag_id] = b"", frozenset()
                self._free_ids.append(flag_id)

    def flag_ids_with(self, flag: bytes) -> set[int]:
        """Return the ids of the flag lists that contain `flag`, compared without case."""
        wanted = flag.lower()
        return {i for i, members in enumerate(self.flag_sets) if wanted in members}

    def first_row_without(self, flag: bytes) -> int:
        """Return the first row whose flags do not contain `flag`, or -1.

        Every SELECT needs it for UNSEEN, so the last result is cached until the mailbox changes.
        """
        state = (flag, self.highestmodseq, len(self.uids))
        if self._first_row[0] != state:
            ids = self.flag_ids_with(flag)
            row = next((i for i, flag_id in enumerate(self.flag_ids) if flag_id not in ids), -1)
            self._first_row = (state, row)
        return self._first_row[1]

    def row(self, uid: int) -> int | None:
        """Return the row of message `uid`, or None if there is no such message."""
        i = bisect_left(self.uids, uid)
        return i if i < len(self.uids) and self.uids[i] == uid else None

    def apply(self, delta: Delta) -> Change:
        """Apply `delta`, and return what it changed. A delta that was applied before changes nothing."""
        self.highestmodseq = max(self.highestmodseq, delta.highestmodseq)
        self.uidnext = max(self.uidnext, delta.uidnext)
        if not (delta.rows or delta.vanished.ranges):  # as in nearly every NOOP
            return Change((), (), (), delta.recent)
        vanished = self._remove(delta.vanished)
        new_from = bisect_right(delta.rows, self.uids[-1], key=_uid_of) if self.uids else 0
        changed = self._update(delta.rows[:new_from])
        new_rows = delta.rows[new_from:]
        added = array("I", [row.uid for row in new_rows])
        if new_rows:
            self._extend(new_rows)
        self._drop_unused_flag_lists()
        return Change(added, changed, vanished, delta.recent)

    def _update(self, rows: Iterable[MessageRow]) -> array[int]:
        """Change known messages, and return the UIDs of those that changed.

        One STORE can change a whole mailbox, and nothing else runs meanwhile: no call, and no search for adjacent rows.
        """
        uids, sizes, modseqs, flag_ids = self.uids, self.sizes, self.modseqs, self.flag_ids
        changed = array("I")
        i, count = 0, len(uids)
        known_flags, flag_id = b"", self.flag_id(b"")
        for uid, flags, modseq, size, _ in rows:
            if i == count or uids[i] != uid:
                i = bisect_left(uids, uid)
                if i == count or uids[i] != uid:  # a message that another delta expunged
                    continue
            if size is not None:
                sizes[i] = size
            if modseq > modseqs[i]:
                if flags != known_flags:
                    known_flags, flag_id = flags, self.flag_id(flags)
                modseqs[i] = modseq
                flag_ids[i] = flag_id
                changed.append(uid)
            i += 1
        return changed

    def _extend(self, rows: Sequence[MessageRow]) -> None:
        flags = [row.flags for row in rows]
        ids = {flag_list: self.flag_id(flag_list) for flag_list in dict.fromkeys(flags)}
        self.uids = self.uids + array("I", [row.uid for row in rows])
        self.flag_ids = self.flag_ids + array("I", [ids[flag_list] for flag_list in flags])
        self.modseqs = self.modseqs + array("Q", [row.modseq for row in rows])
        sizes = [UNKNOWN_SIZE if row.size is None else row.size for row in rows]
        self.sizes = self.sizes + array("Q", sizes)
        self.dates = self.dates + array("q", [row.internaldate for row in rows])

    def _remove(self, vanished: SequenceSet) -> array[int]:
        """Remove the rows of the UIDs in `vanished`, and return the UIDs that had one."""
        spans = vanished.matching_slices(self.uids, 0)
        if not spans:
            return array("I")
        removed = _slices(self.uids, spans)
        ends = [*spans, (len(self.uids), 0)]
        kept = [(after, before) for (_, after), (before, _) in pairwise([(0, 0), *ends])]
        self.uids = _slices(self.uids, kept)
        self.flag_ids = _slices(self.flag_ids, kept)
        self.modseqs = _slices(self.modseqs, kept)
        self.sizes = _slices(self.sizes, kept)
        self.dates = _slices(self.dates, kept)
        return removed

    def set_sizes(self, sizes: Iterable[tuple[int, int]]) -> None:
        """Record (UID, RFC822.SIZE) of messages that have been measured. Unknown UIDs are ignored."""
        for uid, size in sizes:
            i = self.row(uid)
            if i is not None:
                self.sizes[i] = size


_uid_of = attrgetter("uid")


def _slices(numbers: array[int], spans: Iterable[tuple[int, int]]) -> array[int]:
    result = array(numbers.typecode)
    for start, stop in spans:
        result.extend(numbers[start:stop])
    return result
