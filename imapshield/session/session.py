"""`Session`: the state of one client, with the pending updates that it is sent between and after commands.

Rules
-----
* Pending updates are sent before the tagged response of a command, and EXPUNGE only if the command permits it.
* Between commands, updates are sent in IDLE and as NOTIFY demands.
"""

import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from imapshield.errors import CommandRefused
from imapshield.limits import Limits
from imapshield.mailbox.account_api import IAccount, IMailbox
from imapshield.mailbox.deltas import Change
from imapshield.mailbox.view import PendingUpdates, View
from imapshield.session.background import BackgroundSender
from imapshield.session.capabilities import capability_names
from imapshield.session.command_spec import CommandSpec
from imapshield.session.connection import Connection
from imapshield.session.fetch_responses import FLAGS, send_known_items
from imapshield.session.new_messages import NewMessages
from imapshield.session.notifications import NotifySubscription
from imapshield.session.qresync import send_synced_modseq
from imapshield.session.search_contexts import SearchContexts
from imapshield.session.state import FLAG_CHANGE, MESSAGE_EVENTS, SessionState, State
from imapshield.wire import encode
from imapshield.wire.sequence import SequenceSet


class Session(SessionState):
    """One client's session.

    Args:
        io: the connection.
        limits: the limits of the server.
        specs: the commands of the server, from which the capabilities follow.
        now: returns the seconds since the epoch.

    Attributes:
        notify_subscription: what NOTIFY SET has subscribed to, or None.
        mailbox_changed: whether the selected mailbox has changed since the running command began.
    """

    def __init__(
        self,
        io: Connection,
        limits: Limits,
        specs: Mapping[bytes, CommandSpec[Any]],
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(io, limits, now)
        self.new_messages = NewMessages(self)
        self.search_contexts = SearchContexts(self, self.new_messages)
        self.notify_subscription: NotifySubscription | None = None
        self.mailbox_changed = False
        self._specs = specs
        self._own_uids: set[int] = set()
        self._background = BackgroundSender(self, self._send_in_background)

    def capabilities(self) -> list[bytes]:
        """Return the capabilities of the session in its present state."""
        return capability_names(self, self._specs.values())

    def begin_command(self, tag: bytes) -> None:
        """Reset the state that belongs to one command."""
        super().begin_command(tag)
        self.mailbox_changed = False

    # Login and logout.

    def log_in(self, account: IAccount) -> None:
        """Enter state AUTHENTICATED as the user of `account`."""
        self._account = account
        self.state = State.AUTHENTICATED

    def log_out(self) -> None:
        """Return to state NOT_AUTHENTICATED, with nothing enabled (RFC 8437)."""
        self.cancel_notify()
        self.subscribed_events = MESSAGE_EVENTS
        self.leave()
        self.enabled.clear()
        self._account = None
        self.state = State.NOT_AUTHENTICATED

    def disconnected(self) -> None:
        """Release everything, because the connection has ended."""
        self.cancel_notify()
        self.leave()
        self.state = State.LOGOUT
        self._account = None

    # The selected mailbox.

    def select(self, mailbox: IMailbox, view: View, *, readonly: bool) -> None:
        """Enter state SELECTED. The caller has left the previous mailbox, and awaits nothing after opening this one."""
        self._mailbox, self._view, self.readonly = mailbox, view, readonly
        mailbox.subscribe(self._on_change, not readonly)
        if self.state is State.LOGOUT:  # the connection ended while the mailbox was being opened
            self.leave()
            raise CommandRefused(None, "Connection closed")
        self.announced_keywords = len(mailbox.columns.keywords)
        self.saved_search = ()
        self.state = State.SELECTED

    def leave(self) -> None:
        """Leave the selected mailbox, if there is one."""
        if self._mailbox is not None:
            self._mailbox.unsubscribe(self._on_change)
        self._mailbox = self._view = None
        self.search_contexts.clear()
        self.new_messages.clear()
        self._own_uids.clear()
        self.saved_search = ()
        if self.state is State.SELECTED:
            self.state = State.AUTHENTICATED

    def note_own_uids(self, mailbox: str, uids: Iterable[int]) -> None:
        """Note messages that this client has stored itself, so that NOTIFY does not send their items."""
        if self.is_selected(mailbox):
            self._own_uids.update(uids)

    # Pending updates.

    def _on_change(self, change: Change) -> None:
        if self._view is not None:
            self._view.on_change(change)
            self.search_contexts.on_change(change)
            self.mailbox_changed = True
            if self.idling or self.notify_subscription is not None:
                self._background.schedule()

    async def _send_in_background(self) -> None:
        if self._view is not None:
            if self.idling:
                self.send_pending_updates(expunge=True)
            else:
                self._send_subscribed_updates()

    def _send_subscribed_updates(self) -> None:
        subscription = self.notify_subscription
        if subscription is not None and subscription.selected is not None:
            self.send_pending_updates(expunge=not subscription.delayed)

    def after_command(self) -> None:
        """Send between commands what became pending during the last one."""
        if self._view is not None:
            self._send_subscribed_updates()
        if self.notify_subscription is not None:
            self.notify_subscription.schedule()
        self.search_contexts.schedule()

    def cancel_notify(self) -> None:
        """Send nothing between commands, and no changes by others to the selected mailbox (NOTIFY NONE)."""
        self.subscribed_events = frozenset()
        if self.notify_subscription is not None:
            self.notify_subscription.cancel()
            self.notify_subscription = None

    def send_pending_updates(self, *, expunge: bool, uid: bool = False, own: bool = False) -> None:
        """Send what has changed in the selected mailbox since the last update.

        Changes that NOTIFY does not include wait for the next NOTIFY SET (RFC 5465 section 5: "can be used as a
        snapshot facility").

        Args:
            expunge: whether EXPUNGE responses are permitted now.
            uid: whether FETCH responses must carry the UID.
            own: whether the client itself has changed the mailbox; then everything is sent.
        """
        if own or self.subscribed_events:
            last_uid = self.view.uids[-1] if self.view.uids else 0
            flags = own or FLAG_CHANGE in self.subscribed_events
            updates = self.view.take_updates(expunge=expunge, flags=flags)
            if updates is None:
                return
            self._send_updates(updates, last_uid, uid=uid)
        send_synced_modseq(self)
        self.search_contexts.schedule()

    def _send_updates(self, updates: PendingUpdates, last_uid: int, *, uid: bool) -> None:
        if updates.vanished:
            self.search_contexts.send_removals(updates.vanished, updates.expunged[::-1])
        if updates.vanished and (self.qresync or self.uid_only):
            self.io.write(encode.vanished(SequenceSet.from_uids(updates.vanished)))
        elif updates.expunged:
            self.io.write(encode.expunge(updates.expunged))
        if updates.exists is not None:
            self.io.write(encode.exists(updates.exists))
        if updates.recent is not None and not self.rev2:
            self.io.write(encode.recent(updates.recent))
        if updates.exists is not None:
            self._add_new_messages(last_uid)
        if updates.flags:
            uid = uid or self.notify_subscription is not None  # RFC 5465 section 5.1
            send_known_items(self, [changed for _, changed in updates.flags], [FLAGS], uid=uid)

    def _add_new_messages(self, last_uid: int) -> None:
        uids = list(self.view.uids[bisect_right(self.view.uids, last_uid) :])
        others = [uid for uid in uids if uid not in self._own_uids]
        self._own_uids.clear()
        self.search_contexts.on_exists(uids, others)
        subscription = self.notify_subscription
        if subscription is not None and subscription.selected is not None:
            self.new_messages.add(others, subscription.selected.items)
