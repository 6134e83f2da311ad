"""STORE and EXPUNGE: the files are changed first, then the index, in one transaction.

STORE renames files. If it raises, it has changed nothing. After a crash in the middle, the renamed files look like the
changes of another program, and the next sync takes the flags from them.

EXPUNGE removes files. They are removed before their rows, because a message that the client saw expunged must not come
back. After a crash in the middle, the next sync finds the files missing.
"""

import os
from collections.abc import Sequence
from functools import partial

from imapshield.mailbox.deltas import Delta
from imapshield.mailbox.values import StoreResult
from imapshield.maildir import filename, files
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.directory_state import record_own_change, stat_or_create
from imapshield.maildir.filename import FolderFlags
from imapshield.maildir.index import MailboxRow
from imapshield.maildir.keywords import canonical_flags
from imapshield.maildir.paths import CUR, FileFinder, message_path
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
    with files.UndoSteps() as undo, index.write() as db:
        mailbox = index.mailbox(key)
        folder = account.paths.folder(mailbox.name)
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
                new_name = _rename(finder, directory, name, new, folder_flags, undo)
                if new_name is not None:
                    changed.append((new_name, new, CUR, modseq, key, uid))
        if changed:
            db.executemany(
                "UPDATE message SET name = ?, flags = ?, place = ?, modseq = ?"
                " WHERE mailbox = ? AND uid = ?",
                changed,
            )
            index.update_mailbox(key, highestmodseq=modseq)
            record_own_change(index, mailbox, folder, before)
    return StoreResult(index.delta_since(key, since), failed)


def _rename(
    finder: FileFinder,
    directory: int,
    name: bytes,
    flags: bytes,
    folder_flags: FolderFlags,
    undo: files.UndoSteps,
) -> bytes | None:
    """Give a file the letters of `flags`; return its new name, None if another program removed the file."""
    for _ in range(2):
        target_name = filename.with_flags(name, flags.split(), folder_flags)
        if directory == CUR and target_name == name:  # only keywords without a letter changed
            return name
        source = message_path(finder.folder, directory, name)
        target = message_path(finder.folder, CUR, target_name)
        try:
            os.rename(source, target)
        except FileNotFoundError:
            file = finder.find(name)
            if file is None:
                break
            directory, name = file
        else:
            undo.append(partial(files.rename_back, target, source))
            return target_name
    return None


def _apply(op: bytes, old: bytes, flags: Sequence[bytes]) -> list[bytes]:
    if op == b"+":
        return [*old.split(), *flags]
    if op == b"-":
        removed = {flag.lower() for flag in flags}
        return [flag for flag in old.split() if flag.lower() not in removed]
    return list(flags)


def expunge(account: AccountState, key: int, uids: Sequence[int] | None, since: int) -> Delta:
    """Remove messages; `IStore.expunge` describes the arguments."""
    index = account.index
    with index.write() as db:
        mailbox = index.mailbox(key)
        folder = account.paths.folder(mailbox.name)
        before = stat_or_create(folder)
        if uids is None:
            query = f"SELECT uid, place, name FROM message WHERE mailbox = ? {_HAS_DELETED}"  # noqa: S608
            rows = db.execute(query + " ORDER BY uid", (key,)).fetchall()
        else:
            rows = index.message_rows("uid, place, name", key, uids, _HAS_DELETED)
        expunged = _unlink(account, mailbox, folder, rows)
        if expunged:
            index.expunge(mailbox, expunged, mailbox.highestmodseq + 1)
            record_own_change(index, mailbox, folder, before)
    return index.delta_since(key, since)


def _unlink(
    account: AccountState,
    mailbox: MailboxRow,
    folder: bytes,
    rows: Sequence[tuple[int, int, bytes]],
) -> list[int]:
    """Remove files, given as (uid, directory, name); return the UIDs of those that no longer exist."""
    finder = FileFinder(folder)
    expunged: list[int] = []
    for uid, directory, name in rows:
        try:
            try:
                os.unlink(message_path(folder, directory, name))
            except FileNotFoundError:
                file = finder.find(name)
                if file is not None:
                    folder_flags = account.keywords.get(mailbox)
                    if DELETED not in filename.flags_of(file[1], folder_flags):
                        continue  # another program has just removed \Deleted
                    os.unlink(message_path(folder, *file))
        except OSError as error:
            if not expunged:
                raise
            # The removed files cannot be restored. The other messages keep \Deleted, and the next EXPUNGE fails with
            # the reason.
            files.store_error(error, folder, account.log_warning)
            break
        expunged.append(uid)
    return expunged
