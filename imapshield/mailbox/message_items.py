"""Computes the values of FETCH items from the bytes of a message, and matches it against SEARCH keys, for every store.

A message is `bytes` as on the wire. Its lines end with CRLF, or with LF alone if a client has stored it so. Its MIME
structure is parsed at most once, and not at all for items that need only the header.
"""

from collections.abc import Iterable
from datetime import UTC, date, datetime

from imapshield.message import (
    date_field,
    envelope,
    envelope_answer,
    ordinary_structure,
    section,
    structure,
    text,
)
from imapshield.message.addresses import parse_addresses
from imapshield.message.headers import decode_header, header_end, header_values
from imapshield.message.mime_limits import DEFAULT_LIMITS
from imapshield.message.mime_tree import Part, parse_mime_tree
from imapshield.message.ordinary import ENVELOPE_FIELDS, Memo, envelope_fields
from imapshield.wire import strings
from imapshield.wire.commands.fetch import Attribute, Binary, BodySection, FetchItem, Preview
from imapshield.wire.commands.search import DateKey, EnvelopeKey, HeaderKey, SearchKey, TextKey

ANSWER_VERSION = 6
"""The version of the answers of this module. A store that caches answers caches the version with them, and does not use
those of another version: a correction in the package ``message`` reaches accounts that have cached answers. Raise it
when any answer changes; ``tests/maildir/test_answer_version.py`` fails until then."""

RECORD_FIELDS = frozenset(
    (
        *(b"date", b"subject", b"from", b"sender", b"reply-to", b"to", b"cc", b"bcc"),
        *(b"message-id", b"in-reply-to", b"references", b"content-type", b"mime-version"),
        *(b"priority", b"x-priority", b"importance", b"auto-submitted", b"precedence"),
        *(b"list-id", b"list-post", b"list-unsubscribe", b"newsgroups", b"followup-to"),
        *(
            b"disposition-notification-to",
            b"mail-followup-to",
            b"mail-reply-to",
            b"x-label",
            b"lines",
        ),
    )
)
"""The fields of a record, in lower case: those that ENVELOPE, SEARCH, SORT and THREAD need, and those that the clients
of Mozilla, Apple, Roundcube, mutt and K-9 ask for. A record is the answer to HEADER.FIELDS with these fields. So it is
a header block, from which the answer to each of them is the same as from the whole header."""

MAX_RECORD_SIZE = 8 << 10
"""Bytes of the largest record that a store caches."""

_RECORD_LIST = tuple(sorted(RECORD_FIELDS))

SEPARATOR = "\0"
"""Stands before each text in a search value: a header may have a field more than once, and a field may be empty."""


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
        if isinstance(item, Attribute):
            if item.name == b"ENVELOPE":
                return envelope.envelope(self.header)
            return self._structure(item.name == b"BODYSTRUCTURE")
        if isinstance(item, Preview):
            preview = text.preview(self.part, self.data)
            return strings.string(preview.encode("utf-8"))
        content = self.content(item)
        if isinstance(item, Binary) and item.size_only:
            return b"0" if content is None else b"%d" % len(content)
        if content is None:
            return strings.NIL
        return strings.literal(content, binary=isinstance(item, Binary))

    def _structure(self, extended: bool) -> bytes:
        found = None if self._part else ordinary_structure.structure(self.data, extended)
        if found is not None:
            return found
        write = structure.bodystructure if extended else structure.body
        return write(self.part, self.data)

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


def is_header_item(item: FetchItem) -> bool:
    """Whether `header_value` answers an item: ENVELOPE, or the header or fields of it, as a whole."""
    if isinstance(item, BodySection):
        text, is_part = item.section.text, bool(item.section.path)
        return text.startswith(b"HEADER") and not is_part and item.partial is None
    return item == Attribute(b"ENVELOPE")


def header_value(header: bytes, item: FetchItem) -> bytes:
    """Return `MessageItems.value` of an item for which `is_header_item` is true, from the header block alone."""
    if not isinstance(item, BodySection):
        return envelope.envelope(header)
    text, fields = item.section.text, item.section.fields
    if text == b"HEADER":
        return strings.literal(header)
    return strings.literal(section.header_fields(header, fields, text == b"HEADER.FIELDS.NOT"))


def needed_fields(items: Iterable[FetchItem]) -> frozenset[bytes] | None:
    """Return the fields, in lower case, that are enough of a header for `header_value` of all items; None if the whole
    header is needed."""
    needed: frozenset[bytes] = frozenset()
    for item in items:
        if not isinstance(item, BodySection):
            needed |= frozenset(ENVELOPE_FIELDS)
        elif item.section.text == b"HEADER.FIELDS":
            needed |= {field.lower() for field in item.section.fields}
        else:
            return None
    return needed


def header_block(data: bytes) -> bytes:
    """Return the header block of a message, including the blank line that ends it (`headers.header_end`)."""
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


def record_of(header: bytes) -> bytes | None:
    """Return the record of a message with this header block: the answer to HEADER.FIELDS with `RECORD_FIELDS`.

    It is None if the header, or the record, is so large that it is not cached.
    """
    if len(header) > DEFAULT_LIMITS.header:
        return None
    record = strings.literal(section.header_fields(header, _RECORD_LIST))
    return record if len(record) <= MAX_RECORD_SIZE else None


def header_of(answer: bytes) -> bytes | None:
    """Return the fields in an answer to HEADER.FIELDS as they are in the message; None if one may have had a NUL, of
    which the answer has another byte (`strings.literal`)."""
    return None if b"\x80" in answer else answer.partition(b"\r\n")[2]


def is_cacheable(item: FetchItem, message: MessageItems) -> bool:
    """Whether the answer to an item may be cached, because other answers may be made from it.

    ENVELOPE and SEARCH do not look at all of a very large header, but HEADER.FIELDS does.
    """
    return not isinstance(item, BodySection) or len(message.header) <= DEFAULT_LIMITS.header


def search_value(header: bytes, key: HeaderKey | EnvelopeKey) -> bytes:
    """Return the texts that `key` is searched in as one value that a store can keep: `SEPARATOR` and the text of each.

    Args:
        header: the header block of a message, or at least all fields that `key` names.
        key: a key; its text does not matter.
    """
    fields = envelope_fields(header) if isinstance(key, EnvelopeKey) else None
    if fields is None:
        return _joined(searched_texts(header, key))
    body = fields.get(key.field.lower())
    if body is None:
        return b""
    if key.field.upper() == b"SUBJECT":
        return _joined([text.normalize(envelope.subject_text(body))])
    return _address_values[body]


def search_value_of_envelope(answer: bytes, key: EnvelopeKey) -> bytes | None:
    """Return what `search_value` returns, from the value of FETCH ENVELOPE; None if that does not tell."""
    field = key.field.upper()
    if field == b"SUBJECT":
        subject = envelope_answer.subject(answer)
        if subject is None:
            return None
        return _joined([text.normalize(envelope.subject_text(value)) for value in subject])
    addresses = envelope_answer.address_list(answer, field)
    return None if addresses is None else _encoded_values[addresses]


def _joined(texts: Iterable[str]) -> bytes:
    return "".join([SEPARATOR + value for value in texts]).encode("utf-8", "replace")


def _value_of_addresses(body: bytes) -> bytes:
    found = parse_addresses(body, DEFAULT_LIMITS.addresses)
    return _joined(map(text.normalize, envelope.address_texts(found)))


def _value_of_encoded(encoded: bytes) -> bytes:
    found = envelope_answer.addresses(encoded)
    return _joined(map(text.normalize, envelope.address_texts(found)))


_address_values = Memo(_value_of_addresses)
_encoded_values = Memo(_value_of_encoded)


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
