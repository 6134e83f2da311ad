"""EXPUNGE: files are removed first, then their rows, in one transaction.

The order matters: a message that the client saw expunged must not come back. After a crash in the middle, the next sync
finds the files missing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from imapshield.mailbox.deltas import Delta
from imapshield.maildir import filename, files
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.directory_state import read_stamps, record_own_change
from imapshield.maildir.file_finder import FileFinder
from imapshield.maildir.index import MailboxRow
from imapshield.maildir.layout import message_path
from imapshield.maildir.modseq_delta import delta_since
from imapshield.wire.flags import DELETED

_HAS_DELETED = "AND instr(flags, x'5c44656c65746564') > 0"  # \Deleted


class MessageExpunge:
    """The method `expunge` of `IStore`."""

    def __init__(self, account: AccountState) -> None:
        self._account = account
        self._index = account.index

    def expunge(self, key: int, uids: Sequence[int] | None, since: int) -> Delta:
        """Remove messages; `IStore.expunge` describes the arguments."""
        index = self._index
        with index.write() as db:
            mailbox = index.mailbox(key)
            folder = self._account.paths.folder(mailbox.name)
            before = read_stamps(folder)
            if uids is None:
                rows = db.execute(
                    f"SELECT uid, name, place FROM message WHERE mailbox = ? {_HAS_DELETED}"  # noqa: S608
                    " ORDER BY uid",
                    (key,),
                ).fetchall()
            else:
                rows = index.message_rows("uid, name, place", key, uids, _HAS_DELETED)
            expunged = self._unlink(mailbox, folder, rows)
            if expunged:
                index.expunge(mailbox, expunged, mailbox.highestmodseq + 1)
                record_own_change(index, mailbox, folder, before)
        return delta_since(index, key, since)

    def _unlink(
        self, mailbox: MailboxRow, folder: bytes, rows: Sequence[tuple[int, bytes, int]]
    ) -> list[int]:
        """Remove files, given as (uid, name, directory); return the UIDs of those that are gone now."""
        finder = FileFinder(folder)
        expunged: list[int] = []
        for uid, name, directory in rows:
            try:
                try:
                    os.unlink(message_path(folder, directory, name))
                except FileNotFoundError:
                    file = finder.find(name)
                    if file is not None:
                        keywords = self._account.keywords.get(mailbox)
                        if DELETED not in filename.flags_of(file[1], keywords):
                            continue  # another program has just removed \Deleted
                        os.unlink(message_path(folder, *file))
            except OSError as error:
                if not expunged:
                    raise
                # The removed files cannot be brought back. The other messages keep \Deleted, and the next EXPUNGE
                # fails with the reason.
                files.store_error(error, self._account.log_warning)
                break
            expunged.append(uid)
        return expunged
