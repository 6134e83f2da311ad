"""NOTIFY (RFC 5465): telling a client at once what happens in the mailboxes it has named, selected or not.

Rules
-----
* Nothing is written while a command runs, IDLE excepted: a line in the middle of a streamed FETCH would be taken for
  part of a message. What happens meanwhile is told when the command is done.
* What waits to be told is a set of names, so a client that does not read costs no more than its mailboxes' names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imapshield.errors import Refused, StoreError
from imapshield.mailbox.interfaces import Blob, Happening, INotify
from imapshield.session import sources
from imapshield.session.fetching import KNOWN
from imapshield.session.states import State
from imapshield.wire import encode
from imapshield.wire.commands import Attribute, EventGroup, Notify
from imapshield.wire.responses import Tagged, ok

if TYPE_CHECKING:
    from imapshield.session.session import Session

EVENTS = (
    b"MessageNew",
    b"MessageExpunge",
    b"FlagChange",
    b"MailboxName",
    b"SubscriptionChange",
    b"MailboxMetadataChange",
    b"ServerMetadataChange",
)
MOST_LINES = 1000
"""Changes of names, subscriptions and metadata waiting to be told; beyond it RFC 5465's NOTIFICATIONOVERFLOW."""

_SELECTED = frozenset({b"SELECTED", b"SELECTED-DELAYED"})
_KNOWN_EVENTS = frozenset(name.upper() for name in EVENTS)


async def notify(session: Session, command: Notify) -> Tagged:
    """NOTIFY SET and NONE: each takes the place of the one before."""
    if any(not group.events <= _KNOWN_EVENTS for group in command.groups):
        raise Refused(b"BADEVENT " + encode.parenthesised(EVENTS), "Some events are not known here")
    session.stop_notices()
    if not command.groups:
        return ok("Nothing is told any more")
    subscribed = await session.account.subscriptions()
    notices = Notices(session, command.groups, subscribed)
    account = INotify(session.account)
    session.notices = notices
    account.watch(notices.happened)
    mailboxes = [
        name
        for name in await sources.resolve(session, [group.which for group in command.groups])
        if notices.events(name)
    ]
    await account.listen(mailboxes)
    if session.state is State.SELECTED and notices.selected is not None:
        await session.mailbox.listen()
    if command.status:
        for name in mailboxes:
            if b"MESSAGENEW" in notices.events(name):
                await notices.tell_status(name)
    return ok("Those are told")


class Notices:
    """What a client wants to be told, and what of it waits. `selected` is the group of the selected mailbox."""

    def __init__(
        self, session: Session, groups: tuple[EventGroup, ...], subscribed: set[str]
    ) -> None:
        self._session = session
        self._groups = [group for group in groups if group.which.kind not in _SELECTED]
        self._subscribed = subscribed
        self._changed: dict[str, None] = {}
        self._lines: list[bytes] = []
        self._fresh: list[int] = []
        self._telling = False
        self.selected = next((g for g in groups if g.which.kind in _SELECTED and g.events), None)

    @property
    def delayed(self) -> bool:
        """Whether expunges wait for a command that permits them."""
        return self.selected is None or self.selected.which.kind == b"SELECTED-DELAYED"

    def events(self, name: str) -> frozenset[bytes]:
        """The events of the first group that means `name`; none for the selected mailbox, which is told apart."""
        session = self._session
        if session.state is State.SELECTED and session.mailbox.name == name:
            return frozenset()
        for group in self._groups:
            if sources.means(session, group.which, name, self._subscribed):
                return group.events
        return frozenset()

    def happened(self, what: Happening) -> None:
        """Note what happened in the account (`interfaces.INotify`)."""
        if what.kind in ("subscribed", "unsubscribed"):
            (self._subscribed.add if what.kind == "subscribed" else self._subscribed.discard)(
                what.name
            )
        events = self.events(what.name)
        if events and what.kind in ("created", "renamed"):
            self._session.io.spawn(INotify(self._session.account).listen([what.name]))
        if what.kind in ("messages", "flags"):
            if (b"MESSAGENEW" if what.kind == "messages" else b"FLAGCHANGE") in events:
                self._changed[what.name] = None
        elif len(self._lines) < MOST_LINES:
            self._lines += self._line(what, events)
        else:
            self._session.stop_notices()
            self._lines = [encode.untagged(b"OK", "Too much happened", b"NOTIFICATIONOVERFLOW")]
        self.settle()

    def _line(self, what: Happening, events: frozenset[bytes]) -> list[bytes]:
        utf8 = self._session.utf8
        if what.kind == "metadata":
            wanted = events if what.name else self._events_of_server()
            if (b"MAILBOXMETADATACHANGE" if what.name else b"SERVERMETADATACHANGE") in wanted:
                return [encode.metadata_changed(what.name, what.entries, utf8=utf8)]
            return []
        if what.kind in ("subscribed", "unsubscribed"):
            if b"SUBSCRIPTIONCHANGE" not in events:
                return []
            attributes = [b"\\Subscribed"] if what.kind == "subscribed" else []
            return [encode.list_response(b"LIST", attributes, what.name, utf8=utf8)]
        if b"MAILBOXNAME" not in events | self.events(what.old):
            return []
        attributes = [b"\\NonExistent"] if what.kind == "deleted" else []
        extended = []
        if what.old:
            extended = [(b"OLDNAME", encode.parenthesised([encode.mailbox(what.old, utf8=utf8)]))]
        return [encode.list_response(b"LIST", attributes, what.name, extended=extended, utf8=utf8)]

    def _events_of_server(self) -> frozenset[bytes]:
        return frozenset().union(*(group.events for group in self._groups))

    def arrived(self, uids: list[int]) -> None:
        """New messages in the selected mailbox, which the client has been told of by EXISTS."""
        if self.selected is not None and self.selected.items:
            self._fresh += uids
            self.settle()

    def settle(self) -> None:
        """Tell what waits, unless a command is running."""
        waits = self._changed or self._lines or self._fresh
        if waits and not self._telling and not self._session.busy:
            self._telling = True
            self._session.io.spawn(self._tell())

    async def _tell(self) -> None:
        session = self._session
        try:
            await session.io.drain()
            while not session.busy and session.state is not State.GONE:
                if self._lines:
                    session.io.write(b"".join(self._lines))
                    self._lines.clear()
                elif self._changed:
                    name = next(iter(self._changed))
                    del self._changed[name]
                    await self.tell_status(name)
                elif self._fresh:
                    await self._tell_fresh()
                else:
                    break
        finally:
            self._telling = False

    async def tell_status(self, name: str) -> None:
        """Write STATUS of a mailbox; one that has gone meanwhile is left out."""
        session = self._session
        try:
            found = await session.account.status(name)
        except StoreError:
            return
        if session.busy and self._telling:
            self._changed[name] = None
            return
        items: list[tuple[bytes, int | bytes]] = [
            (b"MESSAGES", found.messages),
            (b"UIDNEXT", found.uidnext),
            (b"UIDVALIDITY", found.uidvalidity),
        ]
        flags = b"FLAGCHANGE" in self.events(name)
        if flags:
            items.append((b"UNSEEN", found.unseen))
        if flags or session.condstore:  # a change of flags is seen by it (RFC 5465 section 5.1)
            items.append((b"HIGHESTMODSEQ", found.highestmodseq))
        session.io.write(encode.status(name, items, utf8=session.utf8))

    async def _tell_fresh(self) -> None:
        """Write the FETCH items that MessageNew asked for; what is too large to be written at once is left out."""
        session, selected = self._session, self.selected
        uids, self._fresh = self._fresh, []
        if selected is None or session.state is not State.SELECTED:
            return
        view, mailbox = session.view, session.mailbox
        known = [i for i in selected.items if isinstance(i, Attribute) and i.name in KNOWN]
        asked = [i for i in selected.items if i not in known]
        fetched = await mailbox.fetch(uids, asked, session.limits.chunk)
        if session.busy:
            self._fresh = uids + self._fresh
            return
        if session.state is not State.SELECTED or session.view is not view:
            return
        labels = [encode.label(item) for item in [*known, *asked]]
        for i, uid in enumerate(fetched.uids):
            number, row = view.number(uid), view.columns.row(uid)
            values = [column[i] for column in fetched.columns]
            if number is None or row is None or any(isinstance(v, Blob) for v in values):
                continue
            mine = [session.known_value(item.name, uid, row) for item in known]
            columns = [[value] for value in [*mine, *values]]
            session.io.write(session.fetch_lines([number], [uid], labels, columns))  # type: ignore[arg-type]
