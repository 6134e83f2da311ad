"""The undo log of MOVE: what was announced before files were renamed, and how an interrupted MOVE is undone.

MOVE renames each file into the other folder, one system call for each message. A crash in the middle would leave files
that the index does not have, and they would come back as new mail, without the keywords that have no letter. So:

1. The table ``moving`` gets the new and the old base names of all messages, in a commit that waits for the disk.
2. In a second transaction the files are renamed, both directories are synced, the rows are moved, and the entry of
   ``moving`` is removed.

Whoever has the lock of the index and finds an entry knows that its MOVE did not end: its files are renamed back. If the
MOVE has only been announced, it then finds its entry missing, and is refused.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress

from imapshield.errors import NoSuchMailbox, StoreBusy
from imapshield.maildir import filename, files
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.folder_listing import FileFinder
from imapshield.maildir.open_folders import Folder
from imapshield.maildir.paths import CUR, NEW


def announce(
    account: AccountState, key: int, target_key: int, uids: Sequence[int]
) -> tuple[int, dict[int, bytes]]:
    """Announce a MOVE; return the id of its entry, and the new base name of each message by UID."""
    index = account.index
    with index.write() as db:
        rows = index.message_rows("uid, name, physical, size", key, uids)
        bases: dict[int, bytes] = {}
        pairs: list[bytes] = []
        for uid, name, physical, size in rows:
            bases[uid] = filename.copy_name(name, account.unique_name(), physical, size)
            pairs += (bases[uid], filename.base(name))
        cursor = db.execute(
            "INSERT INTO moving (source, target, names) VALUES (?, ?, ?)",
            (key, target_key, b"/".join(pairs)),
        )
    assert cursor.lastrowid is not None
    return cursor.lastrowid, bases


def end(account: AccountState, entry: int) -> None:
    """Remove the entry of a MOVE, in the transaction that completes it.

    Raises:
        StoreBusy: another process has removed it.
    """
    if account.index.db.execute("DELETE FROM moving WHERE id = ?", (entry,)).rowcount != 1:
        raise StoreBusy


def has_entries(account: AccountState) -> bool:
    """Whether a MOVE was announced and has not ended."""
    return account.index.db.execute("SELECT 1 FROM moving LIMIT 1").fetchone() is not None


def undo_all(account: AccountState) -> None:
    """Undo all interrupted MOVEs, in a write transaction."""
    db = account.index.db
    for entry, source, target, names in db.execute("SELECT * FROM moving").fetchall():
        with suppress(NoSuchMailbox):
            _undo(account, source, target, names.split(b"/"))
        db.execute("DELETE FROM moving WHERE id = ?", (entry,))


def _undo(account: AccountState, source: int, target: int, names: Sequence[bytes]) -> None:
    index = account.index
    from_folder = account.folders.folder(index.mailbox(target).name)
    to_folder = account.folders.folder(index.mailbox(source).name)
    rows = index.db.execute("SELECT name FROM message WHERE mailbox = ?", (source,))
    old_names = {filename.base(name): name for (name,) in rows}
    finder, old_finder = FileFinder(from_folder), FileFinder(to_folder)
    for new_base, old_base in zip(names[::2], names[1::2], strict=False):
        file = finder.find(new_base)
        if file is not None and old_base in old_names:
            _move_back(from_folder, file, to_folder, old_names, old_finder, old_base)
    for folder in (to_folder, from_folder):
        folder.sync(CUR, NEW)
    for key in (source, target):
        index.update_mailbox(key, listed_at=0.0)


def _move_back(
    folder: Folder,
    file: tuple[int, bytes],
    to_folder: Folder,
    old_names: Mapping[bytes, bytes],
    old_finder: FileFinder,
    old_base: bytes,
) -> None:
    if old_finder.find(old_base) is None:
        files.rename(folder.entry(*file), to_folder.entry(CUR, old_names[old_base]))
    else:  # the folders are on two file systems, and the file was copied
        files.remove(folder.entry(*file))
