"""APPEND and REPLACE, with MULTIAPPEND (RFC 3502), CATENATE (RFC 4469), literal8 and UTF8 data (RFC 6855)."""

from __future__ import annotations

from imapshield.errors import BadCommand
from imapshield.wire.commands.append import Append, AppendMessage, Replace
from imapshield.wire.commands.base import LiteralData
from imapshield.wire.cursor import Cursor
from imapshield.wire.dates import parse_date_time
from imapshield.wire.flags import RECENT


def append(cursor: Cursor) -> Append:
    """``append = "APPEND" SP mailbox 1*(SP append-message)`` (RFC 3502)."""
    cursor.space("APPEND")
    mailbox = cursor.mailbox()
    messages: list[AppendMessage] = []
    while not messages or not cursor.at_end():
        if len(messages) == cursor.limits.max_append_messages:
            raise BadCommand("APPEND has too many messages")
        cursor.space("the mailbox name and after each message")
        messages.append(_message(cursor))
    return Append(mailbox, tuple(messages))


def replace(cursor: Cursor, *, uid: bool = False) -> Replace:
    """``replace = "REPLACE" SP seq-number SP mailbox append-message`` (RFC 8508)."""
    cursor.space("REPLACE")
    number = None if cursor.skip(b"*") else cursor.nz_number("a message number")
    cursor.space("the message number")
    mailbox = cursor.mailbox()
    cursor.space("the mailbox name")
    return Replace(number, mailbox, _message(cursor), uid)


def _message(cursor: Cursor) -> AppendMessage:
    """``append-message = [flag-list SP] [date-time SP] append-data``."""
    flags: list[bytes] = []
    internaldate, zone_minutes = None, 0
    if cursor.peek() == b"(":
        # Copying tools send the flags that a message has on another server. \Recent cannot be set, but ignoring it is
        # better than losing the message.
        flags = [
            flag
            for flag in cursor.list_of(cursor.flag, "flags", allow_empty=True)
            if flag != RECENT
        ]
        cursor.space("the flags")
    if cursor.peek() == b'"':
        internaldate, zone_minutes = parse_date_time(cursor.quoted("a date and time"))
        cursor.space("the date and time")
    content: LiteralData | tuple[LiteralData | bytes, ...]
    if cursor.skip_word(b"UTF8"):
        content = _utf8_literal(cursor)
    elif cursor.skip_word(b"CATENATE"):
        cursor.space("CATENATE")
        content = tuple(cursor.list_of(lambda: _part(cursor), "parts"))
        if sum(isinstance(part, bytes) for part in content) > cursor.limits.max_fetch_items:
            raise BadCommand("CATENATE has too many URLs")
    else:
        content = cursor.literal("a message")
    return AppendMessage(tuple(dict.fromkeys(flags)), internaldate, content, zone_minutes)


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
