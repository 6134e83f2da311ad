"""Remembers what was read from the index until the index changes: most operations of a store read the same few rows."""

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

MAILBOXES, MOVES = "mailbox", "moving"
"""The kinds of what is known of the tables of these names."""

MAX_KNOWN = 64
"""Values that are remembered: most clients use a few mailboxes."""


class KnownRows:
    """Values that were read from one database while it was in one state.

    SQLite's ``data_version`` is another one after a commit of another connection, in this process or in another, and
    ``total_changes`` after each change of a row by this one. To read both takes a fourth of the time of a query.
    """

    def __init__(self) -> None:
        self._values: dict[tuple[object, ...], Any] = {}
        self._state = (0, 0)
        self._version: int | None = None

    def expire(self) -> None:
        """Note that what other processes have committed until now counts: an operation or a transaction has begun."""
        self._version = None

    def clear(self) -> None:
        """Forget everything: the next values are those of another database, or a transaction was rolled back."""
        self._values = {}
        self._state = (0, 0)
        self._version = None

    def of(self, db: sqlite3.Connection) -> dict[tuple[object, ...], Any]:
        """Return the values by names, of which the first element is their kind, such as ``(MAILBOXES, key)``.

        The caller adds more, and uses the result before `db` changes.
        """
        if self._version is None:
            (self._version,) = db.execute("PRAGMA data_version").fetchone()
        state = self._version, db.total_changes
        if state != self._state or len(self._values) >= MAX_KNOWN:
            self._values = {}
            self._state = state
        return self._values

    @contextmanager
    def keeping(self, db: sqlite3.Connection, kinds: Collection[str]) -> Iterator[None]:
        """Run a block in which `db` changes nothing of these kinds: what is known of them stays known.

        Most commands that write are followed by one that reads the same mailbox.
        """
        kept = {name: value for name, value in self.of(db).items() if name[0] in kinds}
        yield
        self._values, self._state = kept, (self._version or 0, db.total_changes)
