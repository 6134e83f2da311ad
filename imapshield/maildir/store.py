r"""`MaildirStore`: one user's Maildir as an `IStore`.

How a Maildir is read, and why so
---------------------------------
A Maildir has no lock and no journal. Delivery agents put files into ``new/``; Dovecot, mutt and mbsync rename them in
``cur/`` when flags change, move, delete, and make and remove folders, all without a word to us. A second imapshield
may serve the same account. So:

*The message is the base name.* It is the only thing that nobody changes. UIDs, MODSEQs and all that is told to clients
belong to it in the index; the rest of the name, the directory and the flags are what the last look found. When a file
is not where the index has it, one listing finds it by its base.

*mtimes say when to look.* A directory is read when its mtime or inode is not what the index recorded at the last
reading. An mtime is only as fine as the kernel's clock tick, so a change just after the reading can leave it as it was:
a directory read within a second of its last change is *hot*, and is read once more when that second is over (``new/``,
which is small, at every look until then). Our own changes are recorded together with the mtime they made, if the one
before was the recorded one; that too leaves the directory hot, since somebody else may have been there in the same
tick. A loop of APPENDs therefore reads no directory. Once an hour a directory is read whatever its mtime says.

*One listing proves nothing.* readdir() may miss a file that is renamed while it runs. A message is expunged only when
a second listing, made after the account's lock was taken, misses it as well. ``new/`` is listed before ``cur/``, so a
file that wanders between them is seen.

*The lock is SQLite's.* UIDs are given inside a write transaction, from rows read in it, and are on stable storage
before anybody hears of them. If the index is lost or broken, a new one gives new UIDVALIDITYs. It lies beside the mail
as ``imapshield.sqlite``, without a leading dot, so that no program takes it for a folder.

*Files first.* An APPEND is written and synced in ``tmp/``, renamed into ``cur/``, the directory synced, the row
committed. At every point a crash leaves whole files: at worst a message that nobody was promised comes up as new.
EXPUNGE unlinks before it commits for the same reason turned round: what the client saw go must not come back.

*Several at once.* A COPY of a hundred messages must not come up as sixty. Their files, second names for the same
octets, are made in ``tmp/``, and that directory is synced; the commit, which waits for the disk, says that they are
there; then they are renamed into ``cur/``. Until then a row's `place` is TMP, and it is read where it is: only other
programs do not see it yet. Who opens an index in which a mailbox is UNSETTLED does the renames that a crash prevented.

*What was not done.* Files are not moved out of ``new/`` by a look, only when a session takes them as \\Recent or flags
are stored: STATUS and EXAMINE change nothing. Dovecot's lock file for keywords is not taken: the file is replaced
whole, and a lost race costs a keyword's letter. inotify is a hint, never the truth (`watch`). On NFS SQLite's WAL does
not work between hosts, so one host serves an account. Symbolic links to messages are not followed; to folders they are.
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
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.append_copy import Adding
from imapshield.maildir.fetch_cache import Answers
from imapshield.maildir.flags_expunge import Changing
from imapshield.maildir.folders import Folders
from imapshield.maildir.message_fetch import Fetching
from imapshield.maildir.message_file import MESSAGE, Contents, Message
from imapshield.maildir.message_search import Searching
from imapshield.maildir.quota_metadata import SERVER, Metadata, Quotas
from imapshield.maildir.sync import Syncing
from imapshield.wire.commands.fetch import FetchItem
from imapshield.wire.commands.search_keys import SearchKey
from imapshield.wire.sequence import SequenceSet

MEASURED_FOR_STATUS = 16 << 20
"""STATUS measures messages of unknown size if they are no more octets than this; beyond it counts an upper bound,
which RFC 8438 section 3 permits, so that a first STATUS of a large mailbox does not read all of it."""


@implementer(IStore, IQuotaStore, IMetadataStore)
class MaildirStore:
    """One user's mail in the Maildir `root`, which is made if it is not there.

    Args:
        root: the directory that holds ``cur``, ``new`` and ``tmp``.
        now: seconds since the epoch; the clock that file times are compared with.
        note: told what an operator should know, a line at a time.
        quota: the most octets and the most messages that the account may have; None is no limit.
    """

    def __init__(
        self,
        root: str,
        *,
        now: Callable[[], float],
        note: Callable[[str], None],
        quota: tuple[int | None, int | None] = (None, None),
    ) -> None:
        self._core = core = AccountState(root, now, note)
        self._index = core.index
        answers = Answers(core.index, now)
        self._syncing = Syncing(core)
        self._quotas = Quotas(core.index, quota)
        self._metadata = Metadata(core.index)
        self._adding = Adding(core, self._syncing, self._quotas)
        self._changing = Changing(core, self._syncing)
        self._folders = Folders(core, self._syncing, self._adding)
        self._fetching = Fetching(core, answers)
        self._searching = Searching(core, answers)
        self._answers = answers

    @contextmanager
    def _asked(self) -> Iterator[None]:
        """Make sure that all is there; what goes wrong becomes a StoreError."""
        try:
            self._core.ready()
            yield
        except StoreError:
            self._core.forget()
            raise
        except OSError as error:
            self._core.forget()
            raise files.translate(error, self._core.note) from error
        except sqlite3.Error as error:
            self._core.forget()
            raise self._index.translate(error) from error

    def mailboxes(self) -> Iterable[MailboxInfo]:
        """See `IStore`, also for what follows."""
        with self._asked():
            return self._folders.mailboxes()

    def subscriptions(self) -> set[str]:
        with self._asked():
            return self._folders.subscriptions()

    def set_subscribed(self, name: str, subscribed: bool) -> None:
        with self._asked():
            self._folders.set_subscribed(name, subscribed)

    def create(self, name: str, special_use: Sequence[bytes]) -> bytes:
        with self._asked():
            return self._folders.create(name, special_use)

    def delete(self, name: str) -> None:
        with self._asked():
            self._folders.delete(name)

    def rename(self, old: str, new: str) -> None:
        with self._asked():
            self._folders.rename(old, new)

    def status(self, name: str) -> MailboxStatus:
        with self._asked():
            box, _ = self._syncing.sync(self._syncing.adopt(name), claim=False)
            self._measure_some(box.key)
            with self._index.snapshot() as db:
                box = self._index.box(box.key)
                messages, recent, seen, deleted, size, deleted_size = db.execute(
                    "SELECT count(*), total(uid > ?), total(instr(flags, x'5c5365656e') > 0),"
                    " total(deleted), total(octets), total(iif(deleted, octets, 0))"
                    " FROM (SELECT uid, flags, coalesce(size, 2 * physical) AS octets,"
                    " instr(flags, x'5c44656c65746564') > 0 AS deleted FROM message WHERE mailbox = ?)",
                    (box.recentuid, box.key),
                ).fetchone()
        return MailboxStatus(
            messages=messages,
            recent=int(recent),
            unseen=messages - int(seen),
            deleted=int(deleted),
            uidnext=box.uidnext,
            uidvalidity=box.uidvalidity,
            highestmodseq=box.highestmodseq,
            size=int(size),
            mailbox_id=box.mailbox_id,
            deleted_size=int(deleted_size),
        )

    def _measure_some(self, key: int) -> None:
        rows = self._index.db.execute(
            "SELECT uid, physical FROM message INDEXED BY message_unmeasured"
            " WHERE mailbox = ? AND size IS NULL",
            (key,),
        ).fetchall()
        if rows and sum(physical for _, physical in rows) <= MEASURED_FOR_STATUS:
            self._sizes(key, [uid for uid, _ in rows])

    def key(self, name: str) -> int:
        with self._asked():
            box = self._syncing.adopt(name)
            if not os.path.isdir(self._core.folder(box.name)):
                raise NoSuchMailbox
            return box.key

    def open(self, name: str, claim_recent: bool) -> OpenedMailbox:
        with self._asked():
            box, recent = self._syncing.sync(self._syncing.adopt(name), claim_recent)
            delta = self._syncing.delta(box.key, 0, recent)
            return OpenedMailbox(box.key, box.name, box.uidvalidity, box.mailbox_id, delta)

    def changes(self, key: int, since: int, claim_recent: bool) -> Delta:
        with self._asked():
            box, recent = self._syncing.sync(self._index.box(key), claim_recent)
            if since == box.highestmodseq:  # what every NOOP and every second of IDLE finds
                return Delta([], SequenceSet(), since, box.uidnext, recent)
            return self._syncing.delta(key, since, recent)

    def append(self, name: str, messages: Sequence[NewMessage]) -> AppendResult:
        with self._asked():
            return self._adding.append(name, messages)

    def fetch(
        self, key: int, uids: Sequence[int], items: Sequence[FetchItem], budget: int
    ) -> FetchResult:
        with self._asked():
            return self._fetching.fetch(key, uids, items, budget)

    def read(self, key: int, uid: int, item: FetchItem, offset: int, size: int) -> bytes:
        with self._asked():
            return self._fetching.read(key, uid, item, offset, size)

    def sizes(self, key: int, uids: Sequence[int]) -> list[tuple[int, int]]:
        with self._asked():
            return self._sizes(key, uids)

    def _sizes(self, key: int, uids: Sequence[int]) -> list[tuple[int, int]]:
        box = self._index.box(key)
        contents = Contents(self._core, self._core.folder(box.name))
        sizes: list[tuple[int, int]] = []
        for row in self._index.rows(MESSAGE, key, uids):
            message = Message._make(row)
            size = message.size if message.size is not None else contents.size(message)
            if size is not None:
                sizes.append((message.uid, size))
        self._answers.keep(key, [], contents.measured)
        return sizes

    def store_flags(
        self,
        key: int,
        uids: Sequence[int],
        op: bytes,
        flags: Sequence[bytes],
        unchanged_since: int | None,
        since: int,
    ) -> tuple[Delta, list[int]]:
        with self._asked():
            return self._changing.store_flags(key, uids, op, flags, unchanged_since, since)

    def expunge(self, key: int, uids: Sequence[int] | None, since: int) -> Delta:
        with self._asked():
            return self._changing.expunge(key, uids, since)

    def copy(
        self, key: int, uids: Sequence[int], target: str, move: bool, since: int
    ) -> CopyResult:
        with self._asked():
            return self._adding.copy(key, uids, target, move, since)

    def replace(
        self, key: int, uid: int, target: str, message: NewMessage, since: int
    ) -> ReplaceResult:
        with self._asked():
            return self._adding.replace(key, uid, target, message, since)

    def search(self, key: int, uids: Sequence[int], leaf: SearchKey) -> list[int]:
        with self._asked():
            return self._searching.search(key, uids, leaf)

    def quota(self) -> Quota:
        """See `IQuotaStore`. Every folder is looked at first, for what nobody has opened yet."""
        with self._asked():
            for info in self._folders.mailboxes():
                if info.selectable:
                    with suppress(NoSuchMailbox):
                        self._syncing.sync(self._syncing.adopt(info.name), claim=False)
            return self._quotas.used()

    def metadata(self, name: str) -> dict[bytes, bytes]:
        """See `IMetadataStore`, also for what follows."""
        with self._asked():
            return self._metadata.get(self._metadata_key(name))

    def set_metadata(self, name: str, values: Mapping[bytes, bytes | None]) -> None:
        with self._asked():
            self._metadata.set(self._metadata_key(name), values)

    def _metadata_key(self, name: str) -> int:
        return self._syncing.adopt(name).key if name else SERVER

    def watch_paths(self, key: int) -> Sequence[str]:
        with self._asked():
            folder = os.fsdecode(self._core.folder(self._index.box(key).name))
            return (folder + "/new", folder + "/cur")

    def close(self) -> None:
        """Release the index."""
        self._index.close()
