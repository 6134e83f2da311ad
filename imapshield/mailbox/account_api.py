"""TODO."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from zope.interface import Attribute, Interface

from imapshield.mailbox.columns import Change, Columns
from imapshield.mailbox.values import (
    AccountEvent,
    AppendResult,
    CopyResult,
    FetchResult,
    MailboxInfo,
    MailboxStatus,
    NewMessage,
    Quota,
)
from imapshield.wire.commands.base import LiteralData
from imapshield.wire.commands.fetch import FetchItem
from imapshield.wire.commands.search_keys import SearchKey
from imapshield.wire.sequence import SequenceSet


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

    def subscribe(listener: Listener, claim_recent: bool) -> None:
        """Tell `listener` of changes from now on; a session that may claim \\Recent says so."""

    def unsubscribe(listener: Listener) -> None:
        """Stop telling it; the last one to leave closes the mailbox."""

    async def watch_for_changes() -> None:
        """From now on tell listeners of mail from outside within a second, unasked (for IDLE)."""

    async def poll() -> None:
        """Look at the disk; listeners hear what changed before this returns."""

    async def vanished(since: int) -> SequenceSet:
        """The UIDs of messages that went after MODSEQ `since`; more that are not there may be among them,
        if the store does not remember that far (RFC 7162 section 3.2.5)."""

    async def fetch(uids: Sequence[int], items: Sequence[FetchItem], budget: int) -> FetchResult:
        """See `IStore.fetch`."""

    async def read(uid: int, item: FetchItem, offset: int, size: int) -> bytes:
        """See `IStore.read`."""

    async def load_sizes(uids: Sequence[int]) -> None:
        """Make sure that `columns` holds RFC822.SIZE of `uids`."""

    async def store_flags(
        uids: Sequence[int], op: bytes, flags: Sequence[bytes], unchanged_since: int | None
    ) -> list[int]:
        """See `IStore.store_flags`; returns the uids left alone."""

    async def expunge(uids: Sequence[int] | None) -> None:
        """See `IStore.expunge`; listeners hear what went."""

    async def copy(uids: Sequence[int], target: str, move: bool) -> CopyResult:
        """See `IStore.copy`."""

    async def replace(uid: int, target: str, message: NewMessage) -> AppendResult:
        """See `IStore.replace`."""

    async def search(uids: Sequence[int], leaf: SearchKey) -> list[int]:
        """See `IStore.search`."""


class IAccount(Interface):
    """A logged-in user's mail: what a realm returns as the avatar for this interface.

    Any of the optional powers (quota, metadata, …) is an interface of its own, provided beside this one; the
    capabilities of a session follow from what its account provides. What it is expected to do and cannot, it may name
    in `unsupported_capabilities`, a collection of capabilities, which are then not told.
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

    async def append(name: str, messages: Sequence[NewMessage]) -> AppendResult:
        """APPEND."""

    def close() -> None:
        """The session has ended; called once for each login."""


class INotify(Interface):
    """An account that tells what happens in all of its mailboxes (RFC 5465)."""

    def add_listener(listener: Callable[[AccountEvent], None]) -> None:
        """Tell `listener` of all that sessions of this account do, at once; it must not block or raise."""

    def remove_listener(listener: Callable[[AccountEvent], None]) -> None:
        """Stop telling it."""

    async def watch_mailboxes(names: Iterable[str]) -> None:
        """Tell also of mail that comes into these mailboxes from outside, until the last listener leaves."""


class ICatenate(Interface):
    """An account that makes new messages of parts of stored ones (RFC 4469)."""

    def stored_part(mailbox: IMailbox, uid: int, item: FetchItem, size: int) -> LiteralData:
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
