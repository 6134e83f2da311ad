"""SEARCH on what is in messages: header fields from the index, where they wait ready to compare; text from the files.

The fields that people search are read once for each message, all together, and compared by SQLite from then on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

from imapshield.mailbox.answers import OpenMessage, date_is, day_of, header_text, sent_date
from imapshield.maildir.answers import LARGEST_KEPT, Answers
from imapshield.maildir.contents import MESSAGE, Contents, Message, Reading
from imapshield.maildir.core import Core
from imapshield.message.text import normalize
from imapshield.wire.commands import DateIs, HeaderHas, ObjectIs, SearchKey, TextHas

FIELDS = (b"FROM", b"TO", b"CC", b"BCC", b"SUBJECT", b"MESSAGE-ID")
_SENT = b"?SENT"
_EACH = "\0"
"""Stands before each value: a header may have the field twice, and a field that is there may be empty."""

_COMPARE = {b"BEFORE": "<", b"ON": "=", b"SINCE": ">="}


class Searching:
    """The SEARCH side of a store."""

    def __init__(self, core: Core, answers: Answers) -> None:
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
            case HeaderHas(field, wanted) if field.upper() in FIELDS:
                needle = (normalize(wanted) or _EACH).encode("utf-8", "replace")
                hit = "instr(value, ?) > 0"
                return self._compare(key, uids, b"?" + field.upper(), hit, needle, contents)
            case DateIs(how, day, b"SENT"):
                hit = f"value > 0 AND value {_COMPARE[how]} ?"
                return self._compare(key, uids, _SENT, hit, day.toordinal(), contents)
            case DateIs(how, day):
                rows = self._index.rows("uid, saved", key, uids)
                return [uid for uid, saved in rows if date_is(how, day, day_of(saved))]
            case ObjectIs(thread, wanted_id):
                rows = [] if thread else self._index.rows("uid, email_id", key, uids)
                return [uid for uid, email_id in rows if email_id == wanted_id]
            case HeaderHas():
                found = self._read(key, uids, contents, Reading.head)
            case TextHas():
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
        text: bytes,
        hit: str,
        argument: object,
        contents: Contents,
    ) -> list[int]:
        item = self._answers.id(text)
        rows = self._answers.get(key, item, uids, hit, argument)
        if len(rows) < len(uids):
            known = {uid for uid, _ in rows}
            self._fill(key, [uid for uid in uids if uid not in known], contents)
            rows = self._answers.get(key, item, uids, hit, argument)
        return [uid for uid, matches in rows if matches]

    def _fill(self, key: int, uids: Sequence[int], contents: Contents) -> None:
        items = [(field, self._answers.id(b"?" + field)) for field in FIELDS]
        sent = self._answers.id(_SENT)
        fresh: list[tuple[object, int, int]] = []
        for uid, message in self._read(key, uids, contents, Reading.head):
            header = message.header
            for field, item in items:
                shown = "".join(_EACH + value for value in header_text(header, field))
                fresh.append((shown.encode("utf-8", "replace")[:LARGEST_KEPT], uid, item))
            day = sent_date(header)
            fresh.append((0 if day is None else day.toordinal(), uid, sent))
        self._answers.keep(key, fresh, contents.measured)

    def _read(
        self,
        key: int,
        uids: Sequence[int],
        contents: Contents,
        part: Callable[[Reading], OpenMessage],
    ) -> Iterator[tuple[int, OpenMessage]]:
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
