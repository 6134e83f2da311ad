"""APPEND, MULTIAPPEND and REPLACE: new messages in a mailbox, in one transaction each.

Rules
-----
* Files come first: a message is written and synced in ``tmp/``, renamed into ``cur/``, the directory is synced, and
  then its row is committed. At every point a crash leaf_keys whole files.
* If a method raises, it has changed nothing: the steps that were taken are undone in reverse order.
* A crash in the middle can leave files that the index does not have. They are whole and come up as new mail. So a
  message may be there twice; it is never lost.
* Several messages of one APPEND are all there after a crash or none of them is: see `staging`.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from contextlib import ExitStack

from imapshield.errors import MessageExpunged, NoSuchMailbox, StoreLimitExceeded
from imapshield.mailbox.values import AppendResult, NewMessage, ReplaceResult
from imapshield.maildir import filename, files
from imapshield.maildir.account_quota import AccountQuota
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.directory_state import read_stamps, record_own_change
from imapshield.maildir.file_finder import FileFinder
from imapshield.maildir.index import MailboxRow
from imapshield.maildir.keywords import canonical_flags
from imapshield.maildir.layout import CUR, TMP, message_path
from imapshield.maildir.modseq_delta import delta_since
from imapshield.maildir.sync import MailboxSync


class MessageAppend:
    """The methods of `IStore` that store new messages."""

    def __init__(self, account: AccountState, sync: MailboxSync, quota: AccountQuota) -> None:
        self._account = account
        self._index = account.index
        self._sync = sync
        self._quota = quota

    def append(self, name: str, messages: Sequence[NewMessage]) -> AppendResult:
        """Store messages; `IStore.append` describes the arguments.

        The files are written and synced before the lock is taken, so a slow disk delays no other process.
        """
        mailbox = self._sync.find_or_add(name)
        self._quota.check(len(messages), sum(message.content.size for message in messages))
        directory = TMP if len(messages) > 1 else CUR
        with ExitStack() as rollback:
            written = self._write_files(mailbox, messages, rollback)
            with self._index.write(durable=directory == TMP):
                result = self._insert(mailbox.key, messages, written, directory, rollback)
            rollback.pop_all()
        if directory == TMP:
            self._account.staging.publish(mailbox.key, result.uids[0])
        return result

    def replace(
        self, key: int, uid: int, name: str, message: NewMessage, since: int
    ) -> ReplaceResult:
        """Append and expunge in one transaction; `IStore.replace` describes the arguments.

        Only the bytes that the new message has more than the old one count for the quota.
        """
        mailbox = self._sync.find_or_add(name)
        old = self._index.message_rows("physical", key, [uid])
        if not old:
            raise MessageExpunged
        self._quota.check(0, message.content.size - old[0][0])
        with ExitStack() as rollback:
            written = self._write_files(mailbox, [message], rollback)
            with self._index.write():
                appended = self._insert(mailbox.key, [message], written, CUR, rollback)
                self._remove(key, uid)
            rollback.pop_all()
        return ReplaceResult(appended, delta_since(self._index, key, since))

    def _remove(self, key: int, uid: int) -> None:
        mailbox = self._index.mailbox(key)
        folder = self._account.paths.folder(mailbox.name)
        before = read_stamps(folder)
        rows = self._index.message_rows("place, name", key, [uid])
        if not rows:
            raise MessageExpunged
        try:
            os.unlink(message_path(folder, *rows[0]))
        except FileNotFoundError:
            file = FileFinder(folder).find(rows[0][1])
            if file is None:
                raise MessageExpunged from None
            os.unlink(message_path(folder, *file))
        self._index.expunge(mailbox, [uid], mailbox.highestmodseq + 1)
        record_own_change(self._index, mailbox, folder, before)

    def _write_files(
        self, mailbox: MailboxRow, messages: Sequence[NewMessage], rollback: ExitStack
    ) -> list[tuple[bytes, int, int]]:
        """Write messages into ``tmp/``; return (base name, size, INTERNALDATE) of each."""
        folder = self._account.paths.folder(mailbox.name)
        read_stamps(folder)  # creates missing directories
        now = int(self._account.now())
        written: list[tuple[bytes, int, int]] = []
        for message in messages:
            size = message.content.size
            if size > files.MAX_MESSAGE_SIZE:
                raise StoreLimitExceeded(f"Message is larger than {files.MAX_MESSAGE_SIZE} bytes")
            base = filename.with_sizes(self._account.paths.unique_name(), size, size)
            date = now if message.internaldate is None else message.internaldate
            path = message_path(folder, TMP, base)
            self._write_file(folder, path, message, date)
            rollback.callback(files.remove, path)
            written.append((base, size, date))
        return written

    def _write_file(self, folder: bytes, path: bytes, message: NewMessage, date: int) -> None:
        try:
            files.write_message(path, message.content, date)
        except FileNotFoundError:
            if not os.path.isdir(folder):
                raise NoSuchMailbox from None
            files.make_folder(folder)  # only tmp/ was missing
            files.write_message(path, message.content, date)

    def _insert(
        self,
        key: int,
        messages: Sequence[NewMessage],
        written: Sequence[tuple[bytes, int, int]],
        directory: int,
        rollback: ExitStack,
    ) -> AppendResult:
        """Give the written files their names and rows, in a write transaction."""
        account = self._account
        mailbox = account.staging.published(key)
        folder = account.paths.folder(mailbox.name)
        before = read_stamps(folder)
        keywords = account.keywords.add(
            mailbox, [flag for message in messages for flag in message.flags]
        )
        modseq, saved = mailbox.highestmodseq + 1, int(account.now())
        rows = []
        for uid, (message, (base, size, date)) in enumerate(
            zip(messages, written, strict=True), mailbox.uidnext
        ):
            flags = canonical_flags(message.flags, keywords)
            name = filename.with_flags(base, flags.split(), keywords)
            target = message_path(folder, directory, name)
            os.rename(message_path(folder, TMP, base), target)
            rollback.callback(files.remove, target)
            email_id = b"M" + secrets.token_hex(8).encode()
            row = (key, uid, name, directory, flags, modseq, size, size, date, saved, email_id)
            rows.append(row)
        account.staging.insert(mailbox, directory, before, modseq, rows)
        return AppendResult(mailbox.uidvalidity, [row[1] for row in rows])
