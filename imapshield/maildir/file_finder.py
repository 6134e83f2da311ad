"""Listings of a folder, and the search for a message file that another program has renamed."""

from __future__ import annotations

import os

from imapshield.errors import NoSuchMailbox
from imapshield.maildir import filename, files, reconcile
from imapshield.maildir.reconcile import Listing


def list_folder(folder: bytes, cur: bool) -> Listing:
    """List ``new/`` and, if `cur` is set, ``cur/``.

    ``new/`` is listed first, so a file that moves to ``cur/`` meanwhile is listed at least once.

    Raises:
        NoSuchMailbox: another program removed the folder.
    """
    try:
        new = files.message_names(folder + b"/new")
        return Listing(new, files.message_names(folder + b"/cur") if cur else None)
    except FileNotFoundError:
        if os.path.isdir(folder):
            raise
        raise NoSuchMailbox from None


class FileFinder:
    """Finds the current name of message files that are not where the index has them.

    The folder is listed at most once, at the first search.
    """

    def __init__(self, folder: bytes) -> None:
        self._folder = folder
        self._files: dict[bytes, tuple[int, bytes]] | None = None

    def find(self, name: bytes) -> tuple[int, bytes] | None:
        """Return (directory, name) of the file with the same base name, or None if there is no such file."""
        if self._files is None:
            self._files = reconcile.files_by_base(list_folder(self._folder, cur=True))
        return self._files.get(filename.base(name))
