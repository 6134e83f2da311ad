"""ENVELOPE, ready to send (RFC 9051 section 7.5.2), and what SORT and SEARCH share with it."""

from __future__ import annotations

from imapshield.message.addresses import Address, addresses
from imapshield.message.headers import decode_header, find_values, header_values
from imapshield.message.quoting import nstring, text, unfolded
from imapshield.message.skeleton import DEFAULT_LIMITS, MimeLimits

__all__ = ["Address", "addresses", "decode_header", "envelope", "header_values"]


def envelope(header: bytes, limits: MimeLimits = DEFAULT_LIMITS) -> bytes:
    """Return the value of FETCH ENVELOPE.

    Sender and Reply-To default to From. Of an address field given twice all addresses are shown, so
    that nobody can hide one from the reader that a filter saw; of other fields given twice the
    last.

    Args:
        header: the header block of a message.
        limits: how much of it to look at.
    """
    return write_envelope(header, limits, limits.addresses)[0]


def write_envelope(header: bytes, limits: MimeLimits, budget: int) -> tuple[bytes, int]:
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
                read = addresses(value, budget)
                budget -= len(read)
                found += read
        return _people(found)

    subject = last(b"subject")
    sender = people(b"from")
    shown = b"(%b %b %b %b %b %b %b %b %b %b)" % (
        unfolded(last(b"date")),
        b"NIL" if subject is None else text(subject),
        sender,
        _or(people(b"sender"), sender),
        _or(people(b"reply-to"), sender),
        people(b"to"),
        people(b"cc"),
        people(b"bcc"),
        unfolded(last(b"in-reply-to")),
        unfolded(last(b"message-id")),
    )
    return shown, budget


def _or(shown: bytes, default: bytes) -> bytes:
    return default if shown == b"NIL" else shown


def _people(found: list[Address]) -> bytes:
    if not found:
        return b"NIL"
    return b"(%b)" % b"".join(
        [
            b"(%b %b %b %b)"
            % (
                b"NIL" if name is None else text(name),
                nstring(route),
                nstring(mailbox),
                nstring(host),
            )
            for name, route, mailbox, host in found
        ]
    )
