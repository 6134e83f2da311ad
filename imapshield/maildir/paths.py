"""Converts mailbox names to the folder names of a Maildir++ and back. No I/O.

Every mailbox is one folder. INBOX is the Maildir itself; ``Lists/Café`` is the folder ``.Lists.Caf&AOk-`` inside it.
Each level of the name is written in modified UTF-7, as Dovecot and Courier write it. A dot inside a level would be read
as a delimiter, so it is written ``&AC4-``. A folder has the directories ``cur``, ``new`` and ``tmp``, which hold the
message files.

Rules
-----
* A folder name has one dot before each level and no slash, so no name that a client sends leads outside the Maildir.
* No two mailbox names share a folder. A folder is *regular* if its name converts to a mailbox name and back unchanged.
* Other programs make *irregular* folders: with names in plain UTF-8 (Usermin, Dovecot's ``:UTF-8``), with an ``&`` that
  begins no modified UTF-7, or with empty levels. They are shown under the closest name that no regular folder has
  (`irregular_folders`).
"""

import re
import unicodedata
from collections.abc import Container, Iterable

from imapshield.errors import BadCommand, BadMailboxName
from imapshield.wire.names import DELIMITER, INBOX, decode_pattern, encode_name, fold_inbox

CUR = 0
NEW = 1
TMP = 2
"""The directory of a message file, as the index stores it in the column ``place``. A message in ``tmp/`` is committed,
but other programs do not see it yet (`staging`)."""

MAX_LEVELS = 20
"""Levels of the name of a new mailbox: CREATE makes a folder for each level that is missing."""

MAX_FILE_NAME = 255
"""Bytes of the longest name that common file systems allow for a folder or a file."""

DIRECTORY_NAMES = (b"cur", b"new", b"tmp")
"""The names of CUR, NEW and TMP."""

_ENCODED_DOT = b"&AC4-"
_CONTROL_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")
_DOTS = re.compile(r"(?<=.)\.(?!\.|\Z)")


def is_file_name(name: bytes) -> bool:
    """Whether a message file can have this name. The index, which may come from another program, may hold any name."""
    is_hidden = name[:1] in (b"", b".")
    return not is_hidden and len(name) <= MAX_FILE_NAME and b"/" not in name and b"\0" not in name


def check_new_name(mailbox: str) -> None:
    """Check the name of a mailbox that is to be created.

    Raises:
        BadMailboxName: it has too many levels, or no folder can have this name.
    """
    if mailbox.count(DELIMITER) >= MAX_LEVELS:
        raise BadMailboxName(f"Mailbox name has more than {MAX_LEVELS} levels")
    folder_name(mailbox)


def folder_name(mailbox: str) -> bytes:
    """Return the name of a mailbox's regular folder inside the Maildir, b"" for INBOX.

    Raises:
        BadMailboxName: no folder can have this name.
    """
    mailbox = fold_inbox(mailbox)
    if mailbox == INBOX:
        return b""
    levels = mailbox.split(DELIMITER)
    encoded = b"".join(b"." + _encode(level) for level in levels)
    if len(encoded) > MAX_FILE_NAME:
        raise BadMailboxName("Mailbox name is too long")
    return encoded


def mailbox_name(folder: bytes) -> str | None:
    """Return the mailbox whose regular folder has this name, None if the name is not that of a regular folder."""
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


def irregular_folders(
    folders: Iterable[bytes], present: Container[bytes]
) -> tuple[dict[str, bytes], list[bytes]]:
    """Return the mailbox name of each irregular folder, and the folders that cannot be shown.

    A name is read as UTF-8, and every ``&`` stands for itself. A dot that would make an empty level is part of the
    level before it. Control characters are shown as their symbols (U+2400 and following).

    Args:
        folders: the names of the irregular folders.
        present: the names of all folders. A mailbox is that of its regular folder, if there is one.
    """
    shown: dict[str, bytes] = {}
    hidden: list[bytes] = []
    for folder in sorted(folders):
        try:
            name = fold_inbox(
                _DOTS.sub(DELIMITER, _printable(folder[1:].decode().replace(DELIMITER, "_")))
            )
            regular = folder_name(name)
        except (UnicodeDecodeError, BadMailboxName):
            hidden.append(folder)
            continue
        if not regular or regular in present or name in shown:
            hidden.append(folder)
        else:
            shown[name] = folder
    return shown, hidden


def _printable(name: str) -> str:
    return "".join(
        c
        if unicodedata.category(c) not in _CONTROL_CATEGORIES
        else chr(0x2400 + ord(c))
        if ord(c) < 0x20
        else "\N{SYMBOL FOR DELETE}"
        for c in name
    )


def _encode(level: str) -> bytes:
    if level in ("", ".", ".."):
        raise BadMailboxName('Mailbox name has a level that is empty, "." or ".."')
    # Nearly all levels are plain, and the loop takes ten times as long.
    is_plain = level.isascii() and level.isprintable()
    if not is_plain and any(unicodedata.category(c) in _CONTROL_CATEGORIES for c in level):
        raise BadMailboxName("Mailbox name contains control characters")
    return _ENCODED_DOT.join(encode_name(part) for part in level.split("."))


def _decode(level: bytes) -> str:
    return ".".join(decode_pattern(part) for part in level.split(_ENCODED_DOT))
