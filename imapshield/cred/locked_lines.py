"""`rewrite_lines`: changes the lines of a file that other programs change, too. Blocking, and without Twisted."""

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from imapshield.regular_file import open_regular
from imapshield.replace_file import replace_file


def rewrite_lines(path: str, edit: Callable[[list[bytes]], list[bytes]], *, create: bool) -> int:
    """Replace the lines of the file, and return how many more lines it has.

    The file is replaced atomically: a reader sees the old or the new file, also after a power failure.
    """
    path = os.path.realpath(path)
    folder = os.path.dirname(path)
    with _locked(folder) as folder_fd:
        try:
            with open_regular(path) as file:
                old, status = file.read(), os.fstat(file.fileno())
        except FileNotFoundError:
            if not create:
                raise
            old, status = b"", None
        lines = old.splitlines()
        edited = edit(lines)
        if edited == lines:
            return 0
        owner, group, mode = _owner(status, os.fstat(folder_fd))

        def prepare(fd: int) -> None:
            if (owner, group) != (os.geteuid(), os.getegid()):
                os.fchown(fd, owner, group)
            os.fchmod(fd, mode)

        replace_file(path, b"".join(line + b"\n" for line in edited), prepare)
    return len(edited) - len(lines)


def _owner(status: os.stat_result | None, folder: os.stat_result) -> tuple[int, int, int]:
    """Return the owner, the group and the mode of a file that is written.

    If root writes it, the user of the server must be able to read it. A file that exists keeps what it has. A new one
    belongs to the owner and the group of its directory. The group may read it if the directory is for its owner and its
    group alone, as /etc/imapshield is (contrib/tmpfiles.d).

    Args:
        status: that of the file; None if it is new.
        folder: that of its directory.
    """
    if status is not None:
        return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid(), 0o600
    is_shared = folder.st_gid != 0 and folder.st_mode & 0o057 == 0o050
    return folder.st_uid, folder.st_gid, 0o640 if is_shared else 0o600


@contextmanager
def _locked(folder: str) -> Iterator[int]:
    """Lock the folder against another ``imapshield passwd``. No lock file is left there after a crash."""
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder_fd, fcntl.LOCK_EX)
        yield folder_fd
    finally:
        os.close(folder_fd)
