"""The undo log of MOVE: what was announced before files were renamed, and how an interrupted MOVE is undone.

CREATE and RENAME are announced here, too; `folder_log` undoes them.

MOVE renames each file into the other folder, one system call for each message. A crash in the middle would leave files
that the index does not have, and they would come back as new mail, without the keywords that have no letter. So:

1. The table ``moving`` gets the new and the old base names of all messages, in a commit that waits for the disk.
2. In a second transaction the files are renamed, both directories are synced, the rows are moved, and the entry of
   ``moving`` is removed.

Whoever has the lock of the index and finds an entry knows that its MOVE did not end: its files are renamed back, before
anything else is done. If the MOVE has only been announced, it then finds its entry missing, and is announced again.
"""

import errno
import os
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from imapshield.errors import NoSuchMailbox
from imapshield.maildir import filename, files, folder_log
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.entry import Entry, described
from imapshield.maildir.folder_listing import FileFinder, list_folder
from imapshield.maildir.open_folders import Folder
from imapshield.maildir.paths import CUR, DIRECTORY_NAMES, NEW, TMP

_GONE = (NoSuchMailbox, FileNotFoundError, NotADirectoryError)
"""Another program has removed the folder, or a directory in it."""

_CHUNK = 1 << 20

MAX_ANNOUNCEMENTS = 5
"""How often a command is announced, if other processes that write at the same moment undo it before it has begun."""


def announce(
    account: AccountState, key: int, target_key: int, uids: Sequence[int]
) -> tuple[int, dict[int, bytes]]:
    """Announce a MOVE; return the id of its entry, and the new base name of each message by UID."""
    index = account.index
    with index.write():
        rows = index.message_rows("uid, name, physical, size", key, uids)
        bases: dict[int, bytes] = {}
        pairs: list[bytes] = []
        for uid, name, physical, size in rows:
            bases[uid] = filename.copy_name(name, account.unique_name(), physical, size)
            pairs += (bases[uid], filename.base(name))
        return insert(account, key, target_key, b"/".join(pairs)), bases


def insert(account: AccountState, source: int, target: int, names: bytes) -> int:
    """Add an entry, in a write transaction, and return its id.

    The process that uses an id may find the entry removed, so no other entry may get the same id.
    """
    db = account.index.db
    (last,) = db.execute("SELECT ifnull(max(id), 0) FROM moving").fetchone()
    entry: int = last + 1 + secrets.randbits(40)
    db.execute("INSERT INTO moving VALUES (?, ?, ?, ?)", (entry, source, target, names))
    return entry


@contextmanager
def kept(account: AccountState, entry: int) -> Iterator[None]:
    """Keep this process from undoing an entry while the block runs its command. If that raises, it is undone."""
    account.kept_moves.add(entry)
    try:
        yield
    except BaseException:
        account.kept_moves.discard(entry)
        with suppress(sqlite3.Error, OSError), account.index.write(durable=False):
            pass  # each write transaction undoes interrupted commands
        raise
    finally:
        account.kept_moves.discard(entry)


def end(account: AccountState, entry: int) -> bool:
    """Remove the entry of a command, in the transaction that completes it; return False if another process has done
    it."""
    return account.index.db.execute("DELETE FROM moving WHERE id = ?", (entry,)).rowcount == 1


def has_entry(account: AccountState, entry: int) -> bool:
    """Whether no other process has removed an entry."""
    found = account.index.db.execute("SELECT 1 FROM moving WHERE id = ?", (entry,)).fetchone()
    return found is not None


def undo_interrupted(account: AccountState, *, of_folders: bool = False) -> bool:
    """Undo all interrupted commands, unless there are none; return whether there were any.

    With `of_folders`, a MOVE alone is no reason to do that: another process that runs it has the lock for long.
    """
    query = "SELECT 1 FROM moving WHERE source = 0 AND target = 0 LIMIT 1"
    if not account.index.has_moves():
        return False
    if of_folders and account.index.db.execute(query).fetchone() is None:
        return False
    with account.index.write_unless_full():
        pass  # each write transaction undoes them
    account.folders.release()
    return True


def undo_all(account: AccountState) -> None:
    """Undo all interrupted commands, last first, in a write transaction. It is called at the begin of each one.

    An entry whose folders cannot be read or written is kept, and its mailboxes cannot be used: the files that are not
    where the index has them would be taken for expunged messages.
    """
    db = account.index.db
    for (entry,) in db.execute("SELECT id FROM moving ORDER BY id DESC").fetchall():
        if entry in account.kept_moves:
            continue
        row = db.execute("SELECT source, target, names FROM moving WHERE id = ?", (entry,))
        source, target, names = row.fetchone()
        try:
            # The owner of the mail may have written anything into the index.
            pairs = names.split(b"/") if isinstance(names, bytes) else []
            if source or target:
                _undo(account, source, target, pairs)
            else:
                folder_log.undo(account, names)
        except _GONE:
            pass
        except OSError as error:
            account.folders.log_once(
                f"cannot undo a MOVE or RENAME: {described(error, account.folders.root)}"
            )
            account.kept_moves.add(entry)
            account.unrecovered.update((source, target))
            if not source:
                account.unrecovered.update(folder_log.mailbox_keys(account, names))
            continue
        db.execute("DELETE FROM moving WHERE id = ?", (entry,))


def _undo(account: AccountState, source: int, target: int, names: Sequence[bytes]) -> None:
    index = account.index
    from_folder = _folder(account, target)
    to_folder = _folder(account, source)
    rows = index.db.execute("SELECT name FROM message WHERE mailbox = ?", (source,))
    old_names = {filename.base(name): name for (name,) in rows}
    finder = FileFinder(from_folder)
    originals = list_folder(to_folder, cur=True).by_base()
    for new_base, old_base in zip(names[::2], names[1::2], strict=False):
        file = finder.find(new_base)
        if file is None or old_base not in old_names:
            continue
        copy = from_folder.entry(*file)
        with suppress(FileNotFoundError):
            if old_base not in originals:
                _move_back(copy, to_folder, old_names[old_base])
            elif _are_equal(copy, to_folder.entry(*originals[old_base])):
                files.remove(copy)  # the folders are on two file systems
            # Otherwise another program has put a message there, and this one stays as a new message.
    for folder in (to_folder, from_folder):
        folder.sync(CUR, NEW)
    for key in (source, target):
        index.update_mailbox(key, listed_at=0.0)


def _folder(account: AccountState, key: int) -> Folder:
    """Return the folder of a mailbox, which another program may have renamed since."""
    mailbox = account.index.mailbox(key)
    if account.folders.exists(mailbox.name):
        return account.folders.folder(mailbox.name)
    folders = account.folders
    for name in folders.mailboxes() if mailbox.cur_ino else ():
        # Not by opening them: there may be more folders than descriptors.
        path = os.path.join(folders.name(name), DIRECTORY_NAMES[CUR])
        with suppress(OSError):
            if files.status(Entry(folders.fd, path)).st_ino == mailbox.cur_ino:
                return folders.folder(name)
    raise NoSuchMailbox


def _move_back(copy: Entry, folder: Folder, name: bytes) -> None:
    try:
        files.rename(copy, folder.entry(CUR, name))
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        staged = folder.entry(TMP, name)
        files.duplicate(copy, staged, folder.owner)
        folder.sync(TMP)
        files.rename(staged, folder.entry(CUR, name))
        folder.sync(CUR)
        files.remove(copy)


def _are_equal(first: Entry, second: Entry) -> bool:
    """Whether two messages have the same content."""
    if files.status(first).st_size != files.status(second).st_size:
        return False
    fds = []
    try:
        fds = [files.open_message(first)]
        fds.append(files.open_message(second))
        while True:
            one, other = (os.read(fd, _CHUNK) for fd in fds)
            if one != other or not one:
                return one == other
    finally:
        for fd in fds:
            os.close(fd)
