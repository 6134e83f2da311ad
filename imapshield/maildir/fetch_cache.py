"""Answers to FETCH that never change, and header fields for SEARCH, cached in the index.

FETCH answers are cached as bytes ready to send. A FETCH of a list view whose answers are all cached is then one range
query per item, and opens no message file. The tables are ``item`` and ``answer`` of schema.sql.

Answers to HEADER.FIELDS are header blocks, so other answers are made from them (`FetchCache.headers`). Therefore they
are not cached of a header at which ENVELOPE and SEARCH do not look as a whole.

The name of an item in the index ends with the `ANSWER_VERSION` of the code that answered, such as ``ENVELOPE/1``.
Answers of other versions are not used. They are removed a few at a time, whenever new answers are added.
"""

import sqlite3
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import accumulate
from typing import Any

from imapshield.mailbox.message_items import ANSWER_VERSION, RECORD_FIELDS, header_of
from imapshield.maildir.index import Index
from imapshield.maildir.message_table import uid_condition
from imapshield.maildir.search_values import merged_rows, take_rows
from imapshield.maildir.sqlite_file import is_locked
from imapshield.message.ordinary import is_field_name
from imapshield.wire.commands.fetch import Attribute, BodySection, FetchItem, Preview, Section
from imapshield.wire.sequence import runs

MAX_FIELD_LISTS = 16
"""The maximum of HEADER.FIELDS lists that are cached. A client requests one or two lists, and always the same ones."""

MAX_FIELD_LIST_SIZE = 1024
"""Bytes of the longest HEADER.FIELDS list that is cached."""

MAX_ANSWER_SIZE = 64 << 10
"""Bytes of the largest cached answer."""

SEARCH_PREFIX = b"?"
"""The prefix of the names of items for SEARCH. No FETCH item begins with it."""

_READ_AT_ONCE = 32
"""Answers that are read before their sizes are looked at: 2 MiB at most, and one by one they would take longer."""

_RUNS_PER_INSERT = 100
"""Runs of consecutive UIDs whose answers one statement copies. Most COPYs are of one run, which takes two thirds of the
time of the same messages one by one."""

NO_ITEM = 0
"""The id of an item that cannot be added. No message has answers to it."""

WANTED_SECONDS = 30 * 86400.0
"""Seconds since its last use for which an item is also answered for new messages, in the background. This is how long
mail clients are not used during holidays."""

_TOUCH_SECONDS = 3600.0
"""Seconds for which the recorded time of an item's last use is not updated, so that not every FETCH writes to the
index."""

MAX_REMOVED_ANSWERS = 500
"""The maximum of answers of other versions that are removed at once. That takes 2 ms, and 0.3 s if all of them are as
large as `MAX_ANSWER_SIZE` allows. To add answers takes longer than to remove as many."""

ENVELOPE = b"ENVELOPE"

RECORD = b"HEADER.FIELDS " + b" ".join(sorted(RECORD_FIELDS))
"""The item that the record of a message is the answer to. As no other, it is cached before a client asks for it."""

_FIELD_LIST = b"HEADER.FIELDS"
_VERSION = b"/%d" % ANSWER_VERSION
_OTHER_VERSIONS = "SELECT id FROM item WHERE substr(text, -length(?1)) <> ?1"


def item_name(item: FetchItem) -> bytes | None:
    """Return the name under which the answers to `item` are cached, None if they are not cached.

    The answer to HEADER.FIELDS depends neither on the order nor on the case of the fields. A list with a name that no
    field has is not cached: the name could have a space, so that it looked like two.
    """
    match item:
        case Attribute(b"ENVELOPE" | b"BODY" | b"BODYSTRUCTURE" as name):
            return name
        case Preview():
            return b"PREVIEW"
        case BodySection(section, _, None) if not section.path and section.fields:
            fields = b" ".join(sorted({field.lower() for field in section.fields}))
            if len(fields) <= MAX_FIELD_LIST_SIZE and all(map(is_field_name, section.fields)):
                return b"%b %b" % (section.text, fields)
    return None


def _item_of(name: bytes) -> FetchItem | None:
    """Return the item whose answers are cached under a name, None if that is one for SEARCH."""
    text, _, fields = name.partition(b" ")
    if fields and not name.startswith(SEARCH_PREFIX):
        return BodySection(Section((), text, tuple(fields.split(b" "))), peek=True)
    if name in (ENVELOPE, b"BODY", b"BODYSTRUCTURE"):
        return Attribute(name)
    return Preview() if name == b"PREVIEW" else None


@contextmanager
def _unless_locked() -> Iterator[None]:
    """Do not run a block that begins with a write transaction if another process holds the lock.

    A client can read its mail meanwhile, and the answers are added to the cache the next time.
    """
    try:
        yield
    except sqlite3.Error as error:
        if not is_locked(error):
            raise


def _first_within(
    uids: Sequence[int], found: Sequence[list[tuple[int, bytes]]], budget: int
) -> tuple[Sequence[int], int]:
    """Return the first of `uids` whose answers in `found` use up the budget, and the bytes of these answers.

    The answers of the others are removed from `found`.
    """
    sizes = dict.fromkeys(uids, 0)
    for rows in found:
        for uid, value in rows:
            sizes[uid] += len(value)
    totals = list(accumulate(sizes.values()))
    count = min(bisect_left(totals, budget) + 1, len(uids))
    last = uids[count - 1]
    for rows in found:
        while rows and rows[-1][0] > last:
            rows.pop()
    return uids[:count], totals[count - 1]


class FetchCache:
    """The cached answers of one account."""

    def __init__(self, index: Index, now: Callable[[], float]) -> None:
        self._index = index
        self._now = now
        self._may_have_other_versions = True

    def item_id(self, name: bytes) -> int:
        """Return the id of an item in this version, adding the item if it is new; `NO_ITEM` if the disk is full or
        another process holds the lock.

        A new HEADER.FIELDS list replaces the least recently used one if there are `MAX_FIELD_LISTS` already.
        """
        db, now = self._index.db, int(self._now())
        name += _VERSION
        row = db.execute("SELECT id, used FROM item WHERE text = ?", (name,)).fetchone()
        if row is not None and now - row[1] < _TOUCH_SECONDS:
            return int(row[0])
        with _unless_locked(), self._index.write_unless_full():
            if name.startswith(_FIELD_LIST):
                self._drop_old_field_lists()
            db.execute(
                "INSERT INTO item (text, used) VALUES (?, ?)"
                " ON CONFLICT (text) DO UPDATE SET used = excluded.used",
                (name, now),
            )
        row = db.execute("SELECT id FROM item WHERE text = ?", (name,)).fetchone()
        return int(row[0]) if row is not None else NO_ITEM

    def _drop_old_field_lists(self) -> None:
        db = self._index.db
        lists = db.execute(
            "SELECT id FROM item WHERE substr(text, 1, 13) = ? AND substr(text, -length(?)) = ?"
            " ORDER BY used DESC",
            (_FIELD_LIST, _VERSION, _VERSION),
        ).fetchall()
        for (item,) in lists[MAX_FIELD_LISTS - 1 :]:
            db.execute("DELETE FROM item WHERE id = ?", (item,))
            for (key,) in db.execute("SELECT id FROM mailbox").fetchall():
                db.execute("DELETE FROM answer WHERE mailbox = ? AND item = ?", (key, item))

    def get(
        self, key: int, item: int, uids: Sequence[int], value: str = "value", *arguments: object
    ) -> list[Any]:
        """Return (uid, value) for those of `uids` that have a cached answer, in ascending order.

        Args:
            key: the mailbox.
            item: the id of the item.
            uids: the messages, ascending; at least one.
            value: an SQL expression on the column ``value``, whose result is returned in place of the value.
            arguments: the expression's arguments.
        """
        return self._select(key, item, uids, value, *arguments).fetchall()

    def _select(
        self, key: int, item: int, uids: Sequence[int], value: str, *arguments: object
    ) -> sqlite3.Cursor:
        in_uids, parameters = uid_condition(uids, ascending=True)
        query = f"SELECT uid, {value} FROM answer WHERE mailbox = ? AND item = ? AND {in_uids}"  # noqa: S608
        parameters = (*arguments, key, item, *parameters)
        return self._index.db.execute(query + " ORDER BY uid", parameters)

    def get_within(
        self, key: int, items: Sequence[int | None], uids: Sequence[int], budget: int
    ) -> tuple[Sequence[int], list[list[tuple[int, bytes]]]]:
        """Return the cached answers to several items for the first of `uids` that use up the budget.

        About as many bytes more are in memory meanwhile, whatever is cached.

        Args:
            key: the mailbox.
            items: the ids of the items; None has no answers.
            uids: the messages, ascending; at least one.
            budget: bytes of the answers. The last message may have more.

        Returns:
            those messages, at least one; and (uid, answer) of those with an answer, for each item.
        """
        found: list[list[tuple[int, bytes]]] = []
        found_of: dict[int | None, list[tuple[int, bytes]]] = {None: []}
        used = 0
        for item in items:
            # The lists (A B) and (B A) are one item: their answers are in memory once.
            rows = found_of.get(item)
            if rows is None:
                assert item is not None
                rows = found_of[item] = self._first_rows(key, item, uids, budget)
            found.append(rows)
            used += sum([len(value) for _, value in rows])
            if used >= budget and len(uids) > 1:
                uids, used = _first_within(uids, found, budget)
        return uids, found

    def _first_rows(
        self, key: int, item: int, uids: Sequence[int], budget: int
    ) -> list[tuple[int, bytes]]:
        """Return (uid, answer) for the first messages, until the answers use up the budget."""
        rows: list[tuple[int, bytes]] = []
        size = 0
        with closing(self._select(key, item, uids, "value")) as cursor:
            while size < budget and (some := cursor.fetchmany(_READ_AT_ONCE)):
                rows += some
                size += sum([len(value) for _, value in some])
        return rows

    def wanted(self, key: int, uids: Sequence[int]) -> list[tuple[int, FetchItem, set[int]]]:
        """Return the items that clients have asked for lately, and the record: what should be answered in advance.

        Args:
            key: the mailbox.
            uids: messages, ascending; at least one.

        Returns:
            the id of each item, the item, and those of `uids` that have an answer.
        """
        self.item_id(RECORD)
        rows = self._index.db.execute(
            "SELECT id, text FROM item WHERE used >= ?1 AND substr(text, -length(?2)) = ?2",
            (int(self._now() - WANTED_SECONDS), _VERSION),
        )
        found = [(item, _item_of(text.removesuffix(_VERSION))) for item, text in rows.fetchall()]
        return [
            (item_id, item, {uid for uid, _ in self.get(key, item_id, uids, "1")})
            for item_id, item in found
            if item is not None
        ]

    def field_lists(self, fields: Iterable[bytes]) -> list[int]:
        """Return the ids of the HEADER.FIELDS lists that have all of `fields`, which are in lower case."""
        needed = set(fields)
        rows = self._index.db.execute(
            "SELECT id, text FROM item WHERE substr(text, 1, 14) = ? AND substr(text, -length(?2)) = ?2",
            (_FIELD_LIST + b" ", _VERSION),
        )
        return [
            item
            for item, text in rows.fetchall()
            if needed.issubset(text.removesuffix(_VERSION).split(b" ")[1:])
        ]

    def headers(
        self, key: int, lists: Sequence[int], uids: Sequence[int], budget: int
    ) -> dict[int, bytes]:
        """Return header blocks with some of the fields, from the answers to HEADER.FIELDS lists, by UID.

        Args:
            key: the mailbox.
            lists: the ids of lists (`field_lists`).
            uids: the messages, ascending; at least one.
            budget: bytes of the answers, after which the headers of the other messages are left out.
        """
        found: dict[int, bytes] = {}
        for item in lists:
            if budget > 0 and len(found) < len(uids):
                missing = [uid for uid in uids if uid not in found] if found else uids
                _, (rows,) = self.get_within(key, [item], missing, budget)
                budget -= sum(len(value) for _, value in rows)
                headers = [(uid, header_of(value)) for uid, value in rows]
                found.update((uid, header) for uid, header in headers if header is not None)
        return found

    def add(
        self,
        key: int,
        answers: Sequence[tuple[object, int, int]],
        sizes: Sequence[tuple[int, int, int, int]],
        values: tuple[int, Sequence[tuple[int, bytes]]] = (NO_ITEM, ()),
    ) -> None:
        """Add answers to the cache, and measured sizes to the messages.

        An answer is added only if its message and its item still exist: another process may have removed them, and an
        answer implies a message.

        Args:
            key: the mailbox.
            answers: (value, UID, item id) of each.
            sizes: those of each message, as in `MessageFiles.measured`.
            values: the id of an item for SEARCH, and the UID and the value of messages, ascending.
        """
        item, found = values
        if not answers and not sizes and not found:
            return
        with _unless_locked(), self._index.write_unless_full() as db:
            if self._may_have_other_versions:
                self._remove_other_versions()
            self._insert(key, answers)
            rows = merged_rows(found, partial(take_rows, db, key, item))
            self._insert(key, [(row, uid, item) for uid, row in rows])
            resized = {uid: physical for _, physical, uid, indexed in sizes if physical != indexed}
            known = (
                self._index.message_rows("uid, physical", key, sorted(resized)) if resized else []
            )
            db.executemany(
                "UPDATE message SET size = ?, physical = ? WHERE mailbox = ? AND uid = ?",
                [(wire, physical, key, uid) for wire, physical, uid, _ in sizes],
            )
            if growth := sum(resized[uid] - physical for uid, physical in known):
                db.execute("UPDATE account SET octets = octets + ?", (growth,))

    def _insert(self, key: int, answers: Sequence[tuple[object, int, int]]) -> None:
        if not answers:
            return
        uids = sorted({uid for _, uid, _ in answers})
        messages = {uid for (uid,) in self._index.message_rows("uid", key, uids)}
        items = {item for (item,) in self._index.db.execute("SELECT id FROM item")}
        self._index.db.executemany(
            "INSERT OR REPLACE INTO answer VALUES (?, ?, ?, ?)",
            [
                (key, item, uid, value)
                for value, uid, item in answers
                if uid in messages and item in items
            ],
        )

    def _remove_other_versions(self) -> None:
        """Remove some answers of other versions, or their items if there are no more answers."""
        db = self._index.db
        items = [item for (item,) in db.execute(_OTHER_VERSIONS, (_VERSION,))]
        mailboxes = [key for (key,) in db.execute("SELECT id FROM mailbox")] if items else []
        left = MAX_REMOVED_ANSWERS
        for item in items:
            for key in mailboxes:
                left -= db.execute(
                    "DELETE FROM answer WHERE mailbox = ?1 AND item = ?2 AND uid IN"
                    " (SELECT uid FROM answer WHERE mailbox = ?1 AND item = ?2 LIMIT ?3)",
                    (key, item, left),
                ).rowcount
                if not left:
                    return
            db.execute("DELETE FROM item WHERE id = ?", (item,))
        self._may_have_other_versions = False

    def copy(self, key: int, uids: Sequence[int], target_key: int, first_uid: int) -> None:
        """Copy the answers to FETCH of messages that were copied or moved, in a write transaction.

        Values for SEARCH are not copied, because they would be up to seven more rows for each message. The next search
        computes them.

        Args:
            key: the mailbox of the original messages.
            uids: their UIDs.
            target_key: the mailbox of the copies.
            first_uid: the UID of the first copy; the others follow without a gap.
        """
        # The first and the last UID of each run of them, and what to add to these.
        runs_of_uids: list[int] = []
        for first, last in runs(uids):
            runs_of_uids += (first, last, first_uid - first)
            first_uid += last - first + 1
        for item, name in self._index.cached_items(key):
            if name.startswith(SEARCH_PREFIX) or not name.endswith(_VERSION):
                continue
            for start in range(0, len(runs_of_uids), 3 * _RUNS_PER_INSERT):
                some = runs_of_uids[start : start + 3 * _RUNS_PER_INSERT]
                values = ", ".join(["(?, ?, ?)"] * (len(some) // 3))
                self._index.db.execute(
                    f"WITH run (low, high, shift) AS (VALUES {values})"  # noqa: S608
                    " INSERT OR FAIL INTO answer SELECT ?, item, uid + shift, value"
                    " FROM run CROSS JOIN answer"
                    " ON mailbox = ? AND item = ? AND uid BETWEEN low AND high",
                    (*some, target_key, key, item),
                )
