"""NOTIFY (RFC 5465): subscribe to events in mailboxes, selected or not."""

from imapshield.errors import CommandRefused
from imapshield.session import mailbox_names
from imapshield.session.notifications import NotifySubscription
from imapshield.session.session import Session
from imapshield.session.state import MESSAGE_NEW, State
from imapshield.wire import strings
from imapshield.wire.commands.mailboxes import Notify
from imapshield.wire.responses import Tagged, ok

EVENTS = (
    b"MessageNew MessageExpunge FlagChange MailboxName SubscriptionChange MailboxMetadataChange"
    b" ServerMetadataChange".split()
)
"""The supported events, as BADEVENT lists them."""
_KNOWN_EVENTS = frozenset(name.upper() for name in EVENTS)


async def notify(session: Session, command: Notify) -> Tagged:
    """Handle NOTIFY SET and NOTIFY NONE (RFC 5465), which replace the previous subscription."""
    if any(not group.events <= _KNOWN_EVENTS for group in command.groups):
        raise CommandRefused(b"BADEVENT " + strings.parenthesised(EVENTS), "Unsupported event")
    if command.groups and session.state is State.SELECTED:
        await session.mailbox.poll()
        # The command "implies an implicit NOOP command".
        await session.send_pending_updates(expunge=True, own=True)
    session.cancel_notify()
    if not command.groups:
        return ok("NOTIFY completed")
    subscribed = await session.account.subscriptions()
    subscription = NotifySubscription(session, command.groups, subscribed)
    session.notify_subscription = subscription
    await subscription.start()
    if session.state is State.SELECTED and session.selected_group is not None:
        await session.mailbox.watch_for_changes()
    if command.status:
        filters = [group.filter for group in command.groups]
        for name in await mailbox_names.matching_mailboxes(session, filters):
            if MESSAGE_NEW in subscription.events(name):
                await subscription.send_status(name)
    return ok("NOTIFY completed")
