"""What root takes care of when it moves mail: the owner of the mail may put links where root makes directories."""

import errno
import os
import pwd
import stat
from contextlib import suppress

from imapshield.maildir import files
from imapshield.move.places import MoveError

PROBES = (b"probe:2,S", b"probe:2,s", b"p" * 255)
"""Names that a file system must be able to have."""

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def check_parents(path: bytes, base: str) -> None:
    """Check that nobody but root, and the owner of the mail root, can rename the directory of a user.

    Args:
        path: the directory of the user.
        base: the directory above those of all users.

    Raises:
        MoveError: others can, and this process is root's.
    """
    if os.geteuid() != 0:
        return
    top, parent = os.fsencode(base), os.path.dirname(path)
    trusted = os.stat(top)
    while len(parent) >= len(top):
        with suppress(FileNotFoundError):
            found = os.stat(parent)
            is_writable = stat.S_IWOTH | (stat.S_IWGRP if found.st_gid != trusted.st_gid else 0)
            if found.st_uid not in (0, trusted.st_uid) or found.st_mode & is_writable:
                text = "can be changed by users, so root moves no mail there; run this command as the owner of the mail"
                raise MoveError(f"{os.fsdecode(parent)} {text}")
        if parent == os.path.dirname(parent):
            return
        parent = os.path.dirname(parent)


def make_for_owner(path: bytes, uid: int, gid: int) -> None:
    """Make a directory, or take one that is there, for the owner of mail, and see which names it can have.

    Raises:
        MoveError: that is not possible.
    """
    try:
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _give(fd, uid, gid)
            _probe(fd)
        finally:
            os.close(fd)
    except OSError as error:
        text = (
            "the file system cannot have the names of a Maildir, or this user may not write there"
        )
        raise MoveError(f"{os.fsdecode(path)}: {error.strerror}; {text}") from None


def _give(fd: int, uid: int, gid: int) -> None:
    if os.geteuid() == 0:
        if os.fstat(fd).st_uid not in (0, uid):
            raise OSError(errno.EEXIST, "it belongs to another user")
        os.fchown(fd, uid, gid)
    elif uid != os.geteuid():
        with suppress(KeyError):
            text = f"the mail belongs to {pwd.getpwuid(uid).pw_name} (user ID {uid})"
            raise MoveError(f"{text}; run this command as that user, or as root")
        raise MoveError(f"the mail belongs to user ID {uid}; run this command as root")


def _probe(fd: int) -> None:
    try:
        for name in PROBES:
            os.close(os.open(name, _CREATE, 0o600, dir_fd=fd))
        if not set(PROBES) <= set(files.names(fd)):
            raise OSError(errno.EINVAL, "names that differ in letter case are the same")
    finally:
        for name in PROBES:
            with suppress(OSError):
                os.unlink(name, dir_fd=fd)
