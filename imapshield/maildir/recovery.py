"""Renames files again after a power failure that the index has survived and the directories have not.

A commit of the index waits for the disk. It is the record of which file belongs to which message, so the directories
need not be synced as well: APPEND and STORE would wait for the disk once more. After a power failure

* a message that APPEND, COPY or MULTIAPPEND stored can be back in ``tmp/``, which was synced before the commit;
* a file that STORE renamed can have its old name, with the old flags;
* a file that EXPUNGE or REPLACE removed can be back. Its name is in the table ``removed``.

The flags and UIDs in the index were announced, so the files must follow. `MailboxRow.synced_modseq` says up to which
MODSEQ the directories are known to be on stable storage. For messages that changed later, the process that opens the
account looks whether their files are there; if one is not, its file is found by its base name and renamed.

If another program renamed the file after imapshield did, its flags are newer and stay. Such a file has a ctime after
`MailboxRow.changed_at`, the mtime of the directories after imapshield's last change. A file that was restored after an
EXPUNGE stays too: its ctime is after that EXPUNGE, which has recorded its own time, because a mistake would lose mail.
All are times of the file system.

MOVE syncs the directories before it commits, so it needs no recovery.
"""

import sqlite3
from contextlib import suppress

from imapshield.errors import NoSuchMailbox
from imapshield.maildir import files
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.folder_listing import FileFinder
from imapshield.maildir.index import MailboxRow
from imapshield.maildir.index_database import is_disk_full
from imapshield.maildir.open_folders import Folder
from imapshield.maildir.paths import CUR, NEW, TMP


def recover_all(account: AccountState) -> None:
    """Recover the mailboxes whose directories may not be on stable storage, and sync them."""
    index = account.index
    unsynced = index.db.execute("SELECT id FROM mailbox WHERE highestmodseq > synced_modseq")
    for (key,) in unsynced.fetchall():
        try:
            with suppress(NoSuchMailbox), index.write(durable=False):
                mailbox = index.mailbox(key)
                _recover(account, mailbox, account.folder(key))
        except sqlite3.Error as error:
            # The files have their names, and the next opening tries again. A full disk must not prevent reading.
            if not is_disk_full(error):
                raise


def _recover(account: AccountState, mailbox: MailboxRow, folder: Folder) -> None:
    key, listed_at = mailbox.key, mailbox.listed_at
    names = account.index.db.execute(
        "SELECT name FROM message INDEXED BY message_modseq"
        " WHERE mailbox = ? AND modseq > ? AND place = ?",
        (key, mailbox.synced_modseq, CUR),
    ).fetchall()
    finder = FileFinder(folder)
    _remove_again(account, mailbox, finder)
    for (name,) in names:
        if not _exists(folder, name) and _rename_again(mailbox, finder, name):
            listed_at = 0.0  # other programs may have changed the directory too
    folder.sync(CUR, NEW)
    account.index.note_synced(mailbox)
    account.index.update_mailbox(key, listed_at=listed_at)


def _remove_again(account: AccountState, mailbox: MailboxRow, finder: FileFinder) -> None:
    """Remove files that have come back, unless they were put there after the EXPUNGE."""
    rows = account.index.db.execute(
        "SELECT removed_at, names FROM removed WHERE mailbox = ?", (mailbox.key,)
    )
    for removed_at, names in rows.fetchall():
        for name in names.split(b"/"):
            file = finder.find(name)
            if file is not None and _is_older(finder.folder, file, removed_at):
                files.remove(finder.folder.entry(*file))


def _is_older(folder: Folder, file: tuple[int, bytes], time: int) -> bool:
    return files.status(folder.entry(*file)).st_ctime_ns <= time


def _exists(folder: Folder, name: bytes) -> bool:
    try:
        files.status(folder.entry(CUR, name))
    except FileNotFoundError:
        return False
    return True


def _rename_again(mailbox: MailboxRow, finder: FileFinder, name: bytes) -> bool:
    """Give a message's file the name that the index has, unless another program has renamed it since.

    Returns:
        whether the file was renamed.
    """
    file = finder.find(name)
    if file is None:
        return False  # the next sync finds out
    directory, _ = file
    if directory != TMP and not _is_older(finder.folder, file, mailbox.changed_at):
        return False
    files.rename(finder.folder.entry(*file), finder.folder.entry(CUR, name))
    return True
