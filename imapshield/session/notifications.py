"""NOTIFY (RFC 5465): the mailboxes and events that a client has subscribed to, and the responses pending for it.

Rules
-----
* Nothing is written while a command runs, IDLE excepted: a line in the middle of a streamed FETCH would become part of
  a message. What happens meanwhile is sent when the command is done.
* Pending STATUS responses are a set of names, so a client that does not read costs no more than the names of its
  mailboxes.
"""

from collections import Counter
from collections.abc import Container, Mapping

from imapshield.errors import StoreError
from imapshield.mailbox.account_api import INotify
from imapshield.mailbox.values import AccountEvent, MailboxInfo
from imapshield.session import mailbox_names
from imapshield.session.background import BackgroundSender
from imapshield.session.state import FLAG_CHANGE, MESSAGE_NEW, SessionState, State
from imapshield.wire import encode
from imapshield.wire.commands.base import Command
from imapshield.wire.commands.mailboxes import (
    Create,
    Delete,
    EventGroup,
    Rename,
    SetMetadata,
    Subscribe,
)
from imapshield.wire.commands.messages import Append, Copy, Replace
from imapshield.wire.names import DELIMITER, parent_names

MAX_PENDING_EVENTS = 1000
"""Pending changes of names, subscriptions and metadata; beyond it NOTIFICATIONOVERFLOW (section 5.8)."""

_SELECTED = frozenset({b"SELECTED", b"SELECTED-DELAYED"})


class NotifySubscription:
    """What a client has subscribed to with NOTIFY SET.

    Args:
        state: the session.
        groups: the event groups of the command.
        subscribed: the subscribed mailboxes of the account.

    Attributes:
        selected: the event group of the selected mailbox, or None.
    """

    def __init__(
        self, state: SessionState, groups: tuple[EventGroup, ...], subscribed: set[str]
    ) -> None:
        self._state = state
        self._groups = [group for group in groups if group.filter.kind not in _SELECTED]
        self._subscribed = subscribed
        self._changed: dict[str, None] = {}
        self._status_hashes: dict[str, int] = {}
        self._events: list[AccountEvent] = []
        self._overflowed = False
        self._active = True
        self._background = BackgroundSender(state, self._send_pending)
        self.selected = next((g for g in groups if g.filter.kind in _SELECTED and g.events), None)

    def start(self) -> None:
        """Begin to listen for events."""
        if self.selected is not None:
            self._state.subscribed_events = self.selected.events
        INotify(self._state.account).add_listener(self.on_event)

    def cancel(self) -> None:
        """End the subscription; pending responses are dropped."""
        self._active = False
        INotify(self._state.account).remove_listener(self.on_event)

    @property
    def delayed(self) -> bool:
        """Whether expunges wait for a command that permits EXPUNGE responses."""
        return self.selected is None or self.selected.filter.kind == b"SELECTED-DELAYED"

    def events(self, name: str) -> frozenset[bytes]:
        """Return the events of mailbox `name` that the client has subscribed to.

        They are those of all groups that match the mailbox; none, if one of the groups says NONE (section 6).
        """
        events = [
            group.events
            for group in self._groups
            if mailbox_names.matches(self._state, group.filter, name, self._subscribed)
        ]
        return frozenset().union(*events) if all(events) else frozenset()

    async def watch_mailboxes(self) -> None:
        """Watch the file system for new mail in all mailboxes whose messages the client has subscribed to."""
        account = self._state.account
        try:
            names = [info.name for info in await account.mailboxes() if info.selectable]
        except StoreError:  # the next command that uses the store reports it
            return
        watched = [name for name in names if MESSAGE_NEW in self.events(name)]
        await INotify(account).watch_mailboxes(watched)

    def on_event(self, event: AccountEvent) -> None:
        """Note an event of the account (`mailbox.account_api.INotify`)."""
        events = self.events(event.name)
        if event.old:
            events |= self.events(event.old)
        if event.kind == "subscribed":
            self._subscribed.add(event.name)
        elif event.kind == "unsubscribed":
            self._subscribed.discard(event.name)
        events |= self.events(event.name)
        if event.kind in ("created", "renamed", "subscribed"):
            self._state.io.run_in_background(self.watch_mailboxes())
        if not self._is_own(event):
            self._add(event, events)
            self.schedule()

    def _add(self, event: AccountEvent, events: frozenset[bytes]) -> None:
        if event.kind in ("messages", "flags"):
            wanted = MESSAGE_NEW if event.kind == "messages" else FLAG_CHANGE
            if wanted in events and not self._state.is_selected(event.name):
                self._changed[event.name] = None
        elif self._is_wanted(event, events):
            self._events.append(event)
            if len(self._events) > MAX_PENDING_EVENTS:
                self._overflow()
        if event.kind in ("created", "renamed") and FLAG_CHANGE in self.events(event.name):
            self._changed[event.name] = None  # its UIDVALIDITY may be another one (section 5.1)

    def _overflow(self) -> None:
        """Continue as after NOTIFY NONE, and send NOTIFICATIONOVERFLOW (section 5.8)."""
        INotify(self._state.account).remove_listener(self.on_event)
        self._state.subscribed_events = frozenset()
        self._groups, self.selected = [], None
        self._events.clear()
        self._changed.clear()
        self._overflowed = True

    def _is_own(self, event: AccountEvent) -> bool:
        """Whether the client's own command caused the event, so that no response is needed (section 5).

        True at most once per command.
        """
        if self._state.command is None or _effect(self._state.command) != (event.kind, event.name):
            return False
        self._state.command = None
        return True

    def _is_wanted(self, event: AccountEvent, events: frozenset[bytes]) -> bool:
        match event.kind:
            case "metadata" if event.name:
                return b"MAILBOXMETADATACHANGE" in events
            case "metadata":
                return any(b"SERVERMETADATACHANGE" in group.events for group in self._groups)
            case "subscribed" | "unsubscribed":
                return b"SUBSCRIPTIONCHANGE" in events
            case _:  # the client may have subscribed to one of the parents
                names = [event.name, *parent_names(event.name)]
                return b"MAILBOXNAME" in events.union(*map(self.events, names))

    def schedule(self) -> None:
        """Send what is pending, unless a command is running."""
        if self._changed or self._events or self._overflowed:
            self._background.schedule()

    async def _send_pending(self) -> None:
        state = self._state
        while self._active and not state.busy and state.state is not State.LOGOUT:
            if self._overflowed:
                self._overflowed = False
                code = b"NOTIFICATIONOVERFLOW"
                state.io.write(encode.untagged(b"OK", "Too many notifications", code))
            elif self._events:
                await self._send_events()
            elif self._changed:
                name = next(iter(self._changed))
                del self._changed[name]
                await self.send_status(name, background=True)
            else:
                break

    async def _send_events(self) -> None:
        """Send LIST and METADATA responses for all pending events."""
        state = self._state
        try:
            infos = {info.name: info for info in await state.account.mailboxes()}
        except StoreError:
            self._events.clear()
            return
        if state.busy or not self._active:
            return
        child_counts = Counter(parent for name in infos for parent in parent_names(name))
        lines: dict[bytes, None] = {}
        for event in self._events:
            if event.kind == "metadata":
                line = encode.metadata_changed(event.name, event.entries, utf8=state.utf8)
                lines[line] = None
                continue
            for name in self._affected(event, infos, child_counts):
                lines[self._list_line(name, event.old, infos, child_counts)] = None
        self._events.clear()
        state.io.write(b"".join(lines))

    def _affected(
        self, event: AccountEvent, infos: Container[str], child_counts: Mapping[str, int]
    ) -> list[str]:
        r"""Return the mailbox of an event, and the parents whose attributes it changes (section 5.4).

        A parent that was created with the mailbox is one that has no other children.
        """
        names = [event.name]
        if event.kind in ("created", "deleted"):
            for parent in reversed(parent_names(event.name)):
                has_others = child_counts[parent] > sum(name in infos for name in names)
                names.append(parent)
                if event.kind == "deleted" or has_others:
                    break
        if event.kind in ("subscribed", "unsubscribed", "renamed"):
            return names
        return [name for name in names if b"MAILBOXNAME" in self.events(name)]

    def _list_line(
        self, name: str, old: str, infos: Mapping[str, MailboxInfo], parents: Container[str]
    ) -> bytes:
        utf8 = self._state.utf8
        attributes = mailbox_names.attributes(name, infos, parents, subscribed=self._subscribed)
        extended = []
        if old:
            extended = [(b"OLDNAME", encode.parenthesised([encode.mailbox(old, utf8=utf8)]))]
        return encode.list_response(b"LIST", attributes, name, extended=extended, utf8=utf8)

    async def send_status(self, name: str, *, background: bool = False) -> None:
        """Send STATUS of a mailbox, unless it has been deleted or is as in the last response.

        In the background, a command that has begun meanwhile makes it pending again.
        """
        state = self._state
        try:
            found = await state.account.status(name)
        except StoreError:
            return
        if not self._active or state.is_selected(name):
            return
        if background and state.busy:
            self._changed[name] = None
            return
        items: list[tuple[bytes, int | bytes]] = [
            (b"MESSAGES", found.messages),
            (b"UIDNEXT", found.uidnext),
            (b"UIDVALIDITY", found.uidvalidity),
        ]
        flags = FLAG_CHANGE in self.events(name)
        if flags:
            items.append((b"UNSEEN", found.unseen))
        if flags or state.condstore:  # the client sees a change of flags by it (section 5.1)
            items.append((b"HIGHESTMODSEQ", found.highestmodseq))
        line = encode.status(name, items, utf8=state.utf8)
        # The file system reports one change several times.
        if self._status_hashes.get(name) != hash(line):
            self._status_hashes[name] = hash(line)
            state.io.write(line)


def _effect(command: Command) -> tuple[str, str] | None:
    """Return the kind and the mailbox of the event that a command causes."""
    match command:
        case Create(name):
            return "created", name.removesuffix(DELIMITER)
        case Delete(name):
            return "deleted", name
        case Rename(_, name):
            return "renamed", name.removesuffix(DELIMITER)
        case Subscribe(name, subscribe):
            return "subscribed" if subscribe else "unsubscribed", name
        case SetMetadata(name):
            return "metadata", name
        case Append(name) | Copy(_, name) | Replace(_, name):
            return "messages", name
    return None
