"""FETCH: answers from the cache in the index where possible, from message files otherwise.

Rules
-----
* If all answers of a step are cached, the step costs one range query per item, and little per message.
* A message is opened once for all the items that need it, and only its header is read if that is enough.
* Whole messages and nothing else (`whole_messages`) cost little more than their system calls.
* A large string becomes a `Blob`, which is read in ranges while the client reads it. No large string is kept in memory,
  because a client that stops reading would keep it there. `message_strings` says where its bytes come from.
* A message that cannot be read or decoded gets no answer, and the others get theirs.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from imapshield.errors import MessageExpunged, StoreIOError
from imapshield.mailbox.in_place import may_block
from imapshield.mailbox.message_items import (
    header_value,
    is_cacheable,
    is_header_item,
    needed_fields,
)
from imapshield.mailbox.request import check_wanted, current_request
from imapshield.mailbox.values import Blob, FetchResult
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.fetch_cache import MAX_ANSWER_SIZE, item_name
from imapshield.maildir.message_file import (
    FILE_COLUMNS,
    MessageFile,
    MessageFiles,
    MessageReader,
)
from imapshield.maildir.message_layout import Range
from imapshield.maildir.message_strings import MessageStrings
from imapshield.maildir.open_strings import OpenString
from imapshield.maildir.unreadable import log_unreadable
from imapshield.maildir.whole_messages import OVERHEAD, fetch_whole, is_whole_message
from imapshield.wire import strings
from imapshield.wire.commands.fetch import Attribute, Binary, BodySection, FetchItem
from imapshield.wire.dates import encode_internaldate

STEP = 128
READ_STEP = 32
"""Messages per step; fewer if message files must be read. The number is large enough that the cost of the query itself
is small, and small enough not to read far beyond the budget, which some tens of messages use up."""

_OTHER_WHOLE = 8
"""Whole messages that are read with all checks before it is tried again whether the next ones need none."""

MAX_STRING_SIZE = 256 << 10
"""Bytes of the largest string that is not returned as a `Blob`, whatever the budget."""

_SMALL_STRINGS = 4
"""A fourth of these bytes is the same for the smallest budgets, which a client has that has not read anything yet. A
thousand such clients that fetch one message of 200 KB would otherwise hold 200 MB."""

LARGEST_STRINGS = 4
"""Strings of the largest size that one message has in memory, or as many bytes of smaller ones. Further ones are a
`Blob`. A client can ask for thousands of pieces of one message."""

_READ_DIVISOR = 8
"""Bytes that are read for one byte of the budget: of files, and of cached headers from which answers are made.
BODYSTRUCTURE has some hundred bytes, and takes as long as its message is large."""

_COLUMNS = FILE_COLUMNS + ", saved, email_id"


def fetch(
    account: AccountState, key: int, uids: Sequence[int], items: Sequence[FetchItem], budget: int
) -> FetchResult:
    """Answer step by step until the budget is used up; `IStore.fetch` describes the arguments."""
    max_string_size = min(MAX_STRING_SIZE, max(budget, MAX_STRING_SIZE // _SMALL_STRINGS))
    if len(items) == 1 and is_whole_message(items[0]):
        result = fetch_whole(account, key, uids, budget, max_string_size)
        if result.uids:
            return result
        uids = uids[:_OTHER_WHOLE]
    chunk = _FetchChunk(account, key, items, max_string_size)
    for start in range(0, len(uids), chunk.step_size):
        budget = chunk.fetch_step(uids[start : start + chunk.step_size], budget)
        if budget <= 0:
            break
    chunk.add_to_cache()
    return FetchResult(chunk.uids, chunk.columns, chunk.missing, chunk.unreadable)


class _FetchChunk:
    """One `FetchResult` while it is built."""

    def __init__(
        self, account: AccountState, key: int, items: Sequence[FetchItem], max_string_size: int
    ) -> None:
        self._account = account
        self._index = account.index
        self._cache = cache = account.cache
        self._message_files = MessageFiles(account.folder(key))
        self._key = key
        self._items = items
        self._max_string_size = max_string_size
        # The id of each item in the cache, None for an item that is not cached.
        names = map(item_name, items)
        self._ids = [None if name is None else cache.item_id(name) for name in names]
        self._new_answers: list[tuple[bytes, int, int]] = []
        self._octets_read = 0
        self._octets_held = 0  # of the strings of one message
        self._needs_header = False
        self._lists: list[int] | None = None
        self._headers: dict[int, bytes] = {}
        self.step_size = STEP if None not in self._ids else READ_STEP
        self.uids: list[int] = []
        self.missing: list[int] = []
        self.unreadable: list[int] = []
        self.columns: list[list[bytes | Blob]] = [[] for _ in items]

    def fetch_step(self, uids: Sequence[int], budget: int) -> int:
        """Answer for `uids`, or for as many as the budget allows; return what is left of the budget."""
        wanted = len(uids)
        uids, cached = self._cache.get_within(self._key, self._ids, uids, budget)
        left = self._fetch_some(uids, cached, budget)
        return left if len(uids) == wanted else min(left, 0)

    def _fetch_some(
        self, uids: Sequence[int], cached: Sequence[list[tuple[int, bytes]]], budget: int
    ) -> int:
        if all(len(rows) == len(uids) for rows in cached):
            for column, rows in zip(self.columns, cached, strict=True):
                values = [value for _, value in rows]
                column.extend(values)
                budget -= sum(map(len, values))
            self.uids += uids
            return budget
        return self._fetch_one_by_one(uids, [dict(rows) for rows in cached], budget)

    def _fetch_one_by_one(
        self, uids: Sequence[int], cached: Sequence[dict[int, bytes]], budget: int
    ) -> int:
        rows = {row[0]: row for row in self._index.message_rows(_COLUMNS, self._key, uids)}
        if self._lists is None:
            self._needs_header = all(map(is_header_item, self._items))
            fields = needed_fields(self._items) if self._needs_header else None
            self._lists = self._cache.field_lists(fields) if fields else []
        if self._lists:
            may_block()  # they can be some MiB
            octets = budget * _READ_DIVISOR
            self._headers = self._cache.headers(self._key, self._lists, uids, octets)
        for uid in uids:
            check_wanted()
            row = rows.get(uid)
            try:
                values = None if row is None else self._answer(row, cached)
            except Exception as error:
                may_block()
                message = MessageFile._make(rows[uid][:5])
                log_unreadable(self._account, self._message_files.path(message), error)
                self.unreadable.append(uid)
                return 0  # it may have been read as a whole before it failed
            if values is None:
                self.missing.append(uid)
                continue
            self.uids.append(uid)
            budget -= OVERHEAD + self._octets_read // _READ_DIVISOR
            self._octets_read = 0
            for column, value in zip(self.columns, values, strict=True):
                column.append(value)
                budget -= len(value)
            if budget <= 0:
                break
        return budget

    def _answer(
        self, row: tuple[Any, ...], cached: Sequence[dict[int, bytes]]
    ) -> list[bytes | Blob] | None:
        """Return the answers for one message, None if its file was removed."""
        message = MessageFile._make(row[:5])
        self._octets_held = 0
        values: list[Any] = [answers.get(message.uid) for answers in cached]
        missing = [column for column, value in enumerate(values) if value is None]
        if self._needs_header and self._answer_from_header(message, values, missing):
            return values
        return values if self._answer_from_file(row, values, missing) else None

    def _answer_from_header(
        self, message: MessageFile, values: list[Any], missing: Sequence[int]
    ) -> bool:
        """Add the `missing` values from the header alone, unless `MessageFiles.small_header` does not have it."""
        if not missing:
            return True
        self._may_compute(missing)
        header = self._headers.get(message.uid)
        if header is None:
            header = self._message_files.small_header(message)
            if header is None:
                return False
        self._octets_read += len(header)
        for column in missing:
            item, item_id = self._items[column], self._ids[column]
            value = header_value(header, item)
            if isinstance(item, BodySection) and len(value) > self._max_size():
                values[column] = Blob(message.uid, item, len(value) - value.index(b"\n") - 1)
                continue
            values[column] = value
            self._octets_held += len(value)
            if item_id and len(value) <= MAX_ANSWER_SIZE:
                self._new_answers.append((value, message.uid, item_id))
        return True

    def _answer_from_file(
        self, row: tuple[Any, ...], values: list[Any], missing: Sequence[int]
    ) -> bool:
        """Add the `missing` values, unless the file of the message was removed."""
        message, saved, email_id = MessageFile._make(row[:5]), row[5], row[6]
        in_file = []
        for column in missing:
            item = self._items[column]
            if self._ids[column] is None and isinstance(item, Attribute):
                values[column] = _attribute(item, saved, email_id)
            else:
                in_file.append(column)
        if not in_file:
            return True
        self._may_compute(in_file)
        fd = self._message_files.open(message)
        if fd is None:
            return False
        reader = MessageReader(self._message_files, message, fd)
        found = MessageStrings(self._account, reader)
        try:
            for column in in_file:
                item, item_id = self._items[column], self._ids[column]
                value = values[column] = _read_item(found, item, self._max_size())
                self._octets_held += len(value)
                if item_id and type(value) is bytes and _is_cached(found, item, value):
                    self._new_answers.append((value, message.uid, item_id))
        finally:
            self._octets_read += reader.octets_read + found.octets_scanned
            os.close(fd)
        return True

    def _max_size(self) -> int:
        """Return the bytes of the largest string of the message that is added as it is, and not as a `Blob`."""
        left = LARGEST_STRINGS * self._max_string_size - self._octets_held
        return min(self._max_string_size, max(left, OVERHEAD))

    def _may_compute(self, columns: Sequence[int]) -> None:
        """Compute no answer in place that is computed once, and then in the cache."""
        if any(self._ids[column] is not None for column in columns):
            may_block()

    def add_to_cache(self) -> None:
        """Add new answers to the cache."""
        self._cache.add(self._key, self._new_answers, self._message_files.measured)


def _read_item(message: MessageStrings, item: FetchItem, max_size: int) -> bytes | Blob:
    """Return the answer to `item` from the message's file."""
    if isinstance(item, Binary) and item.size_only:
        string = message.string(item)
        size = string.size if isinstance(string, Range) else len(string or b"")
        return b"%d" % size
    if isinstance(item, BodySection | Binary):
        return _read_string(message, item, max_size)
    if item == Attribute(b"ENVELOPE"):
        return message.reader.head().value(item)
    value = message.reader.whole().value(item)
    if isinstance(item, Attribute):
        message.keep_layout()
    return value


def _read_string(
    message: MessageStrings, item: BodySection | Binary, max_size: int
) -> bytes | Blob:
    """Return the answer to `item`, as a `Blob` if it has more bytes than `max_size`."""
    string = message.string(item)
    if isinstance(string, Range):
        is_large = string.size > max_size
        # The client is sent the size of a large string before the string is read. So here its last byte is read: if the
        # file is damaged, this raises; if another program has truncated it, it is read as it is now.
        expected = 1 if is_large else string.size
        octets: bytes | None = string.read(string.size - expected)
        if octets is not None and len(octets) < expected:
            octets = message.reader.whole().content(item)
        elif is_large:
            return Blob(message.reader.message.uid, item, string.size)
    else:
        octets = string
    if octets is None:
        return strings.NIL
    if len(octets) > max_size:
        return Blob(message.reader.message.uid, item, len(octets))
    return strings.literal(octets, binary=isinstance(item, Binary))


def _is_cached(message: MessageStrings, item: FetchItem, value: bytes) -> bool:
    """Whether the answer to `item`, which has a name in the cache, is cached."""
    if len(value) > MAX_ANSWER_SIZE:
        return False
    return not isinstance(item, BodySection) or is_cacheable(item, message.reader.head())


def _attribute(item: Attribute, saved: int, email_id: bytes) -> bytes:
    """Return the answer to an item that is in the message's row; NIL for THREADID, which this store does not have."""
    match item.name:
        case b"SAVEDATE":
            return encode_internaldate(saved)
        case b"EMAILID":
            return b"(%b)" % email_id
        case _:
            return strings.NIL


def read(
    account: AccountState, key: int, uid: int, item: FetchItem, offset: int, size: int
) -> bytes:
    """Return a range of the string that a `Blob` stands for; `IStore.read` describes the arguments and errors."""
    assert isinstance(item, BodySection | Binary)
    strings_open, now = account.large_messages.strings, account.now()
    name = id(current_request.get()), key, uid, item
    opened = strings_open.get(account, name, now) if offset else None
    if opened is not None:
        string, octets = opened.string, _read_open(account, opened, offset, size)
    else:
        with _opened_message(account, key, uid) as message:
            found = message.kept_string(item)
            if found is None:
                return b""
            string, octets = found, found.read(offset, size)
            if offset + size < string.size:
                reader = message.reader
                path = reader.message_files.path(reader.message)
                strings_open.add(account, name, string, reader.fd, path, now)
    if offset + size >= string.size:
        strings_open.drop(account, name)
        if item.partial is None:
            account.large_messages.drop_file(account, string.source)
    return octets


def _read_open(account: AccountState, opened: OpenString, offset: int, size: int) -> bytes:
    try:
        return opened.string.read(offset, size)
    except OSError as error:
        log_unreadable(account, opened.path, error)
        raise StoreIOError from error


@contextmanager
def _opened_message(account: AccountState, key: int, uid: int) -> Iterator[MessageStrings]:
    message_files = MessageFiles(account.folder(key))
    for row in account.index.message_rows(FILE_COLUMNS, key, [uid]):
        message = MessageFile._make(row)
        try:
            with message_files.opened(message) as fd:
                if fd is not None:
                    yield MessageStrings(account, MessageReader(message_files, message, fd))
                    return
        except Exception as error:
            log_unreadable(account, message_files.path(message), error)
            raise StoreIOError from error
    raise MessageExpunged
