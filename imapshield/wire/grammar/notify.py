"""NOTIFY (RFC 5465)."""

from __future__ import annotations

from imapshield.errors import BadCommand, CommandRefused
from imapshield.wire.commands.fetch import FetchItem
from imapshield.wire.commands.notify import EventGroup, Notify
from imapshield.wire.cursor import Cursor
from imapshield.wire.grammar.fetch import parenthesised_items
from imapshield.wire.grammar.mailbox_filters import mailbox_filter

MESSAGE_EVENTS = frozenset(b"MESSAGENEW MESSAGEEXPUNGE FLAGCHANGE ANNOTATIONCHANGE".split())
OTHER_EVENTS = frozenset(
    b"MAILBOXNAME SUBSCRIPTIONCHANGE MAILBOXMETADATACHANGE SERVERMETADATACHANGE".split()
)
_SELECTED_KINDS = frozenset({b"SELECTED", b"SELECTED-DELAYED"})


def notify(cursor: Cursor) -> Notify:
    """``notify = "NOTIFY" SP ("SET" [SP "STATUS"] 1*(SP event-group) / "NONE")``."""
    cursor.space("NOTIFY")
    if cursor.skip_word(b"NONE"):
        return Notify(())
    if not cursor.skip_word(b"SET"):
        raise BadCommand("Expected SET or NONE")
    cursor.space("SET")
    status = cursor.skip_word(b"STATUS")
    if status:
        cursor.space("STATUS")
    groups = [_group(cursor)]
    while not cursor.at_end():
        cursor.space("each event group")
        cursor.count_term()
        groups.append(_group(cursor))
    if sum(group.filter.kind in _SELECTED_KINDS for group in groups) > 1:
        raise BadCommand("Only one event group may be for the selected mailbox")
    if len(groups) > cursor.limits.max_patterns:
        raise CommandRefused(b"NOTIFICATIONOVERFLOW", "Too many event groups")
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
        if name == b"MESSAGENEW" and mailboxes.kind in _SELECTED_KINDS and cursor.skip(b" ("):
            items = parenthesised_items(cursor)
        return name

    events: list[bytes] = []
    if not cursor.skip_word(b"NONE"):
        events = cursor.list_of(event, "events")
    cursor.expect(b")", "Expected ) after the event group")
    message_events = MESSAGE_EVENTS.intersection(events)
    if message_events and not message_events >= {b"MESSAGENEW", b"MESSAGEEXPUNGE"}:
        raise BadCommand("Message events need both MessageNew and MessageExpunge")
    if mailboxes.kind in _SELECTED_KINDS and OTHER_EVENTS.intersection(events):
        raise BadCommand("The selected mailbox has message events only")
    return EventGroup(mailboxes, frozenset(events), items)
