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
EXPUNGE stays too. Its ctime is after that EXPUNGE, which has recorded its own time: a mistake would lose mail.

Messages that are staged are published too (`staging`), and interrupted MOVEs and RENAMEs are undone (`move_log`).
"""

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from imapshield.errors import NoSuchMailbox
from imapshield.maildir import files, move_log
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.directory_state import stat_or_create
from imapshield.maildir.entry import described
from imapshield.maildir.folder_listing import FileFinder
from imapshield.maildir.mailbox_row import MailboxRow
from imapshield.maildir.message_table import changed_after
from imapshield.maildir.open_folders import Folder
from imapshield.maildir.paths import CUR, NEW, TMP
from imapshield.maildir.sqlite_file import is_disk_full
from imapshield.maildir.unreadable import SERVER_ERRORS
from imapshield.wire.names import INBOX

_GONE = (NoSuchMailbox, FileNotFoundError, NotADirectoryError)
"""Another program has removed the folder, or a directory in it."""

_ALWAYS = 2**62
"""A time after all times of files, in nanoseconds."""


class _Step(NamedTuple):
    """A file that is renamed to `name` in ``cur/``, or removed if that is None."""

    file: tuple[int, bytes]
    name: bytes | None


def open_account(account: AccountState) -> bool:
    """Open an account, and finish what a crash or a power failure interrupted, or follow a restored backup.

    Returns:
        whether that was done; False if the account was open.
    """
    if not account.open():
        return False
    account.index.undo_moves = partial(move_log.undo_all, account)
    if account.index.is_restored:
        account.index.renew_all()
    account.unrecovered.clear()
    account.kept_moves.clear()
    recover_all(account)
    tmp = account.folders.folder(INBOX).directory(TMP)
    files.remove_stale(tmp, account.now(), account.staging.staged_names())
    return True


def recover_all(account: AccountState) -> None:
    """Publish staged messages, undo interrupted commands, recover and sync directories that may be behind the index.

    All files are looked at before one is renamed: copies of a message are links to one file, and a rename of one of
    them changes the ctime of all. In case the power fails again, it is recorded first that every ctime is older.
    """
    index = account.index
    unsynced = index.db.execute("SELECT id FROM mailbox WHERE highestmodseq > synced_modseq")
    keys = [key for (key,) in unsynced.fetchall()]
    plans: dict[int, list[_Step]] = {}
    try:
        move_log.undo_interrupted(account)  # before anything is planned
        if keys:
            with index.write(durable=False):  # no other process is in the middle of a STORE
                for key in keys:
                    _add_plan(account, key, plans)
        if any(plans.values()):
            with index.write():
                for key, steps in plans.items():
                    if steps:
                        _begin(account, key, steps)
        account.staging.publish_all()
        for key, steps in plans.items():
            with suppress(*_GONE), index.write(durable=False):
                _recover(account, key, steps)
            account.folders.release()
    except sqlite3.Error as error:
        if not is_disk_full(error):
            raise
        # A full disk must not prevent reading. The next operation tries again.
        account.reset()
        account.unrecovered.update(key for key, steps in plans.items() if steps)


def _add_plan(account: AccountState, key: int, plans: dict[int, list[_Step]]) -> None:
    """Plan the recovery of one mailbox. If its folder cannot be read, only this mailbox cannot be used."""
    try:
        plans[key] = _plan(account, account.index.mailbox(key), account.folder(key))
    except _GONE:
        pass
    except OSError as error:
        if error.errno in SERVER_ERRORS:
            raise
        account.folders.log_once(f"cannot read {described(error, account.folders.root)}")
        account.unrecovered.add(key)
    account.folders.release()


def _plan(account: AccountState, mailbox: MailboxRow, folder: Folder) -> list[_Step]:
    """Return what must be done again in one folder."""
    db, key = account.index.db, mailbox.key
    names = db.execute(
        f"SELECT name {changed_after(mailbox.synced_modseq)} AND place = ?",
        (key, mailbox.synced_modseq, CUR),
    ).fetchall()
    folder.directory(CUR)  # raises an error now if it cannot be synced later
    finder = FileFinder(folder)
    changed_at = mailbox.changed_at
    steps = [
        _step(changed_at, finder, name, name) for (name,) in names if not _exists(folder, name)
    ]
    removed = db.execute("SELECT removed_at, names FROM removed WHERE mailbox = ?", (key,))
    for removed_at, text in removed.fetchall():
        steps += [_step(removed_at, finder, name, None) for name in text.split(b"/")]
    return [step for step in steps if step is not None]


def _begin(account: AccountState, key: int, steps: Sequence[_Step]) -> None:
    """Record, in a write transaction, that the recovery has begun, and which files it removes."""
    index = account.index
    index.update_mailbox(key, changed_at=_ALWAYS)
    index.db.execute("DELETE FROM removed WHERE mailbox = ?", (key,))
    names = [file[1] for file, name in steps if name is None]
    if names:
        index.note_removed(key, index.mailbox(key).highestmodseq, _ALWAYS, names)


def _step(changed_at: int, finder: FileFinder, old_name: bytes, name: bytes | None) -> _Step | None:
    """Return the step for one file; None if it is gone, or if another program has put or renamed it there since."""
    file = finder.find(old_name)
    if file is None:
        return None  # the next sync finds out
    is_newer = files.status(finder.folder.entry(*file)).st_ctime_ns > changed_at
    if is_newer and (file[0] != TMP or name is None):
        return None
    return _Step(file, name)


def _exists(folder: Folder, name: bytes) -> bool:
    try:
        files.status(folder.entry(CUR, name))
    except FileNotFoundError:
        return False
    return True


def _recover(account: AccountState, key: int, steps: Sequence[_Step]) -> None:
    index, mailbox, folder = account.index, account.index.mailbox(key), account.folder(key)
    for file, name in steps:
        with suppress(FileNotFoundError):
            if name is None:
                files.unlink(folder.entry(*file))
            else:
                files.rename(folder.entry(*file), folder.entry(CUR, name))
    folder.sync(CUR, NEW)
    index.note_synced(mailbox)
    if steps:
        # Other programs may have changed the directory.
        index.update_mailbox(key, listed_at=0.0, changed_at=stat_or_create(folder).changed_at)
