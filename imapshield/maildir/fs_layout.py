"""Finds mailboxes of Dovecot's ``LAYOUT=fs``, which has directories inside directories, without dots.

imapshield does not show them, so the log says so.
"""

import os
import stat
from itertools import islice

from imapshield.maildir import files
from imapshield.maildir.entry import Entry
from imapshield.maildir.other_servers import COURIER_KEYWORDS
from imapshield.maildir.paths import CUR, DIRECTORY_NAMES

FS_LEVELS = 3
"""Levels of directories in which mailboxes of Dovecot's ``LAYOUT=fs`` are looked for, such as ``Work/2025/May``."""

FS_ENTRIES = 30
"""Entries of each of these directories that are looked at. A directory that is no mailbox usually has a mailbox among
its first ones, and the owner of the Maildir must not occupy the server with many of them: these are 931 at most."""


def may_be_fs_folder(name: bytes) -> bool:
    """Whether a directory of this name in a Maildir may be a mailbox of that layout, or have some below it."""
    return name[:1] != b"." and name not in (*DIRECTORY_NAMES, COURIER_KEYWORDS)


def fs_mailbox(entry: Entry, levels: int = FS_LEVELS) -> bytes | None:
    """Return the path of a mailbox that a directory is, or that is below it; None if none is found.

    A directory that cannot be read has none.

    Args:
        entry: the directory.
        levels: the levels of directories to look at.
    """
    try:
        fd = files.open_directory(entry)
    except OSError:
        return None
    try:
        if _has_cur(fd):
            return entry.name
        if levels == 1:
            return None
        with os.scandir(fd) as entries:
            found = list(islice(entries, FS_ENTRIES))
        for child in found:
            if child.is_dir(follow_symlinks=False) and (
                path := fs_mailbox(Entry(fd, os.fsencode(child.name)), levels - 1)
            ):
                return entry.name + b"/" + path
        return None
    finally:
        os.close(fd)


def _has_cur(directory: int) -> bool:
    try:
        return stat.S_ISDIR(files.status(Entry(directory, DIRECTORY_NAMES[CUR])).st_mode)
    except OSError:
        return False


def fs_layout_warning(path: str) -> str:
    """Return the line for the operator about a mailbox."""
    return (
        f"{path!r} looks like a mailbox of Dovecot's LAYOUT=fs, which is not shown to mail clients; convert "
        "the mail to the Maildir++ layout"
    )
