"""NOTIFY (RFC 5465): the mailboxes and events that a client has subscribed to, and the responses pending for it.

Rules
-----
* Nothing is written while a command other than IDLE runs: a line in the middle of a streamed FETCH would become part of
  a message. Events during a command are sent when it is completed.
* Pending STATUS responses are a set of names, so a client that does not read its input needs no more memory than the
  names of its mailboxes.
"""

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

from imapshield.errors import StoreError
from imapshield.mailbox.account_api import INotify
from imapshield.mailbox.values import AccountEvent, MailboxInfo
from imapshield.session.background import BackgroundSender
from imapshield.session.mailbox_names import list_attributes, matches
from imapshield.session.state import FLAG_CHANGE, MESSAGE_NEW, SessionState
from imapshield.wire import encode, strings
from imapshield.wire.commands import mailboxes
from imapshield.wire.commands.base import Command
from imapshield.wire.commands.messages import Append, Copy, Replace
from imapshield.wire.names import parent_names

MAX_PENDING_EVENTS = 1000
"""Maximum number of pending changes of names, subscriptions and metadata.

One more is a NOTIFICATIONOVERFLOW (RFC 5465 section 5.8).
"""

NAMES_PER_TURN = 500
"""Mailbox names that are compared with the event groups before other connections run."""


class NotifySubscription:
    """The events that a client has subscribed to with NOTIFY SET, and the responses that are pending for them.

    Args:
        session: the session.
        groups: the event groups of the command.
        subscribed: the names of the subscribed mailboxes; updated by `on_event`.

    Attributes:
        selected: the event group of the selected mailbox, or None.
    """

    def __init__(
        self, session: SessionState, groups: Sequence[mailboxes.EventGroup], subscribed: set[str]
    ) -> None:
        self._session = session
        self._groups = [group for group in groups if not group.filter.is_selected]
        self._subscribed = subscribed
        self._changed: dict[str, None] = {}
        self._status_hashes: dict[str, int] = {}
        self._events: list[AccountEvent] = []
        self._overflowed = False
        self._active = True
        self._is_watching = self._must_watch_again = False
        self._background = BackgroundSender(session, self._send_pending)
        self.selected = next((g for g in groups if g.filter.is_selected and g.events), None)

    async def start(self) -> None:
        """Begin to listen for events."""
        if self.selected is not None:
            self._session.subscribed_events = self.selected.events
        INotify(self._session.account).add_listener(self.on_event)
        await self._watch_mailboxes()

    def cancel(self) -> None:
        """End the subscription; pending responses are dropped."""
        self._active = False
        INotify(self._session.account).remove_listener(self.on_event)

    def events(self, name: str) -> frozenset[bytes]:
        """Return the events of mailbox `name` that the client has subscribed to.

        These are the events of all groups that match the mailbox, or none if one of these groups is NONE (section 6).
        """
        events = [
            group.events
            for group in self._groups
            if matches(self._session, group.filter, name, self._subscribed)
        ]
        return frozenset().union(*events) if all(events) else frozenset()

    async def _watch_mailboxes(self) -> None:
        """Watch the file system for new mail in all mailboxes with MessageNew events.

        A thousand CREATEs make it look for new mailboxes a few times, because each look lists all mailboxes.
        """
        self._must_watch_again = True
        if self._is_watching:
            return
        self._is_watching = True
        try:
            while self._must_watch_again and self._active:
                self._must_watch_again = False
                await self._watch_present_mailboxes()
        except StoreError:  # the next command that uses the store reports it
            return
        finally:
            self._is_watching = False

    async def _watch_present_mailboxes(self) -> None:
        account = self._session.account
        names = [info.name for info in await account.mailboxes() if info.selectable]
        wanted: list[str] = []
        for start in range(0, len(names), NAMES_PER_TURN):
            if start:
                await self._session.io.drain()
            part = names[start : start + NAMES_PER_TURN]
            wanted += [name for name in part if MESSAGE_NEW in self.events(name)]
        await INotify(account).watch_mailboxes(wanted)

    def on_event(self, event: AccountEvent) -> None:
        """Make the response to an event of the account pending; a listener of `mailbox.account_api.INotify`."""
        events = self.events(event.name)
        if event.old:
            events |= self.events(event.old)
        if event.kind == "subscribed":
            self._subscribed.add(event.name)
        elif event.kind == "unsubscribed":
            self._subscribed.discard(event.name)
        events |= self.events(event.name)
        if event.kind in ("created", "renamed", "subscribed"):
            self._session.run_in_background(self._watch_mailboxes())
        if _effect(self._session.command) == (event.kind, event.name):
            # The client's own command needs no response (section 5), but it causes only one event that is its own.
            self._session.command = None
            return
        self._add(event, events)
        self.schedule()

    def _add(self, event: AccountEvent, events: frozenset[bytes]) -> None:
        if event.kind in ("messages", "flags"):
            wanted = MESSAGE_NEW if event.kind == "messages" else FLAG_CHANGE
            if wanted in events and not self._session.is_selected(event.name):
                self._changed[event.name] = None
        elif self._is_wanted(event, events):
            self._events.append(event)
            if len(self._events) > MAX_PENDING_EVENTS:
                self._overflow()
        if event.kind in ("created", "renamed") and FLAG_CHANGE in self.events(event.name):
            self._changed[event.name] = None  # the name may have a new UIDVALIDITY (section 5.1)

    def _overflow(self) -> None:
        """End the subscription as NOTIFY NONE would, and send NOTIFICATIONOVERFLOW (section 5.8)."""
        INotify(self._session.account).remove_listener(self.on_event)
        self._session.subscribed_events = frozenset()
        self._groups, self.selected = [], None
        self._events.clear()
        self._changed.clear()
        self._overflowed = True

    def _is_wanted(self, event: AccountEvent, events: frozenset[bytes]) -> bool:
        match event.kind:
            case "metadata" if event.name:
                return b"MAILBOXMETADATACHANGE" in events
            case "metadata":
                return any(b"SERVERMETADATACHANGE" in group.events for group in self._groups)
            case "subscribed" | "unsubscribed":
                return b"SUBSCRIPTIONCHANGE" in events
            case _:  # the client may have subscribed to events of a parent
                names = [event.name, *parent_names(event.name)]
                return b"MAILBOXNAME" in events.union(*map(self.events, names))

    def schedule(self) -> None:
        """Send the pending responses soon, unless a command is running."""
        if self._changed or self._events or self._overflowed:
            self._background.schedule()

    async def _send_pending(self) -> None:
        session = self._session
        while await session.may_send_unsolicited() and self._active:
            if self._overflowed:
                self._overflowed = False
                code = b"NOTIFICATIONOVERFLOW"
                session.io.write(encode.untagged(b"OK", "Too many notifications", code))
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
        session = self._session
        try:
            infos = {info.name: info for info in await session.account.mailboxes()}
        except StoreError:
            self._events.clear()
            return
        if not await session.may_send_unsolicited() or not self._active:
            return
        events, self._events = self._events, []
        await session.send(self._event_lines(events, infos))

    def _event_lines(
        self, events: Iterable[AccountEvent], infos: Mapping[str, MailboxInfo]
    ) -> Iterator[bytes]:
        """Yield the LIST and METADATA responses for `events`, each of them once."""
        child_counts = Counter(parent for name in infos for parent in parent_names(name))
        sent: set[int] = set()
        for event in events:
            if event.kind == "metadata":
                names = self._session.names
                lines = [encode.metadata_changed(event.name, event.entries, names=names)]
            else:
                affected = self._affected(event, infos, child_counts)
                lines = [self._list_line(n, event.old, infos, child_counts) for n in affected]
            yield from (line for line in lines if hash(line) not in sent)
            sent.update(map(hash, lines))

    def _affected(
        self, event: AccountEvent, infos: Container[str], child_counts: Mapping[str, int]
    ) -> list[str]:
        r"""Return the mailbox of an event, and the parents whose attributes it changes (section 5.4).

        CREATE makes missing parents, too. A parent without other children is one of them, and so has changed the
        attributes of its own parent.
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
        names, subscribed = self._session.names, name in self._subscribed
        info, has_children = infos.get(name), name in parents
        attributes = list_attributes(info, has_children=has_children, subscribed=subscribed)
        old_name = strings.parenthesised([strings.mailbox(old, names=names)])
        extended = [(b"OLDNAME", old_name)] if old else []
        return encode.list_response(b"LIST", attributes, name, extended=extended, names=names)

    async def send_status(self, name: str, *, background: bool = False) -> None:
        """Send the STATUS response of a mailbox, unless it was deleted or the response would repeat the last one.

        Args:
            name: the mailbox.
            background: whether no command is running. If one begins before the status is known, the response becomes
                pending again.
        """
        session = self._session
        try:
            found = await session.account.status(name)
        except StoreError:
            return
        may_send = not background or await session.may_send_unsolicited()
        if not self._active or session.is_selected(name):
            return
        if not may_send:
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
        if flags or session.condstore:  # a change of flags increases it (section 5.1)
            items.append((b"HIGHESTMODSEQ", found.highestmodseq))
        line = encode.status(name, items, names=session.names)
        # The file system can report a change several times.
        if self._status_hashes.get(name) != hash(line):
            self._status_hashes[name] = hash(line)
            await session.send([line])


def _effect(command: Command | None) -> tuple[str, str] | None:
    """Return the kind and the mailbox of the event that a command causes, None if it causes none."""
    match command:
        case mailboxes.Create(name):
            return "created", name
        case mailboxes.Delete(name):
            return "deleted", name
        case mailboxes.Rename(_, name):
            return "renamed", name
        case mailboxes.Subscribe(name, subscribe):
            return "subscribed" if subscribe else "unsubscribed", name
        case mailboxes.SetMetadata(name):
            return "metadata", name
        case Append(name) | Copy(_, name) | Replace(_, name):
            return "messages", name
    return None
