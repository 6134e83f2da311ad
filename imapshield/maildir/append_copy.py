"""APPEND, REPLACE, COPY and MOVE: new messages in a mailbox, in one transaction each.

A copy is a second name (a hard link) for the same file; a move renames the file. Between two file systems both make a
new file.

Rules
-----
* Files come first: a message is written and synced in ``tmp/``, renamed into ``cur/``, the directory is synced, and
  then its row is committed. At every point a crash leaves whole files.
* If a function raises, it has changed nothing: the steps that were taken are undone in reverse order.
* A crash in the middle can leave files that the index does not have. They are whole and appear as new mail. So a
  message may exist twice after a crash, but it is never lost.
* The messages of one APPEND (RFC 3502), or of one COPY, all exist after a crash or none of them does: see `staging`.
  MOVE needs no staging, because it only promises that each message is in exactly one mailbox (RFC 6851 section 3.3).
"""

import os
import secrets
from collections.abc import Sequence
from functools import partial

from imapshield.errors import MessageExpunged, NoSuchMailbox, StoreLimitExceeded
from imapshield.mailbox.deltas import Delta
from imapshield.mailbox.values import AppendResult, CopyResult, NewMessage, ReplaceResult
from imapshield.maildir import filename, files
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.directory_state import record_own_change, stat_or_create
from imapshield.maildir.index import MailboxRow
from imapshield.maildir.keywords import canonical_flags
from imapshield.maildir.paths import CUR, TMP, FileFinder, message_path
from imapshield.maildir.sync import find_or_add

_COPIED_COLUMNS = "uid, name, place, flags, size, physical, internaldate, email_id"


def append(account: AccountState, name: str, messages: Sequence[NewMessage]) -> AppendResult:
    """Store messages; `IStore.append` describes the arguments.

    The files are written and synced before the lock is taken, so a slow disk delays no other process.
    """
    mailbox = find_or_add(account, name)
    account.check_quota(len(messages), sum(message.content.size for message in messages))
    directory = TMP if len(messages) > 1 else CUR
    with files.UndoSteps() as undo:
        written = _write_files(account, mailbox, messages, undo)
        with account.index.write(durable=directory == TMP):
            result = _insert(account, mailbox.key, messages, written, directory, undo)
    if directory == TMP:
        account.staging.publish(mailbox, result.uids[0])
    return result


def replace(
    account: AccountState, key: int, uid: int, target: str, message: NewMessage, since: int
) -> ReplaceResult:
    """Append and expunge in one transaction; `IStore.replace` describes the arguments.

    For the quota only the difference of the two sizes counts.
    """
    mailbox = find_or_add(account, target)
    old = account.index.message_rows("physical", key, [uid])
    if not old:
        raise MessageExpunged
    account.check_quota(0, message.content.size - old[0][0])
    with files.UndoSteps() as undo:
        written = _write_files(account, mailbox, [message], undo)
        with account.index.write():
            appended = _insert(account, mailbox.key, [message], written, CUR, undo)
            _remove(account, key, uid)
    return ReplaceResult(appended, account.index.delta_since(key, since))


def _remove(account: AccountState, key: int, uid: int) -> None:
    mailbox = account.index.mailbox(key)
    folder = account.paths.folder(mailbox.name)
    before = stat_or_create(folder)
    rows = account.index.message_rows("place, name", key, [uid])
    if not rows:
        raise MessageExpunged
    try:
        os.unlink(message_path(folder, *rows[0]))
    except FileNotFoundError:
        os.unlink(FileFinder(folder).current_path(rows[0][1]))
    account.index.expunge(mailbox, [uid], mailbox.highestmodseq + 1)
    record_own_change(account.index, mailbox, folder, before)


def _write_files(
    account: AccountState,
    mailbox: MailboxRow,
    messages: Sequence[NewMessage],
    undo: files.UndoSteps,
) -> list[tuple[bytes, int, int]]:
    """Write messages into ``tmp/``; return (base name, size, INTERNALDATE) of each."""
    folder = account.paths.folder(mailbox.name)
    stat_or_create(folder)
    now = int(account.now())
    written: list[tuple[bytes, int, int]] = []
    for message in messages:
        size = message.content.size
        if size > files.MAX_MESSAGE_SIZE:
            raise StoreLimitExceeded(f"Message is larger than {files.MAX_MESSAGE_SIZE} bytes")
        base = filename.with_sizes(account.paths.unique_name(), size, size)
        date = now if message.internaldate is None else message.internaldate
        path = message_path(folder, TMP, base)
        try:
            files.write_message(path, message.content, date)
        except FileNotFoundError:
            if not os.path.isdir(folder):
                raise NoSuchMailbox from None
            files.make_folder(folder)  # only tmp/ was missing
            files.write_message(path, message.content, date)
        undo.append(partial(files.remove, path))
        written.append((base, size, date))
    return written


def _insert(
    account: AccountState,
    key: int,
    messages: Sequence[NewMessage],
    written: Sequence[tuple[bytes, int, int]],
    directory: int,
    undo: files.UndoSteps,
) -> AppendResult:
    """Give the written files their names and rows, in a write transaction."""
    mailbox = account.staging.published(key)
    folder = account.paths.folder(mailbox.name)
    before = stat_or_create(folder)
    folder_flags = account.keywords.add(mailbox, [f for message in messages for f in message.flags])
    modseq, saved = mailbox.highestmodseq + 1, int(account.now())
    rows = []
    for uid, (message, (base, size, date)) in enumerate(
        zip(messages, written, strict=True), mailbox.uidnext
    ):
        flags = canonical_flags(message.flags, folder_flags)
        name = filename.with_flags(base, flags.split(), folder_flags)
        target = message_path(folder, directory, name)
        os.rename(message_path(folder, TMP, base), target)
        undo.append(partial(files.remove, target))
        email_id = b"M" + secrets.token_hex(8).encode()
        row = (key, uid, name, directory, flags, modseq, size, size, date, saved, email_id)
        rows.append(row)
    account.staging.insert(mailbox, directory, before, modseq, rows)
    return AppendResult(mailbox.uidvalidity, [row[1] for row in rows])


def copy(
    account: AccountState, key: int, uids: Sequence[int], target: str, move: bool, since: int
) -> CopyResult:
    """Copy or move messages; `IStore.copy` describes the arguments."""
    target_row = find_or_add(account, target)
    stat_or_create(account.paths.folder(target_row.name))
    directory = CUR if move or len(uids) == 1 else TMP
    with files.UndoSteps() as undo, account.index.write(durable=directory == TMP):
        result = _copy(account, key, uids, target_row.key, move, directory, undo)
    if directory == TMP and result.target_uids:
        account.staging.publish(target_row, result.target_uids[0])
    return result._replace(delta=account.index.delta_since(key, since))


def _copy(
    account: AccountState,
    key: int,
    uids: Sequence[int],
    target_key: int,
    move: bool,
    directory: int,
    undo: files.UndoSteps,
) -> CopyResult:
    """Copy or move messages in a write transaction, and return the result without its delta."""
    index = account.index
    source, target = index.mailbox(key), account.staging.published(target_key)
    source_folder = account.paths.folder(source.name)
    target_folder = account.paths.folder(target.name)
    source_before, target_before = stat_or_create(source_folder), stat_or_create(target_folder)
    rows = index.message_rows(_COPIED_COLUMNS, key, uids)
    if not move:
        if len(rows) < len(uids):
            raise MessageExpunged
        account.check_quota(len(rows), sum(row[5] for row in rows))
    if not rows:
        return CopyResult(target.uidvalidity, [], [], Delta())
    flag_lists = {row[3] for row in rows}
    folder_flags = account.keywords.add(target, {f for flags in flag_lists for f in flags.split()})
    target_flags = {flags: canonical_flags(flags.split(), folder_flags) for flags in flag_lists}
    modseq, saved = target.highestmodseq + 1, int(account.now())
    finder = FileFinder(source_folder)
    # One system call per message, which is most of the cost of a message.
    transfer = files.move if move else files.duplicate
    new_rows: list[tuple[object, ...]] = []
    for new_uid, row in enumerate(rows, target.uidnext):
        _, name, old_directory, old_flags, size, physical, date, email_id = row
        flags = target_flags[old_flags]
        base = filename.with_sizes(account.paths.unique_name(), physical, size)
        new_name = filename.with_flags(base, flags.split(), folder_flags)
        path = message_path(source_folder, old_directory, name)
        new_path = message_path(target_folder, directory, new_name)
        try:
            transfer(path, new_path)
        except FileNotFoundError:
            path = finder.current_path(name)
            transfer(path, new_path)
        if move:
            undo.append(partial(files.rename_back, new_path, path))
        else:
            undo.append(partial(files.remove, new_path))
        new_row = (target_key, new_uid, new_name, directory, flags, modseq, size, physical)
        new_rows.append((*new_row, date, saved, email_id))
    source_uids = [row[0] for row in rows]
    target_uids = list(range(target.uidnext, target.uidnext + len(rows)))
    account.staging.insert(target, directory, target_before, modseq, new_rows)
    account.cache.copy(key, source_uids, target_key, target.uidnext)
    if move:
        source = index.mailbox(key)
        index.expunge(source, source_uids, source.highestmodseq + 1)
        if target_key != key:
            files.sync_directory(source_folder + b"/cur")
            record_own_change(index, source, source_folder, source_before)
    return CopyResult(target.uidvalidity, source_uids, target_uids, Delta())
