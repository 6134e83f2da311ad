r"""One client's picture of a mailbox: which number is which message, and what it has yet to be told.

Rules
-----
* A number keeps its message until the client is told of an EXPUNGE, and that only when `flush` is allowed to
  (RFC 9051 section 7.5.1: never in answer to FETCH, STORE or SEARCH). New messages may be told at any time.
* The array of UIDs is the mailbox's own while both say the same, so an idle client costs nothing by its messages.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from imapshield.errors import BadCommand
from imapshield.mailbox.columns import Change, Columns
from imapshield.wire.sequence import MAX_NUMBER, SequenceSet

MAX_UNAPPLIED_CHANGES = 16
"""Changes heard of before they are taken in unasked."""


class PendingUpdates(NamedTuple):
    """What a client is to be told now, in this order: numbers expunged (each as it counts when it is told) with their
    UIDs, then the new EXISTS and RECENT or None, then the (number, uid) of messages whose flags changed."""

    expunged: Sequence[int]
    vanished: Sequence[int]
    exists: int | None
    recent: int | None
    flags: Sequence[tuple[int, int]]


class View:
    """What one client knows of the mailbox behind `columns`; `recent` are the UIDs that are \\Recent to it at first.

    Of what happened up to the MODSEQ `settled` it was told everything.
    """

    def __init__(self, columns: Columns, recent: Iterable[int] = ()) -> None:
        self.columns = columns
        self.uids: array[int] = columns.uids
        self._recent = set(recent)
        self._news: list[Change] = []
        self._changed: set[int] = set()
        self._vanished: set[int] = set()
        self._recent_told = len(self._recent)
        self.synced_modseq = columns.highestmodseq

    def on_change(self, change: Change) -> None:
        """Note a change of the mailbox (`interfaces.Listener`).

        It is taken in when it matters: hundreds of sessions may hear at once of a change of thousands of messages.
        """
        self._news.append(change)
        if len(self._news) > MAX_UNAPPLIED_CHANGES:
            self._take_in()

    def _take_in(self) -> None:
        if not self._news:
            return
        news, self._news = self._news, []
        for change in news:
            self._changed.update(change.changed)
            self._recent.update(change.recent)
            if change.vanished:
                self._changed.difference_update(change.vanished)
                self._vanished.update(u for u in change.vanished if self.number(u) is not None)
                # what the client knows counts for RECENT until it is told of its EXPUNGE, as it does for EXISTS
                self._recent.difference_update(
                    u for u in change.vanished if u not in self._vanished
                )

    @property
    def recent(self) -> set[int]:
        """The UIDs that are \\Recent to the client."""
        self._take_in()
        return self._recent

    @property
    def has_pending_updates(self) -> bool:
        """Whether the mailbox has changed in a way that the client was not told."""
        self._take_in()
        return bool(self._changed or self._vanished or self.uids is not self.columns.uids)

    @property
    def has_pending_expunges(self) -> bool:
        """Whether numbers are taken by messages that are gone."""
        self._take_in()
        return bool(self._vanished)

    def number(self, uid: int) -> int | None:
        """The sequence number of message `uid`, None if the client does not know of it."""
        i = bisect_left(self.uids, uid)
        return i + 1 if i < len(self.uids) and self.uids[i] == uid else None

    def number_lookup(self, count: int) -> Callable[[int], int | None]:
        """Return `number`, or what is faster where `count` messages will be asked for."""
        if count * 8 < len(self.uids):
            return self.number
        return dict(zip(self.uids, range(1, len(self.uids) + 1), strict=True)).get

    def numbers(self, uids: Sequence[int]) -> Sequence[int]:
        """The sequence numbers of many messages, in their order; those the client does not know of are left out."""
        if uids is self.uids:
            return range(1, len(uids) + 1)
        if len(uids) * 8 < len(self.uids):
            return [number for uid in uids if (number := self.number(uid)) is not None]
        known = dict(zip(self.uids, range(1, len(self.uids) + 1), strict=True))
        return [number for number in map(known.get, uids) if number]

    def forget_flag_changes(self, uids: Iterable[int]) -> None:
        """The client knows the flags of `uids` already: it was told, or said .SILENT."""
        self._take_in()
        self._changed.difference_update(uids)

    def flags_changed(self, uid: int) -> bool:
        """Whether a change of the flags of `uid` is still to be told."""
        self._take_in()
        return uid in self._changed

    def take_updates(self, *, expunge: bool, flags: bool = True) -> PendingUpdates | None:
        """Return what is to be told and take it as told; None if there is nothing. Without `flags` those wait."""
        if not self.has_pending_updates:
            self.synced_modseq = self.columns.highestmodseq
            return None
        numbers: list[int] = []
        gone: list[int] = []
        if expunge and self._vanished:
            gone = sorted(self._vanished)
            # downwards, so that each number is right without counting on the others
            numbers = [bisect_left(self.uids, uid) + 1 for uid in reversed(gone)]
            self._vanished.clear()
            self.recent.difference_update(gone)
        before = len(self.uids) - len(gone)
        if self._vanished:
            last = self.uids[-1]  # there is one: something of it has vanished
            fresh = self.columns.uids[bisect_left(self.columns.uids, last + 1) :]
            self.uids = self.uids + fresh if fresh else self.uids
        else:
            self.uids = self.columns.uids
        exists = len(self.uids) if len(self.uids) != before else None
        recent = (
            len(self.recent)
            if exists is not None or len(self.recent) != self._recent_told
            else None
        )
        self._recent_told = len(self.recent)
        changed: list[tuple[int, int]] = []
        if flags:
            number_of = self.number_lookup(len(self._changed))
            changed = [
                (number, uid)
                for uid in sorted(self._changed)
                if (number := number_of(uid)) is not None
            ]
            self._changed.clear()
        if not (self._vanished or self._changed):
            self.synced_modseq = self.columns.highestmodseq
        return PendingUpdates(numbers, gone, exists, recent, changed)

    def rows_of(self, sequence: SequenceSet, *, uid: bool) -> list[tuple[int, int]]:
        """Return the rows that `sequence` names, as (start, stop) of `uids`, rising.

        A sequence number beyond the last message is `BadCommand`, and so is ``*`` where there is no message (RFC 9051
        section 9, seq-number); a UID that is not there is simply not there.
        """
        count = len(self.uids)
        if uid:
            return sequence.matching_slices(self.uids, self.uids[-1] if count else 0)
        if max(sequence.highest, sequence.tail % MAX_NUMBER) > count or (
            sequence.tail and not count
        ):
            raise BadCommand("There is no message of that number")
        return [(low - 1, high) for low, high in sequence.resolve(count)]

    def uids_of(self, spans: Iterable[tuple[int, int]]) -> Sequence[int]:
        """Return the UIDs in `spans` of rows: the very array, if that is all of them."""
        spans = list(spans)
        if spans == [(0, len(self.uids))]:
            return self.uids
        out: array[int] = array("I")
        for start, stop in spans:
            out.extend(self.uids[start:stop])
        return out

    def flags(self, uid: int) -> bytes | None:
        """Return the flag list of `uid`, \\Recent among them; None if the message is gone."""
        row = self.columns.row(uid)
        if row is None:
            return None
        flags = self.columns.flag_lists[self.columns.flags[row]]
        if uid in self.recent:
            return b"\\Recent " + flags if flags else b"\\Recent"
        return flags
