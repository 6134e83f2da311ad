"""TODO."""

from __future__ import annotations

from dataclasses import dataclass

from imapshield.wire.commands.base import Command
from imapshield.wire.commands.fetch import FetchItem
from imapshield.wire.commands.mailbox_filters import MailboxFilter


@dataclass(frozen=True, slots=True)
class EventGroup:
    """What a NOTIFY wants to be told of some mailboxes: `events` in upper case, none for NONE.

    `items` are those of MessageNew, to be fetched of what is new in the selected mailbox.
    """

    filter: MailboxFilter
    events: frozenset[bytes]
    items: tuple[FetchItem, ...] = ()


@dataclass(frozen=True, slots=True)
class Notify(Command):
    """NOTIFY SET (RFC 5465), with STATUS when `status`; NOTIFY NONE without `groups`."""

    groups: tuple[EventGroup, ...]
    status: bool = False
