"""SORT and THREAD, each with its UID form (RFC 5256)."""

from __future__ import annotations

from dataclasses import dataclass

from imapshield.wire.commands.base import Command
from imapshield.wire.commands.fetch import FetchItem
from imapshield.wire.commands.search_keys import SearchKey


@dataclass(frozen=True, slots=True)
class Sort(Command):
    """SORT and UID SORT.

    `criteria` are pairs of (reverse, sort key), the sort key in upper case. The other fields mean what they mean in
    `Search`.
    """

    criteria: tuple[tuple[bool, bytes], ...]
    key: SearchKey
    uid: bool = False
    returns: frozenset[bytes] | None = None
    partial: tuple[int, int] | None = None
    update_items: tuple[FetchItem, ...] = ()


@dataclass(frozen=True, slots=True)
class Thread(Command):
    """THREAD and UID THREAD; `algorithm` is ORDEREDSUBJECT or REFERENCES."""

    algorithm: bytes
    key: SearchKey
    uid: bool = False
