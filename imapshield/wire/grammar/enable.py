"""ID (RFC 2971), ENABLE (RFC 5161) and COMPRESS (RFC 4978)."""

from __future__ import annotations

from imapshield.errors import BadCommand
from imapshield.wire.commands.enable import Compress, Enable, Id
from imapshield.wire.cursor import Cursor

MAX_ID_FIELDS = 30
"""RFC 2971 section 3.3: "Implementations MUST NOT send more than 30 field-value pairs"."""


def identity(cursor: Cursor) -> Id:
    """``id = "ID" SP ("(" [string SP nstring *(SP string SP nstring)] ")" / nil)`` (RFC 2971)."""
    cursor.space("ID")
    if cursor.skip_word(b"NIL"):
        return Id(())

    cursor.expect(b"(", "Expected NIL or a parenthesised list of names and values")
    cursor.skip(b" ")  # aioimaplib puts a space inside each parenthesis
    fields: list[tuple[bytes, bytes | None]] = []
    while not cursor.skip(b")"):
        name = cursor.string("a field name as a string")
        cursor.space("the field name")
        fields.append((name, cursor.nstring("a string or NIL")))
        if len(fields) > MAX_ID_FIELDS:
            raise BadCommand("ID has more than 30 fields")
        cursor.skip(b" ")
    return Id(tuple(fields))


def enable(cursor: Cursor) -> Enable:
    """``enable = "ENABLE" 1*(SP capability)`` (RFC 5161)."""
    names: list[bytes] = []
    while not names or not cursor.at_end():
        cursor.space("ENABLE and each capability")
        cursor.count_term()
        names.append(cursor.atom("a capability").upper())
    return Enable(tuple(dict.fromkeys(names)))


def compress(cursor: Cursor) -> Compress:
    """``compress = "COMPRESS" SP algorithm`` (RFC 4978)."""
    cursor.space("COMPRESS")
    return Compress(cursor.atom("a compression algorithm").upper())
