"""SEARCH keys that need the content of messages: header fields are searched_texts in the index, text is read from the files.

The header fields that people search are read once for each message, all together, and stored in the index in the form
in which they are searched_texts. From then on SQLite compares them, and no message file is opened.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

from imapshield.mailbox.message_items import (
    MessageItems,
    date_matches,
    searched_texts,
    sent_date,
    utc_day,
)
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.fetch_cache import MAX_ANSWER_SIZE, FetchCache
from imapshield.maildir.message_file import FILE_COLUMNS, MessageFile, MessageFiles, MessageReader
from imapshield.message.text import normalize
from imapshield.wire.commands.search_keys import (
    DateKey,
    EnvelopeKey,
    HeaderKey,
    ObjectIdKey,
    SearchKey,
    TextKey,
)

_FIELDS = (b"FROM", b"TO", b"CC", b"BCC", b"SUBJECT")
_SENT_ITEM = b"?SENT"
_COMMON_ITEMS: dict[bytes, HeaderKey | EnvelopeKey] = {
    **{b"?ENVELOPE " + field: EnvelopeKey(field, "") for field in _FIELDS},
    b"?HEADER MESSAGE-ID": HeaderKey(b"MESSAGE-ID", ""),
}
_RAW_ITEMS: dict[bytes, HeaderKey | EnvelopeKey] = {
    b"?HEADER " + field: HeaderKey(field, "") for field in _FIELDS
}
"""The items of the cache (`FetchCache`) that SEARCH uses, by name. The common items are what people search most, and
are filled together with the sent date. The raw items are the same fields as they were written; they are filled when a
client first searches one of them with HEADER."""

_SEPARATOR = "\0"
"""Stands before each value of a field: a header may have the field more than once, and a field may be empty."""

_OPERATORS = {b"BEFORE": "<", b"ON": "=", b"SINCE": ">="}


class MessageSearch:
    """The method `search` of `IStore`."""

    def __init__(self, account: AccountState, cache: FetchCache) -> None:
        self._account = account
        self._index = account.index
        self._cache = cache

    def search(self, key: int, uids: Sequence[int], leaf: SearchKey) -> list[int]:
        """Return those of `uids` that match; `IStore.search` describes the arguments."""
        folder = self._account.paths.folder(self._index.mailbox(key).name)
        message_files = MessageFiles(folder)
        if not uids:
            return []
        match leaf:
            case HeaderKey(_, text) | EnvelopeKey(_, text) if name := _item_name(leaf):
                needle = (normalize(text) or _SEPARATOR).encode("utf-8", "replace")
                return self._search_cache(
                    key, uids, leaf, name, "instr(value, ?) > 0", needle, message_files
                )
            case DateKey(how, day, b"SENT"):
                expression = f"value > 0 AND value {_OPERATORS[how]} ?"
                return self._search_cache(
                    key, uids, leaf, _SENT_ITEM, expression, day.toordinal(), message_files
                )
            case DateKey(how, day):
                rows = self._index.message_rows("uid, saved", key, uids)
                return [uid for uid, saved in rows if date_matches(how, day, utc_day(saved))]
            case ObjectIdKey(is_thread, object_id):
                rows = [] if is_thread else self._index.message_rows("uid, email_id", key, uids)
                return [uid for uid, email_id in rows if email_id == object_id]
            case HeaderKey() | EnvelopeKey():
                messages = self._read(key, uids, message_files, MessageReader.head)
            case TextKey():
                messages = self._read(key, uids, message_files, MessageReader.whole)
            case _:
                raise AssertionError(leaf)
        matching = [uid for uid, message in messages if message.matches(leaf)]
        self._cache.add(key, [], message_files.measured)
        return matching

    def _search_cache(
        self,
        key: int,
        uids: Sequence[int],
        leaf: SearchKey,
        name: bytes,
        expression: str,
        argument: object,
        message_files: MessageFiles,
    ) -> list[int]:
        """Return the matching UIDs by means of the cached item `name`, after caching it for messages that lack it."""
        item = self._cache.item_id(name)
        rows = self._cache.get(key, item, uids, expression, argument)
        matching = [uid for uid, matches in rows if matches]
        if len(rows) < len(uids):
            cached = {uid for uid, _ in rows}
            uncached = [uid for uid in uids if uid not in cached]
            matching += self._fill_cache(key, uncached, leaf, name, message_files)
            matching.sort()
        return matching

    def _fill_cache(
        self,
        key: int,
        uids: Sequence[int],
        leaf: SearchKey,
        name: bytes,
        message_files: MessageFiles,
    ) -> list[int]:
        """Cache the item `name`, and those that are filled together with it; return the UIDs that match `leaf`.

        Values that are too large for the cache are read in each search.
        """
        items = [
            (header_key, self._cache.item_id(item))
            for item, header_key in (_RAW_ITEMS if name in _RAW_ITEMS else _COMMON_ITEMS).items()
        ]
        sent_item = self._cache.item_id(_SENT_ITEM)
        answers: list[tuple[object, int, int]] = []
        matching = []
        for uid, message in self._read(key, uids, message_files, MessageReader.head):
            header = message.header
            for header_key, item in items:
                text = "".join(_SEPARATOR + value for value in searched_texts(header, header_key))
                value = text.encode("utf-8", "replace")
                if len(value) <= MAX_ANSWER_SIZE:
                    answers.append((value, uid, item))
            day = sent_date(header)
            answers.append((0 if day is None else day.toordinal(), uid, sent_item))
            if message.matches(leaf):
                matching.append(uid)
        self._cache.add(key, answers, message_files.measured)
        return matching

    def _read(
        self,
        key: int,
        uids: Sequence[int],
        message_files: MessageFiles,
        part: Callable[[MessageReader], MessageItems],
    ) -> Iterator[tuple[int, MessageItems]]:
        """Yield (UID, message) of the messages that exist; `part` is `MessageReader.head` or `MessageReader.whole`."""
        for row in self._index.message_rows(FILE_COLUMNS, key, uids):
            message = MessageFile._make(row)
            fd = message_files.open(message)
            if fd is None:
                continue
            try:
                items = part(MessageReader(message_files, message, fd))
            finally:
                os.close(fd)
            yield message.uid, items


def _item_name(key: HeaderKey | EnvelopeKey) -> bytes | None:
    """Return the cached item that `key` is searched_texts with, None if its field is not cached."""
    prefix = b"?ENVELOPE " if isinstance(key, EnvelopeKey) else b"?HEADER "
    name = prefix + key.field.upper()
    return name if name in _COMMON_ITEMS or name in _RAW_ITEMS else None
