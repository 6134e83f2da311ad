"""Opens the account directory and the folders in it, so that files are reached through descriptors and not by path.

A Maildir may belong to a user who can change everything in it at any moment, while the server may read other users'
mail. So no name inside the Maildir is resolved by path:

* The account directory is opened once, component by component. A folder is opened relative to it, and ``cur/``,
  ``new/`` and ``tmp/`` relative to the folder. Symbolic links are refused, unless the operator permits those to
  directories (``--follow-symlinks``).
* A component of the path of the Maildir itself may be a symbolic link that root or the server's own user made.
* Descriptors of folders are closed at the end of each operation of the store, so an account with thousands of folders
  keeps one descriptor.
"""

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress

from imapshield.errors import BadMailboxName, NoSuchMailbox
from imapshield.mailbox.in_place import may_block
from imapshield.maildir import files, handover
from imapshield.maildir.entry import Entry, Ownership, naming_errors
from imapshield.maildir.fs_layout import fs_layout_warning, fs_mailbox, may_be_fs_folder
from imapshield.maildir.local_disk import OneVolume
from imapshield.maildir.paths import (
    CUR,
    DIRECTORY_NAMES,
    NEW,
    folder_name,
    irregular_folders,
    is_file_name,
    mailbox_name,
)
from imapshield.wire.names import INBOX

_LINK_ERRORS = (errno.ELOOP, errno.ENOTDIR)


class Folder:
    """One open folder. It is closed by `OpenFolders.release`.

    Args:
        fd: the folder's descriptor.
        path: its path, for the log and for inotify.
        owner: the ownership of new files.
        follow: whether ``cur``, ``new`` and ``tmp`` may be symbolic links.
        is_inbox: whether it is the Maildir itself. Another folder without ``cur/`` is no mailbox.
        is_fd_owned: whether `close` closes `fd`.
        volume: the file system of the Maildir.
    """

    def __init__(
        self,
        fd: int,
        path: bytes,
        owner: Ownership,
        follow: bool,
        is_inbox: bool,
        *,
        is_fd_owned: bool = True,
        volume: OneVolume | None = None,
    ) -> None:
        self.fd = fd
        self.path = path
        self.owner = owner
        self.is_inbox = is_inbox
        self._follow = follow
        self._is_fd_owned = is_fd_owned
        self._volume = volume or OneVolume()
        self._directories: dict[int, int] = {}

    def directory(self, number: int) -> int:
        """Return the descriptor of ``cur/``, ``new/`` or ``tmp/`` (CUR, NEW or TMP).

        If the folder lacks ``new/`` or ``tmp/``, or INBOX lacks ``cur/``, they are created.

        Raises:
            FileNotFoundError: the folder lacks ``cur/``, or was removed.
        """
        fd = self._directories.get(number)
        if fd is None:
            try:
                fd = self._open_directory(number)
            except FileNotFoundError:
                if number == CUR and not self.is_inbox:
                    raise
                self.complete()
                fd = self._open_directory(number)
            self._directories[number] = fd
        return fd

    def _open_directory(self, number: int) -> int:
        name = Entry(self.fd, DIRECTORY_NAMES[number])
        with naming_errors(self.path + b"/" + name.name):
            return files.open_directory(name, follow=self._follow)

    def entry(self, number: int, name: bytes) -> Entry:
        """Return the message file `name` in ``cur/``, ``new/`` or ``tmp/``.

        Raises:
            FileNotFoundError: no file can have this name.
        """
        if not is_file_name(name):
            raise FileNotFoundError(errno.ENOENT, "not a file name", name)
        return Entry(self.directory(number), name)

    def path_of(self, number: int, name: bytes) -> bytes:
        """Return the path of a message file, for the log."""
        return os.path.join(self.path, DIRECTORY_NAMES[number], name)

    def file(self, name: bytes) -> Entry:
        """Return a file of the folder itself, such as ``dovecot-keywords``."""
        return Entry(self.fd, name)

    def status(self, number: int) -> os.stat_result:
        """Return the status of ``cur/``, ``new/`` or ``tmp/``."""
        name = DIRECTORY_NAMES[number]
        return self._volume.checked(os.stat(name, dir_fd=self.fd, follow_symlinks=self._follow))

    def sync(self, *numbers: int) -> None:
        """Put the creation, renaming and removal of files in these directories on stable storage."""
        for number in numbers:
            fd = self.directory(number)
            with naming_errors(self.path + b"/" + DIRECTORY_NAMES[number]):
                handover.wait_for_disk(os.fsync, fd)

    def complete(self) -> None:
        """Create the directories that the folder lacks, and sync the folder.

        ``cur/`` comes last, because it makes the folder a mailbox, into which other programs may deliver.
        """
        for name in reversed(DIRECTORY_NAMES):
            with suppress(FileExistsError):
                files.make_directory(Entry(self.fd, name), self.owner)
        with naming_errors(self.path):
            os.fsync(self.fd)

    def close(self) -> None:
        """Close the descriptors."""
        for fd in self._directories.values():
            with suppress(OSError):  # nothing was written through it
                os.close(fd)
        if self._is_fd_owned:
            os.close(self.fd)
        self.fd = -1
        self._directories.clear()


class OpenFolders:
    """The account directory, and the folders that the current operation has opened.

    Args:
        root: the path of the Maildir.
        base: a directory above it that the users cannot replace; by default the parent.
        follow: whether folders may be symbolic links to directories.
        log_warning: called with one line for the operator.
    """

    def __init__(
        self, root: bytes, base: bytes | None, follow: bool, log_warning: Callable[[str], None]
    ) -> None:
        self.root = root
        self.owner = Ownership(-1, -1, 0o700)
        self.is_new = False  # whether there was no Maildir when it was opened
        self._base = os.path.dirname(root) if base is None else base
        self._follow = follow
        self._log_warning = log_warning
        self._fd = -1
        self._identity: tuple[int, int] = (0, 0)
        self.volume = OneVolume()
        self._folders: dict[str, Folder] = {}
        self._forgotten: list[Folder] = []
        # Mailbox names of irregular folders, and the names of all folders that were seen to have cur/.
        self._irregular: dict[str, bytes] = {}
        self._known: set[bytes] = set()
        self._logged: set[str] = set()
        # Directories that have been looked at for mailboxes of another layout: once, because that costs time.
        self._searched: set[bytes] = set()

    @property
    def fd(self) -> int:
        """The descriptor of the account directory."""
        return self._fd

    def ensure_open(self) -> bool:
        """Open the account directory, unless it is open and still at its path; create it if there is none.

        Returns:
            whether it was opened by this call: another program may have replaced it.

        Raises:
            OSError: it cannot be opened; with ELOOP or ENOTDIR if a component is a symbolic link that is not trusted.
        """
        if self._fd >= 0:
            with suppress(OSError):
                status = os.stat(self.root)
                if (status.st_dev, status.st_ino) == self._identity:
                    return False
        may_block()
        self.close()
        self._fd = self._open_root()
        status = os.fstat(self._fd)
        self._identity = status.st_dev, status.st_ino
        self.volume = OneVolume(status.st_dev)
        self.owner = Ownership.of(status)
        self.is_new = not self._is_directory(DIRECTORY_NAMES[CUR])
        self.folder(INBOX).complete()
        self.mailboxes()
        return True

    def _open_root(self) -> int:
        inside = os.path.relpath(self.root, self._base).split(b"/")
        fd = os.open(self._base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for name in inside:
            parent = Entry(fd, name)
            try:
                with naming_errors(self.root):
                    fd = self._open_component(parent)
            finally:
                os.close(parent.directory)
        return fd

    def _open_component(self, entry: Entry) -> int:
        try:
            return files.open_directory(entry)
        except FileNotFoundError:
            # Below a home directory, a new Maildir belongs to the owner of the home directory.
            owner = Ownership.of(os.fstat(entry.directory))._replace(mode=0o700)
            with suppress(FileExistsError):
                files.make_directory(entry, owner)
                os.fsync(entry.directory)
            return files.open_directory(entry)
        except OSError as error:
            if error.errno not in _LINK_ERRORS:
                raise
            target = self._trusted_target(entry)
            if target is None:
                raise
            return files.open_directory(Entry(entry.directory, target), follow=True)

    def _trusted_target(self, entry: Entry) -> bytes | None:
        """Return the target of a symbolic link of root or of the server's own user; None if it is something else.

        The link is opened first, so what is read is the target of the link whose owner is looked at.
        """
        if not hasattr(os, "O_PATH"):  # not Linux
            return None
        fd = os.open(entry.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=entry.directory)
        try:
            link = os.fstat(fd)
            is_trusted = self._follow or link.st_uid in {0, os.geteuid()}
            if not stat.S_ISLNK(link.st_mode) or not is_trusted:
                return None
            return os.readlink(b"", dir_fd=fd)
        finally:
            os.close(fd)

    def folder(self, mailbox: str) -> Folder:
        """Return the open folder of a mailbox.

        Raises:
            NoSuchMailbox: there is no such folder, or it is a symbolic link, or no folder can have this name.
        """
        folder = self._folders.get(mailbox)
        if folder is None:
            folder = self._folders[mailbox] = self._open_folder(mailbox)
        return folder

    def _open_folder(self, mailbox: str) -> Folder:
        name = self.existing_name(mailbox)
        if not name:
            of_root = self._fd, self.root, self.owner, self._follow, True
            return Folder(*of_root, is_fd_owned=False, volume=self.volume)
        path = self.root + b"/" + name
        try:
            fd = files.open_directory(Entry(self._fd, name), follow=self._follow)
        except FileNotFoundError:
            raise NoSuchMailbox from None
        except OSError as error:
            if error.errno not in _LINK_ERRORS:
                error.filename = path
                raise
            self.log_once(
                f"{os.fsdecode(path)!r} is a symbolic link and is not shown to mail clients; "
                "--follow-symlinks permits links to folders, if you trust the owners of all Maildirs"
            )
            raise NoSuchMailbox from None
        return Folder(fd, path, self.owner, self._follow, False, volume=self.volume)

    def directory_statuses(self, mailbox: str) -> tuple[os.stat_result, os.stat_result] | None:
        """Return the status of ``cur/`` and of ``new/`` without opening the folder; None if that is not possible.

        `folder` then says why. Another program can put a symbolic link in the folder's place between the calls.
        """
        folder, name = self._folders.get(mailbox), self.existing_name(mailbox)
        path = name + b"/" if name else b""
        try:
            if folder is not None:
                return folder.status(CUR), folder.status(NEW)
            if name and not self._is_directory(name):
                return None
            cur = self._status(path + DIRECTORY_NAMES[CUR])
            return cur, self._status(path + DIRECTORY_NAMES[NEW])
        except OSError:
            return None

    def name(self, mailbox: str) -> bytes:
        """Return the name of a mailbox's folder, b"" for INBOX, whether or not it exists.

        Raises:
            BadMailboxName: no folder can have this name.
        """
        irregular = self._irregular.get(mailbox)
        return folder_name(mailbox) if irregular is None else irregular

    def exists(self, mailbox: str) -> bool:
        """Whether a mailbox has a folder: a directory with ``cur/`` in it, not a symbolic link."""
        name = self.name(mailbox)
        return not name or (self._is_directory(name) and self._is_directory(name + b"/cur"))

    def _is_directory(self, path: bytes) -> bool:
        try:
            return stat.S_ISDIR(self._status(path).st_mode)
        except OSError:
            return False

    def _status(self, path: bytes) -> os.stat_result:
        return self.volume.checked(os.stat(path, dir_fd=self._fd, follow_symlinks=self._follow))

    def existing_name(self, mailbox: str) -> bytes:
        """Return the name of the folder of a mailbox that the caller expects to exist.

        Raises:
            NoSuchMailbox: no folder can have this name. A missing folder is not detected.
        """
        try:
            return self.name(mailbox)
        except BadMailboxName:
            raise NoSuchMailbox from None

    def mailboxes(self) -> list[str]:
        """Return the names of all mailboxes that have a folder, sorted."""
        os.lseek(self._fd, 0, os.SEEK_SET)  # see `files.names`
        with os.scandir(self._fd) as entries:
            directories = [
                os.fsencode(entry.name)
                for entry in entries
                if entry.is_dir(follow_symlinks=self._follow)
            ]
        found = [name for name in directories if name[:1] == b"."]
        for name in directories:
            if name not in self._searched and may_be_fs_folder(name):
                self._searched.add(name)
                if found_fs := fs_mailbox(Entry(self._fd, name)):
                    self.log_once(fs_layout_warning(os.fsdecode(self.root + b"/" + found_fs)))
        self._known &= set(found)
        unknown = set(found) - self._known
        self._known.update(name for name in unknown if self._is_directory(name + b"/cur"))
        mailboxes = {name: mailbox_name(name) for name in found if name in self._known}
        irregular = [name for name, mailbox in mailboxes.items() if mailbox is None]
        self._irregular, hidden = irregular_folders(irregular, mailboxes)
        for name in hidden:
            self.log_once(
                f"the folder {os.fsdecode(name)!r} below {os.fsdecode(self.root)} cannot be shown to "
                "mail clients: its name is not UTF-8, is INBOX, or looks like that of another "
                "folder; rename it"
            )
        names = [mailbox for mailbox in mailboxes.values() if mailbox is not None]
        return sorted([INBOX, *names, *self._irregular])

    def sync(self) -> None:
        """Put the creation, renaming and removal of folders on stable storage."""
        with naming_errors(self.root):
            os.fsync(self._fd)

    def log_once(self, text: str) -> None:
        """Log a warning, unless it was logged before."""
        if text not in self._logged and len(self._logged) < 1000:
            self._logged.add(text)
            self._log_warning(text)

    def forget(self) -> None:
        """Open each folder again when it is used next, because folders were renamed; `release` closes the open ones."""
        self._forgotten += self._folders.values()
        self._folders.clear()

    def release(self) -> None:
        """Close all folders."""
        self.forget()
        while self._forgotten:
            self._forgotten.pop().close()

    def close(self) -> None:
        """Close all folders and the account directory."""
        self.release()
        self._searched.clear()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
