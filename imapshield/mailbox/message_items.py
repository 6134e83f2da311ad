"""Computes the values of FETCH items from the bytes of a message, and matches it against SEARCH keys, for every store.

A message is `bytes` as on the wire. Its lines end with CRLF, or with LF alone if a client has stored it so. Its MIME
structure is parsed at most once, and not at all for items that need only the header.
"""

from datetime import UTC, date, datetime

from imapshield.message import date_field, envelope, section, structure, text
from imapshield.message.headers import decode_header, header_values
from imapshield.message.mime_limits import DEFAULT_LIMITS
from imapshield.message.mime_tree import Part, header_end, parse_mime_tree
from imapshield.wire import strings
from imapshield.wire.commands.fetch import Attribute, Binary, BodySection, FetchItem, Preview
from imapshield.wire.commands.search import DateKey, EnvelopeKey, HeaderKey, SearchKey, TextKey

ANSWER_VERSION = 3
"""The version of the answers of this module. A store that caches answers caches the version with them, and does not use
those of another version: a correction in the package ``message`` reaches accounts that have cached answers. Raise it
when any answer changes; ``tests/maildir/test_answer_version.py`` fails until then."""


class MessageItems:
    """One message, from which FETCH items and SEARCH keys are answered.

    Args:
        data: the message, or only its header block if nothing else is needed.
    """

    __slots__ = ("_part", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._part: Part | None = None

    @property
    def part(self) -> Part:
        """The MIME structure."""
        if self._part is None:
            self._part = parse_mime_tree(self.data)
        return self._part

    @property
    def header(self) -> bytes:
        """The header block, including the blank line."""
        return header_block(self.data)

    def value(self, item: FetchItem) -> bytes:
        """Return the value of a FETCH item, ready to send. A string is a complete nstring, or a literal8 for BINARY.

        Raises:
            CommandRefused: UNKNOWN-CTE, from `section.binary_section`.
        """
        match item:
            case Attribute(b"ENVELOPE"):
                return envelope.envelope(self.header)
            case Attribute(b"BODY"):
                return structure.body(self.part, self.data)
            case Attribute(b"BODYSTRUCTURE"):
                return structure.bodystructure(self.part, self.data)
            case Binary(size_only=True):
                content = self.content(item)
                return b"0" if content is None else b"%d" % len(content)
            case Preview():
                preview = text.preview(self.part, self.data)
                return strings.string(preview.encode("utf-8"))
        content = self.content(item)
        if content is None:
            return strings.NIL
        return strings.literal(content, binary=isinstance(item, Binary))

    def content(self, item: FetchItem) -> bytes | None:
        """Return the content of a BODY[…] or BINARY[…] item, or None if there is no such part.

        A partial, such as ``<0.1024>``, is applied (RFC 9051 section 6.4.5.1).

        Raises:
            CommandRefused: UNKNOWN-CTE, from `section.binary_section`.
        """
        assert isinstance(item, (BodySection, Binary))
        content: bytes | None
        if isinstance(item, Binary):
            content = section.binary_section(self.part, self.data, item.path)
        elif not item.section.path and not item.section.text:
            content = self.data
        elif not item.section.path and item.section.text.startswith(b"HEADER"):
            content = self.header
            if item.section.text != b"HEADER":
                content = section.header_fields(
                    content, item.section.fields, item.section.text == b"HEADER.FIELDS.NOT"
                )
        else:
            found = section.body_section(self.part, self.data, item.section)
            content = self.data[found[0] : found[1]] if isinstance(found, tuple) else found
        if content is None or item.partial is None:
            return content
        start, size = item.partial
        return content[start : start + size]

    def matches(self, key: SearchKey) -> bool:
        """Whether the message matches a `HeaderKey`, an `EnvelopeKey`, a `TextKey`, or a `DateKey` for the SENT
        date."""
        match key:
            case HeaderKey(_, wanted) | EnvelopeKey(_, wanted):
                needle = text.normalize(wanted)
                return any(needle in searched for searched in searched_texts(self.header, key))
            case TextKey(wanted, headers):
                needle = text.normalize(wanted)
                return any(
                    text.contains(searched, needle)
                    for searched in text.searchable_texts(self.part, self.data, headers)
                )
            case DateKey(comparison, day, b"SENT"):
                return date_matches(comparison, day, sent_date(self.header))
        raise AssertionError(key)


def header_block(data: bytes) -> bytes:
    """Return the header block of a message, including the blank line that ends it (`mime_tree.header_end`)."""
    end = header_end(data, 0, len(data))
    return data if end < 0 else data[:end]


def searched_texts(header: bytes, key: HeaderKey | EnvelopeKey) -> list[str]:
    """Return the texts that `key` is searched in, normalized with `text.normalize`. A match may not span two of them.

    Args:
        header: the header block of a message.
        key: a `HeaderKey` searches the field as it was written, an `EnvelopeKey` what ENVELOPE shows of it.
    """
    if isinstance(key, EnvelopeKey):
        searched = envelope.search_texts(header, key.field)
    else:
        values = header_values(header[: DEFAULT_LIMITS.header], key.field)
        searched = [decode_header(value) for value in values]
    return [text.normalize(value) for value in searched]


def sent_date(header: bytes) -> date | None:
    """Return the day of the Date field as it is written there, whatever the zone (RFC 9051 section 6.4.4)."""
    values = header_values(header[: DEFAULT_LIMITS.header], b"date")
    sent = date_field.parse_date_field(values[-1]) if values else None
    return None if sent is None else sent.day


def date_matches(comparison: bytes, day: date, value: date | None) -> bool:
    """Whether the date `value` is BEFORE, ON or SINCE (`comparison`) `day`. A missing date matches none of them."""
    if value is None:
        return False
    if comparison == b"BEFORE":
        return value < day
    return value >= day if comparison == b"SINCE" else value == day


def utc_day(epoch: float) -> date:
    """Return the UTC day of an instant in epoch seconds."""
    return datetime.fromtimestamp(epoch, UTC).date()
