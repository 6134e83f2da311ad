"""What `setup` changes, as a name in an open directory, so that no other user can lead root elsewhere.

The owner of a directory can put a link into it between a check and a change by path: then root would change the mode,
the owner or the content of any file. So each directory of a path is opened in that above it, and root follows only
links that nobody else can have made.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from imapshield.replace_file import replace_file_in

_MAX_LINKS = 40  # as Linux
_SEARCH = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO has no content


class RefusedLink(Exception):
    """A link of another user is in a path of root. The text says what to do."""


@dataclass(frozen=True, slots=True)
class DirectoryEntry:
    """A name in an open directory. It is not a link, unless somebody makes it one: then each method raises OSError.

    Attributes:
        folder: the descriptor of the directory.
        name: the name in it.
        path: the path, for messages.
    """

    folder: int
    name: str
    path: str

    def read(self) -> tuple[bytes, os.stat_result] | None:
        """Return the content and the status of a file; None if there is none."""
        with suppress(FileNotFoundError), self._naming():
            fd = os.open(self.name, _READ, dir_fd=self.folder)
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                os.close(fd)
                raise OSError(errno.EINVAL, "is not a file")
            with open(fd, "rb") as file:
                return file.read(), status
        return None

    def replace(self, content: bytes, prepare: Callable[[int], object]) -> None:
        """Write the file; `prepare` gets it open, to set owner and mode."""
        with self._naming():
            replace_file_in(self.folder, self.name, content, prepare)

    def unlink(self) -> None:
        """Remove the file."""
        os.unlink(self.name, dir_fd=self.folder)

    def rmdir(self) -> None:
        """Remove the directory."""
        os.rmdir(self.name, dir_fd=self.folder)

    def open_directory(self, flags: int = _SEARCH) -> int:
        """Return a descriptor of the directory: by default one that cannot be read, but needs no right to read."""
        with self._naming():
            return os.open(self.name, flags, dir_fd=self.folder)

    def make_directory(self, mode: int) -> int:
        """Make a directory, and return a descriptor that can be read.

        Raises:
            OSError: it cannot be made, or somebody has already put something else in its place.
        """
        with self._naming():
            os.mkdir(self.name, 0o700, dir_fd=self.folder)
            with ExitStack() as on_error:
                on_error.callback(self._remove)
                fd = os.open(self.name, _READ | os.O_DIRECTORY, dir_fd=self.folder)
                on_error.callback(os.close, fd)
                if os.geteuid() == 0 and (os.fstat(fd).st_uid != 0 or os.listdir(fd)):
                    raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
                os.fchmod(fd, mode)
                on_error.pop_all()
        return fd

    def _remove(self) -> None:
        with suppress(OSError):
            self.rmdir()

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Let errors name the whole path."""
        try:
            yield
        except OSError as error:
            error.filename = self.path
            raise


def open_entry(
    path: str, files: ExitStack, on_missing: Callable[[DirectoryEntry], int] | None = None
) -> DirectoryEntry:
    """Open the directory of a path, link by link, and return the name in it that the path leads to.

    Args:
        path: an absolute path.
        files: closes the directories above it.
        on_missing: makes a directory above it that does not exist, and returns a descriptor of it.

    Raises:
        RefusedLink: another user than root could have made a link on the way. Other users follow all links.
        OSError: a directory above it does not exist, or cannot be searched.
    """
    names, shown, links = _names(path), "/", 0
    folder = _open_root(files)
    while names:
        name = names.pop(0)
        entry = DirectoryEntry(folder, name, os.path.join(shown, name))
        target = _target(entry)
        if target is not None:
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            names = _names(target) + names
            if target.startswith("/"):
                folder, shown = _open_root(files), "/"
        elif not names:
            return entry
        else:
            folder, shown = _open_or_make(entry, files, on_missing), entry.path
    return DirectoryEntry(folder, ".", shown)


def _open_or_make(
    entry: DirectoryEntry, files: ExitStack, on_missing: Callable[[DirectoryEntry], int] | None
) -> int:
    try:
        fd = entry.open_directory()
    except FileNotFoundError:
        if on_missing is None:
            raise
        fd = on_missing(entry)
    files.callback(os.close, fd)
    return fd


def _open_root(files: ExitStack) -> int:
    fd = os.open("/", _SEARCH)
    files.callback(os.close, fd)
    return fd


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")]


def _target(entry: DirectoryEntry) -> str | None:
    """Return to what a link leads; None if it is none."""
    try:
        status = os.stat(entry.name, dir_fd=entry.folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OSError(error.errno, error.strerror, entry.path) from None
    if not stat.S_ISLNK(status.st_mode):
        return None
    if os.geteuid() == 0 and not (status.st_uid == 0 and _is_roots(os.fstat(entry.folder))):
        raise RefusedLink(
            f"{entry.path}: is a link that root does not follow, because another user can change it;"
            " use the path to which it leads"
        )
    return os.readlink(entry.name, dir_fd=entry.folder)


def _is_roots(folder: os.stat_result) -> bool:
    """Return whether only root can replace what belongs to root in a directory."""
    return folder.st_uid == 0 and (
        not folder.st_mode & 0o022 or bool(folder.st_mode & stat.S_ISVTX)
    )
