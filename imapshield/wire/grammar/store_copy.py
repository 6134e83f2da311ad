"""STORE, COPY, MOVE and EXPUNGE, each with its UID form."""

from __future__ import annotations

import re

from imapshield.errors import BadCommand
from imapshield.wire.commands.store_copy import Copy, Expunge, Store
from imapshield.wire.cursor import Cursor
from imapshield.wire.flags import RECENT

# store-att-flags = ["+" / "-"] "FLAGS" [".SILENT"]
_FLAGS = re.compile(rb"[+-]?FLAGS(?:\.SILENT)?(?=[ (])", re.IGNORECASE)


def store(cursor: Cursor, *, uid: bool = False) -> Store:
    """``store = "STORE" SP sequence-set [SP store-modifiers] SP store-att-flags``."""
    cursor.space("STORE")
    sequence = cursor.sequence_set()
    cursor.space("the sequence set")
    unchanged_since: int | None = None

    def modifier() -> None:
        nonlocal unchanged_since
        if not cursor.skip_word(b"UNCHANGEDSINCE"):
            raise BadCommand("Unknown STORE modifier")
        if unchanged_since is not None:
            raise BadCommand("UNCHANGEDSINCE may be given only once")
        cursor.space("UNCHANGEDSINCE")
        unchanged_since = cursor.number64("a MODSEQ")

    if cursor.peek() == b"(":
        cursor.list_of(modifier, "modifiers")
        cursor.space("the modifiers")
    word = cursor.match(_FLAGS, "FLAGS, +FLAGS or -FLAGS").upper()
    operation = word[:1] if word[:1] in b"+-" else b""
    cursor.space("FLAGS")
    return Store(
        sequence, operation, _flags(cursor), word.endswith(b".SILENT"), uid, unchanged_since
    )


def _flags(cursor: Cursor) -> tuple[bytes, ...]:
    r"""``flag-list / (flag *(SP flag))``; the second form has no parentheses, as in ``FLAGS \Seen``."""
    if cursor.peek() == b"(":
        flags = cursor.list_of(cursor.flag, "flags", allow_empty=True)
    else:
        flags = [cursor.flag()]
        while not cursor.at_end():
            cursor.space("each flag")
            cursor.count_term()
            flags.append(cursor.flag())
    if RECENT in flags:
        raise BadCommand("Only the server can change \\Recent")
    return tuple(dict.fromkeys(flags))


def copy(cursor: Cursor, *, uid: bool = False, move: bool = False) -> Copy:
    """``copy = ("COPY" / "MOVE") SP sequence-set SP mailbox`` (MOVE: RFC 6851)."""
    cursor.space("COPY or MOVE")
    sequence = cursor.sequence_set()
    cursor.space("the sequence set")
    return Copy(sequence, cursor.mailbox(), uid, move)


def uid_expunge(cursor: Cursor) -> Expunge:
    """``uid-expunge = "UID" SP "EXPUNGE" SP sequence-set`` (RFC 4315)."""
    cursor.space("UID EXPUNGE")
    return Expunge(cursor.sequence_set())
