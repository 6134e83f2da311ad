"""Maildir++ layout: mailbox names ⇄ folder names, and the directories inside a folder. Pure.

Every mailbox is one folder. INBOX is the Maildir itself; ``Lists/Café`` is the folder ``.Lists.Caf&AOk-`` inside it.
Each level of the name is written in modified UTF-7, as Dovecot and Courier write it. A dot inside a level would be read
as a delimiter, so it is written ``&AC4-``. A folder holds the directories ``cur``, ``new`` and ``tmp`` with the message
files.

Rules
-----
* A folder name has one dot before each level and no slash, so no name that a client sends leads outside the Maildir.
* A folder is a mailbox only if its name converts to a mailbox name and back unchanged. So no two names share a folder.
"""

from __future__ import annotations

import unicodedata

from imapshield.errors import BadCommand, BadMailboxName
from imapshield.wire.names import DELIMITER, INBOX, decode_pattern, encode_name, fold_inbox

CUR = 0
NEW = 1
TMP = 2
"""The directory of a message file, as the index stores it in the column ``place``. A message in ``tmp/`` is committed;
other programs do not see it yet (`staging`)."""

MAX_LEVELS = 20
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
