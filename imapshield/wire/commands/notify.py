"""NOTIFY (RFC 5465)."""

from __future__ import annotations

from dataclasses import dataclass

from imapshield.wire.commands.base import Command
from imapshield.wire.commands.fetch import FetchItem
from imapshield.wire.commands.mailbox_filters import MailboxFilter


@dataclass(frozen=True, slots=True)
class EventGroup:
    """Which events a client wants to be notified of, for the mailboxes of one filter.

    Args:
        filter: the mailboxes.
        events: the names of the events in upper case; empty for NONE.
        items: the FETCH items of MessageNew, which the server sends for each new message in the selected mailbox.
    """

    filter: MailboxFilter
    events: frozenset[bytes]
    items: tuple[FetchItem, ...] = ()


@dataclass(frozen=True, slots=True)
class Notify(Command):
    """NOTIFY SET, or NOTIFY NONE when there are no `groups`. `status` is NOTIFY SET STATUS."""

    groups: tuple[EventGroup, ...]
    status: bool = False
