"""User names that are safe to put into a path, and the password file: ``user:hash`` lines that a person may edit.

Blocking, and free of Twisted: `command` writes the file with it, `checkers` reads it. Fields after the hash belong to
other programs and are kept, as are comments (``#``) and the order of lines.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from imapshield.cred import passwords

LONGEST = 255
"""Octets of a user name: what a file system takes as one name."""


class BadUserName(ValueError):
    """The name cannot be a user's; the text says why, for the log and the command line."""


def user_name(raw: bytes) -> str:
    """A login's user name as text, as typed: case is kept, because the mail folder's name has it too.

    Raises:
        BadUserName: it could lead out of the mail root, hide there, or garble a log.
    """
    if not raw:
        raise BadUserName("it is empty")
    if len(raw) > LONGEST:
        raise BadUserName(f"it is longer than {LONGEST} octets")
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise BadUserName("it is not UTF-8") from None
    if name.startswith("."):
        raise BadUserName("it begins with a dot")
    if "/" in name or not name.isprintable():
        raise BadUserName("it has a slash or a control character")
    return name


def parse(text: bytes) -> tuple[dict[str, str], list[str]]:
    """The users and their hashes, and what is wrong with which line; of two lines for one user the first counts."""
    users: dict[str, str] = {}
    problems = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith(b"#"):
            continue
        raw, _, rest = line.partition(b":")
        try:
            name = user_name(raw)
            stored = rest.partition(b":")[0].decode("ascii", "replace").strip()
            passwords.check(stored)
        except ValueError as error:
            problems.append(f"line {number}: {error}")
            continue
        if name in users:
            problems.append(f"line {number}: a second line for a user; the first counts")
        else:
            users[name] = stored
    return users, problems


def put(path: str, user: str, stored: str) -> bool:
    """Set a user's hash, at the end of the file if the user is new; returns whether so.

    Raises:
        BadUserName, OSError: nothing was changed.
    """
    name = user_name(user.encode("utf-8", "surrogateescape")).encode()
    if b":" in name or name.startswith(b"#") or name != name.strip():
        raise BadUserName(
            "in a password file it may have no colon, no # in front and no space at its ends"
        )
    found = False

    def edit(lines: list[bytes]) -> list[bytes]:
        nonlocal found
        kept = []
        for line in lines:
            owner, _, rest = line.partition(b":")
            if owner != name:
                kept.append(line)
            elif not found:
                found = True
                _, colon, others = rest.partition(b":")
                kept.append(name + b":" + stored.encode() + colon + others)
        return kept if found else [*kept, name + b":" + stored.encode()]

    _rewrite(path, edit, make=True)
    return not found


def drop(path: str, user: str) -> bool:
    """Take a user's lines out; returns whether there were any."""
    name = user.encode("utf-8", "surrogateescape")
    count = 0

    def edit(lines: list[bytes]) -> list[bytes]:
        nonlocal count
        kept = [line for line in lines if line.partition(b":")[0] != name or line.startswith(b"#")]
        count = len(lines) - len(kept)
        return kept

    _rewrite(path, edit, make=False)
    return count > 0


def _rewrite(path: str, edit: Callable[[list[bytes]], list[bytes]], *, make: bool) -> None:
    """Replace the file in one step: whoever reads it meanwhile, or after a power cut, has the old or the new one."""
    path = os.path.realpath(path)
    folder = os.path.dirname(path)
    with _locked(folder) as handle:
        try:
            with open(path, "rb") as file:
                old, owner = file.read(), os.fstat(file.fileno())
        except FileNotFoundError:
            if not make:
                raise
            old, owner = b"", None
        lines = old.splitlines()
        edited = edit(lines)
        if edited == lines:
            return
        fd, new = tempfile.mkstemp(prefix=".imapshield-", dir=folder)  # its mode is 0600
        try:
            with open(fd, "wb") as file:
                file.write(b"".join(line + b"\n" for line in edited))
                file.flush()
                if owner is not None and (owner.st_uid, owner.st_gid) != (
                    os.geteuid(),
                    os.getegid(),
                ):
                    # root edits the file of the server's user, who must still be able to read it
                    os.fchown(fd, owner.st_uid, owner.st_gid)
                os.fsync(fd)
            os.rename(new, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(new)
            raise
        os.fsync(handle)


@contextmanager
def _locked(folder: str) -> Iterator[int]:
    """Hold the folder against another `imapshield passwd`: a lock that leaves no file behind."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle
    finally:
        os.close(handle)
