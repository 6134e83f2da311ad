"""Contexts (RFC 5267): searches of the selected mailbox whose results a client is told of as they change.

Rules
-----
* What an EXPUNGE takes away is told before it, what came is told after EXISTS: the numbers always hold (sections 4.3.3
  and 4.3.4).
* Only what has changed is searched again, beside or after the commands, and nothing is written in the middle of one.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from imapshield.errors import BadCommand, CommandRefused, StoreError
from imapshield.mailbox.columns import Change
from imapshield.mailbox.query import Query, leaves
from imapshield.session.handlers import sort_thread
from imapshield.session.states import State
from imapshield.wire import encode
from imapshield.wire.commands.search import CancelUpdate, Search
from imapshield.wire.commands.search_keys import (
    And,
    FlagKey,
    ModseqKey,
    Not,
    Or,
    SearchKey,
    SequenceKey,
)
from imapshield.wire.commands.sort_thread import Sort
from imapshield.wire.responses import Tagged, ok
from imapshield.wire.sequence import MAX_NUMBER, SequenceSet, compact

if TYPE_CHECKING:
    from imapshield.session.session import Session

UPDATE = b"UPDATE"


async def cancel(session: Session, command: CancelUpdate) -> Tagged:
    """CANCELUPDATE; of a search that is not kept up to date (any more) there is nothing to do."""
    for tag in command.tags:
        session.search_contexts.drop(tag)
    return ok("Those are kept up to date no more")


class Context:
    """A search, and the UIDs that it found, in the order of SORT or rising, among those up to `last`.

    `place` names the mailbox in each response, where an ESEARCH (RFC 7377) wants that.
    """

    def __init__(
        self, command: Search | Sort, found: Sequence[int], last: int, place: bytes = b""
    ) -> None:
        self.command = command
        self.found = array("I", found)
        self.last = last
        self.place = place
        self._flags = any(isinstance(one, FlagKey | ModseqKey) for one in leaves(command.key))

    def affected(self, uids: Sequence[int]) -> Sequence[int]:
        """Those of `uids`, rising, that have to be searched: of all that may change only flags do."""
        return uids if self._flags else uids[bisect_right(uids, self.last) :]

    @property
    def sorts(self) -> bool:
        """Whether the order of the results is one of its own, and has positions."""
        return isinstance(self.command, Sort)

    def held(self, uids: Iterable[int]) -> set[int]:
        """Those of `uids` that are among the results."""
        if self.sorts:
            return set(self.found).intersection(uids)
        found, count = self.found, len(self.found)
        places = ((uid, bisect_left(found, uid)) for uid in uids)
        return {uid for uid, i in places if i < count and found[i] == uid}

    def remove(self, uids: set[int], number: dict[int, int]) -> bytes:
        """Take out `uids`, which are in it, and return the value of REMOVEFROM."""
        if self.sorts:
            places = [(i, uid) for i, uid in enumerate(self.found, 1) if uid in uids]
            self.found = array("I", [uid for uid in self.found if uid not in uids])
            return _placed((i, number[uid]) for i, uid in reversed(places))
        if len(uids) * 50 > len(self.found):
            self.found = array("I", [uid for uid in self.found if uid not in uids])
        else:
            for uid in uids:
                del self.found[bisect_left(self.found, uid)]
        return b"(0 %b)" % compact(number[uid] for uid in sorted(uids))

    def add(self, uids: set[int], order: Sequence[int], number: dict[int, int]) -> bytes:
        """Put in `uids`, which are not in it, and return the value of ADDTO. A SORT needs the `order` of all."""
        if self.sorts:
            self.found = array("I", order)
            return _placed((i, number[uid]) for i, uid in enumerate(order, 1) if uid in uids)
        if len(uids) * 50 > len(self.found):
            self.found = array("I", sorted(uids.union(self.found)))
        else:
            for uid in uids:
                insort(self.found, uid)
        return b"(0 %b)" % compact(number[uid] for uid in sorted(uids))


class SearchContexts:
    """The contexts of one session, none at first."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._kept: dict[bytes, Context] = {}
        self._changed: set[int] = set()
        self._arrived: set[int] = set()
        self._searching: set[int] = set()
        self._turn = 0
        self._telling = False

    def clear(self) -> None:
        """The mailbox is selected no more."""
        self._kept.clear()
        self._turn += 1
        self._changed, self._arrived, self._searching = set(), set(), set()

    def drop(self, tag: bytes) -> None:
        """Tell no more of the search that was sent with `tag`."""
        self._kept.pop(tag, None)
        if not self._kept:
            self.clear()

    def begin(self, command: Search | Sort) -> int:
        """A search begins: returns the MODSEQ that `keep` is to be given. Malformed if its tag means another."""
        if UPDATE in (command.returns or ()) and self._session.tag in self._kept:
            raise BadCommand("The tag is that of a search which is kept up to date")
        return self._session.mailbox.columns.highestmodseq

    async def keep(
        self, command: Search | Sort, found: Sequence[int], since: int, place: bytes = b""
    ) -> None:
        """Keep what `command` found up to date, if it says UPDATE; `since` is the MODSEQ when it began."""
        session, limits = self._session, self._session.limits
        if UPDATE not in (command.returns or ()):
            return
        large = isinstance(command, Sort) and len(found) > limits.max_sort_context_results
        if len(self._kept) >= limits.max_search_contexts or large:
            why = "Too large to be kept in order" if large else "Too many are kept up to date"
            self.refuse(session.tag, why)
            return
        key = await _pinned(session, command.key)
        last = session.view.uids[-1] if session.view.uids else 0
        self._kept[session.tag] = Context(replace(command, key=key), found, last, place)
        columns = session.mailbox.columns
        changes = zip(columns.uids, columns.modseqs, strict=True)
        self._changed.update(uid for uid, modseq in changes if modseq > since)

    def refuse(self, tag: bytes, why: str) -> None:
        """The search of `tag` is not kept up to date (any more)."""
        self._session.io.write(encode.untagged(b"NO", why, b'NOUPDATE "%b"' % tag))

    def heard(self, change: Change) -> None:
        """Note what changed in the mailbox."""
        if self._kept:
            self._changed.update(change.changed)

    def arrived(self, uids: Iterable[int], others: Iterable[int]) -> None:
        """The client has been told of new messages, of which `others` are not its own."""
        if self._kept:
            self._changed.update(uids)
            self._arrived.update(others)

    def expunged(self, uids: Sequence[int], numbers: Sequence[int]) -> None:
        """The client is about to be told that `uids` are gone, which until now have these `numbers`."""
        for tag, context in self._kept.items():
            gone = context.held(uids)
            if gone:
                uid = context.command.uid
                number = dict(zip(uids, uids if uid else numbers, strict=True))
                pairs = [(b"REMOVEFROM", context.remove(gone, number))]
                self._session.io.write(encode.esearch(tag, uid, pairs, context.place))

    @property
    def pending(self) -> bool:
        """Whether something has changed that is still to be searched."""
        return bool(self._kept and (self._changed or self._searching))

    def settle(self) -> None:
        """Tell what waits, unless a command is running."""
        if self.pending and not self._telling and not self._session.busy:
            self._telling = True
            self._session.io.run_in_background(self._unasked())

    async def _unasked(self) -> None:
        session = self._session
        try:
            await session.io.drain()
            while self.pending and not session.busy and session.state is State.SELECTED:
                await self.refresh(unasked=True)
        finally:
            self._telling = False
            session.new_messages.settle()

    async def refresh(self, *, unasked: bool = False) -> None:
        """Search what has changed, and tell what that does to the results.

        One that began later takes the place of one that is under way; and what nobody asked for gives way to commands.
        """
        if not self.pending:
            return
        session, view, mailbox = self._session, self._session.view, self._session.mailbox
        self._searching |= self._changed
        self._changed = set()
        self._turn += 1
        turn = self._turn
        changed = [uid for uid in sorted(self._searching) if view.number(uid) is not None]
        for tag, context in list(self._kept.items()):
            uids = context.affected(changed)
            query = Query(mailbox, view, now=session.now(), pause=self._pause)
            error: Exception | None = None
            found: set[int] = set()
            order: Sequence[int] = ()
            try:
                found = set(await query.run(context.command.key, uids))
                if isinstance(context.command, Sort) and found - context.held(found):
                    everything = sorted(found.union(context.found))
                    order = await sort_thread.order(
                        session, context.command, everything, self._pause
                    )
            except (CommandRefused, StoreError) as caught:
                error = caught
            if turn != self._turn or (unasked and session.busy) or session.state is State.LOGOUT:
                return
            if self._kept.get(tag) is not context:
                continue
            if error is not None:
                self.drop(tag)
                self.refuse(tag, "The messages cannot be searched any more")
            else:
                self._tell(tag, context, uids, found, order)
                context.last = max([context.last, *uids[-1:]])
        self._searching = set()
        self._arrived &= self._changed

    async def _pause(self, *_: int) -> None:
        await self._session.io.drain()

    def _tell(
        self,
        tag: bytes,
        context: Context,
        uids: Sequence[int],
        found: set[int],
        order: Sequence[int],
    ) -> None:
        view, uid = self._session.view, context.command.uid
        held = context.held(uids)
        gone = held - found
        come = {one for one in found - held if view.number(one) is not None}
        if order:  # what vanished unbeknown to the client has no place in it
            gone |= set(context.found).difference(order)
        touched = sorted(gone | come)
        number = dict(zip(touched, touched if uid else view.numbers(touched), strict=True))
        pairs: list[tuple[bytes, int | bytes]] = []
        if gone:
            pairs.append((b"REMOVEFROM", context.remove(gone, number)))
        if come:
            now = come.union(context.found) if order else come
            pairs.append((b"ADDTO", context.add(come, [u for u in order if u in now], number)))
            self._session.new_messages.want(come & self._arrived, context.command.update_items)
        if pairs:
            self._session.io.write(encode.esearch(tag, uid, pairs, context.place))


def _placed(pairs: Iterable[tuple[int, int]]) -> bytes:
    return b"(%b)" % b" ".join([b"%d %d" % pair for pair in pairs])


async def _pinned(session: Session, key: SearchKey) -> SearchKey:
    """Return `key` with the messages that it names by number or by ``$`` as UIDs: the numbers will be others'."""
    match key:
        case And(keys):
            return And(tuple([await _pinned(session, one) for one in keys]))
        case Or(keys):
            return Or(tuple([await _pinned(session, one) for one in keys]))
        case Not(inner):
            return Not(await _pinned(session, inner))
        case SequenceKey(None) | SequenceKey(_, False):
            query = Query(session.mailbox, session.view, now=0, saved=session.saved_search)
            uids = SequenceSet.from_uids(await query.run(key))
            tail = key.sequence.tail if key.sequence is not None else 0
            if not 0 < tail < MAX_NUMBER:
                return SequenceKey(uids, uid=True)
            # 5:* goes on as messages come
            rows = session.view.uids
            first = rows[min(tail, len(rows)) - 1] if rows else 1
            return SequenceKey(replace(uids, tail=first), uid=True)
    return key
