"""Search contexts (RFC 5267): searches of the selected mailbox whose results the client is sent as they change.

Rules
-----
* REMOVEFROM precedes EXPUNGE, and ADDTO follows EXISTS, so that sequence numbers are always valid (sections 4.3.3 and
  4.3.4).
* Only changed messages are searched again, in the background or after a command. Nothing is written while a command
  runs.
"""

from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence
from dataclasses import replace

from imapshield.errors import BadCommand, CommandRefused, StoreError
from imapshield.mailbox.deltas import Change
from imapshield.mailbox.query import Query, leaf_keys
from imapshield.session.background import BackgroundSender
from imapshield.session.new_messages import NewMessages
from imapshield.session.sort_keys import sort_uids
from imapshield.session.state import SessionState, State
from imapshield.wire import encode
from imapshield.wire.commands.search import (
    And,
    FlagKey,
    ModseqKey,
    Not,
    Or,
    Search,
    SearchKey,
    SequenceKey,
    Sort,
)
from imapshield.wire.sequence import MAX_NUMBER, SequenceSet, compact

UPDATE = b"UPDATE"


class SearchContext:
    """A search and its results.

    Args:
        command: the search, with UIDs in place of sequence numbers.
        results: the UIDs that it found, in the order of SORT or rising.
        last_uid: the highest UID that has been searched.
        source: names the mailbox in each ESEARCH response, for a search that was an ESEARCH command (RFC 7377).
    """

    def __init__(
        self, command: Search | Sort, results: Sequence[int], last_uid: int, source: bytes = b""
    ) -> None:
        self.command = command
        self.results = array("I", results)
        self.last_uid = last_uid
        self.source = source
        self._uses_flags = any(isinstance(k, FlagKey | ModseqKey) for k in leaf_keys(command.key))

    def affected(self, uids: Sequence[int]) -> Sequence[int]:
        """Return those of the changed messages `uids`, rising, that must be searched: only flags can change."""
        return uids if self._uses_flags else uids[bisect_right(uids, self.last_uid) :]

    @property
    def is_sort(self) -> bool:
        """Whether the results have an order of their own, so that responses contain positions."""
        return isinstance(self.command, Sort)

    def intersection(self, uids: Iterable[int]) -> set[int]:
        """Return those of `uids` that are among the results."""
        if self.is_sort:
            return set(self.results).intersection(uids)
        results, count = self.results, len(self.results)
        positions = ((uid, bisect_left(results, uid)) for uid in uids)
        return {uid for uid, i in positions if i < count and results[i] == uid}

    def remove(self, uids: set[int], numbers: dict[int, int]) -> bytes:
        """Remove results and return the value of REMOVEFROM.

        Args:
            uids: some of the results.
            numbers: maps each of them to the number for the response.
        """
        if self.is_sort:
            removed = [(i, uid) for i, uid in enumerate(self.results, 1) if uid in uids]
            self.results = array("I", [uid for uid in self.results if uid not in uids])
            return _positions((i, numbers[uid]) for i, uid in reversed(removed))
        if len(uids) * 50 > len(self.results):
            self.results = array("I", [uid for uid in self.results if uid not in uids])
        else:
            for uid in uids:
                del self.results[bisect_left(self.results, uid)]
        return b"(0 %b)" % compact(numbers[uid] for uid in sorted(uids))

    def add(self, uids: set[int], order: Sequence[int], numbers: dict[int, int]) -> bytes:
        """Add results and return the value of ADDTO.

        Args:
            uids: messages that are not among the results.
            order: for SORT, all results in their new order.
            numbers: maps each of `uids` to the number for the response.
        """
        if self.is_sort:
            self.results = array("I", order)
            return _positions((i, numbers[uid]) for i, uid in enumerate(order, 1) if uid in uids)
        if len(uids) * 50 > len(self.results):
            self.results = array("I", sorted(uids.union(self.results)))
        else:
            for uid in uids:
                insort(self.results, uid)
        return b"(0 %b)" % compact(numbers[uid] for uid in sorted(uids))


class SearchContexts:
    """The search contexts of one session.

    Args:
        state: the session.
        new_messages: sends the FETCH responses that UPDATE demands for new results (RFC 5465 section 7).
    """

    def __init__(self, state: SessionState, new_messages: NewMessages) -> None:
        self._state = state
        self._new_messages = new_messages
        self._contexts: dict[bytes, SearchContext] = {}
        self._changed: set[int] = set()
        self._arrived: set[int] = set()
        self._searching: set[int] = set()
        self._generation = 0
        self._background = BackgroundSender(state, self._refresh_in_background)

    def clear(self) -> None:
        """Drop all contexts, because the mailbox is no longer selected."""
        self._contexts.clear()
        self._generation += 1
        self._changed, self._arrived, self._searching = set(), set(), set()

    def drop(self, tag: bytes) -> None:
        """Stop updating the search that was sent with `tag`."""
        self._contexts.pop(tag, None)
        if not self._contexts:
            self.clear()

    def begin(self, command: Search | Sort) -> int:
        """Return the MODSEQ at which a search begins, for `keep`.

        Raises:
            BadCommand: the tag is that of another context.
        """
        if UPDATE in (command.returns or ()) and self._state.tag in self._contexts:
            raise BadCommand("This tag belongs to a search with UPDATE; use another tag")
        return self._state.mailbox.columns.highestmodseq

    async def keep(
        self, command: Search | Sort, results: Sequence[int], since: int, source: bytes = b""
    ) -> None:
        """Keep the results of a search up to date if the command says UPDATE.

        Args:
            command: the search.
            results: the UIDs that it found.
            since: what `begin` returned.
            source: see `SearchContext`.
        """
        state, limits = self._state, self._state.limits
        if UPDATE not in (command.returns or ()):
            return
        if isinstance(command, Sort) and len(results) > limits.max_sort_context_results:
            self.send_noupdate(state.tag, "Too many results to update")
            return
        if len(self._contexts) >= limits.max_search_contexts:
            self.send_noupdate(state.tag, "Too many searches with UPDATE")
            return
        key = await _with_uids(state, command.key)
        last_uid = state.view.uids[-1] if state.view.uids else 0
        context = SearchContext(replace(command, key=key), results, last_uid, source)
        self._contexts[state.tag] = context
        columns = state.mailbox.columns
        changes = zip(columns.uids, columns.modseqs, strict=True)
        self._changed.update(uid for uid, modseq in changes if modseq > since)

    def send_noupdate(self, tag: bytes, text: str) -> None:
        """Tell the client that the search with `tag` is not, or no longer, updated."""
        self._state.io.write(encode.untagged(b"NO", text, b'NOUPDATE "%b"' % tag))

    def on_change(self, change: Change) -> None:
        """Note which messages of the mailbox have changed."""
        if self._contexts:
            self._changed.update(change.changed)

    def on_exists(self, uids: Iterable[int], others: Iterable[int]) -> None:
        """Note that the client now knows of new messages.

        Args:
            uids: the new messages.
            others: those of them that the client has not stored itself.
        """
        if self._contexts:
            self._changed.update(uids)
            self._arrived.update(others)

    def send_removals(self, uids: Sequence[int], numbers: Sequence[int]) -> None:
        """Send REMOVEFROM for messages before their EXPUNGE.

        Args:
            uids: the expunged messages.
            numbers: their sequence numbers before the EXPUNGE.
        """
        for tag, context in self._contexts.items():
            removed = context.intersection(uids)
            if removed:
                uid = context.command.uid
                number = dict(zip(uids, uids if uid else numbers, strict=True))
                pairs = [(b"REMOVEFROM", context.remove(removed, number))]
                self._state.io.write(encode.esearch(tag, uid, pairs, context.source))

    @property
    def pending(self) -> bool:
        """Whether changed messages remain to be searched."""
        return bool(self._contexts and (self._changed or self._searching))

    def schedule(self) -> None:
        """Refresh the contexts, unless a command is running; then send the new messages that they wait for."""
        if self.pending:
            self._background.schedule()
        else:
            self._new_messages.schedule()

    async def _refresh_in_background(self) -> None:
        state = self._state
        while self.pending and not state.busy and state.state is State.SELECTED:
            await self.refresh(background=True)
        self._new_messages.schedule()

    async def refresh(self, *, background: bool = False) -> None:
        """Search the changed messages, and send what that changes in the results.

        A refresh that begins later replaces one that is in progress. In the background it stops when a command begins.
        """
        if not self.pending:
            return
        view = self._state.view
        self._searching |= self._changed
        self._changed = set()
        self._generation += 1
        generation = self._generation
        changed = [uid for uid in sorted(self._searching) if view.number(uid) is not None]
        for tag, context in list(self._contexts.items()):
            uids = context.affected(changed)
            error: Exception | None = None
            found: set[int] = set()
            order: Sequence[int] = ()
            try:
                found, order = await self._search(context, uids)
            except (CommandRefused, StoreError) as caught:
                error = caught
            if generation != self._generation or self._must_stop(background):
                return
            if self._contexts.get(tag) is not context:
                continue
            if error is not None:
                self.drop(tag)
                self.send_noupdate(tag, "Messages can no longer be searched")
            else:
                self._send_changes(tag, context, uids, found, order)
                context.last_uid = max([context.last_uid, *uids[-1:]])
        self._searching = set()
        self._arrived &= self._changed

    def _must_stop(self, background: bool) -> bool:
        return (background and self._state.busy) or self._state.state is State.LOGOUT

    async def _search(
        self, context: SearchContext, uids: Sequence[int]
    ) -> tuple[set[int], Sequence[int]]:
        """Return those of `uids` that match, and for SORT the order of all results if one of them is new."""
        state, command, generation = self._state, context.command, self._generation
        query = Query(state.mailbox, state.view, now=state.now(), pause=self._pause)
        found = set(await query.run(command.key, uids))
        if generation != self._generation:  # the mailbox may no longer be selected
            return set(), ()
        if isinstance(command, Sort) and found - context.intersection(found):
            results = sorted(found.union(context.results))
            return found, await sort_uids(state, command, results, self._pause)
        return found, ()

    async def _pause(self, *_: int) -> None:
        await self._state.io.drain()

    def _send_changes(
        self,
        tag: bytes,
        context: SearchContext,
        uids: Sequence[int],
        found: set[int],
        order: Sequence[int],
    ) -> None:
        view, uid = self._state.view, context.command.uid
        before = context.intersection(uids)
        removed = before - found
        added = {u for u in found - before if view.number(u) is not None}
        if order:  # messages whose EXPUNGE is pending are not in it
            removed |= set(context.results).difference(order)
        touched = sorted(removed | added)
        numbers = dict(zip(touched, touched if uid else view.numbers(touched), strict=True))
        pairs: list[tuple[bytes, int | bytes]] = []
        if removed:
            pairs.append((b"REMOVEFROM", context.remove(removed, numbers)))
        if added:
            results = added.union(context.results) if order else added
            order = [u for u in order if u in results]
            pairs.append((b"ADDTO", context.add(added, order, numbers)))
            self._new_messages.add(added & self._arrived, context.command.update_items)
        if pairs:
            self._state.io.write(encode.esearch(tag, uid, pairs, context.source))


def _positions(pairs: Iterable[tuple[int, int]]) -> bytes:
    return b"(%b)" % b" ".join([b"%d %d" % pair for pair in pairs])


async def _with_uids(state: SessionState, key: SearchKey) -> SearchKey:
    """Return `key` with UIDs in place of sequence numbers and ``$``, because these will mean other messages."""
    match key:
        case And(keys):
            return And(tuple([await _with_uids(state, inner) for inner in keys]))
        case Or(keys):
            return Or(tuple([await _with_uids(state, inner) for inner in keys]))
        case Not(inner):
            return Not(await _with_uids(state, inner))
        case SequenceKey(None) | SequenceKey(_, False):
            query = Query(state.mailbox, state.view, now=0, saved=state.saved_search)
            uids = SequenceSet.from_uids(await query.run(key))
            tail = key.sequence.tail if key.sequence is not None else 0
            if not 0 < tail < MAX_NUMBER:
                return SequenceKey(uids, uid=True)
            # 5:* includes messages that are still to come.
            known = state.view.uids
            first = known[min(tail, len(known)) - 1] if known else 1
            return SequenceKey(replace(uids, tail=first), uid=True)
    return key
