"""APPEND, with MULTIAPPEND, CATENATE, literal8 and RFC 6855's UTF8 data, and REPLACE."""

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
        cursor.space("the mailbox name and each message")
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
    internaldate, zone = None, 0
    if cursor.peek() == b"(":
        # Copying tools send the flags that another server had. \Recent cannot be set, and is no
        # reason to lose mail.
        given = cursor.list_of(cursor.flag, "flags", allow_empty=True)
        flags = [flag for flag in given if flag != RECENT]
        cursor.space("the flags")
    if cursor.peek() == b'"':
        internaldate, zone = parse_date_time(cursor.quoted("a date and time"))
        cursor.space("the date and time")
    content: LiteralData | tuple[LiteralData | bytes, ...]
    if cursor.skip_word(b"UTF8"):
        content = _utf8(cursor)
    elif cursor.skip_word(b"CATENATE"):
        cursor.space("CATENATE")
        content = tuple(cursor.list_of(lambda: _part(cursor), "parts"))
        if sum(isinstance(part, bytes) for part in content) > cursor.limits.max_fetch_items:
            raise BadCommand("CATENATE has too many URLs")
    else:
        content = cursor.literal("a message")
    return AppendMessage(tuple(dict.fromkeys(flags)), internaldate, content, zone)


def _part(cursor: Cursor) -> LiteralData | bytes:
    """``cat-part = "TEXT" SP literal / "URL" SP astring`` (RFC 4469), or UTF8 data."""
    word = cursor.word("TEXT or URL")
    if word == b"UTF8":
        return _utf8(cursor)
    cursor.space("the kind of part")
    if word == b"TEXT":
        return cursor.literal("a text")
    if word == b"URL":
        return cursor.astring("a URL")
    raise BadCommand("Expected TEXT or URL")


def _utf8(cursor: Cursor) -> LiteralData:
    cursor.space("UTF8")
    cursor.expect(b"(", "Expected a parenthesis after UTF8")
    octets = cursor.literal("a message")
    cursor.expect(b")", "Expected a parenthesis after the message")
    return octets
