"""TODO."""

from __future__ import annotations

from dataclasses import dataclass, field

from imapshield.wire.commands.base import Command
from imapshield.wire.commands.fetch import FetchItem
from imapshield.wire.commands.mailbox_filters import MailboxFilter
from imapshield.wire.commands.search_keys import SearchKey


@dataclass(frozen=True, slots=True)
class Search(Command):
    """SEARCH and UID SEARCH.

    `returns` None is the plain form, otherwise RFC 4731's options in upper case.

    RETURN () is ``frozenset({b"ALL"})``. SAVE (RFC 5182) is one of `returns`, and so are UPDATE and
    CONTEXT (RFC 5267) and PARTIAL (RFC 9394), whose range is `partial`: (1, 500), or (-1, -500) from
    the last message back. `update` are the FETCH items of UPDATE (RFC 5465).
    `charset` says that there was one; what it was is gone into the texts.
    """

    key: SearchKey
    uid: bool = False
    returns: frozenset[bytes] | None = None
    partial: tuple[int, int] | None = None
    charset: bool = field(default=False, compare=False)
    update_items: tuple[FetchItem, ...] = ()


@dataclass(frozen=True, slots=True)
class CancelUpdate(Command):
    """CANCELUPDATE (RFC 5267): the tags of searches with UPDATE."""

    tags: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class MultiSearch(Command):
    """ESEARCH (RFC 7377); see `Search`."""

    sources: tuple[MailboxFilter, ...]
    key: SearchKey
    returns: frozenset[bytes]
    partial: tuple[int, int] | None = None
    update_items: tuple[FetchItem, ...] = ()
