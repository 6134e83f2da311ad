"""Search contexts (RFC 5267): searches of the selected mailbox, with updates when their results change.

Rules
-----
* REMOVEFROM precedes EXPUNGE, and ADDTO follows EXISTS, so that sequence numbers are always valid (sections 4.3.3 and
  4.3.4).
* Only changed messages are searched again, in the background or after a command. Nothing is written while a command
  runs.
"""

from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, MutableSequence, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from imapshield.errors import BadCommand, CommandRefused, StoreError
from imapshield.mailbox.deltas import Change
from imapshield.mailbox.query import Query, leaf_keys
from imapshield.session.background import BackgroundSender
from imapshield.session.new_messages import NewMessages
from imapshield.session.sort_keys import sort_uids
from imapshield.session.state import SessionState, State
from imapshield.session.uid_collection import UidCollection
from imapshield.wire import encode
from imapshield.wire.commands import search
from imapshield.wire.pieces import NUMBERS_PER_PIECE, separated
from imapshield.wire.sequence import MAX_NUMBER, SequenceSet, compact_pieces

UPDATE = b"UPDATE"

REBUILD_FRACTION = 50
"""If more than one in so many results changes, the array is rebuilt, which is faster than one insertion for each."""

SearchOrSort = search.Search | search.Sort


@dataclass(slots=True, eq=False)
class SearchContext:
    """A search and its results.

    Args:
        tag: the tag of the command, which identifies the search in responses.
        command: the search, with UIDs in place of sequence numbers.
        results: the UIDs of the matching messages, in the order of SORT or ascending.
        last_uid: the highest UID that has been searched.
        source: names the mailbox in each ESEARCH response, for a search that was an ESEARCH command (RFC 7377).
        uses_flags: whether a change of flags can change the results.
    """

    tag: bytes
    command: SearchOrSort
    results: MutableSequence[int]
    last_uid: int
    source: bytes
    uses_flags: bool

    def affected(self, uids: Sequence[int]) -> Sequence[int]:
        """Return those of the changed messages `uids`, ascending, that must be searched.

        Only flags can change, so other searches are affected by new messages only.
        """
        return uids if self.uses_flags else uids[bisect_right(uids, self.last_uid) :]

    @property
    def is_sort(self) -> bool:
        """Whether the results have an order of their own, so that responses contain positions."""
        return isinstance(self.command, search.Sort)

    def intersection(self, uids: Iterable[int]) -> set[int]:
        """Return those of `uids` that are among the results."""
        if self.is_sort:
            return set(self.results).intersection(uids)
        results, count = self.results, len(self.results)
        positions = ((uid, bisect_left(results, uid)) for uid in uids)
        return {uid for uid, i in positions if i < count and results[i] == uid}

    def remove(self, uids: set[int], numbers: dict[int, int]) -> encode.Value:
        """Remove results and return the value of REMOVEFROM.

        Args:
            uids: some of the results.
            numbers: maps each of `uids` to the number for the response.
        """
        if self.is_sort:
            removed = [(i, uid) for i, uid in enumerate(self.results, 1) if uid in uids]
            self.results = array("I", [uid for uid in self.results if uid not in uids])
            return _positions((i, numbers[uid]) for i, uid in reversed(removed))
        if len(uids) * REBUILD_FRACTION > len(self.results):
            self.results = array("I", [uid for uid in self.results if uid not in uids])
        else:
            for uid in uids:
                del self.results[bisect_left(self.results, uid)]
        return _unordered(numbers[uid] for uid in sorted(uids))

    def add(self, uids: set[int], order: Sequence[int], numbers: dict[int, int]) -> encode.Value:
        """Add results and return the value of ADDTO.

        Args:
            uids: messages that are not among the results.
            order: for SORT, all results in their new order; not used for SEARCH.
            numbers: maps each of `uids` to the number for the response.
        """
        if self.is_sort:
            self.results = array("I", order)
            return _positions((i, numbers[uid]) for i, uid in enumerate(order, 1) if uid in uids)
        if len(uids) * REBUILD_FRACTION > len(self.results):
            self.results = array("I", sorted(uids.union(self.results)))
        else:
            for uid in uids:
                insort(self.results, uid)
        return _unordered(numbers[uid] for uid in sorted(uids))


class SearchContexts:
    """The search contexts of one session.

    Args:
        session: the session.
        new_messages: sends the FETCH responses that UPDATE demands for new results (RFC 5465 section 7).

    Attributes:
        new_messages: as above.
    """

    def __init__(self, session: SessionState, new_messages: NewMessages) -> None:
        self._session = session
        self.new_messages = new_messages
        self._contexts: dict[bytes, SearchContext] = {}
        self._changed = UidCollection()
        self._arrived = UidCollection()
        self._searching = UidCollection()
        self._generation = 0
        self._background = BackgroundSender(session, self._refresh_in_background)

    def clear(self) -> None:
        """Drop all contexts and pending responses, because the mailbox is no longer selected."""
        self._clear_contexts()
        self.new_messages.clear()

    def _clear_contexts(self) -> None:
        self._contexts.clear()
        self._generation += 1
        for uids in (self._changed, self._arrived, self._searching):
            uids.clear()

    def drop(self, tag: bytes) -> None:
        """Stop updating the search with this tag, if there is one."""
        self._contexts.pop(tag, None)
        if not self._contexts:
            self._clear_contexts()

    def begin(self, command: SearchOrSort) -> int:
        """Return the MODSEQ at which a search begins, for `keep`.

        Raises:
            BadCommand: the command says UPDATE and its tag is in use by another context.
        """
        if UPDATE in (command.returns or ()) and self._session.tag in self._contexts:
            raise BadCommand("This tag belongs to a search with UPDATE; use another tag")
        return self._session.mailbox.columns.highestmodseq

    async def keep(
        self, command: SearchOrSort, results: Sequence[int], since: int, source: bytes = b""
    ) -> None:
        """Keep the results of a search up to date if the command says UPDATE.

        Args:
            command: the search.
            results: the UIDs of the matching messages, in the order of SORT or ascending.
            since: the MODSEQ that `begin` returned.
            source: the `source` of the `SearchContext`.
        """
        session, limits = self._session, self._session.limits
        if UPDATE not in (command.returns or ()):
            return
        is_sort = isinstance(command, search.Sort)
        too_large = is_sort and len(results) > limits.max_sort_context_results
        if too_large or len(self._contexts) >= limits.max_search_contexts:
            text = "Too many results to update" if too_large else "Too many searches with UPDATE"
            self.send_noupdate(session.tag, text)
            return
        key = await _with_uids(session, command.key)
        uses_flags = any(isinstance(k, search.FlagKey | search.ModseqKey) for k in leaf_keys(key))
        last_uid = session.view.uids[-1] if session.view.uids else 0
        self._contexts[session.tag] = SearchContext(
            session.tag,
            replace(command, key=key),
            array("I", results),
            last_uid,
            source,
            uses_flags,
        )
        columns = session.mailbox.columns
        changes = zip(columns.uids, columns.modseqs, strict=True)
        self._changed.add(array("I", [uid for uid, modseq in changes if modseq > since]))

    def send_noupdate(self, tag: bytes, text: str) -> None:
        """Tell the client that the search with `tag` is not, or no longer, updated."""
        self._session.io.write(encode.untagged(b"NO", text, b'NOUPDATE "%b"' % tag))

    def on_change(self, change: Change) -> None:
        """Note that messages of the mailbox have changed, so that they are searched again."""
        if self._contexts:
            self._changed.add(change.changed)

    def on_exists(self, uids: Sequence[int], others: Sequence[int]) -> None:
        """Note that the client was sent EXISTS for new messages.

        Args:
            uids: the new messages.
            others: those of them that the client has not stored itself.
        """
        if self._contexts:
            self._changed.add(uids)
            self._arrived.add(others)

    def removals(self, uids: Sequence[int], numbers: Sequence[int]) -> Iterable[bytes]:
        """Remove messages from the results, and return the REMOVEFROM responses, which precede their EXPUNGE.

        Args:
            uids: the expunged messages.
            numbers: their sequence numbers before the EXPUNGE.
        """
        responses: list[Iterable[bytes]] = []
        for context in self._contexts.values():
            removed = context.intersection(uids)
            if removed:
                number_of = dict(zip(uids, uids if context.command.uid else numbers, strict=True))
                pairs = [(b"REMOVEFROM", context.remove(removed, number_of))]
                responses.append(_response(context, pairs))
        return chain.from_iterable(responses)

    @property
    def pending(self) -> bool:
        """Whether changed messages remain to be searched."""
        return bool(self._contexts and (self._changed or self._searching))

    def schedule(self) -> None:
        """Refresh the contexts soon, unless a command is running; then send FETCH responses for new messages."""
        if self.pending:
            self._background.schedule()
        else:
            self.new_messages.schedule()

    async def _refresh_in_background(self) -> None:
        session = self._session
        while self.pending and session.state is State.SELECTED:
            if not await session.may_send_unsolicited():
                break
            await self.refresh(background=True)
        self.new_messages.schedule()

    async def refresh(self, *, background: bool = False) -> None:
        """Search the changed messages, and send the changes of the results.

        A later refresh replaces one that is in progress. A refresh in the background stops when a command begins.
        """
        if not self.pending:
            return
        view = self._session.view
        self._searching.add(self._changed.sorted())
        self._changed.clear()
        self._generation += 1
        generation = self._generation
        searching = self._searching.sorted()
        changed = array("I", [uid for uid in searching if view.number(uid) is not None])
        for context in list(self._contexts.values()):
            uids = context.affected(changed)
            result = await self._search(context, uids)
            if background and not await self._session.may_send_unsolicited():
                return
            if generation != self._generation or self._session.state is State.LOGOUT:
                return
            if self._contexts.get(context.tag) is not context:
                continue
            if result is None:
                self.drop(context.tag)
                self.send_noupdate(context.tag, "Messages can no longer be searched")
            else:
                context.last_uid = max([context.last_uid, *uids[-1:]])
                response = self._changes(context, uids, *result)
                del result  # the client may take long to read the response
                await self._session.send(response)
                if generation != self._generation:
                    return
        self._searching.clear()
        still_changed = set(self._changed.sorted())
        arrived = [uid for uid in self._arrived.sorted() if uid in still_changed]
        self._arrived.clear()
        self._arrived.add(arrived)

    async def _search(
        self, context: SearchContext, uids: Sequence[int]
    ) -> tuple[set[int], Sequence[int]] | None:
        """Search some messages.

        Returns:
            Those of `uids` that match, and for SORT the new order of all results if one of them is new; None if the
            store cannot search them.
        """
        session, command, generation = self._session, context.command, self._generation
        query = Query(session.mailbox, session.view, now=session.now(), pause=self._pause)
        try:
            found = set(await query.run(command.key, uids))
            # A result that can no longer be read stays a result.
            found |= context.intersection(query.unreadable)
            if generation != self._generation:  # the mailbox may no longer be selected
                return None
            if isinstance(command, search.Sort) and found - context.intersection(found):
                results = sorted(found.union(context.results))
                order, _ = await sort_uids(session, command, results, self._pause)
                return found, order
        except (CommandRefused, StoreError):
            return None
        return found, ()

    async def _pause(self, *_: int) -> None:
        await self._session.io.drain()

    def _changes(
        self, context: SearchContext, uids: Sequence[int], found: set[int], order: Sequence[int]
    ) -> Iterable[bytes]:
        """Change the results of a search, and return the response with the changes, if there are any."""
        view, uid = self._session.view, context.command.uid
        before = context.intersection(uids)
        removed = before - found
        added = {u for u in found - before if view.number(u) is not None}
        if order:  # it does not contain messages with a pending EXPUNGE
            removed |= set(context.results).difference(order)
        touched = sorted(removed | added)
        numbers = dict(zip(touched, touched if uid else view.numbers(touched), strict=True))
        pairs: list[tuple[bytes, encode.Value]] = []
        if removed:
            pairs.append((b"REMOVEFROM", context.remove(removed, numbers)))
        if added:
            results = added.union(context.results) if order else added
            order = [u for u in order if u in results]
            pairs.append((b"ADDTO", context.add(added, order, numbers)))
            arrived = added.intersection(self._arrived.sorted())
            self.new_messages.add(arrived, context.command.update_items)
        return _response(context, pairs) if pairs else ()


def _response(
    context: SearchContext, pairs: Iterable[tuple[bytes, encode.Value]]
) -> Iterable[bytes]:
    return encode.esearch(context.tag, context.command.uid, pairs, context.source)


def _positions(pairs: Iterable[tuple[int, int]]) -> Iterable[bytes]:
    text = separated(map(b"%d %d".__mod__, list(pairs)), b" ", NUMBERS_PER_PIECE // 2)
    return chain((b"(",), text, (b")",))


def _unordered(numbers: Iterable[int]) -> Iterable[bytes]:
    return chain((b"(0 ",), compact_pieces(array("I", numbers)), (b")",))


async def _with_uids(session: SessionState, key: search.SearchKey) -> search.SearchKey:
    """Return `key` with UIDs in place of sequence numbers and ``$``, which later stand for other messages."""
    match key:
        case search.And(keys) | search.Or(keys):
            return replace(key, keys=tuple([await _with_uids(session, inner) for inner in keys]))
        case search.Not(inner):
            return search.Not(await _with_uids(session, inner))
        case search.SequenceKey(sequence, uid) if sequence.saved or not uid:
            query = Query(session.mailbox, session.view, now=0, saved=session.saved_search)
            uids = SequenceSet.from_numbers(await query.run(key))
            if not 0 < sequence.tail < MAX_NUMBER:
                return search.SequenceKey(uids, uid=True)
            # 5:* includes future messages.
            known = session.view.uids
            first = known[min(sequence.tail, len(known)) - 1] if known else 1
            return search.SequenceKey(replace(uids, tail=first), uid=True)
    return key
