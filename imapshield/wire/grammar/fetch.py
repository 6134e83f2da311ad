"""FETCH and UID FETCH (RFC 9051 section 6.4.5), with the items and modifiers of all supported extensions.

These are BINARY, PREVIEW, OBJECTID, SAVEDATE, CONDSTORE, QRESYNC and PARTIAL.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from imapshield.errors import BadCommand
from imapshield.wire.commands.fetch import (
    Attribute,
    Binary,
    BodySection,
    Fetch,
    FetchItem,
    Preview,
    Section,
)
from imapshield.wire.cursor import Cursor, GrammarLimits, too_many

_FAST: tuple[FetchItem, ...] = tuple(map(Attribute, (b"FLAGS", b"INTERNALDATE", b"RFC822.SIZE")))
_ALL = (*_FAST, Attribute(b"ENVELOPE"))

MACROS: dict[bytes, tuple[FetchItem, ...]] = {
    b"FAST": _FAST,
    b"ALL": _ALL,
    b"FULL": (*_ALL, Attribute(b"BODY")),
}

ITEMS: dict[bytes, FetchItem] = {
    b"RFC822": BodySection(Section(), label=b"RFC822"),
    # The only one of the three that does not set \Seen (RFC 3501 section 6.4.5).
    b"RFC822.HEADER": BodySection(Section(text=b"HEADER"), peek=True, label=b"RFC822.HEADER"),
    b"RFC822.TEXT": BodySection(Section(text=b"TEXT"), label=b"RFC822.TEXT"),
    **{
        name: Attribute(name)
        for name in (
            b"UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODY BODYSTRUCTURE MODSEQ EMAILID"
            b" THREADID SAVEDATE"
        ).split()
    },
}

_SECTION_TEXTS = frozenset(b"HEADER HEADER.FIELDS HEADER.FIELDS.NOT TEXT MIME".split())
_LAZY = re.compile(rb" \(LAZY\)", re.IGNORECASE)
_DIGIT = re.compile(rb"(?=[0-9])")
# BODYSTRUCTURE shows as many levels, so a client can fetch every part that it sees there.
_MAX_PATH_LENGTH = 100

_REMEMBERED, _REMEMBERED_SIZE = 128, 200
"""How many arguments of FETCH are remembered, of all sessions together, and how long they may be. Each takes some
kilobytes at most."""


class _Arguments(NamedTuple):
    """The arguments of FETCH behind the sequence set; `Fetch` describes them."""

    items: tuple[FetchItem, ...]
    changed_since: int | None
    vanished: bool
    partial: tuple[int, int] | None


def fetch(cursor: Cursor, *, uid: bool = False) -> Fetch:
    """``fetch = "FETCH" SP sequence-set SP (macro / fetch-att / list) [SP fetch-modifiers]``."""
    sequence = cursor.sequence_set()
    cursor.space("the sequence set")
    text = cursor.rest()
    if text is not None and len(text) <= _REMEMBERED_SIZE and text.isascii():
        arguments = _remembered_arguments(text, uid, cursor.limits)
        cursor.skip(text)
    else:
        arguments = _arguments(cursor, uid)
    items, changed_since, vanished, partial = arguments
    return Fetch(sequence, items, uid, changed_since, vanished, partial)


@lru_cache(_REMEMBERED)
def _remembered_arguments(text: bytes, uid: bool, limits: GrammarLimits) -> _Arguments:
    """Return the arguments that `text` contains, which is the rest of a command without literals.

    Clients send the same ones again and again, and to parse them takes as long as to find a message. Only ASCII is
    remembered: whether other text is permitted depends on the session.
    """
    cursor = Cursor((text,), limits)
    arguments = _arguments(cursor, uid)
    cursor.expect_end()
    return arguments


def _arguments(cursor: Cursor, uid: bool) -> _Arguments:
    if cursor.peek() == b"(":
        items = item_list(cursor)
    else:
        word = cursor.word("a FETCH item")
        items = MACROS.get(word) or (_named_item(cursor, word),)
    changed_since: int | None = None
    vanished = False
    partial: tuple[int, int] | None = None

    def modifier() -> None:
        nonlocal changed_since, vanished, partial
        word = cursor.word("a modifier")
        if word == b"CHANGEDSINCE":
            cursor.space("CHANGEDSINCE")
            changed_since = cursor.number64("a MODSEQ")
        elif word == b"VANISHED":
            vanished = True
        elif word == b"PARTIAL":
            cursor.space("PARTIAL")
            partial = partial_range(cursor)
        else:
            raise BadCommand("Unknown FETCH modifier")

    if not cursor.at_end():
        cursor.space("the FETCH items")
        cursor.list_of(modifier, "modifiers")
    if vanished and (not uid or changed_since is None):
        raise BadCommand("VANISHED needs UID FETCH and CHANGEDSINCE")
    if partial is not None and not uid:
        raise BadCommand("PARTIAL needs UID FETCH")
    return _Arguments(items, changed_since, vanished, partial)


def partial_range(cursor: Cursor) -> tuple[int, int]:
    """``partial-range = nz-number ":" nz-number / "-" nz-number ":" "-" nz-number`` (RFC 9394).

    Returns:
        The range with the smaller position first: "500:400 is the same as 400:500". The response repeats it in this
        form, as Dovecot does and imaptest requires. A negative range is -1:-100, as in the examples of section 3.1.
    """
    sign = -1 if cursor.skip(b"-") else 1
    first = cursor.nz_number("a range such as 1:500")
    cursor.expect(b":", "Expected a colon in the range")
    if sign < 0:
        cursor.expect(b"-", "Expected both ends of the range to be negative")
    last = cursor.nz_number("a range such as 1:500")
    return sign * min(first, last), sign * max(first, last)


def item_list(cursor: Cursor) -> tuple[FetchItem, ...]:
    """``"(" fetch-att *(SP fetch-att) ")"``; return each item once.

    A line can name BODY[] 2,300 times, and the responses would contain 2,300 copies of every message.
    """
    items = tuple(dict.fromkeys(cursor.list_of(lambda: fetch_item(cursor), "FETCH items")))
    if len(items) > cursor.limits.max_fetch_items:
        raise BadCommand(too_many("FETCH items in one command", cursor.limits.max_fetch_items))
    return items


def fetch_item(cursor: Cursor) -> FetchItem:
    """``fetch-att``."""
    return _named_item(cursor, cursor.word("a FETCH item"))


def _named_item(cursor: Cursor, word: bytes) -> FetchItem:
    if cursor.skip(b"["):
        if word in (b"BODY", b"BODY.PEEK"):
            section = section_spec(cursor)
            return BodySection(section, word == b"BODY.PEEK", _partial(cursor))
        if word in (b"BINARY", b"BINARY.PEEK", b"BINARY.SIZE"):
            path, ends_with_dot = _path(cursor)
            if ends_with_dot:
                raise BadCommand("Expected a part number")
            cursor.expect(b"]", "Expected ] after the part number")
            if word == b"BINARY.SIZE":
                return Binary(path, size_only=True)
            return Binary(path, word == b"BINARY.PEEK", _partial(cursor))
    elif word == b"PREVIEW":
        # Outside a list of items, the modifiers of FETCH may follow here, and they have parentheses too.
        return Preview(lazy=cursor.try_match(_LAZY) is not None)
    elif (item := ITEMS.get(word)) is not None:
        return item
    raise BadCommand("Unknown FETCH item")


def section_spec(cursor: Cursor) -> Section:
    """``section-spec "]"``: ``section-msgtext / (section-part ["." section-text])``, or nothing."""
    path, ends_with_dot = _path(cursor)
    if cursor.skip(b"]"):
        if ends_with_dot:
            raise BadCommand("Expected a part number or HEADER, TEXT or MIME")
        return Section(path)
    if path and not ends_with_dot:
        raise BadCommand("Expected ] after the part number")
    text = cursor.word("a section such as HEADER or TEXT")
    if text not in _SECTION_TEXTS or (text == b"MIME" and not path):
        raise BadCommand(
            "Unknown section: expected HEADER, HEADER.FIELDS, HEADER.FIELDS.NOT, TEXT or MIME"
        )
    fields: tuple[bytes, ...] = ()
    if text.startswith(b"HEADER.FIELDS"):
        cursor.space("HEADER.FIELDS")
        fields = tuple(cursor.list_of(lambda: field_name(cursor), "header fields"))
    cursor.expect(b"]", "Expected ] after the section")
    return Section(path, text, fields)


def _path(cursor: Cursor) -> tuple[tuple[int, ...], bool]:
    """``[section-part = nz-number *("." nz-number)]``; return it, and whether a dot follows it."""
    path: list[int] = []
    ends_with_dot = False
    while cursor.try_match(_DIGIT) is not None:
        if len(path) == _MAX_PATH_LENGTH:
            raise BadCommand(f"A part number has at most {_MAX_PATH_LENGTH} levels")
        path.append(cursor.nz_number("a part number"))
        ends_with_dot = cursor.skip(b".")
        if not ends_with_dot:
            break
    return tuple(path), ends_with_dot


def _partial(cursor: Cursor) -> tuple[int, int] | None:
    """``partial = "<" number64 "." nz-number64 ">"``."""
    if not cursor.skip(b"<"):
        return None
    offset = cursor.number64("an offset")
    cursor.expect(b".", "Expected a dot after the offset")
    size = cursor.nz_number64("a size")
    cursor.expect(b">", "Expected > after the size")
    return offset, size


def field_name(cursor: Cursor) -> bytes:
    """``header-fld-name = astring``.

    It may be a name that no header field can have, but it cannot contain a line break: the response repeats it.
    """
    name = cursor.astring("the name of a header field")
    if b"\r" in name or b"\n" in name:
        raise BadCommand("Expected the name of a header field without line breaks")
    return name
