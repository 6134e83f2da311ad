"""One client's view of a mailbox: which sequence number is which message, and which updates the client has not been
sent.

Rules
-----
* A sequence number keeps its message until the client is sent an EXPUNGE. The caller of `take_updates` decides whether
  EXPUNGE may be sent now: never in response to FETCH, STORE or SEARCH (RFC 9051 section 7.5.1). New messages may be
  announced at any time.
* While the client knows all changes, its array of UIDs is the mailbox's own array. So an idle client needs no memory
  for its messages.
* Pending updates take one byte for each message that the client knows, and none before they are needed. So hundreds of
  clients that do not read can have updates of all messages of a large mailbox pending.
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from itertools import compress
from typing import NamedTuple

from imapshield.errors import BadCommand
from imapshield.mailbox.columns import Columns
from imapshield.mailbox.deltas import Change
from imapshield.wire.sequence import MAX_NUMBER, SequenceSet

MAX_UNAPPLIED_CHANGES = 16
"""Changes that a view stores before it applies them, although nothing has needed them yet."""


_CHANGED, _VANISHED = 1, 2
"""What is pending for a message in `View._pending`: nothing (0), new flags, or its EXPUNGE."""
_IS_KEPT = bytes([1, 1, 0, *range(3, 256)])

FETCH_OVERHEAD, EXPUNGE_SIZE = 100, 22
"""Bytes of a FETCH response besides the flags, and of an EXPUNGE response, at most."""


class PendingUpdates(NamedTuple):
    """The updates to send to a client now, in this order.

    Attributes:
        expunged: sequence numbers for EXPUNGE. Each one counts after those before it have been sent.
        vanished: the UIDs of these messages, ascending, for VANISHED (RFC 7162).
        exists: the number of messages for EXISTS, or None if the client can work it out from `expunged`.
        recent: the number of messages for RECENT, or None if it is not due.
        flags: (sequence number, UID) of the messages whose flags changed, ascending.
        more: whether more updates can be sent after these.
    """

    expunged: Sequence[int]
    vanished: Sequence[int]
    exists: int | None
    recent: int | None
    flags: Sequence[tuple[int, int]]
    more: bool = False


class View:
    r"""What one client knows of a mailbox.

    Args:
        columns: the mailbox.
        recent: the UIDs that are \Recent to this client when it selects the mailbox.

    Attributes:
        uids: the UIDs of the messages that the client knows, ascending: number n is ``uids[n - 1]``.
        synced_modseq: the client was sent every update up to this MODSEQ.
    """

    __slots__ = (
        "_pending",
        "_recent",
        "_reported_recent",
        "_unapplied",
        "columns",
        "synced_modseq",
        "uids",
    )

    def __init__(self, columns: Columns, recent: Iterable[int] = ()) -> None:
        self.columns = columns
        self.uids: array[int] = columns.uids
        self._recent = set(recent)
        self._unapplied: list[Change] = []
        # What is pending for each message of `uids`; empty if nothing is pending.
        self._pending = bytearray()
        self._reported_recent = len(self._recent)
        self.synced_modseq = columns.highestmodseq

    def on_change(self, change: Change) -> None:
        """Record a change of the mailbox (`account_api.Listener`).

        It is applied when something needs it, because one change of thousands of messages may reach hundreds of
        sessions at once.
        """
        self._unapplied.append(change)
        if len(self._unapplied) > MAX_UNAPPLIED_CHANGES:
            self._apply_changes()

    def _apply_changes(self) -> None:
        if not self._unapplied:
            return
        changes, self._unapplied = self._unapplied, []
        for change in changes:
            self._recent.update(change.recent)
            self._mark(change.changed, _CHANGED)
            self._mark(change.vanished, _VANISHED)
            if self._recent:
                # A message that the client knows counts for RECENT until its EXPUNGE is sent, as it does for EXISTS.
                self._recent.difference_update(
                    uid for uid in change.vanished if self.number(uid) is None
                )

    def _mark(self, uids: Sequence[int], kind: int) -> None:
        """Make an update of those of `uids` that the client knows pending; it will see the flags of others anyway."""
        rows = self.rows(uids)
        if rows and not self._pending:
            self._pending = bytearray(len(self.uids))
        pending = self._pending
        if isinstance(rows, range):
            pending[rows.start : rows.stop] = bytes([kind]) * len(rows)
        else:
            for row in rows:
                pending[row] = kind

    def rows(self, uids: Sequence[int]) -> Sequence[int]:
        """Return the rows of those of `uids` that the client knows, as a range if they are adjacent."""
        if not uids:
            return ()
        first = bisect_left(self.uids, uids[0])
        if self.uids[first : first + len(uids)] == uids:
            return range(first, first + len(uids))
        return [number - 1 for number in map(self.number_lookup(len(uids)), uids) if number]

    def _is_pending(self, kind: int) -> bool:
        return self._pending.find(kind) >= 0

    @property
    def recent(self) -> set[int]:
        r"""The UIDs that are \Recent to the client.

        This is the set that the view itself uses, not a copy: it changes with the mailbox, and callers must not change
        it.
        """
        self._apply_changes()
        return self._recent

    def is_in_sync(self) -> bool:
        """Return whether no update is pending, and note how far the client knows the mailbox then."""
        if self._unapplied:
            self._apply_changes()
        if self._pending or self.uids is not self.columns.uids:
            return False
        self.synced_modseq = self.columns.highestmodseq
        return True

    @property
    def has_pending_updates(self) -> bool:
        """Whether the mailbox has changed in a way that the client has not been sent."""
        self._apply_changes()
        return bool(self._pending or self.uids is not self.columns.uids)

    @property
    def pending_count(self) -> int:
        """The number of messages of which an update is pending."""
        self._apply_changes()
        return len(self._pending) - self._pending.count(0)

    @property
    def has_pending_expunges(self) -> bool:
        """Whether some sequence numbers belong to messages that no longer exist."""
        self._apply_changes()
        return self._is_pending(_VANISHED)

    def number(self, uid: int) -> int | None:
        """Return the sequence number of message `uid`, or None if the client does not know the message."""
        i = bisect_left(self.uids, uid)
        return i + 1 if i < len(self.uids) and self.uids[i] == uid else None

    def number_lookup(self, count: int) -> Callable[[int], int | None]:
        """Return `number`, or a faster function with the same result if `count` messages are going to be looked up."""
        if count * 8 < len(self.uids):
            return self.number
        return dict(zip(self.uids, range(1, len(self.uids) + 1), strict=True)).get

    def numbers(self, uids: Sequence[int]) -> Sequence[int]:
        """Return the sequence numbers of `uids`, in their order, without messages that the client does not know."""
        if uids is self.uids:
            return range(1, len(uids) + 1)
        first, last = (self.number(uids[0]), self.number(uids[-1])) if uids else (None, None)
        if first and last and last - first == uids[-1] - uids[0] and sorted(uids) == list(uids):
            # No UID is missing between the first and the last, so the others need not be looked up.
            offset = uids[0] - first
            return [uid - offset for uid in uids]
        return [number for number in map(self.number_lookup(len(uids)), uids) if number]

    def forget_flag_changes(self, uids: Sequence[int]) -> None:
        """Drop pending flag updates of `uids`, because the client was sent the flags or used .SILENT."""
        self._apply_changes()
        pending = self._pending
        if pending:
            rows = self.rows(uids)
            if isinstance(rows, range):
                span = slice(rows.start, rows.stop)
                pending[span] = pending[span].replace(bytes([_CHANGED]), b"\0")
            else:
                for row in rows:
                    if pending[row] == _CHANGED:
                        pending[row] = 0
            self._release_pending()

    def _release_pending(self) -> None:
        """Release the memory for pending updates if there are none."""
        if not (self._is_pending(_CHANGED) or self._is_pending(_VANISHED)):
            self._pending = bytearray()

    def flags_changed(self, uid: int) -> bool:
        """Whether a flag update of message `uid` is pending."""
        self._apply_changes()
        if not self._pending:
            return False
        number = self.number(uid)
        return number is not None and self._pending[number - 1] == _CHANGED

    def take_updates(
        self, *, expunge: bool, flags: bool = True, size: int = MAX_NUMBER
    ) -> PendingUpdates | None:
        """Return the pending updates and consider them sent, or return None if there are none.

        Args:
            expunge: whether EXPUNGE may be sent now.
            flags: whether to include flag updates. Otherwise they stay pending.
            size: the bytes that the responses may have, but for the last one. The other updates stay pending.
        """
        if self.is_in_sync():
            return None
        numbers, expunged = self._take_expunged(size // EXPUNGE_SIZE + 1) if expunge else ([], [])
        vanished = self._is_pending(_VANISHED)
        if expunge and vanished:
            return PendingUpdates(numbers, expunged, None, None, (), more=True)
        known = len(self.uids)
        self._add_new(vanished)
        exists = len(self.uids) if len(self.uids) != known else None
        recent = len(self.recent)
        is_recent_due = exists is not None or recent != self._reported_recent
        self._reported_recent = recent
        changed = self._take_changed(size) if flags else []
        self._release_pending()
        if not self._pending:
            self.synced_modseq = self.columns.highestmodseq
        more = flags and self._is_pending(_CHANGED)
        return PendingUpdates(
            numbers, expunged, exists, recent if is_recent_due else None, changed, more
        )

    def _take_expunged(self, count: int) -> tuple[list[int], list[int]]:
        """Remove up to `count` vanished messages, the last ones first.

        Returns:
            Their sequence numbers in descending order, so that no EXPUNGE changes those that follow, and their UIDs in
            ascending order.
        """
        rows: list[int] = []
        row = self._pending.rfind(_VANISHED)
        while row >= 0 and len(rows) < count:
            rows.append(row)
            row = self._pending.rfind(_VANISHED, 0, row)
        if not rows:
            return [], []
        first = rows[-1]
        expunged = [self.uids[row] for row in reversed(rows)]
        rest = self._pending[first:]
        kept = compress(self.uids[first:], rest.translate(_IS_KEPT))
        self.uids = self.uids[:first] + array("I", kept)
        self._pending[first:] = rest.translate(None, bytes([_VANISHED]))
        self._recent.difference_update(expunged)
        return [row + 1 for row in rows], expunged

    def _add_new(self, vanished: bool) -> None:
        """Add the messages that the client does not know; `vanished` says whether it knows some that have vanished."""
        if vanished:
            last_uid = self.uids[-1]
            added = self.columns.uids[bisect_left(self.columns.uids, last_uid + 1) :]
            self.uids = self.uids + added if added else self.uids
        else:
            self.uids = self.columns.uids
        if self._pending:
            self._pending.extend(bytes(len(self.uids) - len(self._pending)))

    def _take_changed(self, size: int) -> list[tuple[int, int]]:
        """Return (sequence number, UID) of messages whose flags have changed, and consider their flags sent."""
        columns, pending, uids = self.columns, self._pending, self.uids
        changed: list[tuple[int, int]] = []
        row = pending.find(_CHANGED)
        while row >= 0 and size > 0:
            pending[row] = 0
            uid = uids[row]
            changed.append((row + 1, uid))
            column_row = row if uids is columns.uids else columns.row(uid)
            if column_row is not None:
                size -= FETCH_OVERHEAD + len(columns.flag_lists[columns.flag_ids[column_row]])
            row = pending.find(_CHANGED, row + 1)
        return changed

    def rows_of(self, sequence: SequenceSet, *, uid: bool) -> list[tuple[int, int]]:
        """Return the rows that `sequence` names, as ascending (start, stop) slices of `uids`.

        Args:
            sequence: sequence numbers, or UIDs if `uid` is True. A UID that does not exist is ignored.
            uid: whether `sequence` is a set of UIDs.

        Raises:
            BadCommand: a sequence number is beyond the last message, or is ``*`` in an empty mailbox (RFC 9051
                section 9, seq-number).
        """
        count = len(self.uids)
        if uid:
            return sequence.matching_slices(self.uids, self.uids[-1] if count else 0)
        if max(sequence.highest, sequence.tail % MAX_NUMBER) > count or (
            sequence.tail and not count
        ):
            raise BadCommand("Invalid sequence number: there is no such message")
        return [(low - 1, high) for low, high in sequence.resolve(count)]

    def uids_of(self, spans: Iterable[tuple[int, int]]) -> Sequence[int]:
        """Return the UIDs of `spans` of rows. If `spans` covers all rows, the result is `uids` itself."""
        spans = list(spans)
        if spans == [(0, len(self.uids))]:
            return self.uids
        uids: array[int] = array("I")
        for start, stop in spans:
            uids.extend(self.uids[start:stop])
        return uids
