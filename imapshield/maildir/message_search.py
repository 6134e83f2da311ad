"""SEARCH keys that need the content of messages: header fields are compared in the index, text is read from the files.

The header fields that people search are read once for each message, all together, and stored in the index in the
normalized form in which they are compared. From then on SQLite compares them, and no message file is opened.
"""

import os
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from imapshield.mailbox.in_place import may_block
from imapshield.mailbox.message_items import (
    MessageItems,
    date_matches,
    searched_texts,
    sent_date,
    utc_day,
)
from imapshield.mailbox.request import check_wanted
from imapshield.mailbox.values import SearchResult
from imapshield.maildir import text_search
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.fetch_cache import MAX_ANSWER_SIZE
from imapshield.maildir.message_file import FILE_COLUMNS, MessageFile, MessageFiles, MessageReader
from imapshield.maildir.unreadable import log_unreadable
from imapshield.message.text import normalize
from imapshield.wire.commands.search import (
    DateKey,
    EnvelopeKey,
    HeaderKey,
    ObjectIdKey,
    SearchKey,
    TextKey,
)

T = TypeVar("T")

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

MAX_BODY_BYTES = 4 << 20
MAX_HEADER_BYTES = 1 << 20
"""Bytes of whole messages, or of headers, that one call reads, besides the last message: some hundredths of a second
for genuine mail. Other calls of the account run before the next one."""

MAX_MESSAGES_READ = 50
"""Whole messages that one call reads."""

_OPERATORS = {b"BEFORE": "<", b"ON": "=", b"SINCE": ">="}


def search(
    account: AccountState, key: int, uids: Sequence[int], search_key: SearchKey
) -> SearchResult:
    """Find those of `uids` that match; `IStore.search` describes the arguments."""
    search = _Search(account, key, search_key, MessageFiles(account.folder(key)))
    matching = search.run(uids)
    if search.stopped_at is None:
        return SearchResult(matching, search.unreadable)
    count = bisect_left(uids, search.stopped_at)
    return SearchResult(
        matching[: bisect_left(matching, search.stopped_at)], search.unreadable, count
    )


@dataclass(slots=True, eq=False)
class _Search:
    """One search for a key in one mailbox.

    `unreadable` are the messages that could not be read or decoded. `stopped_at` is the first message that was not
    searched, because enough was read for one call; None if all were searched.
    """

    account: AccountState
    mailbox: int
    key: SearchKey
    files: MessageFiles
    unreadable: list[int] = field(default_factory=list, init=False)
    stopped_at: int | None = field(default=None, init=False)

    def run(self, uids: Sequence[int]) -> list[int]:
        """Return those of `uids` that match."""
        if not uids:
            return []
        match self.key:
            case HeaderKey(_, text) | EnvelopeKey(_, text) if name := _item_name(self.key):
                needle = (normalize(text) or _SEPARATOR).encode("utf-8", "replace")
                return self._search_cache(uids, name, "instr(value, ?) > 0", needle)
            case DateKey(how, day, b"SENT"):
                condition = f"value > 0 AND value {_OPERATORS[how]} ?"
                return self._search_cache(uids, _SENT_ITEM, condition, day.toordinal())
            case DateKey(how, day):
                rows = self._rows("uid, saved", uids)
                return [uid for uid, saved in rows if date_matches(how, day, utc_day(saved))]
            case ObjectIdKey(is_thread, object_id):
                rows = [] if is_thread else self._rows("uid, email_id", uids)
                return [uid for uid, email_id in rows if email_id == object_id]
            case HeaderKey() | EnvelopeKey():
                part = MessageReader.head
            case TextKey():
                part = MessageReader.whole
                uids, self.stopped_at = text_search.candidates(
                    self.account, self.mailbox, uids, self.key, MAX_MESSAGES_READ
                )
            case _:
                raise AssertionError(self.key)
        answers = self._read(uids, part, self._matches)
        matching = [uid for uid, matches in answers if matches]
        self.account.cache.add(self.mailbox, [], self.files.measured)
        return matching

    def _matches(self, message: MessageItems) -> bool:
        return message.matches(self.key)

    def _rows(self, columns: str, uids: Sequence[int]) -> list[Any]:
        return self.account.index.message_rows(columns, self.mailbox, uids)

    def _search_cache(
        self, uids: Sequence[int], name: bytes, condition: str, argument: object
    ) -> list[int]:
        """Return the matching UIDs by means of the cached item `name`, after caching it for messages that lack it."""
        cache = self.account.cache
        rows = cache.get(self.mailbox, cache.item_id(name), uids, condition, argument)
        matching = [uid for uid, matches in rows if matches]
        if len(rows) < len(uids):
            cached = {uid for uid, _ in rows}
            matching += self._fill_cache([uid for uid in uids if uid not in cached], name)
            matching.sort()
        return matching

    def _fill_cache(self, uids: Sequence[int], name: bytes) -> list[int]:
        """Cache the item `name`, and those that are filled together with it; return the matching UIDs.

        Values that are too large for the cache are read in each search.
        """
        cache = self.account.cache
        filled = _RAW_ITEMS if name in _RAW_ITEMS else _COMMON_ITEMS
        items = [(key, cache.item_id(item)) for item, key in filled.items()]
        sent_item = cache.item_id(_SENT_ITEM)
        answers: list[tuple[object, int, int]] = []
        matching = []

        def values_and_match(message: MessageItems) -> tuple[list[tuple[object, int]], bool]:
            header = message.header
            values: list[tuple[object, int]] = []
            for key, item in items:
                text = "".join(_SEPARATOR + value for value in searched_texts(header, key))
                value = text.encode("utf-8", "replace")
                if len(value) <= MAX_ANSWER_SIZE:
                    values.append((value, item))
            day = sent_date(header)
            values.append((0 if day is None else day.toordinal(), sent_item))
            return values, message.matches(self.key)

        for uid, (values, matches) in self._read(uids, MessageReader.head, values_and_match):
            answers += [(value, uid, item) for value, item in values]
            if matches:
                matching.append(uid)
        cache.add(self.mailbox, answers, self.files.measured)
        return matching

    def _read(
        self,
        uids: Sequence[int],
        part: Callable[[MessageReader], MessageItems],
        answer: Callable[[MessageItems], T],
    ) -> Iterator[tuple[int, T]]:
        """Yield (UID, answer) of the messages that exist and can be read.

        Args:
            uids: the messages.
            part: `MessageReader.head` or `MessageReader.whole`.
            answer: called with each message. If it raises, the message is unreadable.
        """
        left = MAX_BODY_BYTES if part is MessageReader.whole else MAX_HEADER_BYTES
        for row in self._rows(FILE_COLUMNS, uids):
            check_wanted()
            may_block()
            message = MessageFile._make(row)
            if left <= 0:
                self.stopped_at = message.uid
                return
            try:
                fd = self.files.open(message)
                if fd is None:
                    continue
                try:
                    read = part(MessageReader(self.files, message, fd))
                    left -= len(read.data if part is MessageReader.whole else read.header)
                    answered = answer(read)
                finally:
                    os.close(fd)
            except Exception as error:
                log_unreadable(self.account, self.files.path(message), error)
                self.unreadable.append(message.uid)
            else:
                yield message.uid, answered


def _item_name(key: HeaderKey | EnvelopeKey) -> bytes | None:
    """Return the cached item that `key` is compared with, None if its field is not cached."""
    prefix = b"?ENVELOPE " if isinstance(key, EnvelopeKey) else b"?HEADER "
    name = prefix + key.field.upper()
    return name if name in _COMMON_ITEMS or name in _RAW_ITEMS else None
