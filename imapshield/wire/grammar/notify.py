"""NOTIFY (RFC 5465), and the mailbox filters that it shares with ESEARCH (RFC 5465 section 6, RFC 7377)."""

import re

from imapshield.errors import BadCommand, CommandRefused
from imapshield.wire.commands.fetch import FetchItem
from imapshield.wire.commands.mailboxes import EventGroup, MailboxFilter, Notify
from imapshield.wire.cursor import Cursor, too_many
from imapshield.wire.grammar.fetch import item_list

KINDS_WITHOUT_NAMES = b"SELECTED SELECTED-DELAYED INBOXES PERSONAL SUBSCRIBED".split()
KINDS = frozenset(KINDS_WITHOUT_NAMES + b"SUBTREE SUBTREE-ONE MAILBOXES".split())
MESSAGE_EVENTS = frozenset(b"MESSAGENEW MESSAGEEXPUNGE FLAGCHANGE ANNOTATIONCHANGE".split())
OTHER_EVENTS = frozenset(
    b"MAILBOXNAME SUBSCRIPTIONCHANGE MAILBOXMETADATACHANGE SERVERMETADATACHANGE".split()
)
_SPACE_BEFORE_LIST = re.compile(rb" (?=\()")


def notify(cursor: Cursor) -> Notify:
    """``notify = "NOTIFY" SP ("SET" [SP "STATUS"] 1*(SP event-group) / "NONE")``."""
    if cursor.skip_word(b"NONE"):
        return Notify(())
    if not cursor.skip_word(b"SET"):
        raise BadCommand("Expected SET or NONE")
    cursor.space("SET")
    status = cursor.skip_word(b"STATUS")
    if status:
        cursor.space("STATUS")
    groups = cursor.list_to_end(lambda: _group(cursor), "event group")
    if sum(group.filter.is_selected for group in groups) > 1:
        raise BadCommand("Only one event group may be for the selected mailbox")
    if len(groups) > cursor.limits.max_patterns:
        text = too_many("event groups in one NOTIFY", cursor.limits.max_patterns)
        raise CommandRefused(b"NOTIFICATIONOVERFLOW", text)
    return Notify(tuple(groups), status)


def _group(cursor: Cursor) -> EventGroup:
    """``event-group = "(" filter-mailboxes SP ("(" event *(SP event) ")" / "NONE") ")"``."""
    cursor.expect(b"(", "Expected an event group in parentheses")
    mailboxes = mailbox_filter(cursor)
    cursor.space("the mailbox filter")
    items: tuple[FetchItem, ...] = ()

    def event() -> bytes:
        nonlocal items
        name = cursor.word("an event")
        may_have_items = name == b"MESSAGENEW" and mailboxes.is_selected
        if may_have_items and cursor.try_match(_SPACE_BEFORE_LIST) is not None:
            items = item_list(cursor)
        return name

    events: list[bytes] = []
    if not cursor.skip_word(b"NONE"):
        events = cursor.list_of(event, "events")
    cursor.expect(b")", "Expected ) after the event group")
    message_events = MESSAGE_EVENTS.intersection(events)
    if message_events and not message_events >= {b"MESSAGENEW", b"MESSAGEEXPUNGE"}:
        raise BadCommand("Message events need both MessageNew and MessageExpunge")
    if mailboxes.is_selected and OTHER_EVENTS.intersection(events):
        raise BadCommand("The selected mailbox has message events only")
    return EventGroup(mailboxes, frozenset(events), items)


def mailbox_filter(cursor: Cursor) -> MailboxFilter:
    """``filter-mailboxes``: a kind without names, or a kind with one mailbox name or a list of them."""
    kind = cursor.word_in(KINDS, "a mailbox filter such as PERSONAL")
    if kind in KINDS_WITHOUT_NAMES:
        return MailboxFilter(kind)
    cursor.space("the mailbox filter")
    is_list = cursor.peek() == b"("
    names = cursor.list_of(lambda: _mailbox(cursor), "mailboxes") if is_list else [_mailbox(cursor)]
    return MailboxFilter(kind, frozenset(name for name in names if name is not None))


def _mailbox(cursor: Cursor) -> str | None:
    """Read a mailbox name; None if no mailbox can have it.

    Mailboxes that do not exist are ignored (RFC 5465 section 3.1), and so are names that no mailbox can have.
    """
    try:
        return cursor.mailbox()
    except CommandRefused:
        return None
