"""Parses the IMAP URLs of CATENATE: relative URLs of a message or a part of one (RFC 5092)."""

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from imapshield.errors import BadCommand
from imapshield.wire.commands.fetch import BodySection
from imapshield.wire.cursor import MAX_NUMBER64, Cursor
from imapshield.wire.grammar.fetch import section_spec
from imapshield.wire.names import MODIFIED_UTF7, NameFormat

# ["/"] [enc-mailbox [";UIDVALIDITY=" nz-number]] ["/"] ";UID=" nz-number ["/;SECTION=" enc-section]
# ["/;PARTIAL=" number ["." nz-number]]; a mailbox name contains ";" only as %3B, so nothing is matched twice
_URL = re.compile(
    rb"(/?)([^;]*?)(?:;UIDVALIDITY=([1-9][0-9]{0,9}))?/?;UID=([1-9][0-9]{0,9})"
    rb"(?:/?;SECTION=([^;]*?))?(?:/?;PARTIAL=([0-9]{1,18})(?:\.([1-9][0-9]{0,17}))?)?/?",
    re.IGNORECASE,
)
_INVALID_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


class MessageUrl(NamedTuple):
    """What a URL refers to: `item` of the message `uid` in `mailbox`. A `uidvalidity` of None means any."""

    mailbox: str
    uidvalidity: int | None
    uid: int
    item: BodySection


def parse(url: bytes, selected: str | None, names: NameFormat = MODIFIED_UTF7) -> MessageUrl:
    """Parse a URL without scheme and server.

    Args:
        url: the URL.
        selected: the selected mailbox, or None. A URL without a leading slash is relative to it. The slash of URLs
            has nothing to do with the separator of mailbox names.
        names: how the client writes mailbox names. In URLs they are always UTF-8.

    Raises:
        BadCommand: it is not the URL of a message, or is relative although no mailbox is selected.
    """
    found = _URL.fullmatch(url)
    if found is None or _INVALID_ESCAPE.search(url):
        raise BadCommand("Expected the URL of a message such as /INBOX/;UID=5")
    slash, name, uidvalidity, uid, text, start, size = found.groups()
    names = names._replace(utf8=True)
    octets = unquote_to_bytes(name)
    if not slash:
        if selected is None:
            raise BadCommand("A relative URL needs a selected mailbox")
        base = names.encode(selected)
        octets = base[: base.rfind(b"/") + 1] + octets if octets else base
    mailbox = names.decode(octets)
    cursor = Cursor([unquote_to_bytes(text or b"") + b"]"])
    section = section_spec(cursor)
    cursor.expect_end()
    partial = None if start is None else (int(start), MAX_NUMBER64 if size is None else int(size))
    item = BodySection(section, peek=True, partial=partial)
    return MessageUrl(mailbox, int(uidvalidity) if uidvalidity else None, int(uid), item)
