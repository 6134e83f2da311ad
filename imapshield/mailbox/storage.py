"""TODO."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from zope.interface import Interface

from imapshield.mailbox.columns import Delta
from imapshield.mailbox.values import (
    AppendResult,
    CopyResult,
    FetchResult,
    MailboxInfo,
    MailboxStatus,
    NewMessage,
    OpenedMailbox,
    Quota,
    ReplaceResult,
)
from imapshield.wire.commands.fetch import FetchItem
from imapshield.wire.commands.search_keys import SearchKey

T = TypeVar("T")


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

    def open(name: str, claim_recent: bool) -> OpenedMailbox:
        """Find a mailbox, take in what was delivered, and tell all of it. ``delta.recent`` are the messages that no
        session has claimed yet; with `claim_recent` this one does, and no other will (RFC 3501 section 2.3.2)."""

    def changes(key: int, since: int, claim_recent: bool) -> Delta:
        """Take in what was delivered or changed on disk; tell what changed after MODSEQ `since`. Where the store
        does not remember what vanished since then, it names every UID below UIDNEXT that is not there."""

    def append(name: str, messages: Sequence[NewMessage]) -> AppendResult:
        """Store all of `messages` or none; they are on stable storage when this returns. Their content may be read by
        calls of this store's own `read`, and end in MessageExpunged."""

    def fetch(
        key: int, uids: Sequence[int], items: Sequence[FetchItem], budget: int
    ) -> FetchResult:
        """Answer `items` (ENVELOPE, BODY, BODYSTRUCTURE, SAVEDATE, EMAILID, THREADID, BodySection, Binary, Preview)
        for as many of `uids`, in order, as fit into about `budget` octets, at least one."""

    def read(key: int, uid: int, item: FetchItem, offset: int, size: int) -> bytes:
        """`size` octets from `offset` of what a `Blob` stands for. MessageExpunged."""

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

    def copy(key: int, uids: Sequence[int], target: str, move: bool, since: int) -> CopyResult:
        """Copy (or move) to the mailbox `target`, all or none, keeping flags and INTERNALDATE. Of `uids` that are gone,
        COPY is MessageExpunged (RFC 9051 section 6.4.7: no part of it), MOVE takes the others (RFC 6851 section 3.3)."""

    def replace(key: int, uid: int, target: str, message: NewMessage, since: int) -> ReplaceResult:
        """Store `message` in the mailbox `target` and remove `uid`, in one step; only what the new one has more
        counts for a quota (RFC 8508). MessageExpunged if there is no `uid`."""

    def search(key: int, uids: Sequence[int], leaf: SearchKey) -> list[int]:
        """Those of `uids` that match one HeaderHas, EnvelopeHas, TextHas, ObjectIs, or DateIs on SENT or SAVED."""

    def watch_paths(key: int) -> Sequence[str]:
        """Name the folders of the file system whose change means that mail came or went here; may be none."""

    def close() -> None:
        """Release every handle; the store may not be used afterwards."""


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
        mailbox, of INBOX copied, and MODSEQ rises if they change. NoSuchMailbox; `errors.TooMuchMetadata` for more
        than `METADATA_ENTRIES` of one mailbox."""
