"""ENVELOPE, ready to send (RFC 9051 section 7.5.2), and what SORT and SEARCH share with it."""

from __future__ import annotations

from imapshield.message.addresses import END_OF_GROUP, Address, parse_addresses
from imapshield.message.charsets import to_text
from imapshield.message.headers import decode_header, find_values, header_values
from imapshield.message.imap_string import collapse_space, display_string, nstring, unfolded_nstring
from imapshield.message.mime_tree import DEFAULT_LIMITS, MimeLimits


def envelope(header: bytes, limits: MimeLimits = DEFAULT_LIMITS) -> bytes:
    """Return the value of FETCH ENVELOPE.

    Sender and Reply-To default to From. Of an address field given twice all addresses are shown, so
    that nobody can hide one from the reader that a filter saw; of other fields given twice the
    last.

    Args:
        header: the header block of a message.
        limits: how much of it to look at.
    """
    return envelope_within_budget(header, limits, limits.addresses)[0]


def envelope_within_budget(header: bytes, limits: MimeLimits, budget: int) -> tuple[bytes, int]:
    """Return `envelope` with at most `budget` addresses read, and what is left of the budget.

    A structure has an envelope for each message inside, and two octets of From can become 130 of
    envelope: it is the whole answer that has to be limited.
    """
    block = b"\n" + header[: limits.header]
    low = block.lower()

    def last(name: bytes) -> bytes | None:
        values = find_values(block, low, name)
        return values[-1] if values else None

    def people(name: bytes) -> bytes:
        nonlocal budget
        found: list[Address] = []
        for value in find_values(block, low, name):
            if budget > 0:
                read = parse_addresses(value, budget)
                budget -= len(read)
                found += read
        return _people(found)

    subject = last(b"subject")
    sender = people(b"from")
    shown = b"(%b %b %b %b %b %b %b %b %b %b)" % (
        unfolded_nstring(last(b"date")),
        b"NIL" if subject is None else display_string(subject),
        sender,
        _or(people(b"sender"), sender),
        _or(people(b"reply-to"), sender),
        people(b"to"),
        people(b"cc"),
        people(b"bcc"),
        unfolded_nstring(last(b"in-reply-to")),
        unfolded_nstring(last(b"message-id")),
    )
    return shown, budget


def search_texts(header: bytes, field: bytes, limits: MimeLimits = DEFAULT_LIMITS) -> list[str]:
    """Return what the envelope shows of a subject or address field, decoded, for SEARCH.

    An address is one text, ``mailbox@host`` or ``name <mailbox@host>``, so that what people copy from their client
    is found. Nothing else of the field is in it: no comments, no quotes, no other spelling.

    Args:
        header: the header block of a message.
        field: SUBJECT, FROM, TO, CC or BCC, in any case.
        limits: how much of it to look at.
    """
    values = header_values(header[: limits.header], field)
    if field.upper() == b"SUBJECT":
        return [decode_header(collapse_space(value)) for value in values[-1:]]
    found: list[Address] = []
    for value in values:
        if len(found) < limits.addresses:
            found += parse_addresses(value, limits.addresses - len(found))
    return [_spelled(one) for one in found if one != END_OF_GROUP]


def _spelled(one: Address) -> str:
    name, route, mailbox, host = one
    if host is None:  # a group
        return decode_header(mailbox or b"")
    where = to_text(b"%b@%b" % (mailbox or b"", host), b"")
    if route is not None:
        where = f"{to_text(route, b'')}:{where}"
    return where if name is None else f"{decode_header(collapse_space(name))} <{where}>"


def _or(shown: bytes, default: bytes) -> bytes:
    return default if shown == b"NIL" else shown


def _people(found: list[Address]) -> bytes:
    if not found:
        return b"NIL"
    return b"(%b)" % b"".join(
        [
            b"(%b %b %b %b)"
            % (
                b"NIL" if name is None else display_string(name),
                nstring(route),
                nstring(mailbox),
                nstring(host),
            )
            for name, route, mailbox, host in found
        ]
    )
