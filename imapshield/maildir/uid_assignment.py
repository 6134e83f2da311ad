"""UIDs for message files that the index does not have: new ones in the order of delivery, or those of another server.

With the UIDs of Dovecot or Courier, mail clients need not download all mail again after a change of server. They are
read from that server's files when imapshield sees a folder for the first time. A marker file records that they were
imported: after imapshield has assigned UIDs, the other server's files no longer say which UIDs are free.
"""

import re
import secrets
import stat
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from imapshield.maildir import filename, files
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.index import MailboxRow
from imapshield.maildir.open_folders import Folder
from imapshield.maildir.unreadable import log_once

_MARKER = b"imapshield.imported"
_MAX_UID = 0xFFFFFFFF


class UidListFormat(NamedTuple):
    """A file of another server: a line that `head` matches, then ``<uid>…<separator><name>`` lines.

    The groups of `head` are UIDVALIDITY and UIDNEXT. A space ends the UID.
    """

    file: bytes
    head: re.Pattern[bytes]
    separator: bytes


DOVECOT = UidListFormat(
    b"dovecot-uidlist",
    re.compile(rb"3 (?:[A-Z][^ ]* )*?V([0-9]{1,10}) (?:[A-Z][^ ]* )*?N([0-9]{1,10})(?: |\Z)"),
    b":",
)
"""Version 3: ``3 V<uidvalidity> N<uidnext>``, then ``<uid> <extras> :<name>`` lines."""

COURIER = UidListFormat(b"courierimapuiddb", re.compile(rb"1 ([0-9]{1,10}) ([0-9]{1,10})\Z"), b" ")
"""Version 1: ``1 <uidvalidity> <uidnext>``, then ``<uid> <name>`` lines."""


class UidList(NamedTuple):
    """UIDVALIDITY, UIDNEXT, and the UID of each base name."""

    uidvalidity: int
    uidnext: int
    uids: dict[bytes, int]


def parse_uid_list(content: bytes, form: UidListFormat) -> UidList | None:
    """Parse another server's file; return None if it has another form or contradicts itself."""
    first, *lines = content.split(b"\n")
    head = form.head.match(first)
    if head is None:
        return None
    uids: dict[bytes, int] = {}
    for line in lines:
        start, _, name = line.partition(form.separator)
        uid = start.partition(b" ")[0]
        if name and uid.isdigit() and len(uid) <= 10 and 0 < int(uid) < _MAX_UID:
            uids[filename.base(name)] = int(uid)
    if len(set(uids.values())) < len(uids):  # two messages have the same UID: the file is wrong
        return None
    uidvalidity, uidnext = int(head[1]), max(int(head[2]), max(uids.values(), default=0) + 1)
    if not 0 < uidvalidity <= _MAX_UID or uidnext >= _MAX_UID:
        return None
    return UidList(uidvalidity, uidnext, uids)


def read_uid_list(folder: Folder) -> UidList | None:
    """Return the UIDs that another server assigned in this folder, None if there are none or if they were imported."""
    if _MARKER in files.names(folder.fd):
        return None
    lists = (
        parse_uid_list(files.read_small(folder.file(form.file)), form)
        for form in (DOVECOT, COURIER)
    )
    return next(filter(None, lists), None)


def mark_imported(folder: Folder) -> None:
    """Record that the UIDs of this folder were imported."""
    files.replace(folder.file(_MARKER), b"", folder.owner)


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
        imported_uids: UIDs from another server, by base name; other files get UIDs from UIDNEXT on.
    """
    uidnext = mailbox.uidnext
    if not new_files:
        return uidnext
    folder_flags = account.keywords.get(mailbox)
    saved = int(account.now())
    delivered = _in_delivery_order(account, folder, new_files)
    email_ids = secrets.token_bytes(8 * len(delivered)).hex().encode()
    imported_uids = imported_uids or {}
    flag_lists: dict[bytes, bytes] = {}
    rows: list[tuple[object, ...]] = []
    for i, (_, directory, name, size, mtime) in enumerate(delivered):
        base_name, _, info = name.partition(b":")
        uid = imported_uids.get(base_name, 0)
        if not uid:
            uid, uidnext = uidnext, uidnext + 1
        flags = flag_lists.get(info)
        if flags is None:
            flags = flag_lists[info] = filename.all_flags(name, b"", folder_flags)
        wire_size = filename.wire_size(base_name)
        email_id = b"M" + email_ids[16 * i : 16 * i + 16]
        row = (mailbox.key, uid, name, directory, flags, modseq, wire_size, size, mtime)
        rows.append((*row, saved, email_id))
    account.index.insert_messages(rows)
    return uidnext


def _in_delivery_order(
    account: AccountState, folder: Folder, new_files: Sequence[tuple[int, bytes]]
) -> list[tuple[tuple[float, int, int, bytes], int, bytes, int, int]]:
    """Return (sort key, directory, name, size, mtime) of the files that are messages."""
    delivered = []
    for directory, name in new_files:
        try:
            status = files.status(folder.entry(directory, name))
        except FileNotFoundError:
            # Another program moved or removed the file. The next sync finds out which.
            continue
        if status.st_size > files.MAX_MESSAGE_SIZE:
            path = folder.path_of(directory, name)
            text = f"is larger than {files.MAX_MESSAGE_SIZE} bytes and is not shown to mail clients"
            log_once(account, path, text + "; move it out of the Maildir")
        elif stat.S_ISREG(status.st_mode):
            key = filename.delivery_order(name, status.st_mtime)
            delivered.append((key, directory, name, status.st_size, int(status.st_mtime)))
    delivered.sort()
    return delivered
