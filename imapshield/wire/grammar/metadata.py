"""GETMETADATA and SETMETADATA (RFC 5464)."""

from __future__ import annotations

import re

from imapshield.errors import BadCommand
from imapshield.wire.commands.metadata import GetMetadata, SetMetadata
from imapshield.wire.cursor import Cursor
from imapshield.wire.names import decode_name

MAX_ENTRY_LENGTH = 256

# entry = astring ; slash-separated path to entry, MUST NOT contain "*" or "%"
_ENTRY = re.compile(rb"(?:/[ -$&-)+-.0-~]+)+")
_ENTRIES = re.compile(rb"\( *[/\"]|\(\Z")  # not of options
_DEPTHS = {b"0": 0, b"1": 1, b"INFINITY": None}


def getmetadata(cursor: Cursor) -> GetMetadata:
    """``getmetadata = "GETMETADATA" [SP getmetadata-options] SP mailbox SP entries``.

    The RFC's own examples have the options behind the mailbox, and so do clients; or several entries without
    parentheses.
    """
    cursor.space("GETMETADATA")
    most: int | None = None
    depth: int | None = 0

    def option() -> None:
        nonlocal most, depth
        word = cursor.word("an option")
        cursor.space("the option")
        if word == b"MAXSIZE":
            most = cursor.number("a number of octets")
        elif word == b"DEPTH":
            given = cursor.atom("a depth").upper()
            if given not in _DEPTHS:
                raise BadCommand("DEPTH is 0, 1 or infinity")
            depth = _DEPTHS[given]
        else:
            raise BadCommand("Unknown option of GETMETADATA")

    def entry() -> bytes:
        return _entry(cursor)

    def options() -> bool:
        if cursor.peek() != b"(":
            return False
        cursor.list_of(option, "options")
        cursor.space("the options")
        return True

    before = options()
    mailbox = _mailbox(cursor)
    if not before and cursor.peek() == b"(" and not cursor.next_matches(_ENTRIES):
        options()
    if cursor.peek() == b"(":
        entries = cursor.list_of(entry, "entries")
    else:
        entries = [_entry(cursor)]
        while not cursor.at_end():
            cursor.space("each entry")
            cursor.count_term()
            entries.append(_entry(cursor))
    return GetMetadata(mailbox, tuple(dict.fromkeys(entries)), most, depth)


def setmetadata(cursor: Cursor) -> SetMetadata:
    """``setmetadata = "SETMETADATA" SP mailbox SP entry-values``."""
    cursor.space("SETMETADATA")
    mailbox = _mailbox(cursor)

    def value() -> tuple[bytes, bytes | None]:
        entry = _entry(cursor)
        cursor.space("the entry")
        if cursor.skip_word(b"NIL"):
            return entry, None
        if cursor.at_literal():  # a literal8 is right here
            octets = cursor.literal("a value")
            if octets.size > cursor.limits.max_string_size:
                raise BadCommand("This value is too long")
            return entry, octets.read(0, octets.size)
        return entry, cursor.string("a string or NIL")

    return SetMetadata(mailbox, tuple(cursor.list_of(value, "entries and values")))


def _mailbox(cursor: Cursor) -> str:
    """Read the mailbox; an empty one is the server."""
    name = decode_name(cursor.astring("a mailbox name"), cursor.utf8)
    cursor.space("the mailbox name")
    return name


def _entry(cursor: Cursor) -> bytes:
    """Read ``entry``, in lower case: it is compared without case."""
    entry = cursor.astring("an entry name")
    if len(entry) > MAX_ENTRY_LENGTH or _ENTRY.fullmatch(entry) is None:
        raise BadCommand("This is no name of an entry")
    entry = entry.lower()
    if not entry.startswith((b"/private/", b"/shared/")):
        raise BadCommand("Entries begin with /private/ or /shared/")
    return entry
