"""UIDs for message files that the index does not have, in the order of delivery."""

import secrets
import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from imapshield.maildir import filename, files
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.folder_listing import statuses
from imapshield.maildir.mailbox_row import MailboxRow
from imapshield.maildir.open_folders import Folder
from imapshield.maildir.paths import CUR, NEW
from imapshield.maildir.unreadable import log_once


def add_files(
    account: AccountState,
    mailbox: MailboxRow,
    folder: Folder,
    new_files: Sequence[tuple[int, bytes]],
    modseq: int,
    imported_uids: Mapping[bytes, int] | None = None,
) -> int:
    """Add files to the index, in a write transaction, and return the UIDNEXT after them.

    Files that another program has just removed, files that are not regular, and files that are larger than
    `files.MAX_MESSAGE_SIZE` get no UID.

    Args:
        account: the account.
        mailbox: the mailbox's current row.
        folder: the mailbox's folder.
        new_files: (directory, name) of each file.
        modseq: the MODSEQ of the new messages.
        imported_uids: UIDs from another server, by base name (`uid_exchange`); other files get UIDs from UIDNEXT on.
    """
    uidnext = mailbox.uidnext
    if not new_files:
        return uidnext
    folder_flags = account.keywords.get(mailbox)
    delivered = _in_delivery_order(account, folder, new_files)
    flag_lists: dict[bytes, bytes] = {}

    def rows() -> Iterator[tuple[Any, ...]]:
        nonlocal uidnext
        key, saved, wire_size = mailbox.key, int(account.now()), filename.wire_size
        email_ids = _email_ids(len(delivered))
        for (_, directory, name, size, mtime), email_id in zip(delivered, email_ids, strict=True):
            base_name, _, info = name.partition(b":")
            uid = imported_uids.get(base_name, 0) if imported_uids else 0
            if not uid:
                uid, uidnext = uidnext, uidnext + 1
            flags = flag_lists.get(info)
            if flags is None:
                flags = flag_lists[info] = filename.all_flags(name, b"", folder_flags)
            wire = wire_size(base_name)
            yield key, uid, name, directory, flags, modseq, wire, size, mtime, saved, email_id

    account.index.insert_messages(rows())
    return uidnext


def _email_ids(count: int) -> list[bytes]:
    """Return random EMAILIDs. Each is M and 16 digits."""
    digits = secrets.token_bytes(8 * count).hex(" ", 8)
    return [b"M" + number for number in digits.encode().split()]


def _in_delivery_order(
    account: AccountState, folder: Folder, new_files: Sequence[tuple[int, bytes]]
) -> list[tuple[tuple[float, int, int, bytes], int, bytes, int, int]]:
    """Return (sort key, directory, name, size, mtime) of the files that are messages."""
    delivered = []
    order = filename.delivery_order
    for directory in (CUR, NEW):
        names = [name for place, name in new_files if place == directory]
        if not names:
            continue
        # Files that another program has moved or removed are missing. The next sync finds out where they are.
        for name, status in statuses(folder.directory(directory), names):
            size, mtime = status.st_size, status.st_mtime
            if not stat.S_ISREG(status.st_mode):
                continue
            if size > files.MAX_MESSAGE_SIZE:
                path = folder.path_of(directory, name)
                text = f"is larger than {files.MAX_MESSAGE_SIZE} bytes and is not shown to mail clients"
                log_once(account, path, text + "; move it out of the Maildir")
                continue
            delivered.append((order(name, mtime), directory, name, size, int(mtime)))
    delivered.sort()
    return delivered
