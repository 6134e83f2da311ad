"""The undo log of CREATE and RENAME: which folders were announced, and how an interrupted command is undone.

RENAME renames the folder of each mailbox below the one that the client names, one system call for each, and both
commands make the folders of missing parents. A crash in the middle would leave a part of the tree under the new name.
So the steps are announced as those of MOVE are (`move_log`), in the same table, with 0 as source and target. They are
undone last first:

* A folder that was renamed is renamed back. It is recognized by its inode and those of ``cur/`` and ``new/``, because
  another program may have removed it and made another one of its name, which ext4 likes to give the same inode. If
  another program has made a folder with the old name, the renamed one stays, and keeps its UIDs.
* A folder that was made is removed, unless it has mail, or anything that imapshield has not put there. It is recognized
  by its inode, too: it is made in ``tmp/`` before it is announced, and then renamed. So a folder that another program
  makes under an announced name is not taken for it. The inode is not free before that one is removed.

In a restored backup the inodes are other ones. A folder that was made stays. One that was renamed is renamed back only
if nothing has its old name and the index has a mailbox of that name.

A command of one step is not announced. If a crash interrupts it before the commit, the mailbox is found by its inodes
(`sync`), or is empty.
"""

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from imapshield.maildir import files
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.entry import Entry
from imapshield.maildir.keywords import KEYWORD_FILE
from imapshield.maildir.paths import (
    CUR,
    DIRECTORY_NAMES,
    MAX_FILE_NAME,
    NEW,
    folder_name,
    mailbox_name,
)

_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)
"""Something has the name to which a folder is renamed, or is left in a directory that is removed."""

_OWN_FILES = (b"maildirfolder", b"imapshield", KEYWORD_FILE)
"""What the names of files begin with that imapshield puts into a folder that it makes. Other files of Dovecot and
Courier say that they have served it."""

_NO_FOLDER = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class FolderStep(NamedTuple):
    """A folder that is made, or renamed.

    Attributes:
        name: its mailbox after the step.
        old_name: its mailbox before; "" if the folder is made.
    """

    name: str
    old_name: str = ""


class _Announced(NamedTuple):
    """A step in the table: names of folders, of which `old` is b"" if the folder is made, and its inodes."""

    old: bytes
    new: bytes
    inodes: bytes


def encode(
    account: AccountState, steps: Sequence[FolderStep], staged: Mapping[str, Entry]
) -> bytes:
    """Return steps that have not been taken yet, as they are announced.

    Args:
        account: the account.
        steps: the steps.
        staged: the directory in ``tmp/`` of each folder that is made, by the name of its mailbox.
    """
    folders, fields = account.folders, []
    for name, old_name in steps:
        old = folders.name(old_name) if old_name else b""
        inodes = _inodes(Entry(folders.fd, old)) if old else inode_of(staged[name])
        fields += [old, folder_name(name), inodes]
    return b"/".join(fields)


def undo(account: AccountState, announced: bytes) -> None:
    """Undo announced steps as far as they were taken, in a write transaction, and sync the account directory.

    Raises:
        OSError: a folder cannot be renamed back or removed.
    """
    # The caller may have opened a folder under the name that it loses.
    account.folders.forget()
    for step in reversed([*_decode(announced)]):
        if step.old:
            _rename_back(account, step)
            continue
        is_removed = remove_made(Entry(account.folders.fd, step.new), step.inodes)
        if is_removed and (mailbox := mailbox_name(step.new)) is not None:
            remove_row(account, mailbox)
    account.folders.sync()


def mailbox_keys(account: AccountState, announced: bytes) -> list[int]:
    """Return the keys of the mailboxes whose folders are renamed."""
    names = {name for step in _decode(announced) if step.old for name in step[:2]}
    rows = account.index.db.execute("SELECT id, name FROM mailbox").fetchall()
    return [key for key, name in rows if account.folders.name(name) in names]


def _decode(announced: bytes) -> Iterator[_Announced]:
    """Yield the steps. The owner of the mail may have written anything into the table."""
    fields = announced.split(b"/") if isinstance(announced, bytes) else []
    for step in map(_Announced, fields[::3], fields[1::3], fields[2::3]):
        if _is_folder_name(step.new) and (not step.old or _is_folder_name(step.old)):
            yield step


def _is_folder_name(name: bytes) -> bool:
    is_hidden = name[:1] == b"." and name not in (b".", b"..")
    return is_hidden and len(name) <= MAX_FILE_NAME and b"\0" not in name


def _inode(entry: Entry, *below: bytes) -> int:
    """Return the inode that has a name, 0 if none has it."""
    try:
        return files.status(Entry(entry.directory, b"/".join((entry.name, *below)))).st_ino
    except OSError as error:
        if error.errno not in _NO_FOLDER:
            raise
        return 0


def inode_of(folder: Entry) -> bytes:
    """Return the inode of a folder that was made, as it is announced."""
    return b"%d" % _inode(folder)


def _inodes(folder: Entry) -> bytes:
    """Return the inodes of a folder, its ``cur/`` and its ``new/``."""
    cur, new = (_inode(folder, DIRECTORY_NAMES[number]) for number in (CUR, NEW))
    return b"%d.%d.%d" % (_inode(folder), cur, new)


def _rename_back(account: AccountState, step: _Announced) -> None:
    folder, original = (Entry(account.folders.fd, name) for name in (step.new, step.old))
    name, new_name = mailbox_name(step.old), mailbox_name(step.new)
    mailbox = account.index.mailbox_named(name) if name else None
    if account.index.is_restored:
        if mailbox is None or _inode(original) or not _inode(folder, DIRECTORY_NAMES[CUR]):
            return
    elif _inodes(folder) != step.inodes:
        return
    if not _inode(original):
        try:
            files.rename(folder, original)
        except FileNotFoundError:
            return  # another program has just renamed it
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
        else:
            return
    if mailbox is not None and new_name is not None:
        remove_row(account, new_name)
        account.index.update_mailbox(mailbox.key, name=new_name)


def remove_made(folder: Entry, inode: bytes) -> bool:
    """Remove a folder that was made, unless it is used or another one; return whether that was done.

    rmdir() makes sure that no mail is lost that arrives meanwhile.

    Raises:
        OSError: it cannot be removed.
    """
    try:
        fd = files.open_directory(folder)
    except OSError as error:
        if error.errno not in _NO_FOLDER:
            raise
        return False
    try:
        if b"%d" % os.fstat(fd).st_ino != inode:
            return False
        found = {*files.names(fd)} - {*DIRECTORY_NAMES}
        if _has_mail(fd) or not all(name.startswith(_OWN_FILES) for name in found):
            return False
        # cur/ is last: without it, the folder is no mailbox.
        for name in reversed(DIRECTORY_NAMES):
            with suppress(FileNotFoundError):
                os.rmdir(name, dir_fd=fd)
        for name in found:
            files.unlink(Entry(fd, name))
        os.rmdir(folder.name, dir_fd=folder.directory)
    except OSError as error:
        if error.errno not in (*_TAKEN, errno.ENOENT):
            raise
        return False
    finally:
        os.close(fd)
    return True


def _has_mail(folder: int) -> bool:
    for name in DIRECTORY_NAMES:
        with suppress(FileNotFoundError):
            if files.names_in(Entry(folder, name)):
                return True
    return False


def remove_row(account: AccountState, name: str) -> None:
    """Remove the row of a mailbox that no longer has a folder; do nothing if there is no row."""
    mailbox = account.index.mailbox_named(name)
    if mailbox is not None:
        account.index.remove_mailbox(mailbox.key)
