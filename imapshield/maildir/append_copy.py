"""APPEND, REPLACE, COPY and MOVE: new messages in a mailbox, in one transaction each.

A copy is a second name (a hard link) for the same file; a move renames the file. On a file system without hard links,
and between two file systems, they make a new file.

Rules
-----
* Files come first: a message is written and synced in ``tmp/``, the file is renamed into ``cur/``, and then its row is
  committed, which waits for the disk. At every point a crash leaves whole files. The rename needs no sync: after a
  power failure, `recovery` takes the file from ``tmp/`` and renames it again. The sync of a new file makes its name
  durable too: ext4, XFS, btrfs and ZFS do that. For a link ``tmp/`` is synced.
* If a function raises, it has changed nothing: the steps that were taken are undone in reverse order.
* A crash in the middle can leave files that the index does not have. They are whole and appear as new mail. So a
  message may exist twice after a crash, but it is never lost.
* The messages of one APPEND (RFC 3502) or COPY are all stored after a crash or none of them is: see `staging`. A single
  message is staged too if it has a keyword without a letter, because new mail gets the flags that its name has letters
  for. For MOVE see `move_log`.
* The original of a REPLACE is removed after the commit. From then on, its name is in the table ``removed``. So `sync`
  does not take it for new mail, and `recovery` removes it if a crash has left it.
* COPY and MOVE skip a message whose file cannot be linked or renamed, and return its UID as failed.
"""

import errno
import os
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from imapshield.errors import MessageExpunged, StoreBusy, StoreLimitExceeded
from imapshield.limits import LimitReached
from imapshield.mailbox.deltas import Delta
from imapshield.mailbox.values import AppendResult, CopyResult, NewMessage, ReplaceResult
from imapshield.maildir import directory_state, filename, files
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.directory_state import CLOCK_TICK, record_own_change, stat_or_create
from imapshield.maildir.entry import Entry
from imapshield.maildir.folder_listing import FileFinder
from imapshield.maildir.keywords import canonical_flags
from imapshield.maildir.mailbox_row import MailboxRow
from imapshield.maildir.move_log import MAX_ANNOUNCEMENTS, announce, end, kept
from imapshield.maildir.paths import CUR, NEW, TMP
from imapshield.maildir.sync import find_or_add
from imapshield.maildir.unreadable import log_once, log_unreadable
from imapshield.wire.flags import SYSTEM_FLAGS

_FAILS_ALONE = (errno.EACCES, errno.EPERM, errno.ELOOP, errno.EISDIR)
"""Errors of one file that do not stop a COPY or MOVE of others. An error of the disk does."""

_COPIED_COLUMNS = "uid, name, place, flags, size, physical, internaldate, email_id"


def append(account: AccountState, name: str, messages: Sequence[NewMessage]) -> AppendResult:
    """Store messages; `IStore.append` describes the arguments.

    The files are written and synced before the lock is taken, so a slow disk delays no other process.
    """
    mailbox = find_or_add(account, name)
    account.check_quota(len(messages), sum(message.content.size for message in messages))
    keywords = {flag for message in messages for flag in message.flags}.difference(SYSTEM_FLAGS)
    has_letters = not keywords or all(map(account.keywords.get(mailbox).letter, keywords))
    directory = CUR if len(messages) == 1 and has_letters else TMP
    with files.UndoSteps() as undo:
        written = _write_files(account, mailbox, messages, undo)
        with account.index.write(undo=undo):
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
        with account.index.write(undo=undo):
            appended = _insert(account, mailbox.key, [message], written, TMP, undo)
            originals = _expunge_original(account, key, uid)
            delta = account.index.delta_since(key, since)
    remove = partial(_remove_originals, account, key, originals)
    account.staging.publish(mailbox, appended.uids[0], remove)
    return ReplaceResult(appended, delta)


def _expunge_original(account: AccountState, key: int, uid: int) -> list[Entry]:
    """Remove a message from the index, in a write transaction; return its file, to be removed after the commit."""
    account.require_recovered(key)
    mailbox, folder = account.index.mailbox(key), account.folder(key)
    rows = account.index.message_rows("place, name", key, [uid])
    if not rows:
        raise MessageExpunged
    directory_state.require_writable(folder)
    entry = folder.entry(*rows[0])
    try:
        status = files.status(entry)
    except FileNotFoundError:
        entry = FileFinder(folder).current_entry(rows[0][1])
        status = files.status(entry)
    modseq = mailbox.highestmodseq + 1
    account.index.update_mailbox(key, **account.index.expunge(mailbox, [uid], modseq))
    account.index.note_removed(key, modseq, status.st_ctime_ns, [entry.name], pending=True)
    return [entry]


def _remove_originals(account: AccountState, key: int, originals: Sequence[Entry]) -> None:
    """Remove the files of messages that REPLACE or MOVE has expunged, in a write transaction."""
    mailbox, folder = account.index.mailbox(key), account.folder(key)
    before = stat_or_create(folder)
    is_complete = True
    for entry in originals:
        try:
            files.unlink(entry)
        except FileNotFoundError:
            continue  # another program has removed it
        except OSError as error:
            text = f"could not be removed after a MOVE or REPLACE: {error.strerror}; remove it"
            log_once(account, folder.path + b"/" + entry.name, text)
            is_complete = False
    if is_complete:
        account.index.note_removal(key)
    record_own_change(account.index, mailbox, folder, before)


def _write_files(
    account: AccountState,
    mailbox: MailboxRow,
    messages: Sequence[NewMessage],
    undo: files.UndoSteps,
) -> list[tuple[bytes, int, int]]:
    """Write messages into ``tmp/``, and sync it; return (base name, size, INTERNALDATE) of each."""
    folder = account.folders.folder(mailbox.name)
    now = int(account.now())
    written: list[tuple[bytes, int, int]] = []
    for message in messages:
        size = message.content.size
        if size > files.MAX_MESSAGE_SIZE:
            text = f"Message is larger than {files.MAX_MESSAGE_SIZE} bytes"
            reached = LimitReached("MAX_MESSAGE_SIZE", files.MAX_MESSAGE_SIZE, size)
            raise StoreLimitExceeded(text, reached)
        base = filename.with_sizes(account.unique_name(), size, size)
        date = now if message.internaldate is None else message.internaldate
        entry = folder.entry(TMP, base)
        files.write_message(entry, message.content, date, folder.owner)
        undo.append(partial(files.remove, entry))
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
    folder = account.folders.folder(mailbox.name)
    before = stat_or_create(folder)
    folder_flags = account.keywords.add(mailbox, [f for message in messages for f in message.flags])
    modseq, saved = mailbox.highestmodseq + 1, int(account.now())
    rows = []
    for uid, (message, (base, size, date)) in enumerate(
        zip(messages, written, strict=True), mailbox.uidnext
    ):
        flags = canonical_flags(message.flags, folder_flags)
        name = filename.with_flags(base, flags.split(), folder_flags)
        target = folder.entry(directory, name)
        files.rename(folder.entry(TMP, base), target)
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
    has_letters = not target_row.keywords and not account.index.mailbox(key).keywords
    directory = CUR if move or (len(uids) == 1 and has_letters) else TMP
    if move:
        return _move(account, key, uids, target_row.key, since)
    with files.UndoSteps() as undo, account.index.write(undo=undo):
        command = _Copy(account, key, target_row.key, None, {}, directory, undo)
        result = command.run(uids)
        result = result._replace(delta=account.index.delta_since(key, since))
    if directory == TMP and result.target_uids:
        account.staging.publish(target_row, result.target_uids[0])
    return result


def _move(
    account: AccountState, key: int, uids: Sequence[int], target_key: int, since: int
) -> CopyResult:
    for _ in range(MAX_ANNOUNCEMENTS):
        entry, bases = announce(account, key, target_key, uids)
        with (
            kept(account, entry),
            files.UndoSteps() as undo,
            account.index.write(undo=undo),
        ):
            command = _Copy(account, key, target_key, entry, bases, CUR, undo)
            if not end(account, entry):
                continue
            result = command.run(uids)
            result = result._replace(delta=account.index.delta_since(key, since))
        if command.originals:
            _remove_moved(account, key, command.originals)
        return result
    raise StoreBusy


def _remove_moved(account: AccountState, key: int, originals: Sequence[Entry]) -> None:
    """Remove the files of a MOVE between two file systems. If that fails, the next opening of the account does it."""
    try:
        with account.index.write_unless_full():
            _remove_originals(account, key, originals)
    except (sqlite3.Error, OSError) as error:
        account.reset()
        account.log_warning(
            f"cannot remove the originals of a MOVE below {os.fsdecode(account.folders.root)}: {error}; they "
            "are removed later"
        )


class _Copy:
    """One COPY or MOVE, in a write transaction.

    Args:
        account: the account.
        key: the mailbox of the originals.
        target_key: the mailbox of the copies.
        entry: the entry of a MOVE in its undo log; None for COPY.
        bases: the announced base names of a MOVE.
        directory: where the copies are made: CUR, or TMP if they are staged.
        undo: gets a step for each file.
    """

    def __init__(
        self,
        account: AccountState,
        key: int,
        target_key: int,
        entry: int | None,
        bases: Mapping[int, bytes],
        directory: int,
        undo: files.UndoSteps,
    ) -> None:
        # The files of a MOVE between two file systems, to be removed after the commit.
        self.originals: list[Entry] = []
        account.require_recovered(key)
        self._account = account
        self._target = account.staging.published(target_key)
        self._source = account.index.mailbox(key)
        self._source_folder = account.folders.folder(self._source.name)
        self._target_folder = account.folders.folder(self._target.name)
        self._entry = entry
        self._transfer = self._duplicate if entry is None else self._rename
        self._bases = bases
        self._directory = directory
        self._undo = undo
        self._finder = FileFinder(self._source_folder)
        self._failed: list[int] = []

    def run(self, uids: Sequence[int]) -> CopyResult:
        """Copy or move messages, and return the result without its delta."""
        account, index = self._account, self._account.index
        source, target = self._source, self._target
        source_before = stat_or_create(self._source_folder)
        target_before = stat_or_create(self._target_folder)
        rows = index.message_rows(_COPIED_COLUMNS, source.key, uids)
        if self._entry is not None:
            rows = [row for row in rows if row[0] in self._bases]
        elif len(rows) < len(uids):
            raise MessageExpunged
        else:
            account.check_quota(len(rows), sum(row[5] for row in rows))
        new_rows, copied = self._transfer_all(rows)
        if not copied:
            return CopyResult(target.uidvalidity, [], [], Delta(), self._failed)
        if self._entry is not None:
            self._source_folder.sync(CUR, NEW)
            self._target_folder.sync(CUR)
        elif self._directory == TMP:
            self._target_folder.sync(TMP)
        target_uids = list(range(target.uidnext, target.uidnext + len(copied)))
        modseq = target.highestmodseq + 1
        account.staging.insert(target, self._directory, target_before, modseq, new_rows)
        account.cache.copy(source.key, copied, target.key, target.uidnext)
        if self._entry is not None:
            source = index.mailbox(source.key)
            modseq = source.highestmodseq + 1
            fields = index.expunge(source, copied, modseq)
            if target.key == source.key:
                index.update_mailbox(source.key, **fields)
            else:
                record_own_change(index, source, self._source_folder, source_before, **fields)
            if self.originals:
                names = [entry.name for entry in self.originals]
                copied_at = self._target_folder.status(CUR).st_mtime_ns + CLOCK_TICK
                index.note_removed(source.key, modseq, copied_at, names, pending=True)
        return CopyResult(target.uidvalidity, copied, target_uids, Delta(), self._failed)

    def _transfer_all(
        self, rows: Sequence[tuple[Any, ...]]
    ) -> tuple[list[tuple[object, ...]], list[int]]:
        """Copy the files; return the rows of the copies, and the UIDs of the originals."""
        account, target = self._account, self._target
        flag_lists = {row[3] for row in rows}
        source_flags = account.keywords.get(self._source)
        folder_flags = account.keywords.add(
            target, {f for flags in flag_lists for f in flags.split()}
        )
        target_flags = {flags: canonical_flags(flags.split(), folder_flags) for flags in flag_lists}
        modseq, saved = target.highestmodseq + 1, int(account.now())

        def with_flags(name: bytes, flags: bytes) -> bytes:
            return filename.with_flags(name, flags.split(), folder_flags)

        ends = {flags: with_flags(b"", flags) for flags in target_flags.values()}
        new_rows: list[tuple[object, ...]] = []
        copied: list[int] = []
        error: OSError | None = None
        for uid, name, old_directory, old_flags, size, physical, date, email_id in rows:
            flags = target_flags[old_flags]
            base = self._bases.get(uid) or filename.copy_name(
                name, account.unique_name(), physical, size
            )
            has_letters = b":" in base
            new_name = with_flags(base, flags) if has_letters else base + ends[flags]
            try:
                try:
                    self._transfer(self._source_folder.entry(old_directory, name), new_name)
                except FileNotFoundError:
                    # Another program has renamed it, and perhaps changed its flags.
                    entry = self._finder.current_entry(name)
                    found = filename.all_flags(entry.name, old_flags, source_flags).split()
                    folder_flags = account.keywords.add(target, found)
                    flags = canonical_flags(found, folder_flags)
                    self._transfer(entry, new_name := with_flags(base, flags))
            except OSError as failure:
                if failure.errno not in _FAILS_ALONE:
                    raise
                error = failure
                log_unreadable(account, self._source_folder.path_of(old_directory, name), failure)
                self._failed.append(uid)
                continue
            new_uid = target.uidnext + len(copied)
            copied.append(uid)
            new_row = (target.key, new_uid, new_name, self._directory, flags, modseq, size)
            new_rows.append((*new_row, physical, date, saved, email_id))
        if error is not None and not copied:
            raise error
        return new_rows, copied

    def _rename(self, entry: Entry, new_name: bytes) -> None:
        new_entry = Entry(self._target_folder.directory(CUR), new_name)
        try:
            files.rename(entry, new_entry)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._duplicate(entry, new_name)
            self.originals.append(entry)
        else:
            self._undo.append(partial(files.rename_back, new_entry, entry))

    def _duplicate(self, entry: Entry, new_name: bytes) -> None:
        new_entry = Entry(self._target_folder.directory(TMP), new_name)
        files.duplicate(entry, new_entry, self._source_folder.owner)
        self._undo.append(partial(files.remove, new_entry))
        if self._directory == CUR:
            self._target_folder.sync(TMP)
            published = Entry(self._target_folder.directory(CUR), new_name)
            files.rename(new_entry, published)
            self._undo.append(partial(files.remove, published))
