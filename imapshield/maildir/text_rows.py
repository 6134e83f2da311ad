"""Which row of the text index each message of a mailbox has, in memory.

To look up 10,000 messages takes 50 ms, and a search of 100,000 messages has 150. So the rows of a mailbox are kept, in
eight bytes for each message. Whatever gives a message its UID also gives it a new MODSEQ: only messages with a MODSEQ
above that of the last look are looked up again.
"""

import json
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from imapshield.maildir.index import Index
from imapshield.maildir.message_table import changed_after
from imapshield.maildir.text_index import MAX_ROW, UNKNOWN, TextIndex

MESSAGES_PER_LOOK = 5000
"""Messages that are looked up in one call: some hundredths of a second."""

UNREADABLE = -2
"""In place of a row: the message could not be read for the index. That is not tried again while the account is open."""

_ROWS = "SELECT uid, email_id, physical"
_NEXT = f"{_ROWS} FROM message WHERE mailbox = ? AND uid > ?"
_HEX_ID = 2 * len("M0123456789abcdef")


@dataclass(eq=False, slots=True)
class MailboxRows:
    """The rows of one mailbox.

    Attributes:
        uids: UIDs, ascending. Messages that were expunged may be among them.
        rows: the row of each, as `TextIndex.rows` returns it, or `UNREADABLE`. Only a positive one is a row.
        known_to: messages with UIDs up to this one are in `uids`.
        low: no positive row is below this one.
        high: no row is above this one.
    """

    index: Index
    text_index: TextIndex
    key: int
    uids: "array[int]" = field(default_factory=lambda: array("I"), init=False)
    rows: "array[int]" = field(default_factory=lambda: array("i"), init=False)
    known_to: int = field(default=0, init=False)
    low: int = field(default=MAX_ROW, init=False)
    high: int = field(default=0, init=False)
    _modseq: int = field(default=0, init=False)
    _generation: int = field(default=-1, init=False)

    def load(self, uid: int) -> bool:
        """Learn the rows of messages up to a UID, as far as one call may; return whether that worked.

        The text index is open.
        """
        highestmodseq = self.index.mailbox(self.key).highestmodseq
        if self._generation != self.text_index.generation:
            self._forget(highestmodseq)
        if highestmodseq != self._modseq:
            query = f"{_ROWS} {changed_after(self._modseq)} AND uid <= ?"
            changed = self._look(query, self._modseq, self.known_to)
            if changed is None:
                return False
            if len(changed) < MESSAGES_PER_LOOK:
                self._update(changed)
                self._modseq = highestmodseq
            else:
                self._forget(highestmodseq)
        if self.known_to < uid:
            found = self._look(_NEXT, self.known_to)
            if found is None:
                return False
            self.uids.extend([found_uid for found_uid, _ in found])
            self.rows.extend([row for _, row in found])
            self._widen(found)
            is_all = len(found) < MESSAGES_PER_LOOK
            self.known_to = max(uid, self.uids[-1] if found else 0) if is_all else self.uids[-1]
        return True

    def _forget(self, highestmodseq: int) -> None:
        self.uids, self.rows = array("I"), array("i")
        self.known_to, self._modseq = 0, highestmodseq
        self.low, self.high = MAX_ROW, 0
        self._generation = self.text_index.generation

    def _widen(self, found: Sequence[tuple[int, int]]) -> None:
        rows = [row for _, row in found if row > 0]
        self.low, self.high = min([self.low, *rows]), max([self.high, *rows])

    def _update(self, changed: Sequence[tuple[int, int]]) -> None:
        self._widen(changed)
        for uid, row in changed:
            i = bisect_left(self.uids, uid)
            if i < len(self.uids) and self.uids[i] == uid:
                if row != UNKNOWN or self.rows[i] != UNREADABLE:
                    self.rows[i] = row
            else:
                self.uids.insert(i, uid)
                self.rows.insert(i, row)

    def _look(self, query: str, *arguments: int) -> list[tuple[int, int]] | None:
        """Return (UID, row) of the messages that a query selects; None if the text index cannot be used."""
        # One row of JSON, because a thread that fetches rows requests the interpreter lock after each of them.
        columns = (
            "json_group_array(uid), json_group_array(hex(email_id)), json_group_array(physical)"
        )
        selected = self.index.db.execute(
            f"SELECT {columns} FROM ({query} ORDER BY uid LIMIT {MESSAGES_PER_LOOK})",  # noqa: S608
            (self.key, *arguments),
        ).fetchone()
        uids, email_ids, sizes = map(json.loads, selected)
        known = self.text_index.rows([email_number(email_id) for email_id in email_ids])
        if known is None:
            return None
        return [
            (uid, row if size == indexed_size else UNKNOWN)
            for uid, size, (row, indexed_size) in zip(uids, sizes, known, strict=True)
        ]

    def of(self, uids: Sequence[int]) -> Sequence[int]:
        """Return the rows of messages with UIDs up to `known_to`, in the order of `uids`, which is ascending."""
        start = bisect_left(self.uids, uids[0])
        stop = bisect_right(self.uids, uids[-1], start)
        if stop - start == len(uids) and self.uids[start:stop] == array("I", uids):
            return self.rows[start:stop]
        known = dict(zip(self.uids[start:stop], self.rows[start:stop], strict=True))
        return [known.get(uid, UNKNOWN) for uid in uids]

    def unknown(self, count: int) -> list[int]:
        """Return the first UIDs of messages that are not indexed, `count` at most."""
        found: list[int] = []
        i = -1
        while len(found) < count:
            try:
                i = self.rows.index(UNKNOWN, i + 1)
            except ValueError:
                break
            found.append(self.uids[i])
        return found

    def count_unknown(self, uid: int, limit: int) -> int:
        """Return how many messages with UIDs up to `uid` may not be indexed, or a number not below `limit`.

        The text index may be closed.
        """
        if self._generation != self.text_index.generation:
            return limit
        return len(self.unknown(limit)) + max(uid - self.known_to, 0)

    def set(self, uids: Sequence[int], rows: Sequence[int]) -> None:
        """Note the rows of messages that were indexed."""
        self._update(list(zip(uids, rows, strict=True)))


def email_number(email_id: str) -> int:
    """Return the number of an EMAILID that is given in hexadecimal; 0 for one that imapshield has not made."""
    if len(email_id) != _HEX_ID:
        return 0
    try:
        number = int(bytes.fromhex(email_id)[1:], 16)
    except ValueError:
        return 0
    return number - (1 << 64) if number >> 63 else number
