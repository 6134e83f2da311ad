"""SEARCH keys that need the content of messages: header fields are compared in the index, text is read from the files.

The header fields that people search are stored in the index in the normalized form in which they are compared
(`search_values`). They are taken from answers to FETCH if possible, and from the file otherwise; then the
record of the message (`message_items.RECORD_FIELDS`) is stored too, so that a search for another field opens no file.
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, TypeVar

from imapshield.mailbox.in_place import may_block
from imapshield.mailbox.message_items import (
    SEPARATOR,
    MessageItems,
    date_matches,
    header_of,
    record_of,
    search_value,
    search_value_of_envelope,
    sent_date,
    utc_day,
)
from imapshield.mailbox.request import check_wanted
from imapshield.mailbox.values import SearchResult
from imapshield.maildir import text_search
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.fetch_cache import ENVELOPE, MAX_ANSWER_SIZE, RECORD
from imapshield.maildir.message_file import FILE_COLUMNS, MessageFile, MessageFiles, MessageReader
from imapshield.maildir.search_values import ValueRow, read_rows, row_bounds
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
_ITEMS = frozenset(
    (
        *(b"?ENVELOPE " + field for field in _FIELDS),
        *(b"?HEADER " + field for field in (*_FIELDS, b"MESSAGE-ID")),
    )
)
"""The items of the cache (`FetchCache`) that SEARCH uses, besides the sent date. The second word is the field."""

READ_STEP = 256
"""Messages whose rows are read from the index at once, before their files: a call ends after some hundred headers."""

FILL_STEP = 128
"""Messages whose values are made from cached answers to FETCH at once. `MAX_HEADER_BYTES` limits those answers."""

MAX_BODY_BYTES = 4 << 20
MAX_HEADER_BYTES = 1 << 20
"""Bytes of whole messages, or of headers, that one call reads, besides the last message: some hundredths of a second
for genuine mail. Other calls of the account run before the next one."""

MIN_COUNTED_BYTES = 1 << 10
"""Bytes that each message counts at least, so that one call reads no more than 1024 headers or cached answers."""

MAX_VALUE_BYTES = 4 << 20
"""Bytes of cached values that one call searches: some milliseconds of work. Those of 10,000 genuine messages are half a
mebibyte."""

MAX_MESSAGES_READ = 50
"""Whole messages that one call reads."""


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
    searched, because enough was read for one call; None if all were searched. `left` is how many bytes this call may
    still read; it reads one file in any case. `needle` is what a value must contain, for a key with a text.
    """

    account: AccountState
    mailbox: int
    key: SearchKey
    files: MessageFiles
    unreadable: list[int] = field(default_factory=list, init=False)
    stopped_at: int | None = field(default=None, init=False)
    left: int = field(init=False)
    has_read: bool = field(default=False, init=False)
    needle: bytes = field(default=b"", init=False)

    def run(self, uids: Sequence[int]) -> list[int]:
        """Return those of `uids` that match."""
        if not uids:
            return []
        self.left = MAX_HEADER_BYTES
        match self.key:
            case HeaderKey(_, text) | EnvelopeKey(_, text) if name := _item_name(self.key):
                self.needle = (normalize(text) or SEPARATOR).encode("utf-8", "replace")
                return self._search_cache(uids, name)
            case DateKey(_, _, b"SENT"):
                return self._search_cache(uids, _SENT_ITEM)
            case DateKey(how, day):
                rows = self._rows("uid, saved", uids)
                return [uid for uid, saved in rows if date_matches(how, day, utc_day(saved))]
            case ObjectIdKey(is_thread, object_id):
                rows = [] if is_thread else self._rows("uid, email_id", uids)
                return [uid for uid, email_id in rows if email_id == object_id]
            case HeaderKey() | EnvelopeKey():
                read = self._header
            case TextKey():
                read, self.left = self._whole, MAX_BODY_BYTES
                uids, self.stopped_at = text_search.candidates(
                    self.account, self.mailbox, uids, self.key, MAX_MESSAGES_READ
                )
            case _:
                raise AssertionError(self.key)
        answers = self._read(uids, read, lambda data: MessageItems(data).matches(self.key))
        matching = [uid for uid, matches in answers if matches]
        self.account.cache.add(self.mailbox, [], self.files.measured)
        return matching

    def _rows(self, columns: str, uids: Sequence[int]) -> list[Any]:
        return self.account.index.message_rows(columns, self.mailbox, uids)

    def _search_cache(self, uids: Sequence[int], name: bytes) -> list[int]:
        """Return the matching UIDs by means of the cached values of the item `name`, after caching those that lack.

        Values that are too large for the cache are made in each search.
        """
        cache, mailbox = self.account.cache, self.mailbox
        item = cache.item_id(name)
        known = array("I")
        matching: list[int] = []
        left = MAX_VALUE_BYTES
        for row in read_rows(self.account.index.db, mailbox, item, uids):
            check_wanted()
            if left <= 0 and row_bounds(row.uids)[0] > known[-1]:
                stop = bisect_left(uids, row_bounds(row.uids)[0])
                self.stopped_at = uids[stop] if stop < len(uids) else None
                uids = uids[:stop]
                break
            left -= len(row.data)
            known += row.uids
            matching += self._matching_in(row)
        if known != array("I", uids):
            wanted, cached = set(uids), set(known)
            matching = [uid for uid in set(matching) if uid in wanted]
            if not wanted <= cached:
                missing = [uid for uid in uids if uid not in cached]
                matching += self._fill_cache(missing, item, name)
            matching.sort()
        return matching

    def _matching_in(self, row: ValueRow) -> Sequence[int]:
        if self.needle:
            return row.containing(self.needle)
        return [uid for uid, value in row.values() if self._matches(value)]

    def _fill_cache(self, uids: Sequence[int], item: int, name: bytes) -> list[int]:
        """Cache the item for `uids`; return those that match."""
        may_block()
        cache, mailbox = self.account.cache, self.mailbox
        lists = cache.field_lists([name.rpartition(b" ")[2].lower() if b" " in name else b"date"])
        records = cache.item_id(RECORD)
        answers: list[tuple[object, int, int]] = []
        found: list[tuple[int, bytes]] = []
        matching: list[int] = []
        before = self.stopped_at  # behind all of `uids`
        for start in range(0, len(uids), FILL_STEP):
            step = uids[start : start + FILL_STEP]
            if self.left <= 0:
                self.stopped_at = step[0]
                break
            values = self._values_of_answers(step, lists)
            for uid, (value, record) in self._read(
                [uid for uid in step if uid not in values], self._header, self._value_and_record
            ):
                values[uid] = value
                answers += [(record, uid, records)] if record else []
            matching += [uid for uid, value in values.items() if self._matches(value)]
            found += [pair for pair in values.items() if len(pair[1]) <= MAX_ANSWER_SIZE]
            if self.stopped_at != before:
                break
        cache.add(mailbox, answers, self.files.measured, (item, sorted(found)))
        return matching

    def _values_of_answers(self, uids: Sequence[int], lists: Sequence[int]) -> dict[int, bytes]:
        """Return the values of messages that follow from cached answers to FETCH, by UID.

        Args:
            uids: the messages.
            lists: the HEADER.FIELDS lists with the field.
        """
        cache, mailbox, key = self.account.cache, self.mailbox, self.key
        values: dict[int, bytes] = {}
        if isinstance(key, EnvelopeKey):
            item = cache.item_id(ENVELOPE)
            _, (answers,) = cache.get_within(mailbox, [item], uids, max(self.left, 1))
            for uid, answer in answers:
                check_wanted()
                value = search_value_of_envelope(answer, key) if self.left > 0 else None
                if value is not None:
                    values[uid] = value
                self.left -= max(len(answer), MIN_COUNTED_BYTES)
        missing = [uid for uid in uids if uid not in values]
        if lists and missing and self.left > 0:
            for uid, header in cache.headers(mailbox, lists, missing, self.left).items():
                check_wanted()
                values[uid] = self._value(header)
                self.left -= max(len(header), MIN_COUNTED_BYTES)
                if self.left <= 0:
                    break
        return values

    def _value(self, header: bytes) -> bytes:
        if isinstance(self.key, DateKey):
            day = sent_date(header)
            return b"" if day is None else b"%d" % day.toordinal()
        assert isinstance(self.key, HeaderKey | EnvelopeKey)
        return search_value(header, self.key)

    def _value_and_record(self, header: bytes) -> tuple[bytes, bytes | None]:
        record = record_of(header)
        fields = None if record is None else header_of(record)
        # The record is shorter, and as good as the header.
        return self._value(header if fields is None else fields), record

    def _matches(self, value: bytes) -> bool:
        if isinstance(self.key, DateKey):
            day = date.fromordinal(int(value)) if value else None
            return date_matches(self.key.comparison, self.key.day, day)
        return self.needle in value

    def _read(
        self,
        uids: Sequence[int],
        read: Callable[[MessageFile], bytes | None],
        answer: Callable[[bytes], T],
    ) -> Iterator[tuple[int, T]]:
        """Yield (UID, answer) of the messages that exist and can be read.

        Args:
            uids: the messages.
            read: `_header` or `_whole`.
            answer: called with what `read` returns. If one of them raises, the message is unreadable.
        """
        steps = (uids[start : start + READ_STEP] for start in range(0, len(uids), READ_STEP))
        for row in (row for step in steps for row in self._rows(FILE_COLUMNS, step)):
            check_wanted()
            may_block()
            message = MessageFile._make(row)
            if self.left <= 0 and self.has_read:
                self.stopped_at = message.uid
                return
            self.has_read = True
            try:
                data = read(message)
                if data is None:
                    continue
                self.left -= max(len(data), MIN_COUNTED_BYTES)
                answered = answer(data)
            except Exception as error:
                log_unreadable(self.account, self.files.path(message), error)
                self.unreadable.append(message.uid)
            else:
                yield message.uid, answered

    def _header(self, message: MessageFile) -> bytes | None:
        header = self.files.small_header(message)
        if header is None:
            with self.files.opened(message) as fd:
                if fd is not None:
                    header = MessageReader(self.files, message, fd).head().header
        return header

    def _whole(self, message: MessageFile) -> bytes | None:
        with self.files.opened(message) as fd:
            return None if fd is None else MessageReader(self.files, message, fd).whole().data


def _item_name(key: HeaderKey | EnvelopeKey) -> bytes | None:
    """Return the cached item that `key` is compared with, None if its field is not cached."""
    prefix = b"?ENVELOPE " if isinstance(key, EnvelopeKey) else b"?HEADER "
    name = prefix + key.field.upper()
    return name if name in _ITEMS else None
