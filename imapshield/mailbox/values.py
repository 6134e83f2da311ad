"""TODO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from imapshield.mailbox.deltas import Delta
from imapshield.wire.commands.base import LiteralData
from imapshield.wire.commands.fetch import FetchItem


class MailboxInfo(NamedTuple):
    """One name of LIST. A name that is not `selectable` only holds others (\\Noselect)."""

    name: str
    selectable: bool = True
    special_use: tuple[bytes, ...] = ()


class MailboxStatus(NamedTuple):
    """What STATUS can tell; `size` in octets as on the wire, and so is `deleted_size`, of the messages with \\Deleted
    (wanted with `IQuota`). `mailbox_id` is RFC 8474's MAILBOXID."""

    messages: int
    recent: int
    unseen: int
    deleted: int
    uidnext: int
    uidvalidity: int
    highestmodseq: int
    size: int
    mailbox_id: bytes
    deleted_size: int = 0


class OpenedMailbox(NamedTuple):
    """A mailbox as `IStore.open` finds it. `key` names it to the store until it is deleted, renames or not."""

    key: int
    name: str
    uidvalidity: int
    mailbox_id: bytes
    delta: Delta


class NewMessage(NamedTuple):
    """A message to store: canonical flags, epoch seconds (None: now), the bytes exactly as the client sent them."""

    flags: tuple[bytes, ...]
    internaldate: int | None
    content: LiteralData


class AppendResult(NamedTuple):
    """Where appended messages went: for APPENDUID (RFC 4315)."""

    uidvalidity: int
    uids: list[int]


class CopyResult(NamedTuple):
    """What COPY or MOVE did: for COPYUID. `source_uids[i]` became `target_uids[i]`."""

    uidvalidity: int
    source_uids: list[int]
    target_uids: list[int]
    delta: Delta


class ReplaceResult(NamedTuple):
    """What REPLACE did; `delta` is of the mailbox that had the old message."""

    appended: AppendResult
    delta: Delta


class Blob(NamedTuple):
    """A string too large to be handed over whole: `size` octets, to be had by `read(uid, item, offset, size)`."""

    uid: int
    item: FetchItem
    size: int


@dataclass(slots=True)
class FetchResult:
    """Part of a FETCH: `columns[i][j]` answers item i for message `uids[j]`, as bytes ready to send.

    `gone` are asked-for messages that no longer exist. Uids after the last of `uids` and `gone` were not reached:
    ask again for those. Strings are complete nstrings (``NIL`` or ``{3}\\r\\nabc``), literal8 where BINARY needs it.
    """

    uids: Sequence[int] = ()
    columns: list[list[bytes | Blob]] = field(default_factory=list)
    missing: Sequence[int] = ()


class Quota(NamedTuple):
    """What an account uses, in octets and messages, and the most that it may; None is no limit."""

    octets: int
    messages: int
    max_octets: int | None = None
    max_messages: int | None = None


MAX_METADATA_ENTRIES = 100


class AccountEvent(NamedTuple):
    """Something that happened to the mailbox `name` of an account ("" is the account itself).

    `kind` is messages (came or went), flags, created, deleted, renamed (from `old`), subscribed, unsubscribed, or
    metadata (of `entries`).
    """

    kind: str
    name: str
    old: str = ""
    entries: Sequence[bytes] = ()
