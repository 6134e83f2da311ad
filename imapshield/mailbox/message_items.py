"""A message's bytes → the answer to a FETCH item or a SEARCH key: what every store has in common.

`data` is the message as on the wire, lines ending in CRLF. An `OpenedMailbox` message is scanned once for all the items that
are asked of it, and not at all for those that need only its header.
"""

from __future__ import annotations

from datetime import UTC, date, datetime

from imapshield.message import date_field, envelope, section, structure, text
from imapshield.message.headers import decode_header, header_values
from imapshield.message.mime_tree import Part, parse_mime_tree
from imapshield.wire import encode
from imapshield.wire.commands.fetch import Attribute, Binary, BodySection, FetchItem, Preview
from imapshield.wire.commands.search_keys import DateKey, EnvelopeKey, HeaderKey, SearchKey, TextKey

_HEADER_END = b"\r\n\r\n"


class MessageItems:
    """One message being asked about."""

    __slots__ = ("_part", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._part: Part | None = None

    @property
    def part(self) -> Part:
        """Its MIME structure."""
        if self._part is None:
            self._part = parse_mime_tree(self.data)
        return self._part

    @property
    def header(self) -> bytes:
        """Its header, blank line included."""
        return header_block(self.data)

    def value(self, item: FetchItem) -> bytes:
        """Return the answer to `item`, ready to send: a complete nstring where it is a string."""
        match item:
            case Attribute(b"ENVELOPE"):
                return envelope.envelope(self.header)
            case Attribute(b"BODY"):
                return structure.body(self.part, self.data)
            case Attribute(b"BODYSTRUCTURE"):
                return structure.bodystructure(self.part, self.data)
            case Binary(size_only=True):
                octets = self.content(item)
                return b"0" if octets is None else b"%d" % len(octets)
            case Preview():
                shown = text.preview(self.part, self.data)
                return encode.string(shown.encode("utf-8"))
        octets = self.content(item)
        if octets is None:
            return encode.NIL
        return encode.literal(octets, binary=isinstance(item, Binary))

    def content(self, item: FetchItem) -> bytes | None:
        """Return what a BODY[…] or BINARY[…] stands for, its partial cut out; None where there is no such part."""
        assert isinstance(item, (BodySection, Binary))
        octets: bytes | None
        if isinstance(item, Binary):
            octets = section.binary_section(self.part, self.data, item.path)
        elif not item.section.path and not item.section.text:
            octets = self.data
        elif not item.section.path and item.section.text.startswith(b"HEADER"):
            octets = self.header
            if item.section.text != b"HEADER":
                octets = section.header_fields(
                    octets, item.section.fields, item.section.text == b"HEADER.FIELDS.NOT"
                )
        else:
            found = section.body_section(self.part, self.data, item.section)
            octets = self.data[found[0] : found[1]] if isinstance(found, tuple) else found
        if octets is None or item.partial is None:
            return octets
        start, size = item.partial
        return octets[start : start + size]

    def matches(self, key: SearchKey) -> bool:
        """Whether the message matches a HeaderHas, an EnvelopeHas, a TextHas, or a DateIs on the Date field."""
        match key:
            case HeaderKey(_, wanted) | EnvelopeKey(_, wanted):
                needle = text.normalize(wanted)
                return any(needle in shown for shown in searched_texts(self.header, key))
            case TextKey(wanted, headers):
                needle = text.normalize(wanted)
                return any(
                    text.contains(shown, needle)
                    for shown in text.searchable_texts(self.part, self.data, headers)
                )
            case DateKey(how, day, b"SENT"):
                return date_matches(how, day, sent_date(self.header))
        raise AssertionError(key)


def header_block(data: bytes) -> bytes:
    """Return the header of a message, with the blank line that ends it."""
    if data.startswith(b"\r\n"):
        return data[:2]
    end = data.find(_HEADER_END)
    return data if end < 0 else data[: end + 4]


def searched_texts(header: bytes, key: HeaderKey | EnvelopeKey) -> list[str]:
    """Return the texts that `key` is looked for in, each by itself."""
    if isinstance(key, EnvelopeKey):
        shown = envelope.search_texts(header, key.field)
    else:
        shown = [decode_header(value) for value in header_values(header, key.field)]
    return [text.normalize(one) for one in shown]


def sent_date(header: bytes) -> date | None:
    """Return the day of the Date field as it was written there, whatever the zone (RFC 9051 section 6.4.4)."""
    values = header_values(header, b"date")
    sent = date_field.parse_date_field(values[-1]) if values else None
    return None if sent is None else sent.day


def date_matches(how: bytes, day: date, found: date | None) -> bool:
    """Whether a date is BEFORE, ON or SINCE `day`; no date is none of them."""
    if found is None:
        return False
    if how == b"BEFORE":
        return found < day
    return found >= day if how == b"SINCE" else found == day


def utc_day(epoch: float) -> date:
    """Return the UTC day of an instant."""
    return datetime.fromtimestamp(epoch, UTC).date()
