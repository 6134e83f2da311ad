"""Lists the message files of a folder, and finds files that are not where the index has them."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from imapshield.errors import MessageExpunged
from imapshield.maildir import filename, files
from imapshield.maildir.entry import Entry, named
from imapshield.maildir.open_folders import Folder
from imapshield.maildir.paths import CUR, NEW, TMP


class Listing(NamedTuple):
    """The file names in ``new/`` and in ``cur/``; `cur` is None if only ``new/`` was listed."""

    new: frozenset[bytes]
    cur: frozenset[bytes] | None

    def by_base(self) -> dict[bytes, tuple[int, bytes]]:
        """Return base name → (directory, name). A file in both listings was moved to ``cur/`` between them."""
        found = {name.partition(b":")[0]: (NEW, name) for name in self.new}
        cur = {name.partition(b":")[0]: (CUR, name) for name in sorted(self.cur or ())}
        return found | cur


def list_folder(folder: Folder, cur: bool) -> Listing:
    """List ``new/`` and, if `cur` is set, ``cur/``.

    ``new/`` is listed first, so a file that another program moves to ``cur/`` at that moment is listed at least once.
    """
    new = files.message_names(folder.directory(NEW))
    return Listing(new, files.message_names(folder.directory(CUR)) if cur else None)


def count_names(directory: int, limit: int) -> int:
    """Return the number of names in an open directory, or `limit` if there are more."""
    os.lseek(directory, 0, os.SEEK_SET)  # see `files.names`
    with os.scandir(directory) as entries:
        return sum(1 for _ in islice(entries, limit))


def statuses(directory: int, names: Iterable[bytes]) -> Iterator[tuple[bytes, os.stat_result]]:
    """Yield the names that exist in a directory, of those that it had when it was listed, and the status of each."""
    for name in names:
        try:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise named(error, Entry(directory, name)) from None
        yield name, found


@dataclass(eq=False)
class FileFinder:
    """Finds message files of one folder that are not where the index has them.

    The folder is listed at most once, at the first search.
    """

    folder: Folder
    _files: dict[bytes, tuple[int, bytes]] | None = field(default=None, init=False)

    def find(self, name: bytes) -> tuple[int, bytes] | None:
        """Return (directory, name) of the file with the same base name as `name`, or None if there is no such file.

        A file that a power failure has returned to ``tmp/`` is found there (`recovery`).
        """
        if self._files is None:
            staged = files.message_names(self.folder.directory(TMP))
            self._files = {filename.base(staged_name): (TMP, staged_name) for staged_name in staged}
            self._files.update(list_folder(self.folder, cur=True).by_base())
        return self._files.get(filename.base(name))

    def current_entry(self, name: bytes) -> Entry:
        """Return the file that `find` finds.

        Raises:
            MessageExpunged: there is no such file.
        """
        file = self.find(name)
        if file is None:
            raise MessageExpunged
        return self.folder.entry(*file)


def may_hold(folder: Folder, names: Sequence[tuple[bytes]]) -> bool:
    """Whether a folder has a file of one of these messages, or there are none.

    It tells a renamed folder from a new one that got the inodes of a removed one.
    """
    finder = FileFinder(folder)
    return not names or any(finder.find(name) for (name,) in names)
