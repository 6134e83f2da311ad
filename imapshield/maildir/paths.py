"""Converts mailbox names to the folder names of a Maildir++ and back, and finds the message files in a folder.

Every mailbox is one folder. INBOX is the Maildir itself; ``Lists/Café`` is the folder ``.Lists.Caf&AOk-`` inside it.
Each level of the name is written in modified UTF-7, as Dovecot and Courier write it. A dot inside a level would be read
as a delimiter, so it is written ``&AC4-``. A folder has the directories ``cur``, ``new`` and ``tmp``, which hold the
message files.

Rules
-----
* A folder name has one dot before each level and no slash, so no name that a client sends leads outside the Maildir.
* A folder is a mailbox only if its name converts to a mailbox name and back unchanged. So no two names share a folder.
"""

import os
import secrets
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

from imapshield.errors import BadCommand, BadMailboxName, MessageExpunged, NoSuchMailbox
from imapshield.maildir import filename, files
from imapshield.wire.names import DELIMITER, INBOX, decode_pattern, encode_name, fold_inbox

CUR = 0
NEW = 1
TMP = 2
"""The directory of a message file, as the index stores it in the column ``place``. A message in ``tmp/`` is committed,
but other programs do not see it yet (`staging`)."""

MAX_LEVELS = 20
"""Levels of a mailbox name: CREATE makes a folder for each level that is missing."""

MAX_FOLDER_NAME = 255
"""Bytes of a folder name: the longest file name that common file systems allow."""

_DIRECTORIES = (b"/cur/", b"/new/", b"/tmp/")
_ENCODED_DOT = b"&AC4-"


def message_path(folder: bytes, directory: int, name: bytes) -> bytes:
    """Return the path of the message file `name` in the `directory` (CUR, NEW or TMP) of a folder."""
    return folder + _DIRECTORIES[directory] + name


def folder_name(mailbox: str) -> bytes:
    """Return the name of a mailbox's folder inside the Maildir, b"" for INBOX.

    Raises:
        BadMailboxName: no folder can have this name.
    """
    mailbox = fold_inbox(mailbox)
    if mailbox == INBOX:
        return b""
    levels = mailbox.split(DELIMITER)
    if len(levels) > MAX_LEVELS:
        raise BadMailboxName(f"Mailbox name has more than {MAX_LEVELS} levels")
    encoded = b"".join(b"." + _encode(level) for level in levels)
    if len(encoded) > MAX_FOLDER_NAME:
        raise BadMailboxName("Mailbox name is too long")
    return encoded


def mailbox_name(folder: bytes) -> str | None:
    """Return the mailbox whose folder has this name, or None if no mailbox has such a folder."""
    if folder[:1] != b"." or len(folder) < 2:
        return None
    try:
        levels = [_decode(level) for level in folder[1:].split(b".")]
        name = DELIMITER.join(levels)
        if fold_inbox(name) == name != INBOX and folder_name(name) == folder:
            return name
    except (BadCommand, BadMailboxName):
        pass
    return None


def _encode(level: str) -> bytes:
    if level in ("", ".", ".."):
        raise BadMailboxName('Mailbox name has a level that is empty, "." or ".."')
    if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in level):
        raise BadMailboxName("Mailbox name contains control characters")
    return _ENCODED_DOT.join(encode_name(part) for part in level.split("."))


def _decode(level: bytes) -> str:
    return ".".join(decode_pattern(part) for part in level.split(_ENCODED_DOT))


class AccountPaths:
    """The folders of one account, and unique names for new files in them.

    Args:
        root: the directory that holds ``cur``, ``new`` and ``tmp``.
        now: returns seconds since the epoch.
    """

    def __init__(self, root: str, now: Callable[[], float]) -> None:
        self.root = os.path.abspath(os.fsencode(root))
        self._now = now
        self._counter = count()
        self._host = os.uname().nodename
        self._tag = secrets.token_hex(4)

    def folder(self, mailbox: str) -> bytes:
        """Return the path of a mailbox's folder, whether or not it exists.

        Raises:
            BadMailboxName: no folder can have this name.
        """
        name = folder_name(mailbox)
        return self.root + b"/" + name if name else self.root

    def existing_folder(self, mailbox: str) -> bytes:
        """Return the path of the folder of a mailbox that the caller expects to exist.

        Raises:
            NoSuchMailbox: no folder can have this name. A missing folder is not detected.
        """
        try:
            return self.folder(mailbox)
        except BadMailboxName:
            raise NoSuchMailbox from None

    def unique_name(self) -> bytes:
        """Return a base name that no other file has, for a new message or folder in ``tmp/``."""
        return filename.unique(self._now(), os.getpid(), next(self._counter), self._host, self._tag)


class Listing(NamedTuple):
    """The file names in ``new/`` and in ``cur/``; `cur` is None if only ``new/`` was listed."""

    new: frozenset[bytes]
    cur: frozenset[bytes] | None

    def by_base(self) -> dict[bytes, tuple[int, bytes]]:
        """Return base name → (directory, name). A file in both listings was moved to ``cur/`` between them."""
        found = {filename.base(name): (NEW, name) for name in self.new}
        found.update((filename.base(name), (CUR, name)) for name in sorted(self.cur or ()))
        return found


def list_folder(folder: bytes, cur: bool) -> Listing:
    """List ``new/`` and, if `cur` is set, ``cur/``.

    ``new/`` is listed first, so a file that another program moves to ``cur/`` at that moment is listed at least once.

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


@dataclass(eq=False)
class FileFinder:
    """Finds message files of one folder that are not where the index has them.

    The folder is listed at most once, at the first search.
    """

    folder: bytes
    _files: dict[bytes, tuple[int, bytes]] | None = field(default=None, init=False)

    def find(self, name: bytes) -> tuple[int, bytes] | None:
        """Return (directory, name) of the file with the same base name as `name`, or None if there is no such file."""
        if self._files is None:
            self._files = list_folder(self.folder, cur=True).by_base()
        return self._files.get(filename.base(name))

    def current_path(self, name: bytes) -> bytes:
        """Return the path that `find` finds.

        Raises:
            MessageExpunged: there is no such file.
        """
        file = self.find(name)
        if file is None:
            raise MessageExpunged
        return message_path(self.folder, *file)
