"""SEARCH on what is in messages: header fields from the index, where they wait ready to compare; text from the files.

The fields that people search are read once for each message, all together, and compared by SQLite from then on.
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
from imapshield.maildir.fetch_cache import LARGEST_KEPT, Answers
from imapshield.maildir.message_file import MESSAGE, Contents, Message, Reading
from imapshield.message.text import normalize
from imapshield.wire.commands.search_keys import (
    DateKey,
    EnvelopeKey,
    HeaderKey,
    ObjectIdKey,
    SearchKey,
    TextKey,
)

_SHOWN = (b"FROM", b"TO", b"CC", b"BCC", b"SUBJECT")
_SENT = b"?SENT"
_USUAL: dict[bytes, HeaderKey | EnvelopeKey] = {
    **{b"?ENVELOPE " + field: EnvelopeKey(field, "") for field in _SHOWN},
    b"?HEADER MESSAGE-ID": HeaderKey(b"MESSAGE-ID", ""),
}
_WRITTEN: dict[bytes, HeaderKey | EnvelopeKey] = {
    b"?HEADER " + field: HeaderKey(field, "") for field in _SHOWN
}
"""What is kept for SEARCH, by its name in the index: what is searched most, with the sent date; and the same fields as
they were written, which are read when HEADER asks for one of them first."""

_EACH = "\0"
"""Stands before each value: a header may have the field twice, and a field that is there may be empty."""

_COMPARE = {b"BEFORE": "<", b"ON": "=", b"SINCE": ">="}


def _kept_as(leaf: HeaderKey | EnvelopeKey) -> bytes | None:
    form = b"?ENVELOPE " if isinstance(leaf, EnvelopeKey) else b"?HEADER "
    name = form + leaf.field.upper()
    return name if name in _USUAL or name in _WRITTEN else None


class Searching:
    """The SEARCH side of a store."""

    def __init__(self, core: AccountState, answers: Answers) -> None:
        self._core = core
        self._index = core.index
        self._answers = answers

    def search(self, key: int, uids: Sequence[int], leaf: SearchKey) -> list[int]:
        """See `IStore.search`."""
        box = self._index.box(key)
        contents = Contents(self._core, self._core.folder(box.name))
        if not uids:
            return []
        match leaf:
            case HeaderKey(_, wanted) | EnvelopeKey(_, wanted) if text := _kept_as(leaf):
                needle = (normalize(wanted) or _EACH).encode("utf-8", "replace")
                return self._compare(key, uids, leaf, text, "instr(value, ?) > 0", needle, contents)
            case DateKey(how, day, b"SENT"):
                hit = f"value > 0 AND value {_COMPARE[how]} ?"
                return self._compare(key, uids, leaf, _SENT, hit, day.toordinal(), contents)
            case DateKey(how, day):
                rows = self._index.rows("uid, saved", key, uids)
                return [uid for uid, saved in rows if date_matches(how, day, utc_day(saved))]
            case ObjectIdKey(thread, wanted_id):
                rows = [] if thread else self._index.rows("uid, email_id", key, uids)
                return [uid for uid, email_id in rows if email_id == wanted_id]
            case HeaderKey() | EnvelopeKey():
                found = self._read(key, uids, contents, Reading.head)
            case TextKey():
                found = self._read(key, uids, contents, Reading.whole)
            case _:
                raise AssertionError(leaf)
        matching = [uid for uid, message in found if message.matches(leaf)]
        self._answers.keep(key, [], contents.measured)
        return matching

    def _compare(
        self,
        key: int,
        uids: Sequence[int],
        leaf: SearchKey,
        text: bytes,
        hit: str,
        argument: object,
        contents: Contents,
    ) -> list[int]:
        item = self._answers.id(text)
        rows = self._answers.get(key, item, uids, hit, argument)
        found = [uid for uid, matches in rows if matches]
        if len(rows) < len(uids):
            known = {uid for uid, _ in rows}
            unknown = [uid for uid in uids if uid not in known]
            found = sorted(found + self._fill(key, unknown, leaf, text, contents))
        return found

    def _fill(
        self, key: int, uids: Sequence[int], leaf: SearchKey, text: bytes, contents: Contents
    ) -> list[int]:
        """Keep for the next time what is looked for under `text` and beside it, and return what matches `leaf`.

        What is too large to be kept is read each time.
        """
        kept = _WRITTEN if text in _WRITTEN else _USUAL
        items = [(one, self._answers.id(name)) for name, one in kept.items()]
        sent = self._answers.id(_SENT)
        fresh: list[tuple[object, int, int]] = []
        matching = []
        for uid, message in self._read(key, uids, contents, Reading.head):
            header = message.header
            for one, item in items:
                shown = "".join(_EACH + value for value in searched_texts(header, one))
                value = shown.encode("utf-8", "replace")
                if len(value) <= LARGEST_KEPT:
                    fresh.append((value, uid, item))
            day = sent_date(header)
            fresh.append((0 if day is None else day.toordinal(), uid, sent))
            if message.matches(leaf):
                matching.append(uid)
        self._answers.keep(key, fresh, contents.measured)
        return matching

    def _read(
        self,
        key: int,
        uids: Sequence[int],
        contents: Contents,
        part: Callable[[Reading], MessageItems],
    ) -> Iterator[tuple[int, MessageItems]]:
        for row in self._index.rows(MESSAGE, key, uids):
            message = Message._make(row)
            fd = contents.open(message)
            if fd is None:
                continue
            try:
                opened = part(Reading(contents, message, fd))
            finally:
                os.close(fd)
            yield message.uid, opened
