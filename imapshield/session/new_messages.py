"""FETCH responses for new messages (RFC 5465 sections 5.2 and 7).

NOTIFY requests items of all new messages, and the UPDATE option of SEARCH (RFC 5267) items of those that match. One
response per message contains both. It follows ADDTO, as section 5.2 demands; section 7 demands the opposite order, and
erratum 4833 permits either.
"""

from array import array
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain

from imapshield.errors import CommandRefused, NoSuchMailbox, StoreError
from imapshield.mailbox.values import FetchResult
from imapshield.session.background import BackgroundSender
from imapshield.session.fetch_responses import (
    KNOWN_ITEMS,
    Chunk,
    implicit_items,
    lines,
    locate_messages,
    memory_of,
    read_chunk,
    render_chunk,
    send_chunk,
)
from imapshield.session.state import SessionState, State
from imapshield.wire.commands.fetch import FetchItem

CHUNK_MESSAGES = 1000
"""Maximum number of messages that are read at once."""


class WantedItems:
    """Messages, and the FETCH items that are wanted of each. A message takes four bytes.

    Attributes:
        groups: the UIDs, in ascending order, of the messages of which the same items are wanted.
    """

    def __init__(self) -> None:
        self.groups: dict[tuple[FetchItem, ...], array[int]] = {}

    def add(self, uids: Iterable[int], items: tuple[FetchItem, ...]) -> None:
        """Add `items` of the messages `uids` to what is wanted."""
        added = set(uids)
        for wanted, members in list(self.groups.items()):
            both = added.intersection(members)
            if both:
                self.discard(both)
                self._add_to_group(both, tuple(dict.fromkeys((*wanted, *items))))
                added -= both
        self._add_to_group(added, items)

    def _add_to_group(self, uids: set[int], items: tuple[FetchItem, ...]) -> None:
        if uids:
            self.groups[items] = array("I", sorted(uids.union(self.groups.get(items, ()))))

    def discard(self, uids: Iterable[int]) -> None:
        """Remove the messages `uids`."""
        removed = set(uids)
        for items, members in list(self.groups.items()):
            if not removed.isdisjoint(members):
                self.groups[items] = array("I", [uid for uid in members if uid not in removed])
            if not self.groups[items]:
                del self.groups[items]

    def clear(self) -> None:
        """Remove all messages."""
        self.groups.clear()


class NewMessages:
    """The new messages of the selected mailbox for which FETCH responses are pending, with the items to send."""

    def __init__(self, session: SessionState) -> None:
        self._session = session
        self._wanted = WantedItems()
        self._postponed = WantedItems()
        self._background = BackgroundSender(session, partial(self.send, background=True))

    def clear(self) -> None:
        """Drop all pending responses, because the mailbox is no longer selected."""
        self._wanted.clear()
        self._postponed.clear()

    def add(self, uids: Iterable[int], items: Sequence[FetchItem]) -> None:
        """Make FETCH responses with `items` of the new messages `uids` pending."""
        if items:
            self._wanted.add(uids, tuple(items))

    def schedule(self) -> None:
        """Send the pending FETCH responses soon, unless a command is running."""
        if self._wanted.groups:
            self._background.schedule()

    async def send(self, *, background: bool = False) -> None:
        """Send the pending FETCH responses.

        Args:
            background: no command is running; stop when one begins. A response with a blob stays pending until the end
                of the next command, because a command could begin while the response is being streamed.
        """
        if not background:
            for items, uids in self._postponed.groups.items():
                self._wanted.add(uids, items)
            self._postponed.clear()
        while self._wanted.groups and not self._must_stop(background):
            items, uids = next(iter(self._wanted.groups.items()))
            await self._send_chunk(uids[:CHUNK_MESSAGES], items, background)

    def _must_stop(self, background: bool) -> bool:
        session = self._session
        return session.state is not State.SELECTED or (background and session.busy)

    async def _send_chunk(
        self, uids: Sequence[int], wanted: tuple[FetchItem, ...], background: bool
    ) -> None:
        session, view = self._session, self._session.view
        # Large values come last.
        items = implicit_items(session, wanted, unsolicited=True)
        items.sort(key=lambda item: item not in KNOWN_ITEMS)
        fetched = await self._read(uids, wanted, items)
        if fetched is None or (background and not await session.may_send_unsolicited()):
            return
        if self._must_stop(background) or session.view is not view:
            return
        self._wanted.discard([*fetched.uids, *fetched.missing, *fetched.unreadable])
        if not fetched.count:
            self._wanted.clear()
        rows, values = locate_messages(session, fetched, view.number)
        size = memory_of(fetched)
        del fetched
        chunk = render_chunk(session, rows, items, values)
        with session.io.hold_result(size):
            await self._send_rendered(chunk, wanted, background)
        del rows, values, chunk
        await session.io.drain()

    async def _send_rendered(
        self, chunk: Chunk, wanted: tuple[FetchItem, ...], background: bool
    ) -> None:
        session = self._session
        if background and chunk.has_blobs:
            messages = list(chunk.messages())
            for message in messages:
                if message.has_blobs:
                    self._postponed.add(message.rows.uids, wanted)
            small = (lines(session, message) for message in messages if not message.has_blobs)
            await session.send(chain.from_iterable(small))
        else:
            await send_chunk(session, chunk)

    async def _read(
        self, uids: Sequence[int], wanted: tuple[FetchItem, ...], items: Sequence[FetchItem]
    ) -> FetchResult | None:
        """Read the values of a chunk; return None if the store cannot, and then no longer want these responses now."""
        try:
            return await read_chunk(self._session, uids, items)
        except NoSuchMailbox:
            self._wanted.clear()
        except StoreError:  # try again at the end of the next command
            self._postponed.add(uids, wanted)
            self._wanted.discard(uids)
        except CommandRefused:  # BINARY cannot decode one of the messages
            self._wanted.discard(uids)
        return None
