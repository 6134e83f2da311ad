"""What a mail store must implement: blocking interfaces, without any knowledge of sessions or of Twisted.

`StoreAccount` turns an `IStore` into the asynchronous account that sessions use. `imapshield.testing.store_contract`
tests most of what is promised here.

Rules
-----
* A store is the mail of one user. Its methods block, and are called from one thread at a time.
* Mailbox names are `str` (not encoded) with ``/`` between the levels. INBOX is always spelled ``INBOX``.
* Every failure is an `errors.StoreError`, except for `CommandRefused` from `IStore.fetch`. A call that fails has
  changed nothing. Any method may raise `StoreIOError`, `StoreBusy`, `NoSpace`, `QuotaExceeded` or `StoreLimitExceeded`
  for the reasons that these name; the docstrings name the other errors.
* A method that creates a mailbox raises `BadMailboxName` for a name that no mailbox can have; every other method
  raises `NoSuchMailbox`.
* A method that takes the `key` of a mailbox raises `NoSuchMailbox` once the mailbox has been deleted, or replaced by
  one that was restored from a backup. Sessions that have it selected are then disconnected. A restored mailbox may have
  the same key, which is valid again once `open` has returned it.
* A message that cannot be read, decoded or changed fails alone: its file is damaged or not accessible, or its content
  makes a decoder raise an exception. The method does its work for the other messages and returns the UID in the field
  `unreadable` or `failed` of its result. If the reason is not in one message, the method raises.
* UIDs of arguments are distinct and in ascending order. UIDs that do not exist are ignored, unless the docstring says
  otherwise.
* A method that takes `since` returns in its `Delta` everything that changed in the mailbox after that MODSEQ, no
  matter who changed it, including the effects of the call itself. The caller passes the HIGHESTMODSEQ that it knows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeVar

from zope.interface import Attribute, Interface

from imapshield.mailbox import values
from imapshield.mailbox.deltas import Delta
from imapshield.wire.commands.fetch import FetchItem
from imapshield.wire.commands.search import SearchKey

T = TypeVar("T")


class IStore(Interface):
    """The mail of one user. The module docstring gives the rules that hold for every method."""

    def mailboxes() -> Iterable[values.MailboxInfo]:
        """Return every mailbox, for LIST (RFC 9051 section 6.3.9).

        INBOX is always included. So is every parent of a mailbox; one that does not exist is not selectable.
        """

    def subscriptions() -> set[str]:
        """Return the subscribed names, whether or not mailboxes of these names exist (RFC 9051 section 6.3.7)."""

    def set_subscribed(name: str, subscribed: bool) -> None:
        """Subscribe or unsubscribe a name (RFC 9051 sections 6.3.7 and 6.3.8).

        The mailbox need not exist. It is not an error to subscribe a name that is subscribed, or to unsubscribe one
        that is not.

        Raises:
            BadMailboxName: no mailbox can have the name that is to be subscribed. Unsubscribing it is not an error.
        """

    def create(name: str, special_use: Sequence[bytes]) -> bytes:
        r"""Create a mailbox and its missing parents (RFC 9051 section 6.3.4, RFC 6154).

        A name that was deleted and is created again gets a larger UIDVALIDITY, another MAILBOXID and another key.

        Args:
            name: the name of the new mailbox.
            special_use: its special-use attributes, such as ``\Sent``. Parents get none.

        Returns:
            the MAILBOXID (RFC 8474).

        Raises:
            MailboxExists: a mailbox has that name already.
            BadMailboxName: no mailbox can have that name.
        """

    def delete(name: str) -> None:
        """Delete a mailbox and its messages (RFC 9051 section 6.3.5).

        Its inferiors stay. If there are any, `mailboxes` still includes the name, as not selectable.

        Raises:
            NoSuchMailbox: there is no such mailbox, or the name is not selectable.
            NotAllowed: the mailbox is INBOX.
        """

    def rename(old: str, new: str) -> None:
        """Rename a mailbox and all its inferiors (RFC 9051 section 6.3.6).

        UIDs, UIDVALIDITY, MAILBOXID and key stay the same. Renaming INBOX moves its messages into a new mailbox;
        INBOX and its inferiors stay.

        Raises:
            NoSuchMailbox: `old` does not exist.
            MailboxExists: `new` exists.
            BadMailboxName: no mailbox can be called `new`, or `new` is below `old`.
        """

    def status(name: str) -> values.MailboxStatus:
        """Return the state of a mailbox without opening it, including mail that was delivered until now.

        Raises:
            NoSuchMailbox: there is no such mailbox.
        """

    def mailbox_key(name: str) -> int:
        """Return the key of a mailbox: it identifies the mailbox, across renames, until it is deleted.

        Raises:
            NoSuchMailbox: there is no such mailbox.
        """

    def open(name: str, claim_recent: bool) -> values.OpenedMailbox:
        r"""Open a mailbox for SELECT or EXAMINE: take in what was delivered, and return all messages.

        Args:
            name: the mailbox.
            claim_recent: True for SELECT, which claims the messages that no session has claimed yet: they are
                \Recent in this session alone, as ``delta.recent``. EXAMINE claims none (RFC 3501 section 2.3.2).

        Raises:
            NoSuchMailbox: there is no such mailbox.
        """

    def changes(key: int, since: int, claim_recent: bool) -> Delta:
        """Take in what was delivered or changed from outside, and return what changed after MODSEQ `since`.

        If the store no longer knows which messages were expunged since then, `Delta.vanished` names every UID below
        UIDNEXT that does not exist (RFC 7162 section 3.2.5).

        Args:
            key: the mailbox.
            since: a MODSEQ; 0 returns everything.
            claim_recent: claim new messages, as in `open`.
        """

    def append(name: str, messages: Sequence[values.NewMessage]) -> values.AppendResult:
        """Append all of `messages` or none (RFC 9051 section 6.3.12, RFC 3502).

        They are on stable storage when this returns. While it runs, their content may call this store's own `read`
        (CATENATE, RFC 4469), which can raise MessageExpunged.

        Raises:
            NoSuchMailbox: there is no such mailbox.
            MessageExpunged: a message that is a source of the content was expunged.
        """

    def fetch(
        key: int, uids: Sequence[int], items: Sequence[FetchItem], budget: int
    ) -> values.FetchResult:
        """Return the values of `items` for the first messages of `uids` (RFC 9051 section 6.4.5).

        The caller repeats the call for the messages that the result does not contain. A value is ready to send; a large
        string is a `Blob`, which the caller gets with `read`. See `FetchResult`.

        Args:
            key: the mailbox.
            uids: the messages, distinct and ascending. The result has the same order.
            items: ENVELOPE, BODY, BODYSTRUCTURE, SAVEDATE, EMAILID and THREADID as `Attribute`; `BodySection`, `Binary`
                and `Preview`. UID, FLAGS, MODSEQ, INTERNALDATE and RFC822.SIZE are known from deltas and are
                never requested.
            budget: the size of the result in bytes, roughly. At least one message is returned.

        Raises:
            CommandRefused: BINARY names a part with an unknown Content-Transfer-Encoding (UNKNOWN-CTE, RFC 3516).
        """

    def read(key: int, uid: int, item: FetchItem, offset: int, size: int) -> bytes:
        """Return bytes of the string that a `Blob` represents.

        A session reads a string from its beginning. If a message is removed after that, its connection is reset unless
        the store can still return the rest.

        Args:
            key: the mailbox.
            uid: the message, as in the `Blob`.
            item: the item, as in the `Blob`.
            offset: the first byte to return, counted from 0.
            size: the number of bytes. Fewer are returned only at the end of the string.

        Raises:
            MessageExpunged: the message was expunged.
            StoreIOError: the message cannot be read or decoded.
        """

    def sizes(key: int, uids: Sequence[int]) -> values.SizesResult:
        """Return the size (RFC822.SIZE) of each message that still exists, in the order of `uids`.

        Messages that have not been measured are read and measured.

        Args:
            key: the mailbox.
            uids: the messages, distinct and ascending.
        """

    def store_flags(
        key: int,
        uids: Sequence[int],
        op: bytes,
        flags: Sequence[bytes],
        unchanged_since: int | None,
        since: int,
    ) -> values.StoreResult:
        """Change the flags of messages in one transaction (RFC 9051 section 6.4.6).

        A message that has the wanted flags already keeps its MODSEQ.

        Args:
            key: the mailbox.
            uids: the messages, distinct and ascending. UIDs that do not exist are ignored.
            op: b"+" adds `flags`, b"-" removes them, b"" replaces all flags.
            flags: flags in canonical spelling.
            unchanged_since: exclude messages that changed after this MODSEQ (UNCHANGEDSINCE, RFC 7162 section
                3.1.3).
            since: see the module docstring.
        """

    def expunge(key: int, uids: Sequence[int] | None, since: int) -> values.StoreResult:
        r"""Remove the messages that have \Deleted (RFC 9051 section 6.4.3).

        Args:
            key: the mailbox.
            uids: remove only messages among these (UID EXPUNGE), distinct and ascending; None means all.
            since: see the module docstring.

        Returns:
            the delta, and the UIDs of messages that could not be removed. If that is so for all, an error is raised.
        """

    def copy(
        key: int, uids: Sequence[int], target: str, move: bool, since: int
    ) -> values.CopyResult:
        """Copy or move messages to another mailbox, with their flags and INTERNALDATE.

        If this raises, no message is copied or moved. The copies get ascending UIDs in the order of `uids`.

        Args:
            key: the mailbox that contains the messages.
            uids: the messages, distinct and ascending.
            target: the name of the other mailbox.
            move: also remove the messages here, in the same step. MOVE skips UIDs that do not exist (RFC 6851 section
                3.3).
            since: see the module docstring.

        Raises:
            NoSuchMailbox: one of the mailboxes does not exist.
            MessageExpunged: COPY names a message that was expunged. Then it must copy no message (RFC 9051 section
                6.4.7).
        """

    def replace(
        key: int, uid: int, target: str, message: values.NewMessage, since: int
    ) -> values.ReplaceResult:
        """Store `message` in the mailbox `target` and remove the message `uid`, in one step (RFC 8508).

        Only the difference of the two sizes counts against a quota.

        Raises:
            NoSuchMailbox: one of the mailboxes does not exist.
            MessageExpunged: `uid` was expunged.
        """

    def search(key: int, uids: Sequence[int], search_key: SearchKey) -> values.SearchResult:
        """Find those of `uids` that match one search key (RFC 9051 section 6.4.4).

        The store may stop early (`SearchResult.examined`). It should if it reads messages: for a `TextKey` there are up
        to `query.MESSAGES_PER_BLOCK` of them.

        Args:
            key: the mailbox.
            uids: the messages to search, distinct and ascending.
            search_key: a `HeaderKey`, `EnvelopeKey`, `TextKey`, `ObjectIdKey`, or a `DateKey` for SENT or SAVED
                dates. All other keys are answered from columns, by `mailbox.query`.
        """

    def watch_paths(key: int) -> Sequence[str]:
        """Return the directories of the file system that change when messages arrive or leave. There may be none."""

    def mailbox_paths(names: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Return what `watch_paths` returns for those of the mailboxes `names` that have directories, by name.

        It opens no mailbox: NOTIFY asks for thousands of them.
        """

    def close() -> None:
        """Release all resources. The store is not used afterwards."""


class ITextIndexStore(Interface):
    """A store with an index of the text of messages, for SEARCH TEXT and BODY. It provides this interface beside
    `IStore`."""

    def index_text(key: int) -> values.TextStep:
        """Index some messages of a mailbox that are not indexed, which takes some hundredths of a second.

        Called in the background. A search is right whether or not a message is indexed.

        Args:
            key: the mailbox.

        Returns:
            whether to call it again.

        Raises:
            StoreBusy: another process has locked the index. To be called again later.
        """


class ICachingStore(Interface):
    """A store that keeps files open, and what it has read, in memory. It provides this interface beside `IStore`."""

    def release_memory() -> None:
        """Free what the next call can do without. Called in the background, when no client has used the store for a
        while. It raises nothing."""


class IQuotaStore(Interface):
    """A store with a quota (RFC 9208). It provides this interface beside `IStore`.

    A method of the store that would exceed the quota raises `errors.NoSpace`.
    """

    def quota() -> values.Quota:
        """Return usage and limits. All mailboxes of the account share one quota root."""


class IMetadataStore(Interface):
    """A store that keeps metadata of mailboxes (RFC 5464). It provides this interface beside `IStore`.

    The mailbox "" is the server, as this account sees it.
    """

    def metadata(name: str, entries: Sequence[bytes] | None = None) -> dict[bytes, bytes]:
        """Return the values of `entries`, or of all entries of a mailbox if it is None; names are in lower case.

        Entries that do not exist are left out.

        Raises:
            NoSuchMailbox: there is no such mailbox.
        """

    def metadata_sizes(name: str) -> dict[bytes, int]:
        """Return all entries of a mailbox, in ascending order, and the sizes of their values in bytes.

        Sessions ask for the values a few at a time, as fast as the client reads them.

        Raises:
            NoSuchMailbox: there is no such mailbox.
        """

    def set_metadata(name: str, entries: Mapping[bytes, bytes | None]) -> None:
        """Set `entries`, all or none. A value of None removes the entry.

        Entries are renamed and deleted together with their mailbox; RENAME INBOX copies them. Entries that change
        raise the mailbox's HIGHESTMODSEQ.

        Raises:
            NoSuchMailbox: there is no such mailbox.
            TooMuchMetadata: the mailbox would have more than `values.MAX_METADATA_ENTRIES`.
        """


class IInPlaceStore(Interface):
    """A store whose short calls may run in the reactor's thread. It provides this interface beside `IStore`.

    Such a call raises `in_place.WouldBlock` before it waits, writes, or takes long, and has changed nothing by then. It
    is repeated in a thread. `in_place.is_in_place` says whether a call is of this sort.
    """

    volumes: Collection[int] = Attribute(
        """The file systems of the store, by any numbers; none while calls must not run in place.

        If calls take long on one of them, all accounts use threads that have mail there (`maildir.in_place_rules`).
        """
    )
