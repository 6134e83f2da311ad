"""Reads and writes the files of Dovecot and Courier in one folder, and the marker file that remembers them.

`uid_exchange` says when. No symbolic link is followed.
"""

import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress

from imapshield.maildir import files
from imapshield.maildir.entry import Entry, Ownership
from imapshield.maildir.open_folders import Folder
from imapshield.maildir.other_servers import (
    COURIER,
    DOVECOT,
    DOVECOT_LOG,
    KEYWORD_LIST,
    SeenLists,
    UidList,
    UidListFormat,
    parse_uid_list,
)

MAX_LIST_SIZE = 32 << 20
"""Bytes of the largest list of another server that is read: 400,000 messages. It is parsed in memory."""

MAX_DIRECTORY_SIZE = 16 << 20
"""Bytes of all files of a directory of keywords that are read: 200,000 messages with keywords. Files with short lines
take 15 times as much memory."""

MAX_DIRECTORY_FILES = 10_000
"""Files of a directory that are read. Courier writes one for each recent change, and merges them after a while."""

STALE_LOCK_SECONDS = 120.0
"""Age of a lock of ``dovecot-uidlist`` at which Dovecot regards it as left by a crash."""

_MARKER = b"imapshield.imported"


def read_directory(entry: Entry) -> Mapping[bytes, bytes]:
    """Return the content of each file in a directory, nothing if it does not exist.

    Files above `MAX_DIRECTORY_FILES`, and bytes above `MAX_DIRECTORY_SIZE`, are left out. `KEYWORD_LIST` is read first.
    """
    try:
        fd = files.open_directory(entry)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    contents: dict[bytes, bytes] = {}
    left = MAX_DIRECTORY_SIZE
    try:
        names = sorted(files.names(fd), key=lambda name: (name != KEYWORD_LIST, name))
        for name in names[:MAX_DIRECTORY_FILES]:
            contents[name] = files.read_small(Entry(fd, name), left)
            left -= len(contents[name])
    finally:
        os.close(fd)
    return contents


def modseq_above(folder: Folder, known: int) -> int:
    """Return a MODSEQ above all that Dovecot has sent to clients, 0 if Dovecot has no index.

    A client that knows Dovecot's MODSEQs asks for what changed after them. The header of ``dovecot.index.log`` has the
    MODSEQ at its beginning, and each later one takes a record of at least eight bytes. Only an administrator can raise
    it further, to `known`, the HIGHESTMODSEQ of the index, after an export.
    """
    log = folder.file(DOVECOT_LOG)
    header = files.read_small(log, 32)
    if len(header) < 32 or header[0] != 1:
        return 0
    initial = int.from_bytes(header[24:32], "little")
    records = files.status(log).st_size // 8
    return max(initial, known) + records + 1 if initial < 1 << 62 else 0


def newest_list(
    folder: Folder, forms: Sequence[UidListFormat], lists: Mapping[bytes, tuple[int, int, int]]
) -> tuple[UidListFormat | None, UidList | None]:
    """Return the list that was written last, among those that can be parsed."""
    existing = [form for form in forms if form.file in lists]
    for form in sorted(existing, key=lambda form: lists[form.file], reverse=True):
        content = files.read_small(folder.file(form.file), MAX_LIST_SIZE)
        parsed = parse_uid_list(content, form) if len(content) < MAX_LIST_SIZE else None
        if parsed is not None:
            return form, parsed
    return None, None


def lists_of(folder: Folder) -> dict[bytes, tuple[int, int, int]]:
    """Return mtime, inode and size of each list in a folder, and of Dovecot's log, by file name."""
    found: dict[bytes, tuple[int, int, int]] = {}
    for name in (DOVECOT.file, COURIER.file, DOVECOT_LOG):
        with suppress(FileNotFoundError, NotADirectoryError):
            status = files.status(folder.file(name))
            if stat.S_ISREG(status.st_mode):
                found[name] = status.st_mtime_ns, status.st_ino, status.st_size
    return found


def read_marker(folder: Folder) -> SeenLists:
    """Return what was remembered in this folder; lines of another form are ignored."""
    lists: dict[bytes, tuple[int, int, int]] = {}
    uidnext = 0
    for line in files.read_small(folder.file(_MARKER), 4096).split(b"\n"):
        name, *numbers = line.split(b" ")
        if all(number.isdigit() for number in numbers):
            match [int(number) for number in numbers]:
                case [mtime, inode, size]:
                    lists[name] = mtime, inode, size
                case [number] if name == b"uidnext":
                    uidnext = number
    return SeenLists(lists, uidnext)


def write_marker(folder: Folder, seen: SeenLists) -> None:
    """Remember the lists of this folder."""
    lines = [b"%b %d %d %d\n" % (name, *stamp) for name, stamp in seen.lists.items()]
    content = b"".join([*lines, b"uidnext %d\n" % seen.uidnext])
    files.replace(folder.file(_MARKER), content, folder.owner, durable=False)


def replace_locked(entry: Entry, content: bytes, now: float, owner: Ownership) -> bool:
    """Replace a list through its lock file, as Dovecot does. Return False if another program holds the lock.

    Mode and owner of an existing list are kept; a new one gets `owner`. The directory is not synced: after a
    power failure, the list is not the one that the marker file remembers, and is exchanged again.
    """
    lock = Entry(entry.directory, entry.name + b".lock")
    with suppress(FileNotFoundError):
        if now - files.status(lock).st_mtime > STALE_LOCK_SECONDS:
            files.unlink(lock)
    try:
        fd = files.create(lock)
    except FileExistsError:
        return False
    try:
        owner.give(fd, owner.mode & 0o666)
        with suppress(FileNotFoundError):
            status = files.status(entry)
            os.fchmod(fd, stat.S_IMODE(status.st_mode) & 0o666)
            with suppress(PermissionError):
                os.fchown(fd, status.st_uid, status.st_gid)
        files.write_all(fd, content)
        os.fsync(fd)
        files.rename(lock, entry)
    except BaseException:
        files.remove(lock)
        raise
    finally:
        os.close(fd)
    return True
