"""The messages in the index: rows by UID, what changed after a MODSEQ, and the account's counters of messages and
bytes."""

import json
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from typing import Any

from imapshield.errors import StoreLimitExceeded
from imapshield.maildir.index_database import IndexDatabase
from imapshield.maildir.known_rows import MAILBOXES, MOVES
from imapshield.maildir.paths import NEW

MAX_UID = 0xFFFFFFFF
"""The largest UID and UIDVALIDITY (RFC 9051 section 2.3.1.1)."""

FIRST_MODSEQ = 2
"""The MODSEQ of the messages that a mailbox has when it is added to the index. ``message_modseq`` leaves them out."""

# SQLite would walk through the whole mailbox for the few messages in new/, or for none: hence the explicit index.
IN_NEW = f"FROM message INDEXED BY message_new WHERE mailbox = ? AND place = {NEW}"

_ROWS_PER_INSERT = 50
"""Rows of one INSERT. They take two thirds of the time of as many statements with one row."""

# If a statement fails, the whole transaction is rolled back. FAIL spares SQLite a copy of each page that a statement
# changes, with which it could undo the statement alone.
_INSERT = "INSERT OR FAIL INTO message VALUES "
_ROW = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class MessageTable(IndexDatabase):
    """The messages of one account's index."""

    def message_rows(
        self, columns: str, key: int, uids: Sequence[int], condition: str = ""
    ) -> list[Any]:
        """Return `columns` of those of `uids` that exist, in ascending order of UID.

        Args:
            columns: the columns, as SQL.
            key: the mailbox.
            uids: the UIDs.
            condition: "AND ..." as SQL, or nothing.
        """
        if not uids:
            return []
        in_uids, parameters = uid_condition(uids)
        query = f"SELECT {columns} FROM message WHERE mailbox = ? AND {in_uids} {condition}"  # noqa: S608
        return self.db.execute(query + " ORDER BY uid", (key, *parameters)).fetchall()

    def insert_messages(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Insert rows of ``message``, with all columns in the order of schema.sql, in a write transaction.

        Raises:
            StoreLimitExceeded: the mailbox has no UIDs left. The next SELECT gives it new ones.
        """
        messages, octets, remaining = 0, 0, iter(rows)
        with self.keeping(MAILBOXES, MOVES):
            while some := list(islice(remaining, _ROWS_PER_INSERT)):
                if some[-1][1] >= MAX_UID:
                    raise StoreLimitExceeded("Mailbox has no UIDs left; select it again")
                values = ", ".join([_ROW] * len(some))
                self.db.execute(_INSERT + values, list(chain.from_iterable(some)))
                messages += len(some)
                octets += sum([row[7] for row in some])
            if messages:
                self.db.execute(
                    "UPDATE account SET octets = octets + ?, messages = messages + ?",
                    (octets, messages),
                )

    def remove_messages(
        self, key: int, condition: str = "", parameters: Sequence[object] = ()
    ) -> None:
        """Remove rows of ``message``, in a write transaction.

        Args:
            key: the mailbox.
            condition: "AND ..." as SQL, or nothing.
            parameters: the parameters of the condition.
        """
        chosen = f"FROM message WHERE mailbox = ? {condition}"
        self.db.execute(
            "UPDATE account SET (octets, messages) ="  # noqa: S608
            f" (SELECT octets - coalesce(sum(physical), 0), messages - count(*) {chosen})",
            (key, *parameters),
        )
        self.db.execute(f"DELETE {chosen}", (key, *parameters))


def changed_after(modseq: int) -> str:
    """Return the end of a query for the messages of a mailbox that changed after a MODSEQ: both are its parameters.

    SQLite does not know how many messages have changed, so it would choose the wrong one of these two plans. The plus
    sign keeps it from using an index, and likely() from looking at all messages in it.
    """
    if modseq < FIRST_MODSEQ:
        return "FROM message WHERE mailbox = ? AND +modseq > ?"
    return (
        "FROM message INDEXED BY message_modseq"
        f" WHERE mailbox = ? AND likely(modseq > {FIRST_MODSEQ}) AND modseq > ?"
    )


def as_json(numbers: Iterable[int]) -> str:
    """Return numbers in the form that SQLite's json_each() reads."""
    return json.dumps(list(numbers))


def uid_condition(
    uids: Sequence[int], *, ascending: bool = False
) -> tuple[str, tuple[object, ...]]:
    """Return an SQL condition that is true for the rows of `uids`, which is not empty, and the condition's parameters.

    Most clients request consecutive messages. A range costs a fifth of the same messages one by one.

    Args:
        uids: the UIDs.
        ascending: whether they are in ascending order. To look for the lowest and the highest of them takes a tenth of
            the time of a cached answer.
    """
    low, high = (uids[0], uids[-1]) if ascending else (min(uids), max(uids))
    if high - low < len(uids):
        return "uid BETWEEN ? AND ?", (low, high)
    return "uid IN (SELECT value FROM json_each(?))", (as_json(uids),)
