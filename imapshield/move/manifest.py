"""The manifest: the list of the files of an account, which both nodes compare; and which files a move copies."""

import hashlib
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from imapshield.maildir.account_state import MOVED_FILE
from imapshield.maildir.filename import base
from imapshield.maildir.index_files import INDEX_FILE
from imapshield.maildir.paths import DIRECTORY_NAMES, is_file_name
from imapshield.move.places import MoveError, Places, open_file

MANIFEST = b"imapshield.manifest"
"""In the directory of the index: the files that the account had when it was closed."""

NOT_COPIED = (
    *(b"%b%b" % (INDEX_FILE, suffix) for suffix in (b"-wal", b"-shm", b"-journal")),
    MOVED_FILE,
)
"""Files of a Maildir, or of the directory of an index, that no move copies. The text index is another: it knows that it
is a copy, and is built again. And ``tmp/``: what is delivered there is in ``new/`` a moment later."""

TEXT_INDEX = b"imapshield.search"

_DELIVERED = DIRECTORY_NAMES[:2]
SIZE_BITS = 48
"""Bits of a size in `copied_files`; the checksum is above them."""


def copied_files(places: Places) -> Iterator[tuple[bytes, int]]:
    """Yield the path below the Maildir, and the size, of each file that a move copies, except the index.

    Messages never change. What is in other files, such as subscriptions, may change while the size does not, so a
    checksum is added to the size of these.

    Raises:
        MoveError: a folder is a symbolic link.
    """
    yield from _files_in(places.maildir, b"")
    if places.has_own_index:
        for name, size in _files_in(places.index_directory, b""):
            yield b"//" + name, size  # no file of the Maildir has this path


def _files_in(directory: bytes, below: bytes, levels: int = 3) -> Iterator[tuple[bytes, int]]:
    has_messages = os.path.basename(below[:-1]) in _DELIVERED
    with os.scandir(directory) as entries:
        for entry in entries:
            name = below + entry.name
            if entry.is_symlink():
                raise MoveError(
                    f"{os.fsdecode(entry.path)} is a symbolic link, which is not moved; replace it by what it names"
                )
            if entry.is_dir(follow_symlinks=False):
                if levels and entry.name != b"tmp":
                    yield from _files_in(entry.path, name + b"/", levels - 1)
            elif has_messages or not _is_left_out(entry.name):
                with suppress(FileNotFoundError):  # renamed since
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        checksum = 0 if has_messages else _checksum(entry.path)
                        yield name, status.st_size + checksum


def _checksum(path: bytes) -> int:
    """Return a checksum of a small file, above all sizes of files."""
    with open_file(path) as file:
        return zlib.crc32(file.read()) << SIZE_BITS


def _is_left_out(name: bytes) -> bool:
    return (
        name in NOT_COPIED
        or name in (INDEX_FILE, MANIFEST)
        or name.startswith(TEXT_INDEX)
        or name.endswith(b".tmp")
    )


def write_manifest(places: Places) -> str:
    """Write the manifest of a closed account, and return its digest."""
    index = _digest_of_file(os.path.join(places.index_directory, INDEX_FILE))
    lines = sorted(b"%d %b" % (size, path) for path, size in copied_files(places))
    content = b"\0".join([index.encode(), *lines])
    path = os.path.join(places.index_directory, MANIFEST)
    temporary = path + b".tmp"
    with suppress(FileNotFoundError):
        os.unlink(temporary)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(fd, "wb") as file:
        file.write(content)
    os.rename(temporary, path)
    return hashlib.sha256(content).hexdigest()


class Manifest(NamedTuple):
    """The files of an account when it was closed.

    Attributes:
        digest: of the whole manifest.
        index_digest: the digest of the index.
        files: the size of each file by path.
    """

    digest: str
    index_digest: str
    files: dict[bytes, int]

    @classmethod
    def read(cls, places: Places) -> "Manifest":
        """Read the manifest beside an index.

        Raises:
            OSError: there is none.
            MoveError: it is damaged.
        """
        with open_file(os.path.join(places.index_directory, MANIFEST)) as file:
            content = file.read()
        index, *lines = content.split(b"\0")
        sizes = {}
        for line in lines:
            size, _, path = line.partition(b" ")
            if not size.isdigit():
                text = "is damaged: a line has no size"
                raise MoveError(f"{os.fsdecode(places.index_directory + b'/' + MANIFEST)} {text}")
            sizes[path] = int(size)
        return cls(hashlib.sha256(content).hexdigest(), index.decode(), sizes)

    def difference(self, places: Places) -> str:
        """Return what a copy lacks; "" if it is complete. Mail that was delivered since does not count."""
        if _digest_of_file(os.path.join(places.index_directory, INDEX_FILE)) != self.index_digest:
            return "the index differs"
        found = dict(copied_files(places))
        for path, size in self.files.items():
            if path not in found:
                return f"{os.fsdecode(path)!r} is missing"
            if found[path] != size:
                return f"{os.fsdecode(path)!r} differs"
        return ""

    def late_mail(self, maildir: bytes) -> list[bytes]:
        """Return the paths, below a Maildir, of messages that were delivered after the account was closed."""
        known = {base(os.path.basename(path)) for path in self.files}
        return sorted(
            path for path in delivered_mail(maildir) if base(os.path.basename(path)) not in known
        )


def delivered_mail(maildir: bytes) -> Iterator[bytes]:
    """Yield the paths, below a Maildir, of all messages."""
    with os.scandir(maildir) as entries:
        folders = [
            entry.name
            for entry in entries
            if entry.name[:1] == b"." and entry.is_dir(follow_symlinks=False)
        ]
    for folder in (b"", *folders):
        for part in _DELIVERED:
            path = os.path.join(folder, part)
            with (
                suppress(FileNotFoundError, NotADirectoryError),
                os.scandir(os.path.join(maildir, path)) as found,
            ):
                for entry in found:
                    if is_file_name(entry.name) and entry.is_file(follow_symlinks=False):
                        yield os.path.join(path, entry.name)


def _digest_of_file(path: bytes) -> str:
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
