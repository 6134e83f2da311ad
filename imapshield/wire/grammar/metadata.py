"""GETMETADATA and SETMETADATA (RFC 5464)."""

import re

from imapshield.errors import BadCommand
from imapshield.wire.commands.mailboxes import GetMetadata, SetMetadata
from imapshield.wire.cursor import Cursor

MAX_ENTRY_LENGTH = 256

# entry = astring ; slash-separated path to entry, MUST NOT contain "*" or "%"
_ENTRY = re.compile(rb"(?:/[ -$&-)+-.0-~]+)+")
_LIST_OF_ENTRIES = re.compile(rb"\( *[/\"]|\(\Z")  # and not of options
_DEPTHS = {b"0": 0, b"1": 1, b"INFINITY": None}


def getmetadata(cursor: Cursor) -> GetMetadata:
    """``getmetadata = "GETMETADATA" [SP getmetadata-options] SP mailbox SP entries``.

    The options may come after the mailbox too, as in the RFC's own examples, and there may be several entries without
    parentheses: clients send both.
    """
    has_options = cursor.peek() == b"("
    options = _options(cursor) if has_options else {}
    mailbox = _mailbox(cursor)
    if not has_options and cursor.peek() == b"(" and not cursor.next_matches(_LIST_OF_ENTRIES):
        options = _options(cursor)
    if cursor.peek() == b"(":
        entries = cursor.list_of(lambda: _entry(cursor), "entries")
    else:
        entries = cursor.list_to_end(lambda: _entry(cursor), "entry")
    max_size, depth = options.get(b"MAXSIZE"), options.get(b"DEPTH", 0)
    return GetMetadata(mailbox, tuple(dict.fromkeys(entries)), max_size, depth)


def _options(cursor: Cursor) -> dict[bytes, int | None]:
    """``getmetadata-options = "(" getmetadata-option *(SP getmetadata-option) ")" SP``."""

    def option() -> tuple[bytes, int | None]:
        name = cursor.word("an option")
        cursor.space("the option")
        if name == b"MAXSIZE":
            return name, cursor.number("a size in bytes")
        if name != b"DEPTH":
            raise BadCommand("Unknown GETMETADATA option")
        depth = cursor.atom("a depth").upper()
        if depth not in _DEPTHS:
            raise BadCommand("Expected a depth of 0, 1 or infinity")
        return name, _DEPTHS[depth]

    options = dict(cursor.list_of(option, "options"))
    cursor.space("the options")
    return options


def setmetadata(cursor: Cursor) -> SetMetadata:
    """``setmetadata = "SETMETADATA" SP mailbox SP entry-values``."""
    mailbox = _mailbox(cursor)

    def value() -> tuple[bytes, bytes | None]:
        entry = _entry(cursor)
        cursor.space("the entry")
        if cursor.skip_word(b"NIL"):
            return entry, None
        if cursor.at_literal():  # a value may be a literal8
            literal = cursor.small_literal("a value")
            return entry, literal.read(0, literal.size)
        return entry, cursor.string("a string or NIL")

    return SetMetadata(mailbox, tuple(cursor.list_of(value, "entries and values")))


def _mailbox(cursor: Cursor) -> str:
    """Read ``mailbox SP``; an empty name is the server."""
    name = cursor.mailbox()
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
