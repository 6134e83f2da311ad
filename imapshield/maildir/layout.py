"""Mailbox names ⇄ Maildir++ directory names. Pure.

``Lists/Café`` is ``.Lists.Caf&AOk-`` and INBOX is the Maildir itself. Every level is modified UTF-7, as Dovecot and
Courier write it; a dot inside a level, which would read as a delimiter, becomes ``&AC4-``.

Rules
-----
* A directory name has one dot before each level and no slash, so nothing that a client names is outside the Maildir.
* Only directories that read back to themselves are mailboxes; two names are never one directory.
"""

from __future__ import annotations

import unicodedata

from imapshield.errors import BadCommand, BadMailboxName
from imapshield.wire.names import DELIMITER, INBOX, decode_pattern, encode_name, fold_inbox

LEVELS = 20
NAME_OCTETS = 255
_DOT = b"&AC4-"


def directory(name: str) -> bytes:
    """Return the directory of mailbox `name` below the Maildir, b"" for INBOX. Raises BadMailboxName."""
    name = fold_inbox(name)
    if name == INBOX:
        return b""
    levels = name.split(DELIMITER)
    if len(levels) > LEVELS:
        raise BadMailboxName("That mailbox name has too many levels")
    encoded = b"".join(b"." + _encode(level) for level in levels)
    if len(encoded) > NAME_OCTETS:
        raise BadMailboxName("That mailbox name is too long")
    return encoded


def mailbox(directory_name: bytes) -> str | None:
    """Return the mailbox that a directory of the Maildir is, None when it is none."""
    if directory_name[:1] != b"." or len(directory_name) < 2:
        return None
    try:
        levels = [_decode(level) for level in directory_name[1:].split(b".")]
        name = DELIMITER.join(levels)
        if fold_inbox(name) == name != INBOX and directory(name) == directory_name:
            return name
    except (BadCommand, BadMailboxName):
        pass
    return None


def _encode(level: str) -> bytes:
    if level in ("", ".", ".."):
        raise BadMailboxName("A level of that mailbox name is empty or all dots")
    if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in level):
        raise BadMailboxName("That mailbox name holds control characters")
    return _DOT.join(encode_name(part) for part in level.split("."))


def _decode(level: bytes) -> str:
    return ".".join(decode_pattern(part) for part in level.split(_DOT))
