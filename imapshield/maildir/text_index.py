"""The text index of one account: a SQLite database that tells which messages may contain a text.

It lies beside the index as ``imapshield.search``, and can be deleted at any time. It holds trigrams
(`message.trigrams`) in a table of SQLite's FTS5. That table is contentless and has ``detail=none``: it answers which
rows have all of some trigrams, and neither where nor next to each other. So it only selects candidates, and
`message_search` reads these.

Rules
-----
* A message is known by its EMAILID. That is random, belongs to the content, and is the same for all copies, whatever
  happens to UIDs, UIDVALIDITYs and names. So a row stays right if either database is restored from a backup or built
  again.
* A message counts as indexed when the transaction with its row is committed; until then it is read.
* Rows are never removed, because SQLite cannot (3.43 can), and their numbers are never used again. The rows of expunged
  messages are no candidates, because no message leads to them. If most rows are such, the file is built again
  (`has_waste`).
* Without the index, SEARCH reads all messages (`text_index_file` says when that is).

The eight messages of a group have the rows 9n to 9n+7, and share the row 9n+8 for the rest of their headers.
"""

import json
import sqlite3
from array import array
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Concatenate, Final, NamedTuple, ParamSpec, TypeVar

from imapshield.maildir.sqlite_file import corrupt_error
from imapshield.maildir.text_index_file import GROUP, ROWS_PER_GROUP, TextIndexFile
from imapshield.message.trigrams import IndexTexts

P = ParamSpec("P")
R = TypeVar("R")

UNKNOWN: Final = -1
"""In place of a row: the message is not indexed."""

NOT_INDEXED: Final = 0
"""In place of a row: the message has too much text. It is always a candidate."""

MAX_ROW: Final = (1 << 31) - 1 - ROWS_PER_GROUP
"""The largest row number, for arrays of 32 bits."""

MAX_WASTE = 100
"""Indexed messages that may be expunged, besides as many as the account has, before the file is built again. So that
costs less than to index those messages did."""

MAX_CANDIDATES = 100_000
"""Rows that a search may find: more are no help, and the owner of a file can make it say anything."""

MERGE_PAGES = 250
"""Pages of 4 KiB that are merged in one transaction: some hundredths of a second."""

MERGE_FRACTION = 4
MERGE_ROWS = 1000
"""The trees are merged when a quarter of the messages, and a thousand, were added since the last time."""


def _without_errors(
    method: Callable[Concatenate["TextIndex", P], R],
) -> Callable[Concatenate["TextIndex", P], R | None]:
    """Return a method that returns None if SQLite raises an error, after reacting to it."""

    @wraps(method)
    def wrapped(index: "TextIndex", /, *args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return method(index, *args, **kwargs)
        except sqlite3.Error as error:
            index._fail(error)
        return None

    return wrapped


def _integers(code: str, values: str, *, count: int | None = None) -> "array[int]":
    """Return the integers of a JSON array that SQLite has made from values of the file.

    Args:
        code: the type code of the result (`array`).
        values: the JSON array.
        count: how many there are; None if that is unknown.

    Raises:
        sqlite3.Error: the file has other values, so it is damaged.
    """
    try:
        integers = array(code, json.loads(values))
    except (TypeError, ValueError, OverflowError) as error:
        raise corrupt_error() from error
    if count is not None and len(integers) != count:
        raise corrupt_error()
    return integers


class _Candidates(NamedTuple):
    """A result of `TextIndex.candidates`, and what it depends on."""

    generation: int
    trigrams: Sequence[str]
    shared: bool
    low: int
    high: int
    rows: "array[int] | None"


class TextIndex(TextIndexFile):
    """The text index of one account. `TextIndexFile` describes the arguments.

    `ensure_open` has opened it. The methods return None if they fail. Then it is closed, or another process has it
    locked.

    Attributes:
        is_in_order: whether nothing was added since it was found to need neither `merge` nor `rebuild`.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._candidates: _Candidates | None = None
        self._is_merging = self.is_in_order = False

    def is_at_rest(self) -> bool:
        """Return whether it is in order, closed, and as it was when it was closed."""
        return self.is_in_order and self.is_as_closed()

    @_without_errors
    def rows(self, ids: Sequence[int]) -> list[tuple[int, int]]:
        """Return the row of each message and the size that its file had; (`UNKNOWN`, 0) if it has none.

        Args:
            ids: the EMAILIDs as numbers.
        """
        rows, sizes = self._open_db.execute(
            "SELECT json_group_array(ifnull(row, -1)), json_group_array(ifnull(size, 0))"
            " FROM json_each(?) AS wanted LEFT JOIN message ON message.id = wanted.value",
            (str(list(ids)),),
        ).fetchone()
        count = len(ids)
        return list(
            zip(_integers("i", rows, count=count), _integers("q", sizes, count=count), strict=True)
        )

    @_without_errors
    def candidates(
        self, trigrams: Sequence[str], low: int, high: int, shared: bool
    ) -> set[int] | None:
        """Return the rows of the messages that have all these trigrams; None if there are too many.

        The last result is kept until `forget_candidates` is called, in four bytes for each row. It stays right, because
        rows do not change.

        Args:
            trigrams: the trigrams; none of them contains a quotation mark.
            low: the lowest row to look at.
            high: the highest row to look at.
            shared: whether to search headers too.
        """
        last = self._candidates
        wanted = self.generation, trigrams, shared
        if last is not None and last[:3] == wanted and last.low <= low and high <= last.high:
            return None if last.rows is None else set(last.rows)
        query = " AND ".join([f'"{trigram}"' for trigram in trigrams])
        (found,) = self._open_db.execute(
            "SELECT json_group_array(rowid) FROM (SELECT rowid FROM text"
            " WHERE text MATCH ? AND rowid BETWEEN ? AND ? LIMIT ?)",
            (
                query,
                low - low % ROWS_PER_GROUP,
                high - high % ROWS_PER_GROUP + GROUP,
                MAX_CANDIDATES,
            ),
        ).fetchone()
        rows: set[int] | None = set(_integers("i", found))
        assert rows is not None
        if shared:
            for row in [row for row in rows if row % ROWS_PER_GROUP == GROUP]:
                rows.update(range(row - GROUP, row))
        if len(rows) >= MAX_CANDIDATES:
            rows = None
        kept = None if rows is None else array("i", rows)
        self._candidates = _Candidates(self.generation, trigrams, shared, low, high, kept)
        return rows

    def forget_candidates(self) -> None:
        """Free the memory of the last result of `candidates`."""
        self._candidates = None

    @_without_errors
    def add(self, messages: Sequence[tuple[int, int, IndexTexts | None]]) -> list[int]:
        """Add messages in one transaction; return their rows.

        Args:
            messages: the EMAILID as a number, the size of the file, and the texts of each.
        """
        self.is_in_order = False
        db = self._write()
        first, _ = self._next_and_merged_row()
        if not ROWS_PER_GROUP <= first <= MAX_ROW - 2 * len(messages) or first % ROWS_PER_GROUP:
            raise sqlite3.DatabaseError("no rows left")
        rows: list[int] = []
        shared: list[str] = []
        next_row = first
        for _, _, texts in messages:
            if texts is None:
                rows.append(NOT_INDEXED)
                continue
            rows.append(next_row + len(shared))
            db.execute("INSERT INTO text (rowid, body) VALUES (?, ?)", (rows[-1], texts.own))
            shared.append(texts.shared)
            if len(shared) == GROUP:
                next_row = self._end_group(next_row, shared)
        if shared:
            next_row = self._end_group(next_row, shared)
        db.executemany(
            "INSERT OR REPLACE INTO message VALUES (?, ?, ?)",
            [(number, row, size) for row, (number, size, _) in zip(rows, messages, strict=True)],
        )
        db.execute("UPDATE state SET next_row = ?", (next_row,))
        db.execute("COMMIT")
        return rows

    def _next_and_merged_row(self) -> Sequence[int]:
        (rows,) = self._open_db.execute(
            "SELECT ifnull(max(json_array(next_row, merged_row)), '[]') FROM state"
        ).fetchone()
        return _integers("i", rows, count=2)

    def _end_group(self, row: int, shared: list[str]) -> int:
        text = "\n".join(shared)
        self._open_db.execute("INSERT INTO text (rowid, body) VALUES (?, ?)", (row + GROUP, text))
        shared.clear()
        return row + ROWS_PER_GROUP

    @_without_errors
    def merge(self) -> bool:
        """Bring some pages of the file into a better order, if much was added since it was in order.

        Each transaction adds a tree of its own, and FTS5 merges them only as far as searches need it. One tree takes a
        quarter less space.

        Returns:
            whether there is more to do.
        """
        db = self._open_db
        next_row, merged_row = self._next_and_merged_row()
        if next_row - merged_row <= merged_row // MERGE_FRACTION + MERGE_ROWS:
            self._is_merging = False
            return self._shrink()
        pages = MERGE_PAGES if self._is_merging else -MERGE_PAGES
        self._is_merging = True
        before = db.total_changes
        self._write()
        db.execute("INSERT INTO text (text, rank) VALUES ('merge', ?)", (pages,))
        if db.total_changes - before < 2:  # as the documentation of FTS5 says
            db.execute("UPDATE state SET merged_row = next_row")
        db.execute("COMMIT")
        return True

    @_without_errors
    def has_waste(self, messages: int) -> bool:
        """Return whether most of the indexed messages are expunged, and many.

        Args:
            messages: the number of messages of the account.
        """
        (count,) = self._open_db.execute("SELECT count(*) FROM message").fetchone()
        return bool(count > 2 * messages + MAX_WASTE)

    def _shrink(self) -> bool:
        """Return some free pages to the file system if there are many; return whether there is more to do."""
        db = self._open_db
        (free,) = db.execute("PRAGMA freelist_count").fetchone()
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        if free * 50 <= pages:
            if self._has_written:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            return False
        self._has_written = True
        db.execute(f"PRAGMA incremental_vacuum({MERGE_PAGES})").fetchall()
        return True
