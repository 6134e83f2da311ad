"""The values that stores and accounts take and return. `storage` and `account_api` say which method uses which."""

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from imapshield.mailbox.deltas import Delta
from imapshield.wire.commands.base import LiteralData
from imapshield.wire.commands.fetch import FetchItem
from imapshield.wire.names import DELIMITER, NameFormat, fold_inbox


class Namespace(NamedTuple):
    """The personal namespace of an account, as clients see it (RFC 2342).

    Attributes:
        prefix: what all mailbox names except INBOX begin with, such as ``INBOX/``, or "". It has ``/`` between and
            after the levels, like all names inside the server.
        separator: the character between levels on the wire.
    """

    prefix: str = ""
    separator: str = DELIMITER

    @classmethod
    def as_shown(cls, prefix: str, separator: str) -> "Namespace":
        """Return the namespace of a prefix that is written as clients see it, such as ``INBOX.``."""
        return cls(fold_inbox(NameFormat(separator=separator).exchange(prefix)), separator)


DEFAULT_NAMESPACE = Namespace()
"""No prefix, and ``/`` between levels."""


class MailboxInfo(NamedTuple):
    r"""One mailbox name of LIST (RFC 9051 section 6.3.9).

    Attributes:
        name: the name, with ``/`` between the levels.
        selectable: False for a name that only contains other mailboxes (\Noselect).
        special_use: its special-use attributes, such as ``\Sent`` (RFC 6154).
    """

    name: str
    selectable: bool = True
    special_use: tuple[bytes, ...] = ()


class MailboxStatus(NamedTuple):
    r"""What STATUS reports of a mailbox (RFC 9051 section 6.3.11).

    Attributes:
        messages: the number of messages.
        recent: the number of \Recent messages (RFC 3501).
        unseen: the number of messages without \Seen.
        deleted: the number of messages with \Deleted.
        uidnext: UIDNEXT.
        uidvalidity: UIDVALIDITY.
        highestmodseq: HIGHESTMODSEQ (RFC 7162).
        size: the sum of RFC822.SIZE of all messages, in bytes.
        mailbox_id: MAILBOXID (RFC 8474).
        deleted_size: the sum of RFC822.SIZE of the messages with \Deleted, in bytes, for DELETED-STORAGE (RFC 9208).
            It is used only if the account provides `IQuota`.
    """

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
    """What `IStore.open` returns.

    Attributes:
        key: identifies the mailbox in later calls. It stays valid across renames, until the mailbox is deleted.
        name: the name under which it was opened.
        uidvalidity: UIDVALIDITY.
        mailbox_id: MAILBOXID (RFC 8474).
        delta: all messages of the mailbox, as `Delta.rows`.
    """

    key: int
    name: str
    uidvalidity: int
    mailbox_id: bytes
    delta: Delta


class NewMessage(NamedTuple):
    r"""A message to store.

    Attributes:
        flags: its flags, in canonical spelling and order, without \Recent.
        internaldate: INTERNALDATE in epoch seconds, or None for the current time.
        content: the message, byte for byte as the client sent it.
    """

    flags: tuple[bytes, ...]
    internaldate: int | None
    content: LiteralData


class AppendResult(NamedTuple):
    """Where new messages were stored, for the response code APPENDUID (RFC 9051 section 7.1).

    Attributes:
        uidvalidity: UIDVALIDITY of the target mailbox.
        uids: the UIDs of the new messages, in the order of the arguments.
    """

    uidvalidity: int
    uids: list[int]


class CopyResult(NamedTuple):
    """What COPY or MOVE did, for the response code COPYUID (RFC 9051 section 7.1).

    Attributes:
        uidvalidity: UIDVALIDITY of the target mailbox.
        source_uids: the UIDs of the messages that were copied.
        target_uids: the UIDs of the copies: ``source_uids[i]`` became ``target_uids[i]``.
        delta: what changed in the source mailbox.
        failed: the UIDs of the messages that could not be copied, or moved. They are unchanged.
    """

    uidvalidity: int
    source_uids: list[int]
    target_uids: list[int]
    delta: Delta
    failed: Sequence[int] = ()


class StoreResult(NamedTuple):
    """What STORE did.

    Attributes:
        delta: what changed in the mailbox.
        modified: the UIDs that UNCHANGEDSINCE excluded (RFC 7162 section 3.1.3).
        failed: the UIDs of the messages whose flags could not be changed. They are unchanged.
    """

    delta: Delta
    modified: Sequence[int] = ()
    failed: Sequence[int] = ()


class SearchResult(NamedTuple):
    """What `IStore.search` found.

    Attributes:
        matching: the UIDs of the messages that match, in ascending order.
        unreadable: the UIDs of the messages that could not be read or decoded. It is unknown whether they match.
        examined: how many of the given messages were searched, from the first on, at least one; None if all were. A
            store stops early, so that one call does not take long.
    """

    matching: list[int]
    unreadable: Sequence[int] = ()
    examined: int | None = None


class TextStep(IntEnum):
    """What is left to do after one call of `ITextIndexStore.index_text`."""

    DONE = 0
    MORE = 1
    """There is more to do in this mailbox."""
    MORE_EVERYWHERE = 2
    """The index is new, so that there may be more to do in all mailboxes."""


class SizesResult(NamedTuple):
    """What `IStore.sizes` measured.

    Attributes:
        sizes: (UID, RFC822.SIZE in bytes) of each message that still exists.
        unreadable: the UIDs of the messages that could not be measured.
        examined: how many of the given messages were measured, from the first on, at least one; None if all were.
    """

    sizes: list[tuple[int, int]]
    unreadable: Sequence[int] = ()
    examined: int | None = None


def count_examined(result: SearchResult | SizesResult, given: int) -> int:
    """Return how many of the messages that a store was given it has examined.

    Raises:
        ValueError: none. To go on would leave out a message, or never end.
    """
    if result.examined is None:
        return given
    if result.examined < 1:
        raise ValueError("the store has examined no message")
    return result.examined


class ReplaceResult(NamedTuple):
    """What REPLACE did (RFC 8508).

    Attributes:
        appended: where the new message was stored.
        delta: what changed in the mailbox that contained the old message.
    """

    appended: AppendResult
    delta: Delta


class Blob(NamedTuple):
    """A string in a `FetchResult` that is too large to return at once. Get it in chunks with `IStore.read`.

    Attributes:
        uid: the message.
        item: the item that the string is the value of.
        size: its length in bytes.
    """

    uid: int
    item: FetchItem
    size: int


@dataclass(slots=True)
class FetchResult:
    r"""The first part of a FETCH. Repeat the call for the UIDs after those in `uids`, `missing` and `unreadable`.

    Attributes:
        uids: the messages that were fetched, in the order of the request.
        columns: the values, one list per item: ``columns[i][j]`` is the value of item i for message ``uids[j]``. A
            value is ready to send: a string is a complete nstring (``NIL`` or ``{3}\r\nabc``), or a literal8 for
            BINARY. A part that does not exist is NIL; sessions send an empty string instead.
        missing: messages of the request that no longer exist.
        unreadable: messages of the request that could not be read or decoded. They have no values.
    """

    uids: Sequence[int] = ()
    columns: list[list[bytes | Blob]] = field(default_factory=list)
    missing: Sequence[int] = ()
    unreadable: Sequence[int] = ()

    @property
    def count(self) -> int:
        """The number of messages of the request that are done."""
        return len(self.uids) + len(self.missing) + len(self.unreadable)

    def without(self, uids: Container[int]) -> "FetchResult":
        """Return this result with the messages `uids` among the unreadable ones."""
        kept = [i for i, uid in enumerate(self.uids) if uid not in uids]
        failed = [uid for uid in self.uids if uid in uids]
        columns = [[column[i] for i in kept] for column in self.columns]
        kept_uids = [self.uids[i] for i in kept]
        return FetchResult(kept_uids, columns, self.missing, [*self.unreadable, *failed])


QuotaLimits = tuple[int | None, int | None]
"""The maximum number of bytes and of messages of an account."""


class Quota(NamedTuple):
    """The usage and the limits of an account (RFC 9208). A limit of None means unlimited.

    Attributes:
        octets: the size of all messages, in bytes.
        messages: the number of messages.
        max_octets: the limit for `octets`.
        max_messages: the limit for `messages`.
    """

    octets: int
    messages: int
    max_octets: int | None = None
    max_messages: int | None = None


MAX_METADATA_ENTRIES = 100
"""Metadata entries that one mailbox may have (RFC 5464, METADATA TOOMANY)."""


class AccountEvent(NamedTuple):
    """Something that happened to a mailbox of an account, for NOTIFY (RFC 5465).

    Attributes:
        kind: "messages" (added or expunged), "flags", "created", "deleted", "renamed", "subscribed", "unsubscribed" or
            "metadata".
        name: the mailbox; "" is the account itself.
        old: the previous name, for "renamed".
        entries: the names of the changed metadata entries, for "metadata".
    """

    kind: str
    name: str
    old: str = ""
    entries: Sequence[bytes] = ()
