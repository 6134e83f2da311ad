"""APPEND, REPLACE, STORE, COPY, MOVE and EXPUNGE, with the UID forms of all but APPEND.

The content of APPEND and REPLACE may use CATENATE (RFC 4469), literal8 (RFC 3516) and UTF8 data (RFC 6855).
"""

import re

from imapshield.errors import BadCommand
from imapshield.wire.commands.base import LiteralData
from imapshield.wire.commands.messages import Append, AppendMessage, Copy, Expunge, Replace, Store
from imapshield.wire.cursor import Cursor, too_many
from imapshield.wire.dates import parse_date_time
from imapshield.wire.flags import RECENT

# store-att-flags = ["+" / "-"] "FLAGS" [".SILENT"]
_FLAGS = re.compile(rb"[+-]?FLAGS(?:\.SILENT)?(?=[ (])", re.IGNORECASE)


def append(cursor: Cursor) -> Append:
    """``append = "APPEND" SP mailbox 1*(SP append-message)`` (RFC 3502)."""
    mailbox = cursor.mailbox()
    cursor.space("the mailbox name")
    messages = cursor.list_to_end(lambda: _message(cursor), "message")
    if len(messages) > cursor.limits.max_append_messages:
        raise BadCommand(too_many("messages in one APPEND", cursor.limits.max_append_messages))
    return Append(mailbox, tuple(messages))


def replace(cursor: Cursor, *, uid: bool = False) -> Replace:
    """``replace = "REPLACE" SP seq-number SP mailbox append-message`` (RFC 8508)."""
    number = None if cursor.skip(b"*") else cursor.nz_number("a message number")
    cursor.space("the message number")
    mailbox = cursor.mailbox()
    cursor.space("the mailbox name")
    return Replace(number, mailbox, _message(cursor), uid)


def _message(cursor: Cursor) -> AppendMessage:
    """``append-message = [flag-list SP] [date-time SP] append-data``."""
    flags: list[bytes] = []
    internaldate = None
    if cursor.peek() == b"(":
        flags = cursor.list_of(cursor.flag, "flags", allow_empty=True)
        cursor.space("the flags")
    if cursor.peek() == b'"':
        internaldate = parse_date_time(cursor.quoted("a date and time"))
        cursor.space("the date and time")
    content: LiteralData | tuple[LiteralData | bytes, ...]
    if cursor.skip_word(b"UTF8"):
        content = _utf8_literal(cursor)
    elif cursor.skip_word(b"CATENATE"):
        cursor.space("CATENATE")
        content = tuple(cursor.list_of(lambda: _part(cursor), "parts"))
        if sum(isinstance(part, bytes) for part in content) > cursor.limits.max_fetch_items:
            raise BadCommand(too_many("URLs in one CATENATE", cursor.limits.max_fetch_items))
    else:
        content = cursor.literal("a message")
    # Copying tools send the flags that a message has on another server. \Recent cannot be set, but ignoring it is
    # better than losing the message.
    settable = tuple(dict.fromkeys(flag for flag in flags if flag != RECENT))
    return AppendMessage(settable, internaldate, content)


def _part(cursor: Cursor) -> LiteralData | bytes:
    """``cat-part = "TEXT" SP literal / "URL" SP astring`` (RFC 4469), or UTF8 data (RFC 6855)."""
    word = cursor.word("TEXT or URL")
    if word == b"UTF8":
        return _utf8_literal(cursor)
    cursor.space("TEXT or URL")
    if word == b"TEXT":
        return cursor.literal("a text")
    if word == b"URL":
        return cursor.astring("a URL")
    raise BadCommand("Expected TEXT or URL")


def _utf8_literal(cursor: Cursor) -> LiteralData:
    """``SP "(" literal8 ")"`` after UTF8 (RFC 6855 section 4)."""
    cursor.space("UTF8")
    cursor.expect(b"(", "Expected ( after UTF8")
    literal = cursor.literal("a message")
    cursor.expect(b")", "Expected ) after the message")
    return literal


def store(cursor: Cursor, *, uid: bool = False) -> Store:
    """``store = "STORE" SP sequence-set [SP store-modifiers] SP store-att-flags``."""
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
        flags = cursor.list_to_end(cursor.flag, "flag")
    if RECENT in flags:
        raise BadCommand("Only the server can change \\Recent")
    return tuple(dict.fromkeys(flags))


def copy(cursor: Cursor, *, uid: bool = False, move: bool = False) -> Copy:
    """``copy = ("COPY" / "MOVE") SP sequence-set SP mailbox`` (MOVE: RFC 6851)."""
    sequence = cursor.sequence_set()
    cursor.space("the sequence set")
    return Copy(sequence, cursor.mailbox(), uid, move)


def uid_expunge(cursor: Cursor) -> Expunge:
    """``uid-expunge = "UID" SP "EXPUNGE" SP sequence-set`` (RFC 4315)."""
    return Expunge(cursor.sequence_set())
