"""Commands about mailboxes: SELECT, LIST, STATUS and the like, quotas, metadata and NOTIFY."""

from dataclasses import dataclass

from imapshield.wire.commands.base import Command
from imapshield.wire.commands.fetch import FetchItem
from imapshield.wire.sequence import SequenceSet


@dataclass(frozen=True, slots=True)
class Create(Command):
    r"""CREATE. `special_use` are the attributes of the USE parameter, such as ``\Sent`` (RFC 6154)."""

    mailbox: str
    special_use: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Delete(Command):
    """DELETE."""

    mailbox: str


@dataclass(frozen=True, slots=True)
class Rename(Command):
    """RENAME of the mailbox `old` to `new`."""

    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Subscribe(Command):
    """SUBSCRIBE, or UNSUBSCRIBE when `subscribe` is False."""

    mailbox: str
    subscribe: bool = True


@dataclass(frozen=True, slots=True)
class List(Command):
    r"""LIST and LSUB; LSUB has none of the options.

    Args:
        reference: the reference name, decoded.
        patterns: the mailbox patterns, decoded like names; wildcards stay.
        selection: the selection options of RFC 5258, in upper case.
        returns: the return options of RFC 5258, in upper case.
        status_items: the items of the return option STATUS (RFC 5819).
        extended: whether the extended syntax was used; \HasChildren and the like then follow RFC 5258.
    """

    reference: str
    patterns: tuple[str, ...]
    selection: frozenset[bytes] = frozenset()
    returns: frozenset[bytes] = frozenset()
    status_items: tuple[bytes, ...] = ()
    extended: bool = False


@dataclass(frozen=True, slots=True)
class Status(Command):
    """STATUS of a mailbox. `items` are in upper case, each once."""

    mailbox: str
    items: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Qresync:
    """The QRESYNC parameter of SELECT: what the client remembers of the mailbox (RFC 7162 section 3.2.5).

    Args:
        uidvalidity: the last known UIDVALIDITY.
        modseq: the last known HIGHESTMODSEQ.
        known_uids: the UIDs that the client has; None means all of them.
        match_sequence: sequence numbers of the client's messages, to find where it and the server agree.
        match_uids: the UIDs of the messages in `match_sequence`.
    """

    uidvalidity: int
    modseq: int
    known_uids: SequenceSet | None = None
    match_sequence: SequenceSet | None = None
    match_uids: SequenceSet | None = None


@dataclass(frozen=True, slots=True)
class Select(Command):
    """SELECT, or EXAMINE when `readonly`. `mailbox` is "" when the client sent a name that no mailbox can have."""

    mailbox: str
    readonly: bool = False
    condstore: bool = False
    qresync: Qresync | None = None


@dataclass(frozen=True, slots=True)
class GetQuota(Command):
    """GETQUOTA of a quota root."""

    root: bytes


@dataclass(frozen=True, slots=True)
class GetQuotaRoot(Command):
    """GETQUOTAROOT of a mailbox."""

    mailbox: str


@dataclass(frozen=True, slots=True)
class SetQuota(Command):
    """SETQUOTA: pairs of resource name (in upper case) and limit, in the unit of that resource."""

    root: bytes
    limits: tuple[tuple[bytes, int], ...]


@dataclass(frozen=True, slots=True)
class GetMetadata(Command):
    """GETMETADATA.

    Args:
        mailbox: the mailbox; "" means the server.
        entries: entry names in lower case, each once.
        max_size: the largest value that the client wants, in bytes (MAXSIZE); None means any size.
        depth: how many levels below each entry are wanted too: 0, 1, or None for infinity (DEPTH).
    """

    mailbox: str
    entries: tuple[bytes, ...]
    max_size: int | None = None
    depth: int | None = 0


@dataclass(frozen=True, slots=True)
class SetMetadata(Command):
    """SETMETADATA: pairs of entry name and value for a mailbox ("" means the server); None removes the entry."""

    mailbox: str
    values: tuple[tuple[bytes, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class MailboxFilter:
    """One mailbox filter.

    Args:
        kind: SELECTED, SELECTED-DELAYED, INBOXES, PERSONAL, SUBSCRIBED, SUBTREE, SUBTREE-ONE or MAILBOXES.
        names: the mailboxes of the last three kinds; empty for the others.
    """

    kind: bytes
    names: frozenset[str] = frozenset()

    @property
    def is_selected(self) -> bool:
        """Whether this is the filter of the selected mailbox."""
        return self.kind in (b"SELECTED", b"SELECTED-DELAYED")


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
