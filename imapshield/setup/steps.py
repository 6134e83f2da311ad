"""What `setup` does to the system: steps that can say what they would do, and that are undone if a later one fails."""

import grp
import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from difflib import unified_diff
from typing import Protocol

from imapshield.cred import passwords, users
from imapshield.replace_file import replace_file


class StepError(Exception):
    """A step cannot be done. The text says why, and what to do."""


class Step(Protocol):
    """One change of the system."""

    def describe(self) -> str:
        """Return what `apply` would do, in one line; "" if it has nothing to do."""

    def conflict(self) -> str:
        """Return what exists, and would be replaced; "" if there is nothing."""

    def preview(self) -> str:
        """Return what would be written, or how it differs from what exists; "" if that is a secret or not text."""

    def apply(self, undo: ExitStack) -> None:
        """Do it, and add to `undo` what reverses it."""


@dataclass(frozen=True, slots=True)
class SystemUser:
    """A system user with a group of the same name, and without a login."""

    name: str
    home: str

    def describe(self) -> str:
        with suppress(KeyError):
            pwd.getpwnam(self.name)
            return ""
        return f"create the system user {self.name}"

    def conflict(self) -> str:
        return ""

    def preview(self) -> str:
        return ""

    def apply(self, undo: ExitStack) -> None:
        command = ["useradd", "--system", "--user-group", "--no-create-home"]
        command += ["--home-dir", self.home, "--shell", "/usr/sbin/nologin", self.name]
        self._run(command)
        undo.callback(self._run, ["userdel", self.name])

    def _run(self, command: list[str]) -> None:
        program = shutil.which(command[0])
        advice = f"create the system user {self.name}, and try again"
        if program is None:
            raise StepError(f"there is no program {command[0]}; {advice}")
        done = subprocess.run(  # noqa: S603  a fixed command
            [program, *command[1:]], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise StepError(f"{command[0]}: {done.stderr.strip() or done.returncode}; {advice}")


@dataclass(frozen=True, slots=True)
class Owner:
    """The user and the group of what a step creates. They are looked up when it is created."""

    user: str
    group: str

    def set(self, path: str | int, mode: int) -> None:
        """Give `path`, or an open file, to the owner. Only root can, and others own what they create."""
        os.chmod(path, mode)
        if os.geteuid() == 0:
            os.chown(path, pwd.getpwnam(self.user).pw_uid, grp.getgrnam(self.group).gr_gid)


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory. One that exists stays as it is, unless it is empty and belongs to root instead of its `owner`."""

    path: str
    mode: int
    owner: Owner

    def describe(self) -> str:
        if not os.path.isdir(self.path):
            return f"create {self.path}/ ({self.mode:o}, {self.owner.user}:{self.owner.group})"
        if self._is_to_give():
            return f"give {self.path}/ to {self.owner.user}"
        return ""

    def _is_to_give(self) -> bool:
        """Return whether root has made it for the server."""
        is_roots = (
            os.geteuid() == 0 and os.stat(self.path).st_uid == 0 and self.owner.user != "root"
        )
        return is_roots and not os.listdir(self.path)

    def conflict(self) -> str:
        return ""

    def preview(self) -> str:
        return ""

    def apply(self, undo: ExitStack) -> None:
        if os.path.isdir(self.path):
            if not self._is_to_give():
                return
            status = os.stat(self.path)
            undo.callback(os.chmod, self.path, status.st_mode & 0o7777)
            undo.callback(os.chown, self.path, status.st_uid, status.st_gid)
        else:
            missing = [self.path]
            while not os.path.isdir(above := os.path.dirname(missing[-1])):
                missing.append(above)
            for path in reversed(missing):
                os.mkdir(path, 0o755)
                undo.callback(_remove, os.rmdir, path)
        self.owner.set(self.path, self.mode)


@dataclass(frozen=True, slots=True)
class File:
    """A file with a content. `is_secret`: it is not shown."""

    path: str
    content: bytes
    mode: int
    owner: Owner
    is_secret: bool = False

    def describe(self) -> str:
        old = self._old()
        if old == self.content:
            return ""
        verb = "write" if old is None else "replace"
        return f"{verb} {self.path} ({self.mode:o}, {self.owner.user}:{self.owner.group})"

    def conflict(self) -> str:
        return "" if self._old() in (None, self.content) else self.path

    def preview(self) -> str:
        if self.is_secret:
            return ""
        if not self.conflict():
            return self.content.decode()
        old = (self._old() or b"").decode(errors="replace").splitlines(keepends=True)
        new = self.content.decode().splitlines(keepends=True)
        return "".join(unified_diff(old, new, self.path, "new"))

    def _old(self) -> bytes | None:
        try:
            with open(self.path, "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StepError(f"{self.path}: {error.strerror}; run setup as its owner") from None

    def apply(self, undo: ExitStack) -> None:
        _restore_later(self.path, undo)
        replace_file(self.path, self.content, lambda fd: self.owner.set(fd, self.mode))


@dataclass(frozen=True, slots=True)
class Password:
    """The password of a user in a password file. `mode` and `owner` are those of a new file."""

    path: str
    user: str
    password: bytes
    mode: int
    owner: Owner

    def describe(self) -> str:
        stored = stored_hash(self.path, self.user)
        if stored is None:
            return f"add the user {self.user} to {self.path}"
        if stored and passwords.verify(stored, self.password):
            return ""
        return f"change the password of {self.user} in {self.path}"

    def conflict(self) -> str:
        if stored_hash(self.path, self.user) is None or not self.describe():
            return ""
        return f"the password of {self.user} in {self.path}"

    def preview(self) -> str:
        return ""

    def apply(self, undo: ExitStack) -> None:
        is_new = not os.path.exists(self.path)
        _restore_later(self.path, undo)
        users.set_hash(self.path, self.user, passwords.hash_password(self.password))
        if is_new:
            self.owner.set(self.path, self.mode)


def stored_hash(path: str, user: str) -> str | None:
    """Return the hash of a user in a password file; "" if nobody can log in with it, None if there is no such user.

    Raises:
        StepError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            entries, _ = users.parse(file.read())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StepError(f"{path}: {error.strerror}; run setup as its owner") from None
    return entries[user].stored if user in entries else None


def _restore_later(path: str, undo: ExitStack) -> None:
    """Let `undo` give a file the content, the owner and the mode that it has now, or remove it."""
    try:
        with open(path, "rb") as file:
            old, status = file.read(), os.fstat(file.fileno())
    except FileNotFoundError:
        undo.callback(_remove, os.unlink, path)
        return

    def set_owner(fd: int) -> None:
        os.fchmod(fd, status.st_mode & 0o7777)
        if os.geteuid() == 0:
            os.fchown(fd, status.st_uid, status.st_gid)

    undo.callback(replace_file, path, old, set_owner)


def _remove(remove: Callable[[str], None], path: str) -> None:
    """Remove what a step has created. It may be gone, or have something in it of another program: then it stays."""
    with suppress(OSError):
        remove(path)


@contextmanager
def undone_on_error() -> Iterator[ExitStack]:
    """Undo the steps of a block in the reverse order if it raises, also at a signal that is an exception."""
    with ExitStack() as undo:
        yield undo
        undo.pop_all()
