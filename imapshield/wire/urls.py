"""IMAP URLs (RFC 5092) that name a message or a part of one, relative to the mailbox that is selected."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from imapshield.errors import BadCommand
from imapshield.wire.commands.fetch import BodySection
from imapshield.wire.cursor import MAX_NUMBER64, Cursor
from imapshield.wire.grammar.fetch import section_spec
from imapshield.wire.names import DELIMITER, decode_name

# ["/"] [enc-mailbox [";UIDVALIDITY=" nz-number]] ["/"] ";UID=" nz-number ["/;SECTION=" enc-section]
# ["/;PARTIAL=" number ["." nz-number]]; a mailbox of its own cannot hold ";" but as %3B, so no octet is tried twice
_URL = re.compile(
    rb"(/?)([^;]*?)(?:;UIDVALIDITY=([1-9][0-9]{0,9}))?/?;UID=([1-9][0-9]{0,9})"
    rb"(?:/?;SECTION=([^;]*?))?(?:/?;PARTIAL=([0-9]{1,18})(?:\.([1-9][0-9]{0,17}))?)?/?",
    re.IGNORECASE,
)
_NO_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


class MessageUrl(NamedTuple):
    """A message by its UID, and what of it; `uidvalidity` None is any."""

    mailbox: str
    uidvalidity: int | None
    uid: int
    item: BodySection


def parse(url: bytes, selected: str | None) -> MessageUrl:
    """Return what a URL without scheme and server means while the mailbox `selected` is; Malformed for any other."""
    found = _URL.fullmatch(url)
    if found is None or _NO_ESCAPE.search(url):
        raise BadCommand("Expected the URL of a message")
    slash, name, uidvalidity, uid, text, start, size = found.groups()
    mailbox = decode_name(unquote_to_bytes(name), utf8=True)
    if not slash:
        if selected is None:
            raise BadCommand("There is no mailbox that the URL is relative to")
        parent, delimiter, _ = selected.rpartition(DELIMITER)
        mailbox = parent + delimiter + mailbox if mailbox else selected
    cursor = Cursor([unquote_to_bytes(text or b"") + b"]"])
    section = section_spec(cursor)
    cursor.expect_end()
    partial = None if start is None else (int(start), MAX_NUMBER64 if size is None else int(size))
    item = BodySection(section, peek=True, partial=partial)
    return MessageUrl(mailbox, int(uidvalidity) if uidvalidity else None, int(uid), item)
