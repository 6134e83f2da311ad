"""Answers that do not change, kept in the index as bytes ready to send; and for SEARCH, header fields ready to compare.

A warm FETCH of a list view is then one range query per item and chunk, and no message file is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from imapshield.maildir.index import Index, as_json
from imapshield.wire.commands.fetch import Attribute, BodySection, FetchItem, Preview

LISTS = 16
"""Header field lists for which answers are kept: every client asks for one or two, always the same."""

LIST_OCTETS = 1024
LARGEST_KEPT = 64 << 10
_REFRESHED_SECONDS = 3600.0
_LIST = b"HEADER.FIELDS"


def text_of(item: FetchItem) -> bytes | None:
    """Return under which name the answers to `item` are kept, None if they are not.

    What HEADER.FIELDS answers depends on neither the order nor the case of the fields.
    """
    match item:
        case Attribute(b"ENVELOPE" | b"BODY" | b"BODYSTRUCTURE" as name):
            return name
        case Preview():
            return b"PREVIEW"
        case BodySection(section, _, None) if not section.path and section.fields:
            fields = b" ".join(sorted({field.lower() for field in section.fields}))
            return b"%b %b" % (section.text, fields) if len(fields) <= LIST_OCTETS else None
    return None


class Answers:
    """The table of kept answers."""

    def __init__(self, index: Index, now: Callable[[], float]) -> None:
        self._index = index
        self._now = now

    def id(self, text: bytes) -> int:
        """Return the number of an item, giving it one if it has none."""
        db, now = self._index.db, int(self._now())
        row = db.execute("SELECT id, used FROM item WHERE text = ?", (text,)).fetchone()
        if row is not None and now - row[1] < _REFRESHED_SECONDS:
            return int(row[0])
        with self._index.write():
            if text.startswith(_LIST):
                self._make_room()
            db.execute(
                "INSERT INTO item (text, used) VALUES (?, ?)"
                " ON CONFLICT (text) DO UPDATE SET used = excluded.used",
                (text, now),
            )
            return int(db.execute("SELECT id FROM item WHERE text = ?", (text,)).fetchone()[0])

    def _make_room(self) -> None:
        db = self._index.db
        lists = db.execute(
            "SELECT id FROM item WHERE substr(text, 1, 13) = ? ORDER BY used DESC", (_LIST,)
        ).fetchall()
        for (old,) in lists[LISTS - 1 :]:
            db.execute("DELETE FROM item WHERE id = ?", (old,))
            for (key,) in db.execute("SELECT id FROM mailbox").fetchall():
                db.execute("DELETE FROM answer WHERE mailbox = ? AND item = ?", (key, old))

    def get(
        self, key: int, item: int, uids: Sequence[int], value: str = "value", *arguments: object
    ) -> list[Any]:
        """Return (uid, value) of those of `uids` for which there is an answer; `value` may be an expression."""
        db = self._index.db
        query = f"SELECT uid, {value} FROM answer WHERE mailbox = ? AND item = ? AND "  # noqa: S608
        low, high = uids[0], uids[-1]
        if high - low < len(uids):
            return db.execute(
                query + "uid BETWEEN ? AND ?", (*arguments, key, item, low, high)
            ).fetchall()
        return db.execute(
            query + "uid IN (SELECT value FROM json_each(?)) ORDER BY uid",  # noqa: S608
            (*arguments, key, item, as_json(uids)),
        ).fetchall()

    def keep(
        self,
        key: int,
        answers: Sequence[tuple[object, int, int]],
        sizes: Sequence[tuple[int, int, int]],
    ) -> None:
        """Put what was found out into the index, for the next time.

        Args:
            key: the mailbox.
            answers: (value, uid, item) of each. Of messages that still exist, for items that another process has not
                let go: an answer says that there is a message.
            sizes: see `contents.Contents.measured`.
        """
        if not answers and not sizes:
            return
        with self._index.write() as db:
            db.executemany(
                "INSERT OR REPLACE INTO answer SELECT message.mailbox, item.id, message.uid, ?"
                " FROM message, item WHERE message.mailbox = ? AND message.uid = ? AND item.id = ?",
                [(value, key, uid, item) for value, uid, item in answers],
            )
            db.executemany(
                "UPDATE message SET size = ?, physical = ? WHERE mailbox = ? AND uid = ?",
                [(wire, physical, key, uid) for wire, physical, uid in sizes],
            )
