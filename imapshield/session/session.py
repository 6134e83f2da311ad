"""`Session`: the state of one client, its login and its selected mailbox, and the updates that it is sent.

Rules
-----
* Pending updates are sent before the tagged response of a command, and EXPUNGE only if the command permits it.
* Between commands, updates are sent during IDLE, and to clients that have subscribed to them with NOTIFY.
* When the selected mailbox is deleted, the client gets BYE, at once or after the running command (RFC 2180 section
  3.3): NOOP must not fail, and clients know how to reconnect. A client that deletes it itself just leaves it.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from imapshield.errors import CommandRefused
from imapshield.limits import Limits
from imapshield.mailbox.account_api import IAccount, IMailbox
from imapshield.mailbox.deltas import Change
from imapshield.mailbox.view import PendingUpdates, View
from imapshield.session.background import BackgroundSender
from imapshield.session.capabilities import CommandCapabilities, capability_names
from imapshield.session.connection import Connection
from imapshield.session.fetch_responses import flag_updates
from imapshield.session.new_messages import NewMessages
from imapshield.session.notifications import NotifySubscription
from imapshield.session.search_contexts import SearchContexts
from imapshield.session.state import DEFAULT_EVENTS, FLAG_CHANGE, SessionState, State
from imapshield.wire import encode
from imapshield.wire.commands.mailboxes import EventGroup
from imapshield.wire.pieces import PIECE_SIZE

_NO_UIDS: frozenset[int] = frozenset()


class Session(SessionState):
    """One client's session.

    Args:
        io: the connection.
        limits: the limits of the server.
        commands: the capabilities of the commands of the server.
        now: returns the seconds since the epoch.

    Attributes:
        notify_subscription: the events that the client has subscribed to with NOTIFY SET, or None.
    """

    def __init__(
        self,
        io: Connection,
        limits: Limits,
        commands: CommandCapabilities,
        now: Callable[[], float],
    ) -> None:
        super().__init__(io, limits, now)
        self.notify_subscription: NotifySubscription | None = None
        self._own_uids = _NO_UIDS
        self._search_contexts: SearchContexts | None = None
        self._commands = commands
        self._background = BackgroundSender(self, self._send_in_background)

    @property
    def search_contexts(self) -> SearchContexts:
        """Sends changes in the results of searches, and FETCH responses for new messages.

        It is made when the client uses one of these extensions. Most clients never do, and it takes a kilobyte.
        """
        if self._search_contexts is None:
            self._search_contexts = SearchContexts(self, NewMessages(self))
        return self._search_contexts

    def capabilities(self) -> list[bytes]:
        """Return the capabilities of the session in its present state."""
        return capability_names(self, self._commands)

    @property
    def selected_group(self) -> EventGroup | None:
        """The event group of NOTIFY SET for the selected mailbox, or None if the client has not sent one."""
        return self.notify_subscription.selected if self.notify_subscription else None

    # Login and logout.

    def log_in(self, account: IAccount) -> None:
        """Enter state AUTHENTICATED as the user of `account`."""
        self._account = account
        self.state = State.AUTHENTICATED

    def log_out(self) -> None:
        """Return to state NOT_AUTHENTICATED, with nothing enabled (RFC 8437)."""
        self.cancel_notify()
        self.subscribed_events = DEFAULT_EVENTS
        self.leave()
        self.enabled = frozenset()
        self._account = None
        self.state = State.NOT_AUTHENTICATED

    def disconnected(self) -> None:
        """Release the account and the selected mailbox with all subscriptions, because the connection has ended."""
        self.request.is_abandoned = True
        self.cancel_notify()
        self.leave()
        self.state = State.LOGOUT
        self._account = None

    # The selected mailbox.

    def select(self, mailbox: IMailbox, view: View, *, readonly: bool) -> None:
        """Enter state SELECTED.

        The caller must have left the previous mailbox. It must not await anything between opening `mailbox` and this
        call, so that no change of the mailbox is missed.

        Args:
            mailbox: the mailbox.
            view: the client's view of it.
            readonly: whether it was opened by EXAMINE.

        Raises:
            CommandRefused: the connection has ended.
        """
        self._mailbox, self._view, self.readonly = mailbox, view, readonly
        mailbox.add_listener(self._on_change, not readonly)
        if self.state is State.LOGOUT:  # the connection ended while the mailbox was being opened
            self.leave()
            raise CommandRefused(None, "Connection closed")
        self.announced_keywords = len(mailbox.columns.keywords)
        self.saved_search = ()
        self.state = State.SELECTED

    def leave(self) -> None:
        """Leave the selected mailbox, if there is one."""
        if self._mailbox is not None:
            self._mailbox.remove_listener(self._on_change)
            if self._search_contexts is not None:
                self._search_contexts.clear()
        self._mailbox = self._view = None
        self._own_uids = _NO_UIDS
        self.saved_search = ()
        if self.state is State.SELECTED:
            self.state = State.AUTHENTICATED

    @property
    def has_lost_mailbox(self) -> bool:
        """Whether the selected mailbox no longer exists, or was replaced by a restored one."""
        return self._mailbox is not None and self._mailbox.deleted

    def _disconnect(self) -> None:
        text = "Selected mailbox was deleted or restored; log in again"
        self.io.write(encode.untagged(b"BYE", text))
        self.io.close()

    def note_own_uids(self, mailbox: str, uids: Iterable[int]) -> None:
        """Note that this client has stored messages itself, so that NOTIFY does not send FETCH responses for them."""
        if self.is_selected(mailbox):
            self._own_uids |= frozenset(uids)

    # Pending updates.

    def _on_change(self, change: Change) -> None:
        if self.has_lost_mailbox:
            self._background.schedule()
        elif self._view is not None:
            self._view.on_change(change)
            if self._search_contexts is not None:
                self._search_contexts.on_change(change)
            self.mailbox_changed = True
            if self.idling or self.notify_subscription is not None:
                self._background.schedule()

    async def _send_in_background(self) -> None:
        """Send updates a piece at a time: whether they may be sent can change whenever the client has to read."""
        while await self.may_send_unsolicited():
            if self.has_lost_mailbox:
                self._disconnect()
                return
            group = self.selected_group
            if self._view is None or not (self.idling or group):
                return
            expunge = self.idling or (group is not None and group.filter.kind == b"SELECTED")
            if not await self._send_some_updates(expunge=expunge):
                return

    def after_command(self) -> None:
        """Send the responses that became pending during a command and may be sent between commands."""
        mailbox = self._mailbox
        if mailbox is not None and mailbox.deleted:
            self._disconnect()
            return
        if mailbox is not None and self.selected_group is not None:
            self._background.schedule()
        self.schedule_pending()

    def schedule_pending(self) -> None:
        """Send the events of NOTIFY and the changes of search results that became pending during a command soon."""
        if self.notify_subscription is not None:
            self.notify_subscription.schedule()
        self._schedule_contexts()

    def _schedule_contexts(self) -> None:
        if self._mailbox is not None and self._search_contexts is not None:
            self._search_contexts.schedule()

    async def refresh_contexts(self) -> None:
        """Send the changes of search results, and FETCH responses for new messages, before a tagged response."""
        if self._search_contexts is not None:
            await self._search_contexts.refresh()
            await self._search_contexts.new_messages.send()

    def cancel_notify(self) -> None:
        """End the subscription, and send no changes of the selected mailbox by other sessions (NOTIFY NONE)."""
        self.subscribed_events = frozenset()
        if self.notify_subscription is not None:
            self.notify_subscription.cancel()
            self.notify_subscription = None

    def schedule_updates(self) -> None:
        """Send the pending updates soon, as far as they may be sent between commands or during IDLE."""
        self._background.schedule()

    async def send_pending_updates(
        self, *, expunge: bool, uid: bool = False, own: bool = False, wait: bool = True
    ) -> None:
        """Send the changes of the selected mailbox since the last update, before a tagged response.

        Changes that are not among the subscribed events stay pending until the next NOTIFY SET (RFC 5465 section 5:
        "can be used as a snapshot facility"). Changes during this call can stay pending, too; otherwise other sessions
        could delay the tagged response forever.

        Args:
            expunge: whether EXPUNGE responses are permitted now.
            uid: whether FETCH responses must carry the UID.
            own: whether the client itself has changed the mailbox; then all changes are sent.
            wait: whether to wait for a client that reads slowly. Otherwise the rest stays pending.
        """
        for _ in range(self.view.pending_count + 1):
            if not wait and self.io.full:
                self.send_synced_modseq()
                break
            if not await self._send_some_updates(expunge=expunge, uid=uid, own=own):
                break

    async def _send_some_updates(
        self, *, expunge: bool, uid: bool = False, own: bool = False
    ) -> bool:
        """Send pending updates that fit in a piece, and return whether more can be sent."""
        view = self.view
        if own or self.subscribed_events:
            flags = own or FLAG_CHANGE in self.subscribed_events
            last_uid = view.uids[-1] if view.uids else 0
            updates = view.take_updates(expunge=expunge, flags=flags, size=PIECE_SIZE)
            if updates is None:
                return False
            await self.send(self._responses(updates, last_uid, uid=uid))
            if updates.more:
                return True
        if self._view is view:
            self.send_synced_modseq()
            self._schedule_contexts()
        return False

    def send_synced_modseq(self) -> None:
        """Send a QRESYNC client the HIGHESTMODSEQ up to which it is in sync, if updates are pending.

        Without it, a client that has seen a higher MODSEQ and loses its connection now would never learn of the pending
        updates (RFC 7162 section 6).
        """
        if self.qresync and self.view.has_pending_updates:
            code = b"HIGHESTMODSEQ %d" % self.view.synced_modseq
            self.io.write(encode.untagged(b"OK", "Some updates are pending", code))

    def _responses(self, updates: PendingUpdates, last_uid: int, *, uid: bool) -> Iterator[bytes]:
        """Return the responses to `updates`. They are one unit: between them the client's view and ours differ."""
        parts: list[Iterable[bytes]] = []
        if updates.vanished:
            if self._search_contexts is not None:
                removals = self._search_contexts.removals(updates.vanished, updates.expunged[::-1])
                parts.append(removals)
            if self.qresync or self.uid_only:
                parts.append(encode.vanished(updates.vanished))
            else:
                parts.append(encode.expunge(updates.expunged))
        if updates.exists is not None:
            parts.append([encode.exists(updates.exists)])
        if updates.recent is not None and not self.rev2:
            parts.append([encode.recent(updates.recent)])
        if updates.exists is not None:
            self._add_new_messages(last_uid)
        if updates.flags:
            uid = uid or self.notify_subscription is not None  # RFC 5465 section 5.1
            parts.append(flag_updates(self, updates.flags, uid=uid))
        return chain.from_iterable(parts)

    def _add_new_messages(self, last_uid: int) -> None:
        uids = self.view.uids[bisect_right(self.view.uids, last_uid) :]
        others = [uid for uid in uids if uid not in self._own_uids]
        self._own_uids = _NO_UIDS
        if self._search_contexts is not None:
            self._search_contexts.on_exists(uids, others)
        if self.selected_group is not None and self.selected_group.items:
            self.search_contexts.new_messages.add(others, self.selected_group.items)
