"""The contracts of storage: `IStore` blocks and owns the disk, `IAccount` and `IMailbox` are what a session awaits.

To bring your own mail: implement `IStore` (plain blocking methods, one a command-sized transaction) and wrap it in
`mailbox.account.StoreAccount`; or implement `IAccount` and `IMailbox` yourself and return the account from a realm.
tests/contract.py says in code what each method must do; every store passes it.

Rules
-----
* A UID is never given twice under one UIDVALIDITY, nor a UIDVALIDITY twice under one name.
* Every change of a message or its flags gets a MODSEQ larger than any before it in that mailbox.
* Errors are `errors.StoreError` and nothing else; what raised one has changed nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

from zope.interface import Attribute, Interface

from imapshield.mailbox.changes import Change, Columns, Delta
from imapshield.wire.commands import FetchItem, Octets, SearchKey
from imapshield.wire.sequence import SequenceSet

T = TypeVar("T")


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


class Opened(NamedTuple):
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
    content: Octets


class Appended(NamedTuple):
    """Where appended messages went: for APPENDUID (RFC 4315)."""

    uidvalidity: int
    uids: list[int]


class Copied(NamedTuple):
    """What COPY or MOVE did: for COPYUID. `source_uids[i]` became `target_uids[i]`."""

    uidvalidity: int
    source_uids: list[int]
    target_uids: list[int]
    delta: Delta


class Replaced(NamedTuple):
    """What REPLACE did; `delta` is of the mailbox that had the old message."""

    appended: Appended
    delta: Delta


class Blob(NamedTuple):
    """A string too large to be handed over whole: `size` octets, to be had by `read(uid, item, offset, size)`."""

    uid: int
    item: FetchItem
    size: int


@dataclass(slots=True)
class Fetched:
    """Part of a FETCH: `columns[i][j]` answers item i for message `uids[j]`, as bytes ready to send.

    `gone` are asked-for messages that no longer exist. Uids after the last of `uids` and `gone` were not reached:
    ask again for those. Strings are complete nstrings (``NIL`` or ``{3}\\r\\nabc``), literal8 where BINARY needs it.
    """

    uids: Sequence[int] = ()
    columns: list[list[bytes | Blob]] = field(default_factory=list)
    gone: Sequence[int] = ()


class Worker(Protocol):
    """Where blocking calls run, one after another for one account."""

    def run(self, fn: Callable[..., T], *args: object) -> Awaitable[T]:
        """Run ``fn(*args)`` after everything handed over before it; its result or exception is the awaitable's."""


class IStore(Interface):
    """One user's mail, blocking. Called from one thread at a time. Names are `str`, hierarchy delimiter ``/``."""

    def mailboxes() -> Iterable[MailboxInfo]:
        """Every mailbox, INBOX always among them, parents of existing ones as not selectable where missing."""

    def subscriptions() -> set[str]:
        """The subscribed names, whether or not such mailboxes exist."""

    def subscribe(name: str, on: bool) -> None:
        """Subscribe or unsubscribe; unsubscribing what is not subscribed is not an error."""

    def create(name: str, special_use: Sequence[bytes]) -> bytes:
        """Create a mailbox, with its missing parents, and return its MAILBOXID. MailboxExists, BadMailboxName."""

    def delete(name: str) -> None:
        """Delete a mailbox and its messages; inferiors stay. NoSuchMailbox, NotAllowed for INBOX."""

    def rename(old: str, new: str) -> None:
        """Rename with all inferiors, keeping UIDs and UIDVALIDITY. INBOX: move its messages into the new mailbox."""

    def status(name: str) -> MailboxStatus:
        """Look at a mailbox without opening it, counting what was delivered until now."""

    def key(name: str) -> int:
        """Return what names this mailbox until it is deleted. NoSuchMailbox."""

    def open(name: str, claim_recent: bool) -> Opened:
        """Find a mailbox, take in what was delivered, and tell all of it. ``delta.recent`` are the messages that no
        session has claimed yet; with `claim_recent` this one does, and no other will (RFC 3501 section 2.3.2)."""

    def changes(key: int, since: int, claim_recent: bool) -> Delta:
        """Take in what was delivered or changed on disk; tell what changed after MODSEQ `since`. Where the store
        does not remember what vanished since then, it names every UID below UIDNEXT that is not there."""

    def append(name: str, messages: Sequence[NewMessage]) -> Appended:
        """Store all of `messages` or none; they are on stable storage when this returns. Their content may be read by
        calls of this store's own `read`, and end in MessageGone."""

    def fetch(key: int, uids: Sequence[int], items: Sequence[FetchItem], budget: int) -> Fetched:
        """Answer `items` (ENVELOPE, BODY, BODYSTRUCTURE, SAVEDATE, EMAILID, THREADID, BodySection, Binary, Preview)
        for as many of `uids`, in order, as fit into about `budget` octets, at least one."""

    def read(key: int, uid: int, item: FetchItem, offset: int, size: int) -> bytes:
        """`size` octets from `offset` of what a `Blob` stands for. MessageGone."""

    def sizes(key: int, uids: Sequence[int]) -> list[tuple[int, int]]:
        """(uid, RFC822.SIZE) of each that still exists, measured now where it was not known."""

    def store_flags(
        key: int,
        uids: Sequence[int],
        op: bytes,
        flags: Sequence[bytes],
        unchanged_since: int | None,
        since: int,
    ) -> tuple[Delta, list[int]]:
        """Add (b"+"), remove (b"-") or replace (b"") flags in one transaction. Messages changed after
        `unchanged_since` are left alone and returned as the list. A message whose flags already were so keeps its
        MODSEQ. The delta tells everything that changed after `since`."""

    def expunge(key: int, uids: Sequence[int] | None, since: int) -> Delta:
        """Remove the messages that have \\Deleted (of `uids`, when given)."""

    def copy(key: int, uids: Sequence[int], target: str, move: bool, since: int) -> Copied:
        """Copy (or move) to the mailbox `target`, all or none, keeping flags and INTERNALDATE. Of `uids` that are gone,
        COPY is MessageGone (RFC 9051 section 6.4.7: no part of it), MOVE takes the others (RFC 6851 section 3.3)."""

    def replace(key: int, uid: int, target: str, message: NewMessage, since: int) -> Replaced:
        """Store `message` in the mailbox `target` and remove `uid`, in one step; only what the new one has more
        counts for a quota (RFC 8508). MessageGone if there is no `uid`."""

    def search(key: int, uids: Sequence[int], leaf: SearchKey) -> list[int]:
        """Those of `uids` that match one HeaderHas, EnvelopeHas, TextHas, ObjectIs, or DateIs on SENT or SAVED."""

    def probe(key: int) -> Sequence[str]:
        """Name the folders of the file system whose change means that mail came or went here; may be none."""

    def close() -> None:
        """Release every handle; the store may not be used afterwards."""


class Quota(NamedTuple):
    """What an account uses, in octets and messages, and the most that it may; None is no limit."""

    octets: int
    messages: int
    most_octets: int | None = None
    most_messages: int | None = None


class IQuotaStore(Interface):
    """A store that knows a quota (RFC 9208). What goes over it raises `errors.NoSpace`."""

    def quota() -> Quota:
        """What the account uses and may use; all its mailboxes share it."""


class IMetadataStore(Interface):
    """A store that keeps what clients say of mailboxes (RFC 5464). The mailbox "" is the server, for this account."""

    def metadata(name: str) -> dict[bytes, bytes]:
        """The entries of a mailbox, in lower case, and their values. NoSuchMailbox."""

    def set_metadata(name: str, values: Mapping[bytes, bytes | None]) -> None:
        """Set entries, or remove those whose value is None: all or none. They are renamed and deleted with their
        mailbox, of INBOX copied, and MODSEQ rises if they change. NoSuchMailbox; `errors.TooManyEntries` for more
        than `METADATA_ENTRIES` of one mailbox."""


METADATA_ENTRIES = 100


class Listener(Protocol):
    """Told of each change to an open mailbox, at once and on the reactor; must not block or raise."""

    def __call__(self, change: Change) -> None:
        """Take note of `change`."""


class IMailbox(Interface):
    """An open mailbox, shared by the sessions that have it selected. Each method awaits at most one hop."""

    name: str = Attribute("its name now, after renames")
    uidvalidity: int = Attribute("UIDVALIDITY")
    mailbox_id: bytes = Attribute("MAILBOXID of RFC 8474")
    columns: Columns = Attribute("what is known of every message; read only")

    def watch(listener: Listener, claim_recent: bool) -> None:
        """Tell `listener` of changes from now on; a session that may claim \\Recent says so."""

    def unwatch(listener: Listener) -> None:
        """Stop telling it; the last one to leave closes the mailbox."""

    async def listen() -> None:
        """From now on tell listeners of mail from outside within a second, unasked (for IDLE)."""

    async def poll() -> None:
        """Look at the disk; listeners hear what changed before this returns."""

    async def vanished(since: int) -> SequenceSet:
        """The UIDs of messages that went after MODSEQ `since`; more that are not there may be among them,
        if the store does not remember that far (RFC 7162 section 3.2.5)."""

    async def fetch(uids: Sequence[int], items: Sequence[FetchItem], budget: int) -> Fetched:
        """See `IStore.fetch`."""

    async def read(uid: int, item: FetchItem, offset: int, size: int) -> bytes:
        """See `IStore.read`."""

    async def sizes(uids: Sequence[int]) -> None:
        """Make sure that `columns` holds RFC822.SIZE of `uids`."""

    async def store_flags(
        uids: Sequence[int], op: bytes, flags: Sequence[bytes], unchanged_since: int | None
    ) -> list[int]:
        """See `IStore.store_flags`; returns the uids left alone."""

    async def expunge(uids: Sequence[int] | None) -> None:
        """See `IStore.expunge`; listeners hear what went."""

    async def copy(uids: Sequence[int], target: str, move: bool) -> Copied:
        """See `IStore.copy`."""

    async def replace(uid: int, target: str, message: NewMessage) -> Appended:
        """See `IStore.replace`."""

    async def search(uids: Sequence[int], leaf: SearchKey) -> list[int]:
        """See `IStore.search`."""


class IAccount(Interface):
    """A logged-in user's mail: what a realm returns as the avatar for this interface.

    Any of the optional powers (quota, metadata, …) is an interface of its own, provided beside this one; the
    capabilities of a session follow from what its account provides. What it is expected to do and cannot, it may name
    in `lacks`, a collection of capabilities, which are then not told.
    """

    user: str = Attribute("the user's name, for logs")

    async def mailboxes() -> Iterable[MailboxInfo]:
        """See `IStore`; so are all methods here that have its names."""

    async def subscriptions() -> set[str]:
        """The subscribed names."""

    async def subscribe(name: str, on: bool) -> None:
        """SUBSCRIBE, UNSUBSCRIBE."""

    async def create(name: str, special_use: Sequence[bytes]) -> bytes:
        """CREATE; returns the MAILBOXID."""

    async def delete(name: str) -> None:
        """DELETE."""

    async def rename(old: str, new: str) -> None:
        """RENAME."""

    async def status(name: str) -> MailboxStatus:
        """STATUS."""

    async def open(name: str, claim_recent: bool) -> tuple[IMailbox, frozenset[int]]:
        """Open for SELECT or EXAMINE; with it the uids that are \\Recent to this session alone.

        The caller must `watch` the mailbox before it awaits anything else.
        """

    async def append(name: str, messages: Sequence[NewMessage]) -> Appended:
        """APPEND."""

    def close() -> None:
        """The session has ended; called once for each login."""


class Happening(NamedTuple):
    """Something that happened to the mailbox `name` of an account ("" is the account itself).

    `kind` is messages (came or went), flags, created, deleted, renamed (from `old`), subscribed, unsubscribed, or
    metadata (of `entries`).
    """

    kind: str
    name: str
    old: str = ""
    entries: Sequence[bytes] = ()


class INotify(Interface):
    """An account that tells what happens in all of its mailboxes (RFC 5465)."""

    def watch(listener: Callable[[Happening], None]) -> None:
        """Tell `listener` of all that sessions of this account do, at once; it must not block or raise."""

    def unwatch(listener: Callable[[Happening], None]) -> None:
        """Stop telling it."""

    async def listen(names: Iterable[str]) -> None:
        """Tell also of mail that comes into these mailboxes from outside, until the last listener leaves."""


class ICatenate(Interface):
    """An account that makes new messages of parts of stored ones (RFC 4469)."""

    def stored(mailbox: IMailbox, uid: int, item: FetchItem, size: int) -> Octets:
        """The `size` octets that `item` is of a message, as content for `IAccount.append`, and to be read by it."""


class IQuota(Interface):
    """An account with a quota."""

    async def quota() -> Quota:
        """See `IQuotaStore`."""


class IMetadata(Interface):
    """An account that keeps metadata."""

    async def metadata(name: str) -> dict[bytes, bytes]:
        """See `IMetadataStore`."""

    async def set_metadata(name: str, values: Mapping[bytes, bytes | None]) -> None:
        """See `IMetadataStore`."""
