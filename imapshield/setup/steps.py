"""What `setup` does to the system: steps that can say what they would do, and that are undone if a later one fails."""

import fcntl
import grp
import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from difflib import unified_diff
from functools import partial
from typing import Protocol

from imapshield.cred import passwords, users
from imapshield.setup.directory_entry import DirectoryEntry, RefusedLink, open_entry
from imapshield.setup.installation import acting_as
from imapshield.setup.undo import Undo


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

    def apply(self, undo: Undo) -> None:
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

    def apply(self, undo: Undo) -> None:
        command = ["useradd", "--system", "--user-group", "--no-create-home"]
        command += ["--home-dir", self.home, "--shell", "/usr/sbin/nologin", self.name]
        self._run(command)
        undo.add(f"created the user {self.name}", partial(self._run, ["userdel", self.name]))

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
class ActingAs:
    """A step below a directory of another user, with the rights of that user: no link leads root elsewhere."""

    user: str
    step: Step

    def describe(self) -> str:
        with acting_as(self.user).acting():
            return self.step.describe()

    def conflict(self) -> str:
        with acting_as(self.user).acting():
            return self.step.conflict()

    def preview(self) -> str:
        with acting_as(self.user).acting():
            return self.step.preview()

    def apply(self, undo: Undo) -> None:
        reversals = Undo()
        undo.files.enter_context(reversals.files)
        undo.add(f"what the user {self.user} has done", partial(self._reverse, reversals))
        try:
            with acting_as(self.user).acting():
                self.step.apply(reversals)
        except PermissionError as error:
            raise StepError(
                f"{error.filename}: {error.strerror} for the user {self.user}, who is to run the server; give that"
                " user the right, or use another --mail-root or --server-user"
            ) from None

    def _reverse(self, reversals: Undo) -> None:
        with acting_as(self.user).acting():
            left = reversals.run()
        if left:
            raise StepError(", ".join(left))


@dataclass(frozen=True, slots=True)
class Owner:
    """The user and the group of what a step creates. They are looked up when it is created."""

    user: str
    group: str

    def set(self, fd: int, mode: int) -> None:
        """Give an open file or directory to the owner. Only root can, and others own what they create."""
        os.fchmod(fd, mode)
        if os.geteuid() == 0:
            try:
                uid, gid = pwd.getpwnam(self.user).pw_uid, grp.getgrnam(self.group).gr_gid
            except KeyError:
                raise StepError(
                    f"there is no user {self.user} with a group {self.group}; create both first"
                ) from None
            os.fchown(fd, uid, gid)


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory. One that exists stays as it is, unless it is empty and belongs to root instead of its `owner`."""

    path: str
    mode: int
    owner: Owner

    def describe(self) -> str:
        try:
            with ExitStack() as files, refused_links():
                fd = open_entry(self.path, files).open_directory()
                files.callback(os.close, fd)
                return f"give {self.path}/ to {self.owner.user}" if self._is_to_give(fd) else ""
        except (
            FileNotFoundError,
            PermissionError,
        ):  # the user may get the right by an earlier step
            return f"create {self.path}/ ({self.mode:o}, {self.owner.user}:{self.owner.group})"

    def _is_to_give(self, fd: int) -> bool:
        """Return whether root has made it for the server."""
        is_roots = os.geteuid() == 0 and os.fstat(fd).st_uid == 0 and self.owner.user != "root"
        if not is_roots:
            return False
        with reopened(fd) as readable:
            return not os.listdir(readable)

    def conflict(self) -> str:
        return ""

    def preview(self) -> str:
        return ""

    def apply(self, undo: Undo) -> None:
        def make(entry: DirectoryEntry, mode: int = 0o755) -> int:
            fd = entry.make_directory(mode)
            undo.add(f"created {entry.path}/", entry.rmdir)
            return fd

        with refused_links():
            entry = open_entry(self.path, undo.files, make)
        try:
            fd = entry.open_directory()
        except FileNotFoundError:
            fd = make(entry, self.mode)
            undo.files.callback(os.close, fd)
            self.owner.set(fd, self.mode)
            return
        undo.files.callback(os.close, fd)
        if self._is_to_give(fd):
            readable = undo.files.enter_context(reopened(fd))
            undo.add(f"given {self.path}/ to {self.owner.user}", _owner_now(readable))
            self.owner.set(readable, self.mode)


@dataclass(frozen=True, slots=True)
class File:
    """A file with a content.

    Attributes:
        is_secret: whether it is not shown.
        is_new: whether no other file has its name.
    """

    path: str
    content: bytes
    mode: int
    owner: Owner
    is_secret: bool = False
    is_new: bool = False

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
        return None if self.is_new else _content(self.path)

    def apply(self, undo: Undo) -> None:
        with refused_links():
            entry = open_entry(self.path, undo.files)
        _restore_later(entry, undo)
        entry.replace(self.content, lambda fd: self.owner.set(fd, self.mode))


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

    def apply(self, undo: Undo) -> None:
        stored = passwords.hash_password(self.password)
        with refused_links():
            entry = open_entry(self.path, undo.files)
        with reopened(entry.folder) as folder:
            fcntl.flock(folder, fcntl.LOCK_EX)  # as `imapshield passwd` does
            old = _restore_later(entry, undo)
            lines = [] if old is None else old[0].splitlines()
            lines = users.lines_with_hash(lines, self.user, stored)
            status = None if old is None else old[1]

            def prepare(fd: int) -> None:
                if status is None:
                    self.owner.set(fd, self.mode)
                else:
                    _set_status(fd, status)

            entry.replace(b"".join(line + b"\n" for line in lines), prepare)


def stored_hash(path: str, user: str) -> str | None:
    """Return the hash of a user in a password file; "" if nobody can log in with it, None if there is no such user.

    Raises:
        StepError: the file cannot be read.
    """
    entries, _ = users.parse(_content(path) or b"")
    return entries[user].stored if user in entries else None


def _content(path: str) -> bytes | None:
    """Return the content of a file; None if there is none.

    Raises:
        StepError: it cannot be read.
    """
    try:
        with ExitStack() as files, refused_links():
            old = open_entry(path, files).read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StepError(f"{path}: {error.strerror}; run setup as its owner") from None
    return None if old is None else old[0]


@contextmanager
def refused_links() -> Iterator[None]:
    """Let a link that root does not follow be an error of the step."""
    try:
        yield
    except RefusedLink as error:
        raise StepError(str(error)) from None


@contextmanager
def reopened(folder: int) -> Iterator[int]:
    """Return another descriptor of an open directory, with which it can be read, locked and changed."""
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        yield fd
    finally:
        os.close(fd)


def _restore_later(entry: DirectoryEntry, undo: Undo) -> tuple[bytes, os.stat_result] | None:
    """Let `undo` give a file the content, the owner and the mode that it has now, or remove it; and return them."""
    old = entry.read()
    if old is None:
        undo.add(f"written {entry.path}", entry.unlink)
    else:
        content, status = old
        set_status = partial(_set_status, status=status)
        undo.add(f"changed {entry.path}", lambda: entry.replace(content, set_status))
    return old


def _owner_now(fd: int) -> Callable[[], None]:
    """Return what gives an open directory the owner and the mode that it has now."""
    return partial(_set_status, fd, os.fstat(fd))


def _set_status(fd: int, status: os.stat_result) -> None:
    if os.geteuid() == 0:
        os.fchown(fd, status.st_uid, status.st_gid)
    os.fchmod(fd, status.st_mode & 0o7777)
