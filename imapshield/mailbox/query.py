"""SEARCH: a key and candidate messages → those that match (RFC 9051 section 6.4.4).

What the columns know is answered from them; only what is left goes to the store, in pieces, so that one search
through a large folder does not keep the account's other sessions waiting for longer than a piece takes.
"""

from __future__ import annotations

from array import array
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from datetime import date

from imapshield.mailbox.account_api import IMailbox
from imapshield.mailbox.columns import UNKNOWN_SIZE
from imapshield.mailbox.view import View
from imapshield.wire.commands.search_keys import (
    AgeKey,
    And,
    DateKey,
    EnvelopeKey,
    FlagKey,
    HeaderKey,
    ModseqKey,
    Not,
    ObjectIdKey,
    Or,
    SearchKey,
    SequenceKey,
    SizeKey,
    TextKey,
)

PIECE = 1000
"""Messages per hop for a key that the store has cached; `TEXT_PIECE` for one that has it read whole messages."""
TEXT_PIECE = 50
STRIDE = 20_000
"""Messages times keys answered from the columns before others have their turn: some milliseconds of them."""

_EPOCH = date(1970, 1, 1).toordinal()
_DAY = 86400
_DEAR = {TextKey: 4, HeaderKey: 3, EnvelopeKey: 2, DateKey: 2, ObjectIdKey: 2}
_COST = _DEAR | dict.fromkeys((Not, Or, And), 1)


def _cost(key: SearchKey) -> int:
    return _COST.get(type(key), 0)


def leaves(key: SearchKey) -> Iterator[SearchKey]:
    """Yield every key in `key` that holds no other."""
    todo = [key]
    while todo:
        one = todo.pop()
        match one:
            case And(keys) | Or(keys):
                todo += keys
            case Not(inner):
                todo.append(inner)
            case _:
                yield one


class Query:
    """One SEARCH over `view` of `mailbox`.

    Args:
        now: seconds since the epoch, for OLDER and YOUNGER.
        saved: the UIDs that ``$`` stands for (RFC 5182).
        pause: awaited between pieces, with how many messages are done and of how many, so that other connections
            have their turns; and between keys, of which one search can have thousands, with nothing.
    """

    def __init__(
        self,
        mailbox: IMailbox,
        view: View,
        *,
        now: float,
        saved: Sequence[int] = (),
        pause: Callable[..., Awaitable[object]] | None = None,
    ) -> None:
        self._mailbox = mailbox
        self._view = view
        self._now = now
        self._saved = saved
        self._pause = pause
        self._looked_at = 0

    async def run(self, key: SearchKey, among: Sequence[int] | None = None) -> Sequence[int]:
        """Return the UIDs that match, rising, of all that the client knows or of those `among` them.

        Messages that vanished unbeknown to the client are left out.
        """
        uids: Sequence[int] = self._view.uids if among is None else among
        columns = self._view.columns
        if uids is not columns.uids:
            uids = [uid for uid in uids if columns.row(uid) is not None]
        return await self._matching(key, uids)

    async def _matching(self, key: SearchKey, uids: Sequence[int]) -> Sequence[int]:
        if not uids:
            return uids
        self._looked_at += len(uids)
        if self._looked_at > STRIDE and self._pause is not None:
            self._looked_at = 0
            await self._pause()
        match key:
            case And(keys):
                return await self._all_of(keys, uids)
            case Or(keys):
                return await self._any_of(keys, uids)
            case Not(FlagKey(flag)) if flag.upper() != b"\\RECENT":  # UNSEEN above all
                ids = self._view.columns.ids_with(flag)
                return [uid for uid, flags in self._pairs(uids, "flags") if flags not in ids]
            case Not(inner):
                without = set(await self._matching(inner, uids))
                return [uid for uid in uids if uid not in without]
            case FlagKey() | SequenceKey() | ModseqKey() | AgeKey():
                return self._known(key, uids)
            case SizeKey(more, octets):
                await self._measure(uids)
                if more:
                    return [u for u, size in self._pairs(uids, "sizes") if size > octets]
                return [u for u, size in self._pairs(uids, "sizes") if size < octets]
            case DateKey(how, day, b"INTERNAL"):
                low = (day.toordinal() - _EPOCH) * _DAY
                if how == b"BEFORE":
                    return [u for u, at in self._pairs(uids, "dates") if at < low]
                if how == b"SINCE":
                    return [u for u, at in self._pairs(uids, "dates") if at >= low]
                return [u for u, at in self._pairs(uids, "dates") if low <= at < low + _DAY]
            case _:
                return await self._asked(key, uids)

    async def _all_of(self, keys: Iterable[SearchKey], uids: Sequence[int]) -> Sequence[int]:
        for one in sorted(keys, key=_cost):
            some = await self._matching(one, uids)
            if len(some) < len(uids):
                # else as it was: the mailbox's own array is faster than a copy
                uids = some
        return uids

    async def _any_of(self, keys: Iterable[SearchKey], uids: Sequence[int]) -> Sequence[int]:
        found: set[int] = set()
        rest = uids
        for one in sorted(keys, key=_cost):
            some = await self._matching(one, rest)
            if some:
                found.update(some)
                rest = [uid for uid in rest if uid not in found]
        return [uid for uid in uids if uid in found]

    def _known(self, key: SearchKey, uids: Sequence[int]) -> Sequence[int]:
        match key:
            case FlagKey(flag):
                if flag.upper() == b"\\RECENT":
                    return [uid for uid in uids if uid in self._view.recent]
                ids = self._view.columns.ids_with(flag)
                return [uid for uid, flags in self._pairs(uids, "flags") if flags in ids]
            case SequenceKey(None):
                saved = set(self._saved)
                return [uid for uid in uids if uid in saved]
            case SequenceKey(sequence, by_uid):
                assert sequence is not None
                view = self._view
                if by_uid:
                    spans = sequence.matching_slices(view.uids, view.uids[-1])
                else:
                    # numbers beyond the last message match nothing here: SEARCH only asks
                    count = len(view.uids)
                    spans = [
                        (low - 1, min(high, count))
                        for low, high in sequence.resolve(count)
                        if low <= count
                    ]
                chosen = set(view.uids_of(spans))
                return [uid for uid in uids if uid in chosen]
            case ModseqKey(modseq):
                return [uid for uid, at in self._pairs(uids, "modseqs") if at >= modseq]
            case AgeKey(younger, seconds):
                edge = int(self._now) - seconds  # to the second, and of that second both are
                if younger:
                    return [uid for uid, at in self._pairs(uids, "dates") if at >= edge]
                return [uid for uid, at in self._pairs(uids, "dates") if at <= edge]
        raise AssertionError(key)

    def _pairs(self, uids: Sequence[int], column: str) -> Iterable[tuple[int, int]]:
        """Each of `uids` with its value in a column."""
        columns = self._view.columns
        values: array[int] = getattr(columns, column)
        if uids is columns.uids:
            return zip(uids, values, strict=True)
        if len(uids) * 8 > len(values):
            known = dict(zip(columns.uids, values, strict=True))
            return [(uid, known[uid]) for uid in uids if uid in known]
        rows = [(uid, columns.row(uid)) for uid in uids]
        return [(uid, values[row]) for uid, row in rows if row is not None]

    async def _measure(self, uids: Sequence[int]) -> None:
        unknown = [u for u, size in self._pairs(uids, "sizes") if size == UNKNOWN_SIZE]
        for start in range(0, len(unknown), TEXT_PIECE):
            await self._mailbox.load_sizes(unknown[start : start + TEXT_PIECE])
            if self._pause is not None and start + TEXT_PIECE < len(unknown):
                await self._pause(start + TEXT_PIECE, len(unknown))

    async def _asked(self, key: SearchKey, uids: Sequence[int]) -> Sequence[int]:
        size = TEXT_PIECE if isinstance(key, TextKey) else PIECE
        found: list[int] = []
        for start in range(0, len(uids), size):
            found += await self._mailbox.search(uids[start : start + size], key)
            if self._pause is not None and start + size < len(uids):
                await self._pause(start + size, len(uids))
        return found
