"""What a client wants to have of new messages beyond EXISTS (RFC 5465 sections 5.2 and 7): FETCH without being asked.

NOTIFY names items for all of them, UPDATE for those that a search finds: together they are one response a message. It
comes behind ESEARCH's ADDTO, as section 5.2 has it; section 7 has it before, and erratum 4833 permits either.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from imapshield.errors import StoreError
from imapshield.mailbox.values import Blob
from imapshield.session.handlers.fetch import KNOWN, Column, measure, stream
from imapshield.session.states import State
from imapshield.wire import encode
from imapshield.wire.commands.fetch import Attribute, FetchItem

if TYPE_CHECKING:
    from imapshield.session.session import Session

_UID, _FLAGS, _MODSEQ = Attribute(b"UID"), Attribute(b"FLAGS"), Attribute(b"MODSEQ")
_SIZE = Attribute(b"RFC822.SIZE")


class NewMessages:
    """New messages of the selected mailbox, and the items that are still to be told of each."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._wanted: dict[int, dict[FetchItem, None]] = {}
        self._large: dict[int, dict[FetchItem, None]] = {}
        self._telling = False

    def clear(self) -> None:
        """The mailbox is selected no more."""
        self._wanted.clear()
        self._large.clear()

    def want(self, uids: Iterable[int], items: Sequence[FetchItem]) -> None:
        """Have `items` told of the new messages `uids`."""
        if items:
            for uid in uids:
                self._wanted.setdefault(uid, {}).update(dict.fromkeys(items))

    def settle(self) -> None:
        """Tell what waits, unless a command is running or a search may still want more."""
        session = self._session
        if self._wanted and not (self._telling or session.busy or session.search_contexts.pending):
            self._telling = True
            session.io.run_in_background(self._unasked())

    async def _unasked(self) -> None:
        try:
            await self._session.io.drain()
            await self.tell(unasked=True)
        finally:
            self._telling = False

    async def tell(self, *, unasked: bool = False) -> None:
        """Write FETCH responses; what nobody asked for gives way to commands, and leaves to them what is too large to
        be written at once: a command might come in between."""
        session = self._session
        if not unasked:
            self._wanted.update(self._large)
            self._large.clear()
        while self._wanted and session.state is State.SELECTED and not (unasked and session.busy):
            items = next(iter(self._wanted.values()))
            uids = sorted(uid for uid, wanted in self._wanted.items() if wanted == items)
            await self._tell(uids, list(items), unasked)

    async def _tell(self, uids: Sequence[int], wanted: list[FetchItem], unasked: bool) -> None:
        """Tell `uids` as far as one turn goes."""
        session, asked_for = self._session, dict.fromkeys(wanted)
        view, mailbox = session.view, session.mailbox
        if (session.condstore or session.rev2) and not session.uid_only:
            wanted = [_UID, *wanted]  # as every FETCH response that nobody asked for (RFC 9051)
        if session.condstore:
            wanted = [*wanted, _MODSEQ]
        wanted = list(dict.fromkeys(wanted))
        known = [i for i in wanted if isinstance(i, Attribute) and i.name in KNOWN]
        asked = [i for i in wanted if i not in known]
        try:
            if _SIZE in known:
                await measure(session, uids)
            fetched = await mailbox.fetch(uids, asked, session.limits.fetch_chunk_size)
        except StoreError:
            self._wanted.clear()  # the mailbox has gone
            return
        if session.state is not State.SELECTED or session.view is not view:
            return
        if unasked and session.busy:
            return
        for uid in [*fetched.uids, *fetched.missing]:
            self._wanted.pop(uid, None)
        if not fetched.uids and not fetched.missing:
            self._wanted.clear()
        if _FLAGS in known:
            session.send_new_keywords()
        for i, uid in enumerate(fetched.uids):
            number, row = view.number(uid), view.columns.row(uid)
            if number is None or row is None:
                continue
            labels = [encode.label(item) for item in [*known, *asked]]
            columns: list[Column] = [[session.known_value(k.name, uid, row)] for k in known]
            columns += [[column[i]] for column in fetched.columns]
            if not any(isinstance(column[0], Blob) for column in columns):
                session.io.write(session.fetch_lines([number], [uid], labels, columns))  # type: ignore[arg-type]
            elif unasked:
                self._large[uid] = asked_for
            else:
                await stream(session, [uid if session.uid_only else number], labels, columns)
        await session.io.drain()
