"""What a session needs of an account: asynchronous interfaces, which a realm's avatar provides.

`StoreAccount` and `StoreMailbox` implement them over any `IStore`. To serve mail from anything else, implement
`IAccount` and `IMailbox`, and return the account from a realm for the interface `IAccount`.

Rules
-----
* Methods are called on the reactor's thread and must not block. Each awaiting method takes at most one thread hop;
  `INotify.watch_mailboxes` takes one for some hundreds of mailboxes.
* UIDs of arguments are distinct and in ascending order.
* Failures are `errors.StoreError`, as in `storage`. Methods that have the name of an `IStore` method have its meaning
  and its errors too; the docstrings below give the differences.
* A session finds out what an account supports from the interfaces that it provides: `INotify`, `ICatenate`, `IQuota`
  and `IMetadata` are optional.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from zope.interface import Attribute, Interface

from imapshield.mailbox import values
from imapshield.mailbox.columns import Columns
from imapshield.mailbox.copy_rate import CopyRate
from imapshield.mailbox.deltas import Change
from imapshield.wire.commands.base import LiteralData
from imapshield.wire.commands.fetch import FetchItem
from imapshield.wire.commands.search import SearchKey
from imapshield.wire.sequence import SequenceSet


class Listener(Protocol):
    """A callable that receives each change of an open mailbox, synchronously and on the reactor's thread."""

    def __call__(self, change: Change) -> None:
        """Handle `change`. Must neither block nor raise."""


class IMailbox(Interface):
    """An open mailbox, shared by all sessions that have it selected.

    Every method that finds or makes changes applies them to `columns` and notifies all listeners before it returns.
    """

    name: str = Attribute("The current name. It follows renames.")
    uidvalidity: int = Attribute("UIDVALIDITY (RFC 9051 section 2.3.1.1).")
    mailbox_id: bytes = Attribute("MAILBOXID (RFC 8474).")
    columns: Columns = Attribute("The metadata of every message. Sessions only read it.")
    deleted: bool = Attribute(
        "Whether the mailbox no longer exists. Listeners receive an empty change when it becomes true."
    )

    def add_listener(listener: Listener, claim_recent: bool) -> None:
        r"""Notify `listener` of every change from now on.

        Args:
            listener: the callable.
            claim_recent: whether the session may claim messages as \Recent: True after SELECT, False after EXAMINE.
                Each message is \Recent to one session only (RFC 3501 section 2.3.2).
        """

    def remove_listener(listener: Listener) -> None:
        """Stop notifying `listener`. A mailbox without listeners may be closed."""

    async def watch_for_changes() -> None:
        """Start to report changes made by other programs within about a second, until the last listener leaves
        (IDLE)."""

    async def poll() -> None:
        """Take in changes made by other programs (NOOP, CHECK)."""

    async def vanished(since: int) -> SequenceSet:
        """Return the UIDs of messages that were expunged after MODSEQ `since`.

        If the store no longer knows, the set contains other UIDs that do not exist (RFC 7162 section 3.2.5).
        """

    async def fetch(
        uids: Sequence[int], items: Sequence[FetchItem], budget: int
    ) -> values.FetchResult:
        """Return the values of `items` for the first messages of `uids`. See `IStore.fetch` for the arguments."""

    async def read(uid: int, item: FetchItem, offset: int, size: int) -> bytes:
        """Return bytes of the string that a `Blob` represents. See `IStore.read` for the arguments.

        Raises:
            MessageExpunged: the message was expunged.
        """

    async def load_sizes(uids: Sequence[int]) -> Sequence[int]:
        """Load RFC822.SIZE of those of `uids` that exist into `columns`; return the UIDs that could not be measured."""

    async def store_flags(
        uids: Sequence[int], op: bytes, flags: Sequence[bytes], unchanged_since: int | None
    ) -> values.StoreResult:
        """Change the flags of messages. See `IStore.store_flags` for the arguments."""

    async def expunge(uids: Sequence[int] | None) -> Sequence[int]:
        r"""Remove the messages that have \Deleted: those among `uids`, or all if it is None (RFC 9051 section 6.4.3).

        Returns:
            the UIDs of messages that could not be removed.
        """

    async def copy(uids: Sequence[int], target: str, move: bool) -> values.CopyResult:
        """Copy or move messages to the mailbox `target`. See `IStore.copy` for arguments and errors."""

    async def replace(uid: int, target: str, message: values.NewMessage) -> values.AppendResult:
        """Store `message` in the mailbox `target` and remove the message `uid`, in one step (RFC 8508).

        Raises:
            NoSuchMailbox: one of the mailboxes does not exist.
            MessageExpunged: `uid` was expunged.
        """

    async def search(uids: Sequence[int], search_key: SearchKey) -> values.SearchResult:
        """Find those of `uids` that match one search key. See `IStore.search` for the keys that must be supported."""


class IAccount(Interface):
    """The mail of a logged-in user: what a realm returns as the avatar for this interface.

    An account may have an attribute `unsupported_capabilities`: a collection of capabilities, such as b"OBJECTID", that
    sessions offer for every account and this one cannot support. They are left out of CAPABILITY.

    It may have an attribute `namespace`, a `values.Namespace`: the separator of mailbox names on the wire, and the
    prefix that all names of the account have. By default the separator is ``/`` and there is no prefix.
    """

    user: str = Attribute("The user's name, for logs.")

    async def mailboxes() -> Iterable[values.MailboxInfo]:
        """Return every mailbox, for LIST (RFC 9051 section 6.3.9). INBOX is always included."""

    async def subscriptions() -> set[str]:
        """Return the subscribed names, whether or not such mailboxes exist."""

    async def set_subscribed(name: str, subscribed: bool) -> None:
        """Subscribe or unsubscribe a name (RFC 9051 sections 6.3.7 and 6.3.8)."""

    async def create(name: str, special_use: Sequence[bytes]) -> bytes:
        """Create a mailbox and its missing parents, and return its MAILBOXID (RFC 9051 section 6.3.4, RFC 8474).

        Raises:
            MailboxExists: a mailbox has that name already.
            BadMailboxName: no mailbox can have that name.
        """

    async def delete(name: str) -> None:
        """Delete a mailbox and its messages, but not its inferiors (RFC 9051 section 6.3.5).

        Raises:
            NoSuchMailbox: there is no such mailbox, or the name is not selectable.
            NotAllowed: the mailbox is INBOX.
        """

    async def rename(old: str, new: str) -> None:
        """Rename a mailbox and all its inferiors (RFC 9051 section 6.3.6). See `IStore.rename` for INBOX and the
        errors."""

    async def status(name: str) -> values.MailboxStatus:
        """Return the state of a mailbox without opening it (RFC 9051 section 6.3.11).

        Raises:
            NoSuchMailbox: there is no such mailbox.
        """

    async def open(name: str, claim_recent: bool) -> tuple[IMailbox, frozenset[int]]:
        r"""Open a mailbox for SELECT or EXAMINE (RFC 9051 sections 6.3.2 and 6.3.3).

        The caller must call `IMailbox.add_listener` before it awaits anything else: a mailbox without listeners may be
        closed.

        Args:
            name: the mailbox.
            claim_recent: whether the session may claim messages as \Recent: True for SELECT, False for EXAMINE.

        Returns:
            the mailbox, and the UIDs of the messages that are \Recent to this session alone.

        Raises:
            NoSuchMailbox: there is no such mailbox.
        """

    async def append(name: str, messages: Sequence[values.NewMessage]) -> values.AppendResult:
        """Append all of `messages` or none. See `IStore.append` (RFC 9051 section 6.3.12, RFC 3502).

        Raises:
            NoSuchMailbox: there is no such mailbox.
        """

    def close() -> None:
        """Release the account at the end of a session.

        The realm's logout function calls it, once for each login. Sessions do not call it.
        """


class INotify(Interface):
    """An account that reports what happens in all its mailboxes (NOTIFY, RFC 5465)."""

    def add_listener(listener: Callable[[values.AccountEvent], None]) -> None:
        """Call `listener` synchronously for everything that sessions of this account do. It must neither block nor
        raise."""

    def remove_listener(listener: Callable[[values.AccountEvent], None]) -> None:
        """Stop calling `listener`."""

    async def watch_mailboxes(names: Iterable[str]) -> None:
        """Also report mail that other programs deliver to the mailboxes `names`, until the last listener leaves."""


class ICatenate(Interface):
    """An account that can build new messages from parts of stored ones (CATENATE, RFC 4469)."""

    copy_rate: CopyRate = Attribute(
        "What all sessions of the account have taken from stored messages. Sessions read and replace it."
    )

    def stored_part(mailbox: IMailbox, uid: int, item: FetchItem, size: int) -> LiteralData:
        """Return a part of a stored message as content for `IAccount.append`, which reads it.

        Args:
            mailbox: an open mailbox of this account.
            uid: the message in it.
            item: the part, as a `BodySection` or `Binary`.
            size: the length of the part, in bytes.
        """


class IQuota(Interface):
    """An account with a quota (RFC 9208)."""

    async def quota() -> values.Quota:
        """Return usage and limits, which all mailboxes of the account share."""


class IMetadata(Interface):
    """An account that keeps metadata of mailboxes (RFC 5464). The mailbox "" is the server."""

    async def metadata(name: str, entries: Sequence[bytes] | None = None) -> dict[bytes, bytes]:
        """Return the values of `entries`, or of all entries of a mailbox if it is None; names are in lower case.

        Entries that do not exist are left out.

        Raises:
            NoSuchMailbox: there is no such mailbox.
        """

    async def metadata_sizes(name: str) -> dict[bytes, int]:
        """Return all entries of a mailbox, in ascending order, and the sizes of their values in bytes.

        Sessions ask for the values a few at a time, as fast as the client reads them.

        Raises:
            NoSuchMailbox: there is no such mailbox.
        """

    async def set_metadata(name: str, entries: Mapping[bytes, bytes | None]) -> None:
        """Set `entries`, all or none. A value of None removes the entry.

        Raises:
            NoSuchMailbox: there is no such mailbox.
            TooMuchMetadata: the mailbox would have more than `values.MAX_METADATA_ENTRIES`.
        """
