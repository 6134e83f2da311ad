"""STORE and EXPUNGE: the files are changed first, then the index, in one transaction that waits for the disk.

STORE renames files. If it raises, it has changed nothing. After a crash in the middle, the renamed files look like the
changes of another program, and the next sync takes the flags from them. A power failure can undo renames after the
commit; then `recovery` renames the files again. If a name has no room for its letters, the flags are in the index
alone.

EXPUNGE removes files. They are removed before their rows, because a message that the client saw expunged must not come
back. After a crash in the middle, the next sync finds the files missing. After a power failure, `recovery` removes
files again that have come back.
"""

import errno
import os
from collections.abc import Sequence
from functools import partial

from imapshield.mailbox.values import StoreResult
from imapshield.maildir import filename, files
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.directory_state import record_own_change, stat_or_create
from imapshield.maildir.entry import Entry, named
from imapshield.maildir.filename import FolderFlags
from imapshield.maildir.folder_listing import FileFinder
from imapshield.maildir.index import MailboxRow
from imapshield.maildir.keywords import canonical_flags
from imapshield.maildir.open_folders import Folder
from imapshield.maildir.paths import CUR
from imapshield.maildir.unreadable import log_once, log_unreadable
from imapshield.wire.flags import DELETED

_HAS_DELETED = "AND instr(flags, x'5c44656c65746564') > 0"  # \Deleted


def store_flags(
    account: AccountState,
    key: int,
    uids: Sequence[int],
    op: bytes,
    flags: Sequence[bytes],
    unchanged_since: int | None,
    since: int,
) -> StoreResult:
    """Change flags; `IStore.store_flags` describes the arguments."""
    index = account.index
    failed: list[int] = []
    changed: list[tuple[bytes, bytes, int, int, int, int]] = []
    new_lists: dict[bytes, bytes] = {}
    with files.UndoSteps() as undo, index.write(undo=undo) as db:
        account.require_recovered(key)
        mailbox = index.mailbox(key)
        folder = account.folders.folder(mailbox.name)
        before = stat_or_create(folder)
        folder_flags = account.keywords.add(mailbox, () if op == b"-" else flags)
        modseq = mailbox.highestmodseq + 1
        finder = FileFinder(folder)
        rows = index.message_rows("uid, place, name, flags, modseq", key, uids)
        for uid, directory, name, old, changed_at in rows:
            if unchanged_since is not None and changed_at > unchanged_since:
                failed.append(uid)
                continue
            new = new_lists.get(old)
            if new is None:
                new = canonical_flags(_apply(op, old, flags), folder_flags, len(old))
                new_lists[old] = new
            if new != old:
                file = directory, name
                new_name = _rename(account, finder, file, new, folder_flags, undo)
                if new_name is not None:
                    changed.append((new_name, new, CUR, modseq, key, uid))
        if changed:
            db.executemany(
                "UPDATE message SET name = ?, flags = ?, place = ?, modseq = ?"
                " WHERE mailbox = ? AND uid = ?",
                changed,
            )
            record_own_change(index, mailbox, folder, before, highestmodseq=modseq)
        delta = index.delta_since(key, since)
    return StoreResult(delta, failed)


def _rename(
    account: AccountState,
    finder: FileFinder,
    file: tuple[int, bytes],
    flags: bytes,
    folder_flags: FolderFlags,
    undo: files.UndoSteps,
) -> bytes | None:
    """Give a file the letters of `flags`; return its new name, None if another program removed the file."""
    directory, name = file
    for _ in range(2):
        new_name = filename.with_flags(name, flags.split(), folder_flags)
        if directory == CUR and new_name == name:  # only keywords without a letter changed
            return name
        try:
            source = finder.folder.entry(directory, name)
            return _rename_into_cur(account, finder.folder, source, new_name, undo)
        except FileNotFoundError:
            found = finder.find(name)
            if found is None:
                break
            directory, name = found
    return None


def _rename_into_cur(
    account: AccountState, folder: Folder, source: Entry, name: bytes, undo: files.UndoSteps
) -> bytes:
    cur = folder.directory(CUR)
    try:
        os.rename(source.name, name, src_dir_fd=source.directory, dst_dir_fd=cur)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise named(error, source) from None
        text = (
            "has no room in its name for flags, which are kept in the index alone; shorten the name"
        )
        name = source.name
        log_once(account, folder.path_of(CUR, name), text)
        os.rename(name, name, src_dir_fd=source.directory, dst_dir_fd=cur)
    undo.append(partial(files.rename_back, Entry(cur, name), source))
    return name


def _apply(op: bytes, old: bytes, flags: Sequence[bytes]) -> list[bytes]:
    if op == b"+":
        return [*old.split(), *flags]
    if op == b"-":
        removed = {flag.lower() for flag in flags}
        return [flag for flag in old.split() if flag.lower() not in removed]
    return list(flags)


def expunge(account: AccountState, key: int, uids: Sequence[int] | None, since: int) -> StoreResult:
    """Remove messages; `IStore.expunge` describes the arguments."""
    index = account.index
    with index.write() as db:
        account.require_recovered(key)
        mailbox = index.mailbox(key)
        folder = account.folders.folder(mailbox.name)
        before = stat_or_create(folder)
        if uids is None:
            query = f"SELECT uid, place, name FROM message WHERE mailbox = ? {_HAS_DELETED}"  # noqa: S608
            rows = db.execute(query + " ORDER BY uid", (key,)).fetchall()
        else:
            rows = index.message_rows("uid, place, name", key, uids, _HAS_DELETED)
        expunged, failed = _unlink_all(account, mailbox, folder, rows)
        if expunged:
            modseq = mailbox.highestmodseq + 1
            log = index.expunge(mailbox, expunged, modseq)
            after = record_own_change(index, mailbox, folder, before, **log)
            gone = set(expunged)
            names = [name for uid, _, name in rows if uid in gone]
            index.note_removed(key, modseq, after.changed_at, names)
        delta = index.delta_since(key, since)
    return StoreResult(delta, failed=failed)


def _unlink_all(
    account: AccountState,
    mailbox: MailboxRow,
    folder: Folder,
    rows: Sequence[tuple[int, int, bytes]],
) -> tuple[list[int], list[int]]:
    r"""Remove files, given as (uid, directory, name); return the UIDs of those removed, and of those that cannot be.

    The removed files cannot be restored. A message whose file cannot be removed keeps \Deleted. If none can be
    removed, the error is raised.
    """
    finder = FileFinder(folder)
    expunged: list[int] = []
    failed: list[int] = []
    failure: OSError | None = None
    cur = folder.directory(CUR)
    for uid, directory, name in rows:
        try:
            if directory == CUR and b"/" not in name and b"\0" not in name:
                try:
                    os.unlink(name, dir_fd=cur)  # without a function call for each message
                except FileNotFoundError:
                    pass
                else:
                    expunged.append(uid)
                    continue
            if _unlink(account, mailbox, finder, directory, name):
                expunged.append(uid)
        except OSError as error:
            failure = error
            log_unreadable(account, folder.path_of(directory, name), error)
            failed.append(uid)
    if failure is not None and not expunged:
        raise failure
    return expunged, failed


def _unlink(
    account: AccountState, mailbox: MailboxRow, finder: FileFinder, directory: int, name: bytes
) -> bool:
    r"""Remove a file; return False if another program has just removed \Deleted."""
    try:
        files.unlink(finder.folder.entry(directory, name))
    except FileNotFoundError:
        file = finder.find(name)
        if file is not None:
            if DELETED not in filename.flags_of(file[1], account.keywords.get(mailbox)):
                return False
            files.unlink(finder.folder.entry(*file))
    return True
