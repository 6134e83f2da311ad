"""FETCH responses for new messages (RFC 5465 sections 5.2 and 7).

NOTIFY requests items of all new messages, and the UPDATE option of SEARCH (RFC 5267) items of those that match. One
response per message contains both. It follows ADDTO, as section 5.2 demands; section 7 demands the opposite order, and
erratum 4833 permits either.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain

from imapshield.errors import CommandRefused, NoSuchMailbox, StoreError
from imapshield.mailbox.values import FetchResult
from imapshield.session.background import BackgroundSender
from imapshield.session.fetch_responses import (
    KNOWN_ITEMS,
    implicit_items,
    lines,
    locate_messages,
    read_chunk,
    render_chunk,
    send_chunk,
)
from imapshield.session.state import SessionState, State
from imapshield.wire.commands.fetch import FetchItem


class NewMessages:
    """The new messages of the selected mailbox for which FETCH responses are pending, with the items to send."""

    def __init__(self, session: SessionState) -> None:
        self._session = session
        self._wanted: dict[int, dict[FetchItem, None]] = {}
        self._postponed: dict[int, dict[FetchItem, None]] = {}
        self._background = BackgroundSender(session, partial(self.send, background=True))

    def clear(self) -> None:
        """Drop all pending responses, because the mailbox is no longer selected."""
        self._wanted.clear()
        self._postponed.clear()

    def add(self, uids: Iterable[int], items: Sequence[FetchItem]) -> None:
        """Make FETCH responses with `items` of the new messages `uids` pending."""
        if items:
            for uid in uids:
                self._wanted.setdefault(uid, {}).update(dict.fromkeys(items))

    def schedule(self) -> None:
        """Send the pending FETCH responses soon, unless a command is running."""
        if self._wanted:
            self._background.schedule()

    async def send(self, *, background: bool = False) -> None:
        """Send the pending FETCH responses.

        Args:
            background: no command is running; stop when one begins. A response with a blob stays pending until the end
                of the next command, because a command could begin while the response is being streamed.
        """
        if not background:
            self._wanted.update(self._postponed)
            self._postponed.clear()
        while self._wanted and not self._must_stop(background):
            items = next(iter(self._wanted.values()))
            uids = sorted(uid for uid, wanted in self._wanted.items() if wanted == items)
            await self._send_chunk(uids, list(items), background)

    def _must_stop(self, background: bool) -> bool:
        session = self._session
        return session.state is not State.SELECTED or (background and session.busy)

    async def _send_chunk(
        self, uids: Sequence[int], wanted: Sequence[FetchItem], background: bool
    ) -> None:
        session, view = self._session, self._session.view
        # Large values come last.
        items = implicit_items(session, wanted, unsolicited=True)
        items.sort(key=lambda item: item not in KNOWN_ITEMS)
        fetched = await self._read(uids, items)
        if fetched is None or (background and not await session.may_send_unsolicited()):
            return
        if self._must_stop(background) or session.view is not view:
            return
        for uid in [*fetched.uids, *fetched.missing, *fetched.unreadable]:
            self._wanted.pop(uid, None)
        if not fetched.count:
            self._wanted.clear()
        rows, values = locate_messages(session, fetched, view.number)
        chunk = render_chunk(session, rows, items, values)
        if background and chunk.has_blobs:
            messages = list(chunk.messages())
            for message in messages:
                if message.has_blobs:
                    self._postponed[message.rows.uids[0]] = dict.fromkeys(wanted)
            small = (lines(session, message) for message in messages if not message.has_blobs)
            await session.send(chain.from_iterable(small))
        else:
            await send_chunk(session, chunk)
        await session.io.drain()

    async def _read(self, uids: Sequence[int], items: Sequence[FetchItem]) -> FetchResult | None:
        """Read the values of a chunk; return None if the store cannot, and then no longer want these responses now."""
        try:
            return await read_chunk(self._session, uids, items)
        except NoSuchMailbox:
            self._wanted.clear()
        except StoreError:  # try again at the end of the next command
            wanted = [uid for uid in uids if uid in self._wanted]
            self._postponed.update((uid, self._wanted.pop(uid)) for uid in wanted)
        except CommandRefused:  # BINARY cannot decode one of the messages
            for uid in uids:
                self._wanted.pop(uid, None)
        return None
