"""Message files that the index does not have → rows with UIDs, in the order of their delivery."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Mapping, Sequence

from imapshield.maildir import filename, files
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.index import MailboxRow
from imapshield.maildir.layout import message_path

MAX_LOGGED_FILES = 1000


class UidAssignment:
    """Adds new files of one account's mailboxes to the index."""

    def __init__(self, account: AccountState) -> None:
        self._account = account
        self._logged_files: set[bytes] = set()

    def add_files(
        self,
        mailbox: MailboxRow,
        folder: bytes,
        new_files: Sequence[tuple[int, bytes]],
        modseq: int,
        imported_uids: Mapping[bytes, int] | None = None,
    ) -> int:
        """Add files to the index, in a write transaction, and return the UIDNEXT after them.

        Files that are gone meanwhile, that are not regular files, or that are larger than `files.MAX_MESSAGE_SIZE` get
        no UID.

        Args:
            mailbox: the mailbox's current row.
            folder: its folder.
            new_files: (directory, name) of each file.
            modseq: the MODSEQ of the new messages.
            imported_uids: UIDs from another server, by base name; other files get UIDs from UIDNEXT on.
        """
        if not new_files:
            return mailbox.uidnext
        keywords = self._account.keywords.get(mailbox)
        saved = int(self._account.now())
        delivered = self._in_delivery_order(folder, new_files)
        uids, uidnext = _assign(
            [name for _, _, name, _, _ in delivered], mailbox.uidnext, imported_uids or {}
        )
        email_ids = secrets.token_bytes(8 * len(delivered)).hex().encode()
        flag_lists: dict[bytes, bytes] = {}
        rows: list[tuple[object, ...]] = []
        for i, (_, directory, name, size, mtime) in enumerate(delivered):
            base_name, _, info = name.partition(b":")
            flags = flag_lists.get(info)
            if flags is None:
                flags = flag_lists[info] = filename.all_flags(name, b"", keywords)
            wire_size = filename.wire_size(base_name)
            email_id = b"M" + email_ids[16 * i : 16 * i + 16]
            row = (mailbox.key, uids[i], name, directory, flags, modseq, wire_size, size, mtime)
            rows.append((*row, saved, email_id))
        self._account.index.insert_messages(rows)
        return uidnext

    def _in_delivery_order(
        self, folder: bytes, new_files: Sequence[tuple[int, bytes]]
    ) -> list[tuple[tuple[float, int, int, bytes], int, bytes, int, int]]:
        """Return (sort key, directory, name, size, mtime) of the files that are messages."""
        delivered = []
        for directory, name in new_files:
            path = message_path(folder, directory, name)
            try:
                status = os.lstat(path)
            except FileNotFoundError:  # moved or removed meanwhile; the next sync finds out which
                continue
            if status.st_size > files.MAX_MESSAGE_SIZE:
                self._log_too_large(path)
            elif stat.S_ISREG(status.st_mode):
                key = filename.delivery_order(name, status.st_mtime)
                delivered.append((key, directory, name, status.st_size, int(status.st_mtime)))
        delivered.sort()
        return delivered

    def _log_too_large(self, path: bytes) -> None:
        if path not in self._logged_files and len(self._logged_files) < MAX_LOGGED_FILES:
            self._logged_files.add(path)
            self._account.log_warning(
                f"{os.fsdecode(path)!r} is larger than {files.MAX_MESSAGE_SIZE} bytes and is not shown to mail "
                "clients; move it out of the Maildir"
            )


def _assign(
    names: Sequence[bytes], uidnext: int, imported_uids: Mapping[bytes, int]
) -> tuple[list[int], int]:
    """Return a UID for each file name, imported or new, and the UIDNEXT after them."""
    uids: list[int] = []
    for name in names:
        uid = imported_uids.get(filename.base(name), 0)
        if not uid:
            uid, uidnext = uidnext, uidnext + 1
        uids.append(uid)
    return uids, uidnext
