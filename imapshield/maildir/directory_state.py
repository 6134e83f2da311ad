"""Directory times of a folder: what stat() reports, and whether the index may trust it to show later changes.

The index stores the times of ``cur/`` and ``new/`` as they were at the last reading; `sync` explains how they are used.
The constants below are the bits of `MailboxRow.directory_flags`, which is the column ``hot`` of the database.
"""

import errno
import os
from typing import NamedTuple

from imapshield.errors import NoSuchMailbox
from imapshield.mailbox.in_place import may_block
from imapshield.maildir.index import STAGED, Index
from imapshield.maildir.mailbox_row import MailboxRow
from imapshield.maildir.open_folders import Folder, OpenFolders
from imapshield.maildir.paths import CUR, DIRECTORY_NAMES, NEW
from imapshield.message.pauses import pause_point

CUR_MTIME_UNTRUSTED = 1
NEW_MTIME_UNTRUSTED = 2
"""The directory was read, or changed by imapshield, so soon after its last change that another change can have left the
same mtime. So it must be read once more."""

UNTRUSTED_SECONDS = 1.0
"""How long after its last change a directory's mtime is not trusted: a tick of the kernel's clock is up to 10 ms, and
some network file systems store whole seconds."""

READING_SECONDS_PER_FILE = 0.001
"""How much longer the next reading of ``cur/`` waits, for each file in it. A reading takes about 5 microseconds for
each file. So a mailbox in which every second a message arrives, or a flag changes, costs the same whether it is large
or small."""

MAX_TRUSTED_SECONDS = 3600.0
"""Directories are read again after this time, whatever their mtimes are."""

CLOCK_TICK = 20_000_000
"""Nanoseconds by which the ctime of a file can be after the mtime that the same change gives to its directory. Linux
gives directories the time of the last tick of the clock, up to 10 ms before, and some files a finer time."""

MAX_UNSYNCED = 1000
"""How many changes of one mailbox may be in the index while ``cur/`` is not synced. The next opening of the account
looks at the file of each (`recovery`)."""


class DirectoryStamps(NamedTuple):
    """Modification times, in nanoseconds, and inodes of the ``cur/`` and ``new/`` of one folder."""

    cur_mtime: int
    cur_ino: int
    new_mtime: int
    new_ino: int

    @property
    def changed_at(self) -> int:
        """A time that is not before the ctime of any file in these directories that was changed until now."""
        return max(self.cur_mtime, self.new_mtime) + CLOCK_TICK


def unopened_stamps(folders: OpenFolders, mailbox: str) -> DirectoryStamps | None:
    """Return the stamps of a mailbox's folder without opening it, None if that is not possible."""
    pause_point()
    statuses = folders.directory_statuses(mailbox)
    pause_point()
    if statuses is None:
        return None
    cur, new = statuses
    return DirectoryStamps(cur.st_mtime_ns, cur.st_ino, new.st_mtime_ns, new.st_ino)


def is_untrusted(mtime: int, now: float) -> bool:
    """Whether a directory's mtime, in nanoseconds, is too recent to be trusted; an mtime in the future always is."""
    return now - mtime / 1e9 < UNTRUSTED_SECONDS


def must_read_cur(mailbox: MailboxRow, stamps: DirectoryStamps, now: float) -> bool:
    """Whether ``cur/`` may contain what the index does not know."""
    delay = max(UNTRUSTED_SECONDS, mailbox.cur_files * READING_SECONDS_PER_FILE)
    return (
        stamps[:2] != (mailbox.cur_mtime, mailbox.cur_ino)
        or now - mailbox.listed_at >= MAX_TRUSTED_SECONDS
        or (
            bool(mailbox.directory_flags & CUR_MTIME_UNTRUSTED)
            and not 0 <= now - stamps.cur_mtime / 1e9 < delay
        )
    )


def must_read_new(mailbox: MailboxRow, stamps: DirectoryStamps) -> bool:
    """Whether ``new/`` may contain what the index does not know."""
    is_recorded = stamps[2:] == (mailbox.new_mtime, mailbox.new_ino)
    return not is_recorded or bool(mailbox.directory_flags & NEW_MTIME_UNTRUSTED)


def row_after_reading(
    mailbox: MailboxRow, stamps: DirectoryStamps, cur_files: int | None, now: float
) -> MailboxRow:
    """Return the row of a mailbox whose directories were read, and had what the index has.

    Args:
        mailbox: the row before.
        stamps: the stamps before the reading.
        cur_files: the number of files in ``cur/``, None if only ``new/`` was read.
        now: a time before the reading. To list a large directory takes longer than `UNTRUSTED_SECONDS`, so a change
            that the listing has missed can have the mtime of `stamps`, although that is old enough afterwards.
    """
    flags = mailbox.directory_flags & (CUR_MTIME_UNTRUSTED | STAGED)
    found = mailbox._replace(new_mtime=stamps.new_mtime, new_ino=stamps.new_ino)
    if cur_files is not None:
        flags &= STAGED
        flags |= CUR_MTIME_UNTRUSTED if is_untrusted(stamps.cur_mtime, now) else 0
        found = found._replace(
            cur_mtime=stamps.cur_mtime, cur_ino=stamps.cur_ino, listed_at=now, cur_files=cur_files
        )
    flags |= NEW_MTIME_UNTRUSTED if is_untrusted(stamps.new_mtime, now) else 0
    return found._replace(directory_flags=flags)


def stat_or_create(folder: Folder) -> DirectoryStamps:
    """Stat the directories of a folder, creating ``new/``, and the ``cur/`` of INBOX, if they are missing.

    Raises:
        NoSuchMailbox: the folder has no ``cur/``. Another program made the directory, for another purpose.
    """
    try:
        cur = folder.status(CUR)
        new = folder.status(NEW)
    except FileNotFoundError:
        may_block()
        try:
            folder.directory(CUR)
            folder.directory(NEW)
        except FileNotFoundError:
            raise NoSuchMailbox from None
        cur, new = folder.status(CUR), folder.status(NEW)
    return DirectoryStamps(cur.st_mtime_ns, cur.st_ino, new.st_mtime_ns, new.st_ino)


def record_own_change(
    index: Index,
    mailbox: MailboxRow,
    folder: Folder,
    before: DirectoryStamps,
    **changed: object,
) -> DirectoryStamps:
    """Record the times that a change by imapshield gave to the directories, in a write transaction; return them.

    `changed_at` is recorded always. The times that show what to read are recorded only if the directory had the
    recorded time before the change; otherwise another program's change is still to be read. A change by another program
    between `before` and this call is found by the reading that CUR_MTIME_UNTRUSTED and NEW_MTIME_UNTRUSTED demand.

    Args:
        index: the account's index.
        mailbox: the mailbox's row as the index has it now, apart from its UIDNEXT and HIGHESTMODSEQ.
        folder: the mailbox's folder.
        before: the times before the change.
        changed: other fields of the mailbox to record in the same statement, as for `Index.update_mailbox`.
    """
    if mailbox.highestmodseq - mailbox.synced_modseq > MAX_UNSYNCED:
        folder.sync(CUR, NEW)
        index.note_synced(mailbox)
    after = stat_or_create(folder)
    fields = changed | {"changed_at": after.changed_at}
    flags = mailbox.directory_flags
    if before[:2] == (mailbox.cur_mtime, mailbox.cur_ino) and before[:2] != after[:2]:
        fields["cur_mtime"] = after.cur_mtime
        if after.cur_ino != mailbox.cur_ino:
            fields["cur_ino"] = after.cur_ino
        flags |= CUR_MTIME_UNTRUSTED
    if before[2:] == (mailbox.new_mtime, mailbox.new_ino) and before[2:] != after[2:]:
        fields.update(new_mtime=after.new_mtime, new_ino=after.new_ino)
        flags |= NEW_MTIME_UNTRUSTED
    index.update_mailbox(mailbox.key, directory_flags=flags, **fields)
    return after


def require_writable(folder: Folder) -> None:
    """Check that files can be removed from ``cur/`` and ``new/``.

    Raises:
        PermissionError: they cannot.
    """
    for number in (CUR, NEW):
        if not os.access(b".", os.W_OK, dir_fd=folder.directory(number), effective_ids=True):
            path = folder.path + b"/" + DIRECTORY_NAMES[number]
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
