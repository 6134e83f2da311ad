"""Names in open directories, the ownership of new files, and what clients and the log learn about errors.

A path inside a Maildir is never resolved again after its directory was opened (`open_folders`): a file is named by an
`Entry`.
"""

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from imapshield.errors import BadMailboxName, NoSpace, StoreError, StoreIOError


class Entry(NamedTuple):
    """A name in an open directory; `directory` is the directory's descriptor."""

    directory: int
    name: bytes


class Ownership(NamedTuple):
    """The owner, group and permission bits of a Maildir, which everything that is created in it gets.

    Only a privileged process can give a file to another user. Otherwise `uid` and `gid` are -1, which changes nothing.
    """

    uid: int
    gid: int
    mode: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Ownership":
        """Return what files in a directory with this status get."""
        mode = stat.S_IMODE(status.st_mode) & ~stat.S_ISVTX | stat.S_IRWXU
        if os.geteuid() == 0 and (status.st_uid, status.st_gid) != (0, os.getegid()):
            return cls(status.st_uid, status.st_gid, mode)
        return cls(-1, -1, mode)

    def give(self, fd: int, mode: int) -> None:
        """Give an open file or directory, made with permissions for its owner alone, the ownership and the mode."""
        if self.uid != -1:
            os.fchown(fd, self.uid, self.gid)
        if mode & 0o7077:
            # The system refuses the set-group-ID bit of a group that the server is not in.
            with suppress(PermissionError):
                os.fchmod(fd, mode)


def store_error(error: OSError, root: bytes, log_warning: Callable[[str], None]) -> StoreError:
    """Return the error that a session sends for `error`, after logging it with the path of the file.

    A full disk is not logged here: `AccountState.log_full_disk`.

    Args:
        error: the error.
        root: the Maildir, which is logged if the error has no path.
        log_warning: called with one line for the operator.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace()
    if error.errno == errno.ENAMETOOLONG:  # eCryptfs permits 143 bytes
        return BadMailboxName("Name is too long for the file system")
    log_warning(f"cannot read or write {described(error, root)}")
    return StoreIOError()


def described(error: OSError, root: bytes) -> str:
    """Return the file of an error, the reason, and what to do, for the log."""
    path = os.fsdecode(root)
    if isinstance(error.filename, bytes | str):
        name = os.fsdecode(error.filename)
        path = name if name.startswith("/") else f"{name} below {path}"
    text = f"{path}: {error.strerror}"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        text += "; check the owner and permissions of the file and its folder"
    elif error.errno in (errno.ELOOP, errno.ENOTDIR):
        text += "; symbolic links are not followed"
    return text


def named(error: OSError, entry: Entry) -> OSError:
    """Return `error` with the path of `entry`, for the log; with its name alone where the system has no ``/proc``."""
    if not isinstance(error.filename, bytes) or b"/" not in error.filename:
        directory = b""
        with suppress(OSError):
            directory = os.readlink(b"/proc/self/fd/%d" % entry.directory) + b"/"
        error.filename = directory + entry.name
    return error


class naming_errors:  # noqa: N801 (as `contextlib.suppress`; a generator takes twice the time)
    """Run a block that uses an open file or directory; an OSError gets its path."""

    __slots__ = ("_path",)

    def __init__(self, path: bytes) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError):
            error.filename = self._path
