r"""`MaildirStore`: one user's Maildir as an `IStore`.

This module joins the parts. The decisions are explained where they are made:

=======================  ==============================================================================================
`sync`                   how changes by other programs are noticed, and which are not
`index_database`         the lock between processes, durability, a corrupt index
`message_append`         the order of steps in which a crash loses no message
`staging`                several messages that are stored together
`watch`                  inotify, and why it is only a hint
`account_state`          what the parts share
=======================  ==============================================================================================
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from zope.interface import implementer

from imapshield.errors import NoSuchMailbox, StoreError
from imapshield.mailbox.deltas import Delta
from imapshield.mailbox.storage import IMetadataStore, IQuotaStore, IStore
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
from imapshield.maildir import files
from imapshield.maildir.account_quota import AccountQuota
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.blob_reader import BlobReader
from imapshield.maildir.fetch_cache import FetchCache
from imapshield.maildir.folders import MailboxFolders
from imapshield.maildir.mailbox_status import MailboxCounts
from imapshield.maildir.message_append import MessageAppend
from imapshield.maildir.message_copy import MessageCopy
from imapshield.maildir.message_expunge import MessageExpunge
from imapshield.maildir.message_fetch import MessageFetch
from imapshield.maildir.message_flags import MessageFlags
from imapshield.maildir.message_search import MessageSearch
from imapshield.maildir.metadata_table import SERVER_KEY, MetadataTable
from imapshield.maildir.modseq_delta import delta_since
from imapshield.maildir.subscription_file import SubscriptionFile
from imapshield.maildir.sync import MailboxSync
from imapshield.wire.commands.fetch import FetchItem
from imapshield.wire.commands.search_keys import SearchKey
from imapshield.wire.sequence import SequenceSet


@implementer(IStore, IQuotaStore, IMetadataStore)
class MaildirStore:
    """One user's mail in the Maildir `root`, which is created if it does not exist.

    The methods are blocking and must be called from one thread at a time. Each raises a `StoreError` if the disk or the
    index fails. The interfaces describe the methods.

    Args:
        root: the directory that holds ``cur``, ``new`` and ``tmp``.
        now: returns seconds since the epoch; file times are searched_texts with it.
        log_warning: called with one line for the operator: what failed, the path, and what to do.
        quota: the maximum of bytes and of messages of the account; None is no limit.
    """

    def __init__(
        self,
        root: str,
        *,
        now: Callable[[], float],
        log_warning: Callable[[str], None],
        quota: tuple[int | None, int | None] = (None, None),
    ) -> None:
        self._account = account = AccountState(root, now, log_warning)
        self._index = account.index
        cache = FetchCache(account.index, now)
        self._sync = MailboxSync(account)
        self._quota = AccountQuota(account.index, quota)
        self._metadata = MetadataTable(account.index)
        self._append = MessageAppend(account, self._sync, self._quota)
        self._copy = MessageCopy(account, self._sync, self._quota, cache)
        self._flags = MessageFlags(account)
        self._expunge = MessageExpunge(account)
        self._folders = MailboxFolders(account, self._sync, self._copy, self._metadata)
        self._subscriptions = SubscriptionFile(account)
        self._counts = MailboxCounts(account, cache)
        self._fetch = MessageFetch(account, cache)
        self._blobs = BlobReader(account)
        self._search = MessageSearch(account, cache)

    @contextmanager
    def _operation(self) -> Iterator[None]:
        """Prepare the Maildir and the index, and turn errors of a block into a StoreError."""
        try:
            self._account.prepare()
            yield
        except StoreError:
            self._account.reset()
            raise
        except OSError as error:
            self._account.reset()
            raise files.store_error(error, self._account.log_warning) from error
        except sqlite3.Error as error:
            self._account.reset()
            raise self._index.store_error(error) from error

    def mailboxes(self) -> Iterable[MailboxInfo]:
        with self._operation():
            return self._folders.mailboxes()

    def subscriptions(self) -> set[str]:
        with self._operation():
            return self._subscriptions.names()

    def set_subscribed(self, name: str, subscribed: bool) -> None:
        with self._operation():
            self._subscriptions.set_subscribed(name, subscribed)

    def create(self, name: str, special_use: Sequence[bytes]) -> bytes:
        with self._operation():
            return self._folders.create(name, special_use).mailbox_id

    def delete(self, name: str) -> None:
        with self._operation():
            self._folders.delete(name)

    def rename(self, old: str, new: str) -> None:
        with self._operation():
            self._folders.rename(old, new)

    def status(self, name: str) -> MailboxStatus:
        with self._operation():
            mailbox, _ = self._sync.sync(self._sync.find_or_add(name), claim=False)
            return self._counts.status(mailbox)

    def key(self, name: str) -> int:
        with self._operation():
            mailbox = self._sync.find_or_add(name)
            if not os.path.isdir(self._account.paths.folder(mailbox.name)):
                raise NoSuchMailbox
            return mailbox.key

    def open(self, name: str, claim_recent: bool) -> OpenedMailbox:
        with self._operation():
            mailbox, recent = self._sync.sync(self._sync.find_or_add(name), claim_recent)
            delta = delta_since(self._index, mailbox.key, 0, recent)
            return OpenedMailbox(
                mailbox.key, mailbox.name, mailbox.uidvalidity, mailbox.mailbox_id, delta
            )

    def changes(self, key: int, since: int, claim_recent: bool) -> Delta:
        with self._operation():
            mailbox, recent = self._sync.sync(self._index.mailbox(key), claim_recent)
            if since == mailbox.highestmodseq:  # as in nearly every NOOP and poll of IDLE
                return Delta([], SequenceSet(), since, mailbox.uidnext, recent)
            return delta_since(self._index, key, since, recent)

    def append(self, name: str, messages: Sequence[NewMessage]) -> AppendResult:
        with self._operation():
            return self._append.append(name, messages)

    def fetch(
        self, key: int, uids: Sequence[int], items: Sequence[FetchItem], budget: int
    ) -> FetchResult:
        with self._operation():
            return self._fetch.fetch(key, uids, items, budget)

    def read(self, key: int, uid: int, item: FetchItem, offset: int, size: int) -> bytes:
        with self._operation():
            return self._blobs.read(key, uid, item, offset, size)

    def sizes(self, key: int, uids: Sequence[int]) -> list[tuple[int, int]]:
        with self._operation():
            return self._counts.sizes(key, uids)

    def store_flags(
        self,
        key: int,
        uids: Sequence[int],
        op: bytes,
        flags: Sequence[bytes],
        unchanged_since: int | None,
        since: int,
    ) -> tuple[Delta, list[int]]:
        with self._operation():
            return self._flags.store_flags(key, uids, op, flags, unchanged_since, since)

    def expunge(self, key: int, uids: Sequence[int] | None, since: int) -> Delta:
        with self._operation():
            return self._expunge.expunge(key, uids, since)

    def copy(
        self, key: int, uids: Sequence[int], target: str, move: bool, since: int
    ) -> CopyResult:
        with self._operation():
            return self._copy.copy(key, uids, target, move, since)

    def replace(
        self, key: int, uid: int, target: str, message: NewMessage, since: int
    ) -> ReplaceResult:
        with self._operation():
            return self._append.replace(key, uid, target, message, since)

    def search(self, key: int, uids: Sequence[int], leaf: SearchKey) -> list[int]:
        with self._operation():
            return self._search.search(key, uids, leaf)

    def quota(self) -> Quota:
        """Return usage and limits, after a sync of every folder: some may have mail that the index does not have
        yet."""
        with self._operation():
            for info in self._folders.mailboxes():
                if info.selectable:
                    with suppress(NoSuchMailbox):
                        self._sync.sync(self._sync.find_or_add(info.name), claim=False)
            return self._quota.usage()

    def metadata(self, name: str) -> dict[bytes, bytes]:
        with self._operation():
            return self._metadata.get(self._metadata_key(name))

    def set_metadata(self, name: str, values: Mapping[bytes, bytes | None]) -> None:
        with self._operation():
            self._metadata.set(self._metadata_key(name), values)

    def _metadata_key(self, name: str) -> int:
        return self._sync.find_or_add(name).key if name else SERVER_KEY

    def watch_paths(self, key: int) -> Sequence[str]:
        with self._operation():
            folder = os.fsdecode(self._account.paths.folder(self._index.mailbox(key).name))
            return (folder + "/new", folder + "/cur")

    def close(self) -> None:
        self._index.close()
