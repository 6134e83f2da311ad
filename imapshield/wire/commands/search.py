"""SEARCH, UID SEARCH and CANCELUPDATE (RFC 9051 section 6.4.4, RFC 5267)."""

from __future__ import annotations

from dataclasses import dataclass, field

from imapshield.wire.commands.base import Command
from imapshield.wire.commands.fetch import FetchItem
from imapshield.wire.commands.search_keys import SearchKey


@dataclass(frozen=True, slots=True)
class Search(Command):
    """SEARCH and UID SEARCH.

    Args:
        key: what to search for.
        uid: whether the command was UID SEARCH.
        returns: the result options (RFC 4731) in upper case, never empty: RETURN () is ``{b"ALL"}``. None means that
            there was no RETURN, and the plain SEARCH response is wanted. SAVE (RFC 5182), UPDATE and CONTEXT
            (RFC 5267) and PARTIAL (RFC 9394) are result options too.
        partial: the range of PARTIAL: (1, 500), or (-1, -500) counted from the last message.
        charset: whether the client named a charset. The texts in `key` are decoded already.
        update_items: the FETCH items of UPDATE (RFC 5465).
    """

    key: SearchKey
    uid: bool = False
    returns: frozenset[bytes] | None = None
    partial: tuple[int, int] | None = None
    charset: bool = field(default=False, compare=False)
    update_items: tuple[FetchItem, ...] = ()


@dataclass(frozen=True, slots=True)
class CancelUpdate(Command):
    """CANCELUPDATE (RFC 5267): the tags of the searches whose updates are to stop."""

    tags: tuple[bytes, ...]
