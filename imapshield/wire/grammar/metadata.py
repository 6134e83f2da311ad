"""GETMETADATA and SETMETADATA (RFC 5464)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from imapshield.errors import BadCommand
from imapshield.wire.commands.metadata import GetMetadata, SetMetadata
from imapshield.wire.cursor import Cursor
from imapshield.wire.names import decode_name

MAX_ENTRY_LENGTH = 256

# entry = astring ; slash-separated path to entry, MUST NOT contain "*" or "%"
_ENTRY = re.compile(rb"(?:/[ -$&-)+-.0-~]+)+")
_LIST_OF_ENTRIES = re.compile(rb"\( *[/\"]|\(\Z")  # and not of options
_DEPTHS = {b"0": 0, b"1": 1, b"INFINITY": None}


@dataclass(slots=True)
class _Options:
    """The options of GETMETADATA, with their defaults; `GetMetadata` describes them."""

    max_size: int | None = None
    depth: int | None = 0


def getmetadata(cursor: Cursor) -> GetMetadata:
    """``getmetadata = "GETMETADATA" [SP getmetadata-options] SP mailbox SP entries``.

    The options may come after the mailbox too, as in the RFC's own examples, and there may be several entries without
    parentheses: clients send both.
    """
    cursor.space("GETMETADATA")
    options = _Options()
    has_options = cursor.peek() == b"("
    if has_options:
        _read_options(cursor, options)
    mailbox = _mailbox(cursor)
    if not has_options and cursor.peek() == b"(" and not cursor.next_matches(_LIST_OF_ENTRIES):
        _read_options(cursor, options)
    entries = tuple(dict.fromkeys(_entries(cursor)))
    return GetMetadata(mailbox, entries, options.max_size, options.depth)


def _read_options(cursor: Cursor, options: _Options) -> None:
    """``getmetadata-options = "(" getmetadata-option *(SP getmetadata-option) ")" SP``."""

    def option() -> None:
        name = cursor.word("an option")
        cursor.space("the option")
        if name == b"MAXSIZE":
            options.max_size = cursor.number("a size in bytes")
        elif name == b"DEPTH":
            depth = cursor.atom("a depth").upper()
            if depth not in _DEPTHS:
                raise BadCommand("Expected a depth of 0, 1 or infinity")
            options.depth = _DEPTHS[depth]
        else:
            raise BadCommand("Unknown GETMETADATA option")

    cursor.list_of(option, "options")
    cursor.space("the options")


def _entries(cursor: Cursor) -> list[bytes]:
    """``entries = entry / "(" entry *(SP entry) ")"``, or several entries without parentheses."""
    if cursor.peek() == b"(":
        return cursor.list_of(lambda: _entry(cursor), "entries")
    entries = [_entry(cursor)]
    while not cursor.at_end():
        cursor.space("each entry")
        cursor.count_term()
        entries.append(_entry(cursor))
    return entries


def setmetadata(cursor: Cursor) -> SetMetadata:
    """``setmetadata = "SETMETADATA" SP mailbox SP entry-values``."""
    cursor.space("SETMETADATA")
    mailbox = _mailbox(cursor)

    def value() -> tuple[bytes, bytes | None]:
        entry = _entry(cursor)
        cursor.space("the entry")
        if cursor.skip_word(b"NIL"):
            return entry, None
        if cursor.at_literal():  # a value may be a literal8
            literal = cursor.literal("a value")
            if literal.size > cursor.limits.max_string_size:
                raise BadCommand("The value is too long")
            return entry, literal.read(0, literal.size)
        return entry, cursor.string("a string or NIL")

    return SetMetadata(mailbox, tuple(cursor.list_of(value, "entries and values")))


def _mailbox(cursor: Cursor) -> str:
    """Read ``mailbox SP``; an empty name is the server."""
    name = decode_name(cursor.astring("a mailbox name"), cursor.utf8)
    cursor.space("the mailbox name")
    return name


def _entry(cursor: Cursor) -> bytes:
    """Read ``entry``; return it in lower case, because entries are compared without case."""
    entry = cursor.astring("an entry name")
    if len(entry) > MAX_ENTRY_LENGTH or _ENTRY.fullmatch(entry) is None:
        raise BadCommand("Expected an entry name such as /private/comment")
    entry = entry.lower()
    if not entry.startswith((b"/private/", b"/shared/")):
        raise BadCommand("Expected an entry name that begins with /private/ or /shared/")
    return entry
