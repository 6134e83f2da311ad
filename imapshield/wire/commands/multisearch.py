"""ESEARCH, the search in several mailboxes (RFC 7377)."""

from __future__ import annotations

from dataclasses import dataclass

from imapshield.wire.commands.base import Command
from imapshield.wire.commands.fetch import FetchItem
from imapshield.wire.commands.mailbox_filters import MailboxFilter
from imapshield.wire.commands.search_keys import SearchKey


@dataclass(frozen=True, slots=True)
class MultiSearch(Command):
    """ESEARCH of the mailboxes in `sources`; the other fields mean what they mean in `Search`."""

    sources: tuple[MailboxFilter, ...]
    key: SearchKey
    returns: frozenset[bytes]
    partial: tuple[int, int] | None = None
    update_items: tuple[FetchItem, ...] = ()
