"""Validates user names, and reads and writes the password file: lines ``user:hash`` that a person may edit.

Blocking, and without Twisted: the console script writes the file, and the checker reads it. Comments (``#``), the
order of the lines, and fields after the hash, which belong to other programs, are kept.
"""

import fcntl
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from imapshield.cred import passwords

MAX_NAME_BYTES = 255
"""Maximum length of a user name in bytes, which is that of a file name."""


class BadUserName(ValueError):
    """A user name is not permitted. The text says why, for the log and the command line."""


def user_name(raw: bytes) -> str:
    """Return the user name of a login as text that is safe to use in a path.

    Letter case is significant, because it is significant in the path of the mail, too.

    Raises:
        BadUserName: the name could lead outside the mail root, be hidden in it, or damage a log.
    """
    if not raw:
        raise BadUserName("the user name is empty")
    if len(raw) > MAX_NAME_BYTES:
        raise BadUserName(f"the user name is longer than {MAX_NAME_BYTES} bytes")
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise BadUserName("the user name is not UTF-8") from None
    if name.startswith("."):
        raise BadUserName("the user name begins with a dot")
    if "/" in name or not name.isprintable():
        raise BadUserName("the user name contains a slash or a control character")
    return name


def parse(text: bytes) -> tuple[dict[str, str], list[str]]:
    """Parse a password file.

    Returns:
        The hash of each user, and a text for each invalid line. If a user has two lines, the first one is used.
    """
    hashes: dict[str, str] = {}
    problems = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith(b"#"):
            continue
        raw, _, rest = line.partition(b":")
        try:
            name = user_name(raw)
            stored = rest.partition(b":")[0].decode("ascii", "replace").strip()
            passwords.validate(stored)
        except ValueError as error:
            problems.append(f"line {number}: {error}")
            continue
        if name in hashes:
            problems.append(f"line {number}: {name} has an earlier line, which is used")
        else:
            hashes[name] = stored
    return hashes, problems


def name_in_file(user: str) -> bytes:
    """Return the name of a user as it is in a password file.

    Raises:
        BadUserName: such a file cannot have this name.
    """
    name = user_name(user.encode("utf-8", "surrogateescape")).encode()
    if b":" in name or name.startswith(b"#") or name != name.strip():
        raise BadUserName(
            "a user name in a password file cannot contain a colon, begin with #, or begin or "
            "end with a space"
        )
    return name


def set_hash(path: str, user: str, stored: str) -> bool:
    """Set the hash of a user. A new user is added at the end of the file, which is created if it does not exist.

    Returns:
        Whether the user is new.

    Raises:
        BadUserName, OSError: nothing was changed.
    """
    name = name_in_file(user)
    entry = name + b":" + stored.encode()

    def edit(lines: list[bytes]) -> list[bytes]:
        edited, exists = [], False
        for line in lines:
            owner, _, rest = line.partition(b":")
            if owner != name:
                edited.append(line)
            elif not exists:
                exists = True
                edited.append(entry + b"".join(rest.partition(b":")[1:]))
        return edited if exists else [*edited, entry]

    return _rewrite(path, edit, create=True) > 0


def remove(path: str, user: str) -> bool:
    """Remove all lines of a user.

    Returns:
        Whether there were any.

    Raises:
        OSError: nothing was changed.
    """
    name = user.encode("utf-8", "surrogateescape")

    def edit(lines: list[bytes]) -> list[bytes]:
        return [line for line in lines if line.startswith(b"#") or line.partition(b":")[0] != name]

    return _rewrite(path, edit, create=False) < 0


def _rewrite(path: str, edit: Callable[[list[bytes]], list[bytes]], *, create: bool) -> int:
    """Replace the lines of the file, and return how many more lines it has.

    The file is replaced atomically: a reader sees the old or the new file, also after a power failure.
    """
    path = os.path.realpath(path)
    folder = os.path.dirname(path)
    with _locked(folder) as folder_fd:
        try:
            with open(path, "rb") as file:
                old, status = file.read(), os.fstat(file.fileno())
        except FileNotFoundError:
            if not create:
                raise
            old, status = b"", None
        lines = old.splitlines()
        edited = edit(lines)
        if edited == lines:
            return 0
        fd, temporary = tempfile.mkstemp(prefix=".imapshield-", dir=folder)  # its mode is 0600
        try:
            with open(fd, "wb") as file:
                file.write(b"".join(line + b"\n" for line in edited))
                file.flush()
                owner, group, mode = _owner(status, os.fstat(folder_fd))
                if (owner, group) != (os.geteuid(), os.getegid()):
                    os.fchown(fd, owner, group)
                os.fchmod(fd, mode)
                os.fsync(fd)
            os.rename(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        os.fsync(folder_fd)
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
