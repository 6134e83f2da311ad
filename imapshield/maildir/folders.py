"""LIST, CREATE, DELETE and RENAME: the Maildir++ folders of an account.

If a function raises, it has changed nothing: the steps that were taken are undone in reverse order. After a crash,
several steps are undone too (`folder_log`).
"""

import errno
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial

from imapshield import errors
from imapshield.limits import LimitReached
from imapshield.mailbox.values import MailboxInfo
from imapshield.maildir import files, folder_log, metadata_table, move_log
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.append_copy import copy
from imapshield.maildir.directory_state import stat_or_create
from imapshield.maildir.entry import Entry
from imapshield.maildir.folder_log import FolderStep, remove_row
from imapshield.maildir.mailbox_row import MailboxRow
from imapshield.maildir.paths import TMP, check_new_name, folder_name
from imapshield.maildir.sync import find_or_add, synchronize
from imapshield.wire.names import DELIMITER, INBOX, fold_inbox, parent_names

MAX_MAILBOXES = 10_000
"""Folders of one account. Each LIST reads them all, and a client that loops over CREATE would use up the inodes."""

_FOLDER_MARKER = b"maildirfolder"
"""An empty file in each folder. A delivery agent takes a directory without it for a Maildir of its own (Maildir++)."""

_LEFT_BY_A_CRASH = frozenset({_FOLDER_MARKER, b"new", b"tmp"})
"""What an interrupted CREATE may have made. ``cur`` is made last."""

_NOT_A_MAILBOX = "There is a directory of this name, without mail"
"""Another program uses the directory for something else, for example .ssh."""


def mailboxes(account: AccountState) -> list[MailboxInfo]:
    """Return all mailboxes. Parents that have no folder are included as not selectable."""
    move_log.undo_interrupted(account, of_folders=True)
    rows = account.index.db.execute(
        "SELECT name, special_use FROM mailbox WHERE special_use <> x''"
    )
    uses = {name: tuple(use.split()) for name, use in rows}
    names = account.folders.mailboxes()
    if account.has_special_folders:
        uses = account.special_names.add_uses(names, uses)
    infos = {name: MailboxInfo(name, True, uses.get(name, ())) for name in names}
    for name in list(infos):
        for parent in parent_names(name):
            infos.setdefault(parent, MailboxInfo(parent, False))
    return [infos[name] for name in sorted(infos)]


def create(account: AccountState, name: str, special_use: Sequence[bytes]) -> bytes:
    """Create a mailbox, and its parents that have no folder; `IStore.create` describes the arguments."""
    name = fold_inbox(name)
    return _run(account, partial(_plan_create, account, name), b" ".join(special_use))


def _plan_create(account: AccountState, name: str) -> list[FolderStep]:
    check_new_name(name)
    exists = account.folders.exists
    if exists(name):
        raise errors.MailboxExists
    names = [*(parent for parent in parent_names(name) if not exists(parent)), name]
    count = len(account.folders.mailboxes()) + len(names)
    if count > MAX_MAILBOXES:
        text = f"Account would have more than {MAX_MAILBOXES} mailboxes"
        reached = LimitReached("MAX_MAILBOXES", MAX_MAILBOXES, count)
        raise errors.StoreLimitExceeded(text, reached)
    return [FolderStep(name) for name in names]


def _run(
    account: AccountState,
    plan: Callable[[], list[FolderStep]],
    special_use: bytes = b"",
    finish: Callable[[], None] | None = None,
) -> bytes:
    """Make and rename folders, and return the MAILBOXID of the last one.

    Args:
        account: the account.
        plan: called in a write transaction; returns the steps.
        special_use: the special use of the last folder.
        finish: called after that; if it raises, or a crash interrupts it, the steps are undone.
    """
    for _ in range(move_log.MAX_ANNOUNCEMENTS):
        account.folders.forget()  # another process may have removed them
        with files.UndoSteps() as undo, account.index.write(undo=undo):
            steps = plan()
            if len(steps) == 1 and not special_use and finish is None:
                return _take(account, steps, special_use, undo, {})
            staged = _stage(account, steps, undo)
            names = folder_log.encode(account, steps, staged)
            entry = move_log.insert(account, 0, 0, names)
        with _removed(account, entry, staged.values()), move_log.kept(account, entry):
            with files.UndoSteps() as undo, account.index.write(undo=undo):
                is_announced = move_log.has_entry if finish is not None else move_log.end
                if not is_announced(account, entry):
                    continue  # another process has undone it
                mailbox_id = _take(account, steps, special_use, undo, staged)
            if finish is None:
                return mailbox_id
            try:
                finish()
            except (errors.NoSuchMailbox, FileNotFoundError):
                if move_log.has_entry(account, entry):
                    raise
                continue  # another process has undone it
            with account.index.write():
                if move_log.end(account, entry) or account.folders.exists(steps[-1].name):
                    return mailbox_id
    raise errors.StoreBusy


def _stage(
    account: AccountState, steps: Sequence[FolderStep], undo: files.UndoSteps
) -> dict[str, Entry]:
    """Make a directory in ``tmp/`` for each folder that is made, so that its inode can be announced."""
    staged: dict[str, Entry] = {}
    for step in steps:
        if not step.old_name:
            tmp = account.folders.folder(INBOX).directory(TMP)
            entry = staged[step.name] = Entry(tmp, account.unique_name())
            files.make_directory(entry, account.folders.owner)
            undo.append(partial(files.remove_tree, entry))
    return staged


@contextmanager
def _removed(account: AccountState, entry: int, directories: Iterable[Entry]) -> Iterator[None]:
    """Remove directories at the end, if they are still in ``tmp/``.

    While their inodes are announced they stay, so that no folder of another program gets one of them.
    """
    try:
        yield
    finally:
        with suppress(sqlite3.Error):
            for directory in () if move_log.has_entry(account, entry) else directories:
                files.remove_tree(directory)


def _take(
    account: AccountState,
    steps: Sequence[FolderStep],
    special_use: bytes,
    undo: files.UndoSteps,
    staged: Mapping[str, Entry],
) -> bytes:
    """Take the steps, in a write transaction, and return the MAILBOXID of the last folder that was made, if any."""
    mailbox_id = b""
    for step in steps:
        if step.old_name:
            _rename_folder(account, step, undo)
        else:
            use = special_use if step is steps[-1] else b""
            if step.name in staged:
                _put_in_place(account, staged[step.name], step.name, undo)
            mailbox_id = make_folder(account, step.name, use, undo).mailbox_id
    account.folders.sync()
    return mailbox_id


def _put_in_place(account: AccountState, staged: Entry, name: str, undo: files.UndoSteps) -> None:
    """Rename a directory from ``tmp/`` to the folder that it is to be."""
    folder, inode = Entry(account.folders.fd, folder_name(name)), folder_log.inode_of(staged)
    _remove_left(folder)
    try:
        files.rename(staged, folder)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return  # with --follow-symlinks, tmp/ may be on another file system; a crash then leaves the folder

    def remove() -> None:
        with suppress(OSError):
            folder_log.remove_made(folder, inode)

    undo.append(remove)


def _rename_folder(account: AccountState, step: FolderStep, undo: files.UndoSteps) -> None:
    folders = account.folders
    source = Entry(folders.fd, folders.name(step.old_name))
    destination = Entry(folders.fd, folder_name(step.name))
    _remove_left(destination)
    files.rename(source, destination)
    undo.append(partial(files.rename_back, destination, source))
    remove_row(account, step.name)
    mailbox = account.index.mailbox_named(step.old_name)
    if mailbox is not None:
        account.index.update_mailbox(mailbox.key, name=step.name)


def make_folder(
    account: AccountState, name: str, special_use: bytes, undo: files.UndoSteps
) -> MailboxRow:
    """Make one folder and its row, in a write transaction; the folder may be an empty directory."""
    owner = account.folders.owner
    entry = Entry(account.folders.fd, folder_name(name))
    try:
        files.make_directory(entry, owner)
        undo.append(partial(files.remove_tree, entry))
    except FileExistsError:
        if not _LEFT_BY_A_CRASH.issuperset(_names_in(entry)):
            raise errors.MailboxExists(_NOT_A_MAILBOX) from None
    folder = account.folders.folder(name)
    with suppress(FileExistsError):
        files.create_empty(folder.file(_FOLDER_MARKER), owner)
    folder.complete()
    remove_row(account, name)
    mailbox = account.index.add_mailbox(name, special_use)
    stamps = stat_or_create(folder)
    # If a crash interrupts a RENAME, the folder is recognized by its inodes.
    account.index.update_mailbox(mailbox.key, cur_ino=stamps.cur_ino, new_ino=stamps.new_ino)
    return mailbox


def _names_in(entry: Entry) -> list[bytes]:
    """Return the names in a directory.

    Raises:
        MailboxExists: it is not a directory.
    """
    try:
        return files.names_in(entry)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise errors.MailboxExists(_NOT_A_MAILBOX) from None
        raise


def _remove_left(entry: Entry) -> None:
    """Remove what an interrupted CREATE has left, if anything, so that a directory can be renamed to the name.

    Raises:
        MailboxExists: something else has the name.
    """
    with suppress(FileNotFoundError):
        is_left = _LEFT_BY_A_CRASH.issuperset(_names_in(entry))
        if not is_left or not files.remove_empty(entry, _FOLDER_MARKER):
            raise errors.MailboxExists(_NOT_A_MAILBOX)


def delete(account: AccountState, name: str) -> None:
    """Delete a mailbox; mailboxes below it stay.

    The folder is renamed into ``tmp/``, which is one step, and its files are removed after the commit.

    Raises:
        NotAllowed: the mailbox is INBOX.
        NoSuchMailbox: there is no folder.
    """
    name = fold_inbox(name)
    if name == INBOX:
        raise errors.NotAllowed("INBOX cannot be deleted")
    folders = account.folders
    folder = folders.existing_name(name)
    trash = Entry(folders.folder(INBOX).directory(TMP), account.unique_name())
    with files.UndoSteps() as undo, account.index.write(undo=undo):
        if not folders.exists(name):
            raise errors.NoSuchMailbox
        mailbox = account.index.mailbox_named(name)
        if mailbox is not None:  # it may have the files of another mailbox
            account.require_recovered(mailbox.key)
        source = Entry(folders.fd, folder)
        files.rename(source, trash)
        undo.append(partial(files.rename_back, trash, source))
        remove_row(account, name)
        folders.folder(INBOX).sync(TMP)
        folders.sync()
    files.remove_tree(trash)


def rename(account: AccountState, old: str, new: str) -> None:
    """Rename a mailbox and all mailboxes below it; keys, UIDs and recorded directory times stay.

    Raises:
        BadMailboxName: the new name is below the old one, or no folder can have it.
        MailboxExists: one of the new names is taken.
        NoSuchMailbox: there is no folder with the old name.
    """
    old, new = fold_inbox(old), fold_inbox(new)
    check_new_name(new)
    if old == INBOX:
        _rename_inbox(account, new)
        return
    account.folders.existing_name(old)
    _run(account, partial(_plan_rename, account, old, new))


def _plan_rename(account: AccountState, old: str, new: str) -> list[FolderStep]:
    names = account.folders.mailboxes()
    prefix = old + DELIMITER
    affected = [name for name in names if name == old or name.startswith(prefix)]
    if not affected:
        raise errors.NoSuchMailbox
    taken = set(names)
    if new in taken:
        raise errors.MailboxExists
    if new.startswith(prefix):
        raise errors.BadMailboxName("Mailbox cannot be renamed to a name below itself")
    renames = [FolderStep(new + name[len(old) :], name) for name in affected]
    if any(step.name in taken for step in renames):
        raise errors.MailboxExists
    for step in renames:
        folder_name(step.name)  # raises BadMailboxName before anything is renamed
    return [FolderStep(parent) for parent in parent_names(new) if parent not in taken] + renames


def _rename_inbox(account: AccountState, new: str) -> None:
    """Move INBOX's messages into a new mailbox (RFC 9051 section 6.3.6).

    Its metadata is copied (RFC 5464 section 4.1).
    """
    inbox, _ = synchronize(account, find_or_add(account, INBOX), claim=False)

    def move_all() -> None:
        target = find_or_add(account, new)
        with account.index.write():
            metadata_table.copy_metadata(account, inbox.key, target.key)
        rows = account.index.db.execute(
            "SELECT uid FROM message WHERE mailbox = ? ORDER BY uid", (inbox.key,)
        )
        copy(account, inbox.key, [uid for (uid,) in rows], new, True, inbox.highestmodseq)

    _run(account, partial(_plan_create, account, new), finish=move_all)
