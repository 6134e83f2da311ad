"""Encodes the ENVELOPE of a header block (RFC 9051 section 7.5.2), and returns its texts for SEARCH."""

from collections.abc import Iterable
from dataclasses import dataclass

from imapshield.message.addresses import END_OF_GROUP, Address, parse_addresses
from imapshield.message.charsets import to_text
from imapshield.message.headers import decode_header, find_values, header_values
from imapshield.message.imap_string import collapse_space, display_string, nstring, unfolded_nstring
from imapshield.message.mime_limits import DEFAULT_LIMITS, MimeLimits
from imapshield.message.ordinary import Memo, envelope_fields
from imapshield.message.pauses import pause_point


def envelope(header: bytes, limits: MimeLimits = DEFAULT_LIMITS) -> bytes:
    """Return the value of FETCH ENVELOPE.

    Sender and Reply-To default to From. If an address field occurs twice, all its addresses are included, so that
    nobody can hide an address from the reader that a mail filter saw. If another field occurs twice, the last one
    counts.

    Args:
        header: the header block of a message.
        limits: how much of it to read.
    """
    fields = envelope_fields(header) if limits is DEFAULT_LIMITS else None
    encoded = None if fields is None else _ordinary_envelope(fields)
    if encoded is not None:
        return encoded
    return envelope_within_budget(header, limits, EnvelopeBudget(limits.addresses, limits.header))


def _ordinary_envelope(fields: dict[bytes, bytes]) -> bytes | None:
    """Return the value of FETCH ENVELOPE, None for fields whose first line is blank.

    Fields of an ordinary header are within every budget.
    """
    get = fields.get
    texts: list[bytes] = []
    for text in (get(b"date"), get(b"in-reply-to"), get(b"message-id")):
        if text is not None and text[:1] in b"\r\n":
            return None
        texts.append(unfolded_nstring(text))
    subject = get(b"subject")
    lists = _encoded_lists
    sender = lists[get(b"from", b"")]
    own_sender, reply_to = lists[get(b"sender", b"")], lists[get(b"reply-to", b"")]
    return b"(%b %b %b %b %b %b %b %b %b %b)" % (
        texts[0],
        b"NIL" if subject is None else display_string(subject),
        sender,
        sender if own_sender == b"NIL" else own_sender,
        sender if reply_to == b"NIL" else reply_to,
        lists[get(b"to", b"")],
        lists[get(b"cc", b"")],
        lists[get(b"bcc", b"")],
        texts[1],
        texts[2],
    )


def _encode_list(value: bytes) -> bytes:
    found = parse_addresses(value, DEFAULT_LIMITS.addresses)
    return b"(%b)" % b"".join(map(_encode_address, found)) if found else b"NIL"


_encoded_lists = Memo(_encode_list)


@dataclass(slots=True)
class EnvelopeBudget:
    """What the envelopes of one response may still contain.

    BODYSTRUCTURE contains an envelope for each embedded message, and two bytes of From can become 130 bytes of
    ENVELOPE. So the number of addresses and the size of the fields are limited for the whole response.

    Attributes:
        addresses: the number of addresses.
        octets: bytes of field bodies. A field that is longer is left out, and so are all fields after it.
    """

    addresses: int
    octets: int

    def take(self, value: bytes) -> bool:
        """Whether a field body may be read; if so, its size is subtracted."""
        fits = len(value) <= self.octets
        self.octets = self.octets - len(value) if fits else 0
        return fits


def envelope_within_budget(header: bytes, limits: MimeLimits, budget: EnvelopeBudget) -> bytes:
    """Return the value of FETCH ENVELOPE with what the budget allows, and subtract that from the budget."""
    block = b"\n" + header[: limits.header]
    low = block.lower()

    def last_value(name: bytes) -> bytes | None:
        values = find_values(block, low, name)
        return values[-1] if values and budget.take(values[-1]) else None

    def address_list(name: bytes, default: bytes = b"NIL") -> bytes:
        found: list[Address] = []
        for value in find_values(block, low, name):
            if budget.addresses > 0 and budget.take(value):
                parsed = parse_addresses(value, budget.addresses)
                budget.addresses -= len(parsed)
                found += parsed
        return b"(%b)" % b"".join(map(_encode_address, found)) if found else default

    subject = last_value(b"subject")
    sender = address_list(b"from")
    return b"(%b %b %b %b %b %b %b %b %b %b)" % (
        unfolded_nstring(last_value(b"date")),
        b"NIL" if subject is None else display_string(subject),
        sender,
        address_list(b"sender", sender),
        address_list(b"reply-to", sender),
        address_list(b"to"),
        address_list(b"cc"),
        address_list(b"bcc"),
        unfolded_nstring(last_value(b"in-reply-to")),
        unfolded_nstring(last_value(b"message-id")),
    )


def search_texts(header: bytes, field: bytes, limits: MimeLimits = DEFAULT_LIMITS) -> list[str]:
    """Return the decoded texts that ENVELOPE has of a subject or address field, for SEARCH.

    An address is one text, ``mailbox@host`` or ``name <mailbox@host>``, so that SEARCH finds what users copy from their
    client. Comments, quotes and other spellings are not included.

    Args:
        header: the header block of a message.
        field: SUBJECT, FROM, TO, CC or BCC, in any case.
        limits: how much of it to read.
    """
    values = header_values(header[: limits.header], field)
    if field.upper() == b"SUBJECT":
        return [subject_text(value) for value in values[-1:]]
    found: list[Address] = []
    for value in values:
        if len(found) < limits.addresses:
            found += parse_addresses(value, limits.addresses - len(found))
    return address_texts(found)


def subject_text(value: bytes) -> str:
    """Return the text of the body of a Subject field."""
    return decode_header(collapse_space(value))


def address_texts(addresses: Iterable[Address]) -> list[str]:
    """Return the texts of addresses."""
    return [_address_text(address) for address in addresses if address != END_OF_GROUP]


def _address_text(address: Address) -> str:
    pause_point()
    name, route, mailbox, host = address
    if host is None:  # a group
        return decode_header(mailbox or b"")
    text = to_text(b"%b@%b" % (mailbox or b"", host), b"")
    if route is not None:
        text = f"{to_text(route, b'')}:{text}"
    return text if name is None else f"{decode_header(collapse_space(name))} <{text}>"


def _encode_address(address: Address) -> bytes:
    pause_point()
    name, route, mailbox, host = address
    shown = b"NIL" if name is None else display_string(name)
    return b"(%b %b %b %b)" % (shown, nstring(route), nstring(mailbox), nstring(host))
