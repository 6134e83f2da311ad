"""One client's view of a mailbox: which sequence number is which message, and which updates the client has not been
sent.

Rules
-----
* A sequence number keeps its message until the client is sent an EXPUNGE. The caller of `take_updates` decides whether
  EXPUNGE may be sent now: never in response to FETCH, STORE or SEARCH (RFC 9051 section 7.5.1). New messages may be
  announced at any time.
* While the client knows all changes, its array of UIDs is the mailbox's own array. So an idle client needs no memory
  for its messages.
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from imapshield.errors import BadCommand
from imapshield.mailbox.columns import Columns
from imapshield.mailbox.deltas import Change
from imapshield.wire.sequence import MAX_NUMBER, SequenceSet

MAX_UNAPPLIED_CHANGES = 16
"""Changes that a view stores before it applies them, although nothing has needed them yet."""


class PendingUpdates(NamedTuple):
    """The updates to send to a client now, in this order.

    Attributes:
        expunged: sequence numbers for EXPUNGE. Each one counts after those before it have been sent.
        vanished: the UIDs of these messages, ascending, for VANISHED (RFC 7162).
        exists: the number of messages for EXISTS, or None if the client can work it out from `expunged`.
        recent: the number of messages for RECENT, or None if it is not due.
        flags: (sequence number, UID) of the messages whose flags changed, ascending.
    """

    expunged: Sequence[int]
    vanished: Sequence[int]
    exists: int | None
    recent: int | None
    flags: Sequence[tuple[int, int]]


class View:
    r"""What one client knows of a mailbox.

    Args:
        columns: the mailbox.
        recent: the UIDs that are \Recent to this client when it selects the mailbox.

    Attributes:
        uids: the UIDs of the messages that the client knows, ascending: number n is ``uids[n - 1]``.
        synced_modseq: the client was sent every update up to this MODSEQ.
    """

    def __init__(self, columns: Columns, recent: Iterable[int] = ()) -> None:
        self.columns = columns
        self.uids: array[int] = columns.uids
        self._recent = set(recent)
        self._unapplied: list[Change] = []
        self._changed: set[int] = set()
        self._vanished: set[int] = set()
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
            self._changed.update(change.changed)
            self._recent.update(change.recent)
            if change.vanished:
                self._changed.difference_update(change.vanished)
                self._vanished.update(u for u in change.vanished if self.number(u) is not None)
                # A message that the client knows counts for RECENT until its EXPUNGE is sent, as it does for EXISTS.
                self._recent.difference_update(
                    u for u in change.vanished if u not in self._vanished
                )

    @property
    def recent(self) -> set[int]:
        r"""The UIDs that are \Recent to the client.

        This is the set that the view itself uses, not a copy: it changes with the mailbox, and callers must not change
        it.
        """
        self._apply_changes()
        return self._recent

    @property
    def has_pending_updates(self) -> bool:
        """Whether the mailbox has changed in a way that the client has not been sent."""
        self._apply_changes()
        return bool(self._changed or self._vanished or self.uids is not self.columns.uids)

    @property
    def has_pending_expunges(self) -> bool:
        """Whether some sequence numbers belong to messages that no longer exist."""
        self._apply_changes()
        return bool(self._vanished)

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
        return [number for number in map(self.number_lookup(len(uids)), uids) if number]

    def forget_flag_changes(self, uids: Iterable[int]) -> None:
        """Drop pending flag updates of `uids`, because the client was sent the flags or used .SILENT."""
        self._apply_changes()
        self._changed.difference_update(uids)

    def flags_changed(self, uid: int) -> bool:
        """Whether a flag update of message `uid` is pending."""
        self._apply_changes()
        return uid in self._changed

    def take_updates(self, *, expunge: bool, flags: bool = True) -> PendingUpdates | None:
        """Return the pending updates and consider them sent, or return None if there are none.

        Args:
            expunge: whether EXPUNGE may be sent now.
            flags: whether to include flag updates. Otherwise they stay pending.
        """
        if not self.has_pending_updates:
            self.synced_modseq = self.columns.highestmodseq
            return None
        numbers: list[int] = []
        expunged: list[int] = []
        if expunge and self._vanished:
            expunged = sorted(self._vanished)
            # In descending order, so that no EXPUNGE changes the numbers that follow.
            numbers = [bisect_left(self.uids, uid) + 1 for uid in reversed(expunged)]
            self._vanished.clear()
            self.recent.difference_update(expunged)
        expected = len(self.uids) - len(expunged)
        if self._vanished:
            # There is a last UID, because a message that the client knows has vanished.
            last_uid = self.uids[-1]
            added = self.columns.uids[bisect_left(self.columns.uids, last_uid + 1) :]
            self.uids = self.uids + added if added else self.uids
        else:
            self.uids = self.columns.uids
        exists = len(self.uids) if len(self.uids) != expected else None
        recent = len(self.recent)
        is_recent_due = exists is not None or recent != self._reported_recent
        self._reported_recent = recent
        changed: list[tuple[int, int]] = []
        if flags:
            number_of = self.number_lookup(len(self._changed))
            found = [(number_of(uid), uid) for uid in sorted(self._changed)]
            changed = [(number, uid) for number, uid in found if number is not None]
            self._changed.clear()
        if not (self._vanished or self._changed):
            self.synced_modseq = self.columns.highestmodseq
        return PendingUpdates(numbers, expunged, exists, recent if is_recent_due else None, changed)

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
