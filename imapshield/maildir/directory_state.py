"""Directory times of a folder: what stat() reports, and whether the index may trust it to show later changes.

The index stores the times of ``cur/`` and ``new/`` as they were at the last reading; `sync` explains how they are used.
The constants below are the bits of `MailboxRow.directory_flags`, which is the column ``hot`` of the database.
"""

import os
from typing import NamedTuple

from imapshield.errors import NoSuchMailbox
from imapshield.maildir import files
from imapshield.maildir.index import Index, MailboxRow

CUR_MTIME_UNTRUSTED = 1
NEW_MTIME_UNTRUSTED = 2
"""The directory was read, or changed by imapshield, so soon after its last change that another change can have left the
same mtime. So it must be read once more."""

STAGED = 4
"""The index has messages whose files are in ``tmp/`` (`staging`)."""

UNTRUSTED_SECONDS = 1.0
"""How long after its last change a directory's mtime is not trusted: a tick of the kernel's clock is up to 10 ms, and
some network file systems store whole seconds."""


class DirectoryStamps(NamedTuple):
    """Modification times, in nanoseconds, and inodes of the ``cur/`` and ``new/`` of one folder."""

    cur_mtime: int
    cur_ino: int
    new_mtime: int
    new_ino: int


def is_untrusted(mtime: int, now: float) -> bool:
    """Whether a directory's mtime, in nanoseconds, is too recent to be trusted; an mtime in the future always is."""
    return now - mtime / 1e9 < UNTRUSTED_SECONDS


def stat_or_create(folder: bytes) -> DirectoryStamps:
    """Stat the directories of a folder, creating any that are missing.

    Raises:
        NoSuchMailbox: the folder does not exist.
    """
    for _ in range(2):
        try:
            cur = os.stat(folder + b"/cur")
            new = os.stat(folder + b"/new")
        except FileNotFoundError:
            if not os.path.isdir(folder):
                raise NoSuchMailbox from None
            files.make_folder(folder)
        else:
            return DirectoryStamps(cur.st_mtime_ns, cur.st_ino, new.st_mtime_ns, new.st_ino)
    raise NoSuchMailbox


def record_own_change(
    index: Index, mailbox: MailboxRow, folder: bytes, before: DirectoryStamps
) -> None:
    """Record the times that a change by imapshield gave to the directories, in a write transaction.

    A time is recorded only if the directory had the recorded time before the change; otherwise another program's change
    is still to be read. A change by another program between `before` and this call is found by the reading that
    CUR_MTIME_UNTRUSTED and NEW_MTIME_UNTRUSTED demand.

    Args:
        index: the account's index.
        mailbox: the mailbox's row as the index has it now, apart from its UIDNEXT and HIGHESTMODSEQ.
        folder: the mailbox's folder.
        before: the times before the change.
    """
    after = stat_or_create(folder)
    fields: dict[str, object] = {}
    flags = mailbox.directory_flags
    if before[:2] == (mailbox.cur_mtime, mailbox.cur_ino) and before[:2] != after[:2]:
        fields.update(cur_mtime=after.cur_mtime, cur_ino=after.cur_ino)
        flags |= CUR_MTIME_UNTRUSTED
    if before[2:] == (mailbox.new_mtime, mailbox.new_ino) and before[2:] != after[2:]:
        fields.update(new_mtime=after.new_mtime, new_ino=after.new_ino)
        flags |= NEW_MTIME_UNTRUSTED
    if fields:
        index.update_mailbox(mailbox.key, directory_flags=flags, **fields)
