"""TODO."""

from __future__ import annotations

from dataclasses import dataclass

from imapshield.wire.commands.base import Command
from imapshield.wire.commands.fetch import FetchItem
from imapshield.wire.commands.search_keys import SearchKey


@dataclass(frozen=True, slots=True)
class Sort(Command):
    """SORT and UID SORT (RFC 5256): `criteria` are (reverse, key) pairs, key in upper case; see `Search`."""

    criteria: tuple[tuple[bool, bytes], ...]
    key: SearchKey
    uid: bool = False
    returns: frozenset[bytes] | None = None
    partial: tuple[int, int] | None = None
    update_items: tuple[FetchItem, ...] = ()


@dataclass(frozen=True, slots=True)
class Thread(Command):
    """THREAD and UID THREAD (RFC 5256): `algorithm` in upper case."""

    algorithm: bytes
    key: SearchKey
    uid: bool = False
