"""COPY and MOVE: existing messages in another mailbox, in one transaction each.

A copy is a second name (a hard link) for the same file; a move renames the file.

Rules
-----
* If a method raises, it has changed nothing: the steps that were taken are undone in reverse order.
* A crash in the middle of a MOVE, or of a COPY of one message, can leave files that the index does not have. They are
  whole and come up as new mail. So a message may be there twice; it is never lost.
* The copies of one COPY are all there after a crash or none of them is: see `staging`. MOVE needs no staging, because
  it only promises that each message is in exactly one mailbox (RFC 6851 section 3.3).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack

from imapshield.errors import MessageExpunged
from imapshield.mailbox.deltas import Delta
from imapshield.mailbox.values import CopyResult
from imapshield.maildir import filename, files
from imapshield.maildir.account_quota import AccountQuota
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.directory_state import read_stamps, record_own_change
from imapshield.maildir.fetch_cache import FetchCache
from imapshield.maildir.file_finder import FileFinder
from imapshield.maildir.keywords import canonical_flags
from imapshield.maildir.layout import CUR, TMP, message_path
from imapshield.maildir.modseq_delta import delta_since
from imapshield.maildir.sync import MailboxSync


class MessageCopy:
    """The method `copy` of `IStore`, which also moves."""

    def __init__(
        self, account: AccountState, sync: MailboxSync, quota: AccountQuota, cache: FetchCache
    ) -> None:
        self._account = account
        self._index = account.index
        self._sync = sync
        self._quota = quota
        self._cache = cache

    def copy(
        self, key: int, uids: Sequence[int], target: str, move: bool, since: int
    ) -> CopyResult:
        """Copy or move messages; `IStore.copy` describes the arguments."""
        mailbox = self._sync.find_or_add(target)
        read_stamps(self._account.paths.folder(mailbox.name))  # creates missing directories
        directory = CUR if move or len(uids) == 1 else TMP
        with ExitStack() as rollback:
            with self._index.write(durable=directory == TMP):
                result = self._copy(key, uids, mailbox.key, move, directory, rollback)
            rollback.pop_all()
        if directory == TMP and result.target_uids:
            self._account.staging.publish(mailbox.key, result.target_uids[0])
        return result._replace(delta=delta_since(self._index, key, since))

    def _copy(
        self,
        key: int,
        uids: Sequence[int],
        target_key: int,
        move: bool,
        directory: int,
        rollback: ExitStack,
    ) -> CopyResult:
        account, index = self._account, self._index
        source, target = index.mailbox(key), account.staging.published(target_key)
        source_folder = account.paths.folder(source.name)
        target_folder = account.paths.folder(target.name)
        source_before, target_before = read_stamps(source_folder), read_stamps(target_folder)
        rows = index.message_rows(
            "uid, name, place, flags, size, physical, internaldate, email_id", key, uids
        )
        if not move:
            if len(rows) < len(uids):
                raise MessageExpunged
            self._quota.check(len(rows), sum(row[5] for row in rows))
        if not rows:
            return CopyResult(target.uidvalidity, [], [], Delta())
        flag_lists = {row[3] for row in rows}
        keywords = account.keywords.add(
            target, {flag for flags in flag_lists for flag in flags.split()}
        )
        target_flags = {flags: canonical_flags(flags.split(), keywords) for flags in flag_lists}
        modseq, saved = target.highestmodseq + 1, int(account.now())
        finder = FileFinder(source_folder)
        # One system call per message, and most of its cost. Each step is undone by its opposite.
        transfer = os.rename if move else files.duplicate
        new_rows: list[tuple[object, ...]] = []
        for new_uid, row in enumerate(rows, target.uidnext):
            _, name, old_directory, old_flags, size, physical, date, email_id = row
            flags = target_flags[old_flags]
            base = filename.with_sizes(account.paths.unique_name(), physical, size)
            new_name = filename.with_flags(base, flags.split(), keywords)
            path = message_path(source_folder, old_directory, name)
            new_path = message_path(target_folder, directory, new_name)
            try:
                transfer(path, new_path)
            except FileNotFoundError:
                file = finder.find(name)
                if file is None:
                    raise MessageExpunged from None
                path = message_path(source_folder, *file)
                transfer(path, new_path)
            if move:
                rollback.callback(files.rename_back, new_path, path)
            else:
                rollback.callback(files.remove, new_path)
            new_row = (target_key, new_uid, new_name, directory, flags, modseq, size, physical)
            new_rows.append((*new_row, date, saved, email_id))
        source_uids = [row[0] for row in rows]
        target_uids = list(range(target.uidnext, target.uidnext + len(rows)))
        account.staging.insert(target, directory, target_before, modseq, new_rows)
        self._cache.copy(key, source_uids, target_key, target.uidnext)
        if move:
            source = index.mailbox(key)
            index.expunge(source, source_uids, source.highestmodseq + 1)
            if target_key != key:
                files.sync_directory(source_folder + b"/cur")
                record_own_change(index, source, source_folder, source_before)
        return CopyResult(target.uidvalidity, source_uids, target_uids, Delta())
