"""Finds the messages of a mailbox that match a search key (RFC 9051 section 6.4.4).

Rules
-----
* Keys that the columns can answer are answered from them. Only the other keys go to the store.
* Calls to the store are made for a limited number of messages each, so that a search through a large mailbox delays
  the other sessions of the account by no more than one call.
* Cheap keys are evaluated first, so that expensive ones see fewer messages.
* A large mailbox is searched in blocks of messages, because one key takes milliseconds for all of them.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import date
from itertools import chain, compress
from operator import itemgetter

from imapshield.mailbox.account_api import IMailbox
from imapshield.mailbox.columns import UNKNOWN_SIZE
from imapshield.mailbox.values import count_examined
from imapshield.mailbox.view import View
from imapshield.wire.commands import search
from imapshield.wire.commands.search import SearchKey

MESSAGES_PER_CALL = 1000
"""Messages per call of the store, for a date or an identifier: some milliseconds of work."""

MESSAGE_BODIES_PER_CALL = 50
"""Messages per call of the store that measures them."""

MESSAGES_PER_BLOCK = 10_000
"""Messages that are compared with all keys before the following ones. A call of the store that searches text gets a
whole block: the store knows how many of them it has to read, and searches as many as one call may."""

MESSAGES_PER_PAUSE = 20_000
"""Comparisons of a message with a key between two pauses, in which other connections are served. The columns answer
these keys, so this is two milliseconds of work."""

_EPOCH = date(1970, 1, 1).toordinal()
_DAY = 86400
_COSTS: dict[type[SearchKey], int] = dict.fromkeys((search.Not, search.Or, search.And), 1)
_COSTS |= dict.fromkeys((search.EnvelopeKey, search.DateKey, search.ObjectIdKey), 2)
_COSTS |= {search.HeaderKey: 3, search.TextKey: 4}


def _cost(key: SearchKey) -> int:
    return _COSTS.get(type(key), 0)


def leaf_keys(key: SearchKey) -> Iterator[SearchKey]:
    """Yield every key in `key` that contains no other key."""
    stack = [key]
    while stack:
        current = stack.pop()
        match current:
            case search.And(keys) | search.Or(keys):
                stack += keys
            case search.Not(inner):
                stack.append(inner)
            case _:
                yield current


@dataclass(slots=True, eq=False)
class Query:
    """One SEARCH in a mailbox, as one client sees it.

    Args:
        mailbox: the mailbox.
        view: the client's view of it.
        now: the current time in epoch seconds, for OLDER and YOUNGER (RFC 5032).
        saved: the UIDs of ``$``, the saved result (RFC 5182).
        pause: awaited between calls of the store, with two arguments: the number of messages done and of all
            messages. Also awaited, without arguments, between keys that are answered from the columns: one search can
            have thousands. Other connections are served during the pause.

    Attributes:
        unreadable: the messages that could not be read, so that it is unknown whether they match. No result contains
            them, not even that of NOT.
    """

    mailbox: IMailbox
    view: View
    _: KW_ONLY
    now: float
    saved: Sequence[int] = ()
    pause: Callable[..., Awaitable[object]] | None = None
    unreadable: set[int] = field(default_factory=set, init=False)
    _examined: int = field(default=0, init=False)
    _done: int = field(default=0, init=False)
    _total: int = field(default=0, init=False)
    _ranges: dict[int, list[tuple[int, int]]] = field(default_factory=dict, init=False)
    _saved_set: frozenset[int] | None = field(default=None, init=False)

    async def run(self, key: SearchKey, among: Sequence[int] | None = None) -> Sequence[int]:
        """Return the UIDs of the messages that match, in ascending order.

        Messages that were expunged are left out, also those that the client still knows.

        Args:
            key: the search key.
            among: search only these UIDs, in ascending order; None means all that the client knows.
        """
        uids: Sequence[int] = self.view.uids if among is None else among
        self._total = len(uids)
        found: list[Sequence[int]] = []
        for start in range(0, len(uids), MESSAGES_PER_BLOCK):
            self._done = start
            block = uids if self._total <= MESSAGES_PER_BLOCK else uids[start:][:MESSAGES_PER_BLOCK]
            matching = await self._matching(key, self._existing(block))
            if self.unreadable:
                matching = [uid for uid in matching if uid not in self.unreadable]
            found.append(matching)
        if sum(map(len, found)) == self._total:
            return uids
        return found[0] if len(found) == 1 else array("I", chain.from_iterable(found))

    def _existing(self, uids: Sequence[int]) -> Sequence[int]:
        """Return those of `uids` that exist."""
        if uids is self.view.columns.uids:
            return uids
        existing = self._columns_of(uids, "uids")
        if existing == uids:
            return uids
        present = set(existing)
        return [uid for uid in uids if uid in present]

    def _columns_of(self, uids: Sequence[int], column: str) -> "array[int]":
        """Return the values of a column from the row of the first of `uids` to that of the last."""
        columns = self.view.columns
        values: array[int] = getattr(columns, column)
        start = bisect_left(columns.uids, uids[0])
        return values[start : bisect_right(columns.uids, uids[-1], start)]

    async def _matching(self, key: SearchKey, uids: Sequence[int]) -> Sequence[int]:
        if not uids:
            return uids
        self._examined += len(uids)
        if self._examined > MESSAGES_PER_PAUSE and self.pause is not None:
            self._examined = 0
            await self.pause()
        match key:
            case search.And(keys):
                return await self._matching_all(keys, uids)
            case search.Or(keys):
                return await self._matching_any(keys, uids)
            case search.Not(search.FlagKey(flag)) if flag.upper() != b"\\RECENT":  # mostly UNSEEN
                return self._with_flag(flag, uids, is_set=False)
            case search.Not(inner):
                excluded = set(await self._matching(inner, uids))
                return [uid for uid in uids if uid not in excluded]
            case _:
                return await self._matching_leaf(key, uids)

    async def _matching_leaf(self, key: SearchKey, uids: Sequence[int]) -> Sequence[int]:
        match key:
            case search.FlagKey(flag):
                return self._with_flag(flag, uids)
            case search.SequenceKey():
                return self._in_sequence(key, uids)
            case search.ModseqKey(min_modseq):
                return [uid for uid, modseq in self._pairs(uids, "modseqs") if modseq >= min_modseq]
            case search.AgeKey():
                return self._with_age(key, uids)
            case search.SizeKey():
                await self._load_sizes(uids)
                return self._with_size(key, uids)
            case search.DateKey(comparison, day, b"INTERNAL"):
                return self._with_internaldate(comparison, day, uids)
            case _:
                return await self._from_store(key, uids)

    async def _matching_all(self, keys: Iterable[SearchKey], uids: Sequence[int]) -> Sequence[int]:
        for key in sorted(keys, key=_cost):
            matching = await self._matching(key, uids)
            if len(matching) < len(uids):
                # Otherwise keep the sequence: if it is the mailbox's own array, it is faster than a copy.
                uids = matching
        return uids

    async def _matching_any(self, keys: Iterable[SearchKey], uids: Sequence[int]) -> Sequence[int]:
        found: set[int] = set()
        rest = uids
        for key in sorted(keys, key=_cost):
            matching = await self._matching(key, rest)
            if matching:
                found.update(matching)
                rest = [uid for uid in rest if uid not in found]
        return [uid for uid in uids if uid in found]

    def _with_flag(self, flag: bytes, uids: Sequence[int], *, is_set: bool = True) -> Sequence[int]:
        if flag.upper() == b"\\RECENT":
            return [uid for uid in uids if uid in self.view.recent]
        columns = self.view.columns
        ids = columns.flag_ids_with(flag)
        wanted = [(flag_id in ids) is is_set for flag_id in range(len(columns.flag_lists))]
        if uids is columns.uids:  # the usual case, without a step of Python for each message
            return list(compress(uids, map(wanted.__getitem__, columns.flag_ids)))
        return [uid for uid, flag_id in self._pairs(uids, "flag_ids") if wanted[flag_id]]

    def _in_sequence(self, key: search.SequenceKey, uids: Sequence[int]) -> Sequence[int]:
        if key.sequence.saved:
            if self._saved_set is None:
                self._saved_set = frozenset(self.saved)
            return [uid for uid in uids if uid in self._saved_set]
        ranges = self._ranges.get(id(key))
        if ranges is None:
            ranges = self._ranges[id(key)] = self._uid_ranges(key)
        found: list[int] = []
        start = 0
        for i in range(bisect_left(ranges, uids[0], key=itemgetter(1)), len(ranges)):
            first, last = ranges[i]
            start = bisect_left(uids, first, start)
            if start == len(uids):
                break
            stop = bisect_right(uids, last, start)
            found += uids[start:stop]
            start = stop
        return found

    def _uid_ranges(self, key: search.SequenceKey) -> list[tuple[int, int]]:
        """Return the first and last UIDs of the ranges of `key`, ascending."""
        known = self.view.uids
        if key.uid:
            return key.sequence.resolve(known[-1])
        # In SEARCH, a number beyond the last message matches nothing. It is an error in FETCH, STORE and COPY only.
        count = len(known)
        resolved = key.sequence.resolve(count)
        return [(known[a - 1], known[min(b, count) - 1]) for a, b in resolved if a <= count]

    def _with_age(self, key: search.AgeKey, uids: Sequence[int]) -> Sequence[int]:
        # Whole seconds, and a message of exactly this age is both OLDER and YOUNGER (RFC 5032 section 3).
        limit = int(self.now) - key.seconds
        if key.younger:
            return [uid for uid, epoch in self._pairs(uids, "dates") if epoch >= limit]
        return [uid for uid, epoch in self._pairs(uids, "dates") if epoch <= limit]

    def _with_size(self, key: search.SizeKey, uids: Sequence[int]) -> Sequence[int]:
        if key.larger:
            return [uid for uid, size in self._pairs(uids, "sizes") if size > key.size]
        return [uid for uid, size in self._pairs(uids, "sizes") if size < key.size]

    def _with_internaldate(
        self, comparison: bytes, day: date, uids: Sequence[int]
    ) -> Sequence[int]:
        start = (day.toordinal() - _EPOCH) * _DAY
        if comparison == b"BEFORE":
            return [uid for uid, epoch in self._pairs(uids, "dates") if epoch < start]
        if comparison == b"SINCE":
            return [uid for uid, epoch in self._pairs(uids, "dates") if epoch >= start]
        end = start + _DAY
        return [uid for uid, epoch in self._pairs(uids, "dates") if start <= epoch < end]

    def _pairs(self, uids: Sequence[int], column: str) -> Iterable[tuple[int, int]]:
        """Return each of `uids` with its value in a column of `Columns`."""
        existing = self._columns_of(uids, "uids")
        values = self._columns_of(uids, column)
        if len(existing) == len(uids) and existing == array("I", uids):
            return zip(uids, values, strict=True)
        if len(uids) * 8 > len(values):
            known = dict(zip(existing, values, strict=True))
            return [(uid, known[uid]) for uid in uids if uid in known]
        columns = self.view.columns
        rows = [(uid, columns.row(uid)) for uid in uids]
        column_values: array[int] = getattr(columns, column)
        return [(uid, column_values[row]) for uid, row in rows if row is not None]

    async def _load_sizes(self, uids: Sequence[int]) -> None:
        """Measure the messages that have not been measured. The store reads them, so this takes several calls."""
        unknown = [uid for uid, size in self._pairs(uids, "sizes") if size == UNKNOWN_SIZE]
        for start in range(0, len(unknown), MESSAGE_BODIES_PER_CALL):
            stop = start + MESSAGE_BODIES_PER_CALL
            self.unreadable.update(await self.mailbox.load_sizes(unknown[start:stop]))
            if self.pause is not None and stop < len(unknown):
                await self.pause(self._done + stop, self._total)

    async def _from_store(self, key: SearchKey, uids: Sequence[int]) -> Sequence[int]:
        is_text = isinstance(key, search.EnvelopeKey | search.HeaderKey | search.TextKey)
        count = MESSAGES_PER_BLOCK if is_text else MESSAGES_PER_CALL
        found: list[int] = []
        done = 0
        while done < len(uids):
            part = uids[done : done + count]
            result = await self.mailbox.search(part, key)
            found += result.matching
            self.unreadable.update(result.unreadable)
            done += count_examined(result, len(part))
            if self.pause is not None and done < len(uids):
                await self.pause(self._done + done, self._total)
        return found
