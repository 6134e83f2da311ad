"""FETCH: answers from the index where they are kept, from message files otherwise.

Rules
-----
* A chunk whose answers are all kept costs one range query per item, and nothing per message in Python.
* A message is opened once for all that is asked of it, and only its head is read when that will do.
* Nobody holds a large string: it is a `Blob`, read in ranges while the peer reads.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from typing import IO, NamedTuple

from imapshield.errors import MessageExpunged
from imapshield.mailbox.values import Blob, FetchResult
from imapshield.maildir import files
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.fetch_cache import LARGEST_KEPT, Answers, text_of
from imapshield.maildir.index import Index
from imapshield.maildir.message_file import MESSAGE, Contents, Message, Reading
from imapshield.message import section
from imapshield.wire import encode
from imapshield.wire.commands.fetch import Attribute, Binary, BodySection, FetchItem
from imapshield.wire.dates import encode_internaldate

STEP = 128
READ_STEP = 32
"""Messages looked up at once: enough to make the query's own cost small, few enough not to overshoot the budget; and
fewer where they have to be read, of which the budget lets only some tens through."""

LARGEST_STRING = 256 << 10
_OVERHEAD = 100
_COLUMNS = MESSAGE + ", saved, email_id"
_HEADER_ITEMS = (b"HEADER", b"HEADER.FIELDS", b"HEADER.FIELDS.NOT")


class Held(NamedTuple):
    """A large string being streamed: where it starts in the message's file, or, when it is not there as it is sent, a
    file of its own. In memory it would be kept for as long as a client that went away does not read on."""

    key: int
    uid: int
    item: FetchItem
    start: int
    file: IO[bytes] | None


class Fetching:
    """The FETCH side of a store; see `IStore` for the methods."""

    def __init__(self, core: AccountState, answers: Answers) -> None:
        self._core = core
        self._index = core.index
        self._answers = answers
        self._held: Held | None = None

    def fetch(
        self, key: int, uids: Sequence[int], items: Sequence[FetchItem], budget: int
    ) -> FetchResult:
        """Answer step by step until the budget is used up."""
        box = self._index.box(key)
        contents = Contents(self._core, self._core.folder(box.name))
        chunk = _Chunk(self._index, self._answers, contents, key, items)
        for start in range(0, len(uids), chunk.size):
            budget = chunk.step(uids[start : start + chunk.size], budget)
            if budget <= 0:
                break
        chunk.keep()
        return FetchResult(chunk.uids, chunk.columns, chunk.gone)

    def read(self, key: int, uid: int, item: FetchItem, offset: int, size: int) -> bytes:
        """Read a range of a large string, from the file itself where the string is in it as it is sent."""
        box = self._index.box(key)
        contents = Contents(self._core, self._core.folder(box.name))
        held = self._held
        if held is None or held[:3] != (key, uid, item):
            self._let_go()
            held = self._held = self._hold(key, uid, item, contents)
        if held.file is not None:
            octets = files.read_range(held.file.fileno(), offset, size)
            if offset + size >= os.fstat(held.file.fileno()).st_size:
                self._let_go()
            return octets
        fd, _ = self._open(key, uid, contents)
        try:
            return files.read_range(fd, held.start + offset, size)
        finally:
            os.close(fd)

    def _let_go(self) -> None:
        held, self._held = self._held, None
        if held is not None and held.file is not None:
            held.file.close()

    def _open(self, key: int, uid: int, contents: Contents) -> tuple[int, Message]:
        rows = self._index.rows(MESSAGE, key, [uid])
        message = Message._make(rows[0]) if rows else None
        fd = None if message is None else contents.open(message)
        if message is None or fd is None:
            raise MessageExpunged
        return fd, message

    def _hold(self, key: int, uid: int, item: FetchItem, contents: Contents) -> Held:
        fd, message = self._open(key, uid, contents)
        try:
            found = string_of(Reading(contents, message, fd), message, item)
        finally:
            os.close(fd)
        if isinstance(found, tuple):
            return Held(key, uid, item, found[0], None)
        file = tempfile.TemporaryFile()  # noqa: SIM115
        file.write(found or b"")
        file.flush()
        return Held(key, uid, item, 0, file)


class _Chunk:
    """A Fetched in the making."""

    def __init__(
        self,
        index: Index,
        answers: Answers,
        contents: Contents,
        key: int,
        items: Sequence[FetchItem],
    ) -> None:
        self._index = index
        self._answers = answers
        self._contents = contents
        self._key = key
        self._items = items
        self._ids = [None if text is None else answers.id(text) for text in map(text_of, items)]
        self._fresh: list[tuple[bytes, int, int]] = []
        self._bodies = len(items) == 1 and _is_whole(items[0])
        self.size = STEP if None not in self._ids else READ_STEP
        self.uids: list[int] = []
        self.gone: list[int] = []
        self.columns: list[list[bytes | Blob]] = [[] for _ in items]

    def step(self, uids: Sequence[int], budget: int) -> int:
        """Answer for `uids`, or as many as the budget allows; returns what is left of it."""
        kept = [
            [] if item is None else self._answers.get(self._key, item, uids) for item in self._ids
        ]
        if all(len(rows) == len(uids) for rows in kept):
            for column, rows in zip(self.columns, kept, strict=True):
                values = [value for _, value in rows]
                column.extend(values)
                budget -= sum(map(len, values))
            self.uids += uids
            return budget
        return self._one_by_one(uids, [dict(rows) for rows in kept], budget)

    def _one_by_one(
        self, uids: Sequence[int], kept: Sequence[dict[int, bytes]], budget: int
    ) -> int:
        there = {row[0]: row for row in self._index.rows(_COLUMNS, self._key, uids)}
        for uid in uids:
            found = there.get(uid)
            try:
                values: list[bytes | Blob] | None = None
                if found is not None:
                    message = Message._make(found[:5])
                    if self._bodies and message.physical <= LARGEST_STRING // 2:
                        values = self._body(message)
                    else:
                        values = self._values(message, found[5], found[6], kept)
            except OSError:
                # Tell of those before it: asked again, it comes first and is refused.
                if self.uids or self.gone:
                    return 0
                raise
            if values is None:
                self.gone.append(uid)
                continue
            self.uids.append(uid)
            budget -= _OVERHEAD
            for column, value in zip(self.columns, values, strict=True):
                column.append(value)
                budget -= len(value)
            if budget <= 0:
                break
        return budget

    def _body(self, message: Message) -> list[bytes | Blob] | None:
        """Answer BODY[] alone, what synchronizing clients ask for: most of its cost is the system calls'."""
        fd = self._contents.open(message)
        if fd is None:
            return None
        try:
            return [encode.literal(self._contents.octets(fd, message))]
        finally:
            os.close(fd)

    def _values(
        self, message: Message, saved: int, email_id: bytes, kept: Sequence[dict[int, bytes]]
    ) -> list[bytes | Blob] | None:
        values: list[bytes | Blob] = []
        reading: Reading | None = None
        fd: int | None = None
        try:
            for item, number, answers in zip(self._items, self._ids, kept, strict=True):
                value: bytes | Blob | None = answers.get(message.uid)
                if value is None and number is None and isinstance(item, Attribute):
                    value = _of_row(item, saved, email_id)
                if value is None:
                    if reading is None:
                        fd = self._contents.open(message)
                        if fd is None:
                            return None
                        reading = Reading(self._contents, message, fd)
                    value = self._read(reading, message, item)
                    if number is not None and type(value) is bytes and len(value) <= LARGEST_KEPT:
                        self._fresh.append((value, message.uid, number))
                values.append(value)
        finally:
            if fd is not None:
                os.close(fd)
        return values

    def _read(self, reading: Reading, message: Message, item: FetchItem) -> bytes | Blob:
        if isinstance(item, BodySection) or (isinstance(item, Binary) and not item.size_only):
            found = string_of(reading, message, item)
            if found is None:
                return encode.NIL
            size = found[1] if isinstance(found, tuple) else len(found)
            if size > LARGEST_STRING:
                return Blob(message.uid, item, size)
            octets = reading.range(*found) if isinstance(found, tuple) else found
            return encode.literal(octets, binary=isinstance(item, Binary))
        if item == Attribute(b"ENVELOPE"):
            return reading.head().value(item)
        return reading.whole().value(item)

    def keep(self) -> None:
        """Put what was found out into the index."""
        self._answers.keep(self._key, self._fresh, self._contents.measured)


def string_of(
    reading: Reading, message: Message, item: FetchItem
) -> tuple[int, int] | bytes | None:
    """Return (start, size) of a string that is in the file as it is sent, or its octets; None for NIL."""
    if message.verbatim and isinstance(item, BodySection):
        if item.section.path or item.section.text == b"TEXT":
            whole = reading.whole()
            found = section.body_section(whole.part, whole.data, item.section)
            if isinstance(found, tuple):
                return _cut(found[0], found[1], item.partial)
        elif not item.section.text:
            assert message.size is not None
            return _cut(0, message.size, item.partial)
    header_only = (
        isinstance(item, BodySection)
        and not item.section.path
        and item.section.text in _HEADER_ITEMS
    )
    return (reading.head() if header_only else reading.whole()).content(item)


def _is_whole(item: FetchItem) -> bool:
    return (
        isinstance(item, BodySection)
        and not item.section.path
        and not item.section.text
        and item.partial is None
    )


def _cut(start: int, end: int, partial: tuple[int, int] | None) -> tuple[int, int]:
    if partial is None:
        return start, end - start
    offset, size = partial
    return start + offset, max(0, min(size, end - start - offset))


def _of_row(item: Attribute, saved: int, email_id: bytes) -> bytes:
    match item.name:
        case b"SAVEDATE":
            return encode_internaldate(saved)
        case b"EMAILID":
            return b"(%b)" % email_id
        case _:
            return encode.NIL
