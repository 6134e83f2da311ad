"""NOTIFY (RFC 5465): telling a client at once what happens in the mailboxes it has named, selected or not.

Rules
-----
* Nothing is written while a command runs, IDLE excepted: a line in the middle of a streamed FETCH would be taken for
  part of a message. What happens meanwhile is told when the command is done.
* What waits to be told is a set of names, so a client that does not read costs no more than its mailboxes' names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping
from typing import TYPE_CHECKING

from imapshield.errors import CommandRefused, StoreError
from imapshield.mailbox.account_api import INotify
from imapshield.mailbox.values import AccountEvent, MailboxInfo
from imapshield.session import mailbox_filters
from imapshield.session.handlers import mailboxes
from imapshield.session.states import State
from imapshield.wire import encode
from imapshield.wire.commands.append import Append, Replace
from imapshield.wire.commands.mailboxes import Create, Delete, Rename, Subscribe
from imapshield.wire.commands.metadata import SetMetadata
from imapshield.wire.commands.notify import EventGroup, Notify
from imapshield.wire.commands.store_copy import Copy
from imapshield.wire.names import DELIMITER, parent_names
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
NEW, FLAGS = b"MESSAGENEW", b"FLAGCHANGE"
EVERYTHING = frozenset({NEW, b"MESSAGEEXPUNGE", FLAGS})
"""What a client hears of the selected mailbox as long as it has sent no NOTIFY (section 3.1)."""
MOST_LINES = 1000
"""Changes of names, subscriptions and metadata waiting to be told; beyond it RFC 5465's NOTIFICATIONOVERFLOW."""

_SELECTED = frozenset({b"SELECTED", b"SELECTED-DELAYED"})
_KNOWN_EVENTS = frozenset(name.upper() for name in EVENTS)


async def notify(session: Session, command: Notify) -> Tagged:
    """NOTIFY SET and NONE: each takes the place of the one before."""
    if any(not group.events <= _KNOWN_EVENTS for group in command.groups):
        raise CommandRefused(
            b"BADEVENT " + encode.parenthesised(EVENTS), "Some events are not known here"
        )
    if command.groups and session.state is State.SELECTED:
        await session.mailbox.poll()
        session.send_pending_updates(expunge=True, mine=True)  # "implies an implicit NOOP command"
    session.stop_notices()
    if not command.groups:
        return ok("Nothing is told any more")
    subscribed = await session.account.subscriptions()
    notices = NotifySubscription(session, command.groups, subscribed)
    account = INotify(session.account)
    session.notify_subscription = notices
    if notices.selected is not None:
        session.subscribed_events = notices.selected.events
    account.add_listener(notices.happened)
    await notices.listen()
    if session.state is State.SELECTED and notices.selected is not None:
        await session.mailbox.watch_for_changes()
    if command.status:
        for name in await mailbox_filters.resolve(
            session, [group.filter for group in command.groups]
        ):
            if NEW in notices.events(name):
                await notices.tell_status(name)
    return ok("Those are told")


class NotifySubscription:
    """What a client wants to be told, and what of it waits. `selected` is the group of the selected mailbox."""

    def __init__(
        self, session: Session, groups: tuple[EventGroup, ...], subscribed: set[str]
    ) -> None:
        self._session = session
        self._groups = [group for group in groups if group.filter.kind not in _SELECTED]
        self._subscribed = subscribed
        self._changed: dict[str, None] = {}
        self._told: dict[str, int] = {}
        self._happened: list[AccountEvent] = []
        self._overflowed = False
        self._telling = False
        self.selected = next((g for g in groups if g.filter.kind in _SELECTED and g.events), None)

    @property
    def delayed(self) -> bool:
        """Whether expunges wait for a command that permits them."""
        return self.selected is None or self.selected.filter.kind == b"SELECTED-DELAYED"

    def is_selected(self, name: str) -> bool:
        """Whether `name` is the selected mailbox, of whose messages `selected` alone decides."""
        session = self._session
        return session.state is State.SELECTED and session.mailbox.name == name

    def events(self, name: str) -> frozenset[bytes]:
        """The events that the groups which mean `name` ask for together; none if one of them says NONE (section 6)."""
        meant = [
            group.events
            for group in self._groups
            if mailbox_filters.means(self._session, group.filter, name, self._subscribed)
        ]
        return frozenset().union(*meant) if all(meant) else frozenset()

    async def listen(self) -> None:
        """Hear of mail from outside in all mailboxes of which messages are to be told."""
        account = self._session.account
        try:
            names = [info.name for info in await account.mailboxes() if info.selectable]
        except StoreError:  # whoever opens one is told
            return
        await INotify(account).watch_mailboxes([name for name in names if NEW in self.events(name)])

    def happened(self, what: AccountEvent) -> None:
        """Note what happened in the account (`interfaces.INotify`)."""
        before = self.events(what.name)
        if what.old:
            before |= self.events(what.old)
        if what.kind == "subscribed":
            self._subscribed.add(what.name)
        elif what.kind == "unsubscribed":
            self._subscribed.discard(what.name)
        events = before | self.events(what.name)
        if what.kind in ("created", "renamed", "subscribed"):
            self._session.io.run_in_background(self.listen())
        if self._is_own(what):
            return
        if what.kind in ("messages", "flags"):
            kind = NEW if what.kind == "messages" else FLAGS
            if kind in events and not self.is_selected(what.name):
                self._changed[what.name] = None
        elif self._wanted(what, events):
            self._happened.append(what)
            if len(self._happened) > MOST_LINES:
                self._overflow()
        if what.kind in ("created", "renamed") and FLAGS in self.events(what.name):
            self._changed[what.name] = None  # it may have another UIDVALIDITY now (section 5.1)
        self.settle()

    def _overflow(self) -> None:
        """Go on as after NOTIFY NONE, and say so (section 5.8)."""
        session = self._session
        INotify(session.account).remove_listener(self.happened)
        session.subscribed_events = frozenset()
        self._groups, self.selected = [], None
        self._happened.clear()
        self._changed.clear()
        self._overflowed = True

    def _is_own(self, what: AccountEvent) -> bool:
        """Whether the client's own command did this, which it need not be told (section 5). Once a command."""
        session = self._session
        match session.command:
            case Create(name):
                mine = "created", name.removesuffix(DELIMITER)
            case Delete(name):
                mine = "deleted", name
            case Rename(_, name):
                mine = "renamed", name.removesuffix(DELIMITER)
            case Subscribe(name, on):
                mine = "subscribed" if on else "unsubscribed", name
            case SetMetadata(name):
                mine = "metadata", name
            case Append(name) | Copy(_, name) | Replace(_, name):
                mine = "messages", name
            case _:
                return False
        if mine != (what.kind, what.name):
            return False
        session.command = None
        return True

    def _wanted(self, what: AccountEvent, events: frozenset[bytes]) -> bool:
        match what.kind:
            case "metadata" if what.name:
                return b"MAILBOXMETADATACHANGE" in events
            case "metadata":
                return any(b"SERVERMETADATACHANGE" in group.events for group in self._groups)
            case "subscribed" | "unsubscribed":
                return b"SUBSCRIPTIONCHANGE" in events
            case _:  # one of the superiors may be what the client looks at
                names = [what.name, *parent_names(what.name)]
                return b"MAILBOXNAME" in events.union(*map(self.events, names))

    def settle(self) -> None:
        """Tell what waits, unless a command is running."""
        waits = self._changed or self._happened or self._overflowed
        if waits and not self._telling and not self._session.busy:
            self._telling = True
            self._session.io.run_in_background(self._tell())

    async def _tell(self) -> None:
        session = self._session
        try:
            await session.io.drain()
            while not session.busy and session.state is not State.LOGOUT:
                if session.notify_subscription is not self:
                    break
                if self._overflowed:
                    self._overflowed = False
                    code = b"NOTIFICATIONOVERFLOW"
                    session.io.write(encode.untagged(b"OK", "Too much happened", code))
                elif self._happened:
                    await self._tell_happened()
                elif self._changed:
                    name = next(iter(self._changed))
                    del self._changed[name]
                    await self.tell_status(name)
                else:
                    break
        finally:
            self._telling = False

    async def _tell_happened(self) -> None:
        """Write what LIST and METADATA say now of the mailboxes to which something happened."""
        session = self._session
        try:
            infos = {info.name: info for info in await session.account.mailboxes()}
        except StoreError:
            self._happened.clear()
            return
        if session.busy or session.notify_subscription is not self:
            return
        below = Counter(above for name in infos for above in parent_names(name))
        out: dict[bytes, None] = {}
        for what in self._happened:
            if what.kind == "metadata":
                line = encode.metadata_changed(what.name, what.entries, utf8=session.utf8)
                out[line] = None
                continue
            for name in self._affected(what, infos, below):
                out[self._list_line(name, what.old, infos, below)] = None
        self._happened.clear()
        session.io.write(b"".join(out))

    def _affected(
        self, what: AccountEvent, infos: Container[str], below: Mapping[str, int]
    ) -> list[str]:
        """The mailbox, and the parent of one that came or went (section 5.4), with what may have come with it: that
        has no others below it, `below` being how many there are."""
        path = [what.name]
        if what.kind in ("created", "deleted"):
            for name in reversed(parent_names(what.name)):
                others = below[name] > sum(one in infos for one in path)
                path.append(name)
                if what.kind == "deleted" or others:
                    break
        if what.kind in ("subscribed", "unsubscribed", "renamed"):
            return path
        return [name for name in path if b"MAILBOXNAME" in self.events(name)]

    def _list_line(
        self, name: str, old: str, infos: dict[str, MailboxInfo], above: Container[str]
    ) -> bytes:
        utf8 = self._session.utf8
        shown = mailboxes.attributes(name, infos, above, extended=True)
        if name in self._subscribed:
            shown.append(b"\\Subscribed")
        extended = []
        if old:
            extended = [(b"OLDNAME", encode.parenthesised([encode.mailbox(old, utf8=utf8)]))]
        return encode.list_response(b"LIST", shown, name, extended=extended, utf8=utf8)

    async def tell_status(self, name: str) -> None:
        """Write STATUS of a mailbox; one that has gone meanwhile is left out, and so is what was told last."""
        session = self._session
        try:
            found = await session.account.status(name)
        except StoreError:
            return
        if session.notify_subscription is not self or self.is_selected(name):
            return
        if session.busy and self._telling:
            self._changed[name] = None
            return
        items: list[tuple[bytes, int | bytes]] = [
            (b"MESSAGES", found.messages),
            (b"UIDNEXT", found.uidnext),
            (b"UIDVALIDITY", found.uidvalidity),
        ]
        flags = FLAGS in self.events(name)
        if flags:
            items.append((b"UNSEEN", found.unseen))
        if flags or session.condstore:  # a change of flags is seen by it (RFC 5465 section 5.1)
            items.append((b"HIGHESTMODSEQ", found.highestmodseq))
        line = encode.status(name, items, utf8=session.utf8)
        if self._told.get(name) != hash(line):  # a bell rings more than once
            self._told[name] = hash(line)
            session.io.write(line)
