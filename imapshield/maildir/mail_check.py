"""Inspects a Maildir for everything that keeps mail from being shown, or its flags and UIDs from being kept.

It reads; each finding has a repair that the caller may run. A repair removes nothing: it renames, or moves a file into
the directory `ASIDE` of the Maildir. `index_check` inspects the index.
"""

import errno
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from imapshield.maildir import files
from imapshield.maildir.compression import MAGIC
from imapshield.maildir.entry import Ownership
from imapshield.maildir.filename import base, stored_size
from imapshield.maildir.fs_layout import fs_mailbox, may_be_fs_folder
from imapshield.maildir.open_folders import Folder
from imapshield.maildir.paths import DIRECTORY_NAMES, MAX_FILE_NAME, mailbox_name
from imapshield.maildir.subscription_file import unreadable_lines

ASIDE = b"imapshield.aside"
"""The directory of a Maildir into which repairs move files. Without a leading dot it is not taken for a folder."""

_LONGEST_BASE = MAX_FILE_NAME - len(b":2,DFPRST")
_SERVER_FILE = re.compile(
    rb"(?:cur|new|tmp|subscriptions|imapshield[^/]*|dovecot-(?:uidlist|keywords)"
    rb"|courierimap(?:uiddb|subscribed|keywords))\Z"
)
"""Files and directories that imapshield reads or writes. (Dovecot has others, which nobody may write.)"""


class Finding(NamedTuple):
    """One damage.

    Attributes:
        path: the file or directory.
        problem: what is wrong.
        action: what a repair does, or what the operator can do if there is no repair.
        repair: repairs it; None if the operator must decide.
        done: what a repair has done, if it worked.
    """

    path: bytes
    problem: str
    action: str
    repair: Callable[[], object] | None = None
    done: str = ""


def shown(path: bytes) -> str:
    """Return a path or file name for the operator: a byte that is not printable text becomes an escape, ``\\xff``."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


@dataclass(frozen=True, slots=True)
class _Context:
    """The arguments of `check_maildir`, and the user that the Maildir belongs to."""

    root: bytes
    now: float
    indexed: Collection[bytes] | None
    on_file: Callable[[], None]
    follow: bool
    owner: int


def check_maildir(
    root: bytes,
    now: float,
    indexed: Collection[bytes] | None,
    on_file: Callable[[], None],
    follow: bool = False,
) -> Iterator[Finding]:
    """Find damage in the folders and files of a Maildir.

    Args:
        root: the Maildir.
        now: seconds since the epoch.
        indexed: the names of all files that the index has; None if there is no index or it cannot be read.
        on_file: called before each message.
        follow: whether folders may be symbolic links to directories.

    Raises:
        OSError: the Maildir itself cannot be read.
    """
    context = _Context(root, now, indexed, on_file, follow, os.stat(root).st_uid)
    with os.scandir(root) as entries:
        names = sorted((entry.name, entry.path) for entry in entries if entry.is_dir())
    for name, path in ((b"", root), *names):
        if not name or name.startswith(b"."):
            try:
                yield from _check_folder(context, name, path)
            except OSError as error:
                yield _unreadable(path, error)
        elif may_be_fs_folder(name):
            yield from _check_fs_layout(root, name)
    with files.at(root + b"/subscriptions") as entry:
        lines = unreadable_lines(entry.directory)
    for line in lines:
        yield Finding(
            root + b"/subscriptions",
            f"has the line '{shown(line)}', which is no mailbox name",
            "remove the line, or subscribe again with a mail program",
        )


def _check_fs_layout(root: bytes, name: bytes) -> Iterator[Finding]:
    with files.at(root + b"/" + name) as entry:
        found = fs_mailbox(entry)
    if found:
        folder = shown(found.replace(b"/", b"."))
        yield Finding(
            root + b"/" + found,
            "looks like a mailbox of Dovecot's LAYOUT=fs, which imapshield does not show",
            f"rename it to .{folder}, and mailboxes inside it to .PARENT.CHILD",
        )


def _unreadable(path: bytes, error: OSError) -> Finding:
    return Finding(
        error.filename or path, f"cannot be read: {error.strerror}", "check its owner and mode"
    )


def _check_folder(context: _Context, name: bytes, folder: bytes) -> Iterator[Finding]:
    if name and os.path.islink(folder) and not context.follow:
        yield Finding(
            folder,
            "is a symbolic link, which imapshield does not follow",
            "replace it by its target, or run imapshield and check-mail with --follow-symlinks",
        )
        return
    missing = [part for part in DIRECTORY_NAMES if not os.path.isdir(folder + b"/" + part)]
    if name and len(missing) == len(DIRECTORY_NAMES):
        yield Finding(
            folder,
            "is a directory but no mailbox: it has no cur, new and tmp",
            "move it out of the Maildir",
        )
        return
    if name and mailbox_name(name) is None:
        yield Finding(
            folder,
            "has a name that cannot be shown to mail clients",
            "rename it to a name in modified UTF-7, with a dot before each level",
        )
    for part in missing:
        yield Finding(
            folder + b"/" + part,
            "does not exist",
            "create it",
            partial(_complete, folder, context.follow),
            "created it",
        )
    yield from _check_own_files(folder, context.owner)
    seen: dict[bytes, bytes] = {}
    for part in (b"cur", b"new"):
        if part not in missing:
            yield from _check_messages(context, folder + b"/" + part, seen)
    if b"tmp" not in missing:
        yield from _check_tmp(context, folder + b"/tmp")


@contextmanager
def opened_folder(path: bytes, follow: bool) -> Iterator[Folder]:
    """Yield the folder at a path, with the rights of the process; `follow` permits symbolic links to directories."""
    with files.at(path) as entry:
        fd = files.open_directory(entry, follow=follow)
    folder = Folder(fd, path, Ownership.of(os.fstat(fd)), follow, is_inbox=True)
    try:
        yield folder
    finally:
        folder.close()


def _complete(path: bytes, follow: bool) -> None:
    with opened_folder(path, follow) as folder:
        folder.complete()


def _check_messages(
    context: _Context, directory: bytes, seen: dict[bytes, bytes]
) -> Iterator[Finding]:
    """Find damage of the messages in one directory; `seen` has the path of each base name of the folder."""
    # Of two files with one base name, that which the index has is the message.
    found = [name for name in os.listdir(directory) if not name.startswith(b".")]
    indexed = context.indexed or ()
    names = sorted(found, key=lambda name: (name not in indexed, name))
    for name in names:
        context.on_file()
        path = directory + b"/" + name
        try:
            status = os.stat(path, follow_symlinks=False)
        except FileNotFoundError:  # another program has renamed it
            continue
        if stat.S_ISREG(status.st_mode):
            yield from _check_access(path, status, context.owner)
            yield from _check_name(path, name, status.st_size)
        else:
            yield Finding(
                path,
                "is not a regular file, so imapshield does not show it",
                "replace a symbolic link by its target; move anything else out of the Maildir",
            )
        other = seen.setdefault(base(name), path)
        if other != path:
            yield Finding(
                path,
                f"has the same base name as {shown(other)}, so only one of them is shown",
                "give it another name, so that both are shown",
                partial(_rename_duplicate, path),
                "gave it another name, so that both are shown",
            )


def _check_own_files(folder: bytes, owner: int) -> Iterator[Finding]:
    """Check the folder itself, its directories, and the files of mail servers in it."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if _SERVER_FILE.match(entry.name))
    for path in (folder, *(folder + b"/" + name for name in names)):
        try:
            status = os.stat(path, follow_symlinks=False)
        except FileNotFoundError:  # another program has just removed it
            continue
        yield from _check_access(path, status, owner)


def _check_access(path: bytes, status: os.stat_result, owner: int) -> Iterator[Finding]:
    mode = stat.S_IMODE(status.st_mode)
    needed = 0o700 if stat.S_ISDIR(status.st_mode) else 0o600
    if status.st_uid != owner:
        yield Finding(
            path,
            f"belongs to user {status.st_uid}, but the Maildir belongs to user {owner}",
            f"run: chown -h {owner} FILE",
        )
    elif mode & needed != needed and not stat.S_ISLNK(status.st_mode):
        yield Finding(
            path,
            f"has mode {mode:04o}, so its owner cannot read or write it",
            f"set mode {mode | needed:04o}",
            partial(_set_mode, path, mode | needed),
            f"gave it mode {mode | needed:04o}",
        )


def _check_name(path: bytes, name: bytes, size: int) -> Iterator[Finding]:
    base_name, _, info = name.partition(b":")
    if len(base_name) > _LONGEST_BASE:
        yield Finding(
            path,
            f"has a base name of {len(base_name)} bytes, so its flags cannot be stored",
            f"rename it to at most {_LONGEST_BASE} bytes; mail clients download it again",
        )
    if b":" in info:
        letters = info.rpartition(b":")[2].removeprefix(b"2,")
        target = b"%b:2,%b" % (base_name, letters)
        yield Finding(
            path,
            "has flags after a second colon",
            f"rename it to {shown(target)}",
            partial(_rename_new, path, os.path.dirname(path) + b"/" + target),
            f"renamed it to {shown(target)}",
        )
    stated = stored_size(name)
    if stated not in (None, size) and not _is_compressed(path):
        yield Finding(
            path,
            f"says in its name that it has {stated} bytes, but it has {size}",
            "compare it with a backup; if it is complete, rename it without S= (mail clients download it again)",
        )


def _is_compressed(path: bytes) -> bool:
    try:
        with files.at(path) as entry:
            return files.read_small(entry, 16).startswith(MAGIC)
    except PermissionError:  # which is another finding
        return True


def _check_tmp(context: _Context, directory: bytes) -> Iterator[Finding]:
    """Find files that were left in ``tmp/``.

    A power failure can return a message to ``tmp/`` under its base name, and the server puts it back. Without the
    index nobody knows which files are such messages.
    """
    messages = {base(name) for name in context.indexed or ()}
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            age = context.now - entry.stat(follow_symlinks=False).st_ctime
            if age <= files.STALE_SECONDS or base(entry.name) in messages:
                continue
            problem = f"was left by a delivery that failed {int(age) // 3600} hours ago"
            if context.indexed is None:
                yield Finding(entry.path, problem, "run check-mail again with the user's index")
            else:
                repair = partial(_move_aside, context.root, entry.path)
                where = f"it to {ASIDE.decode()}"
                yield Finding(entry.path, problem, f"move {where}", repair, f"moved {where}")


def _set_mode(path: bytes, mode: int) -> None:
    """Set the mode of a file or directory, but not of the target of a symbolic link that is there now."""
    if os.chmod in os.supports_follow_symlinks:
        os.chmod(path, mode, follow_symlinks=False)
        return
    # Linux: O_PATH works for a file that cannot be read.
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if stat.S_ISLNK(os.fstat(fd).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        os.chmod(b"/proc/self/fd/%d" % fd, mode)
    finally:
        os.close(fd)


def _move_aside(root: bytes, path: bytes) -> None:
    directory = root + b"/" + ASIDE
    os.makedirs(directory, 0o700, exist_ok=True)
    _rename_new(path, directory + b"/" + os.path.basename(path))


def _rename_duplicate(path: bytes) -> None:
    directory, name = os.path.split(path)
    base_name, colon, info = name.partition(b":")
    _rename_new(path, directory + b"/" + base_name + b".copy" + colon + info)


def _rename_new(path: bytes, target: bytes) -> None:
    """Rename a file to a name that no file has: the target, or one with a number."""
    directory, name = os.path.split(target)
    base_name, colon, info = name.partition(b":")
    number = 0
    while os.path.lexists(target) or _has_base(directory, os.path.basename(target), path):
        number += 1
        target = b"%b/%b.%d%b%b" % (directory, base_name, number, colon, info)
    os.rename(path, target)


def _has_base(directory: bytes, name: bytes, path: bytes) -> bool:
    own = os.path.basename(path)
    return any(base(other) == base(name) and other != own for other in os.listdir(directory))
