"""Finds a field in the value of FETCH ENVELOPE that `envelope` has written, so that SEARCH need not read the header.

Only what nearly all envelopes have is understood: strings without backslashes, and a literal only as the subject.
"""

import re
from typing import Final

from imapshield.message.addresses import Address
from imapshield.message.lexer import NUL_REPLACEMENT

_STRING: Final = rb'(?:"[^"\\]*+"|NIL)'
_LIST: Final = rb"(?:NIL|\((?:\(" + b" ".join([_STRING] * 4) + rb"\))+\))"
_ADDRESS: Final = rb"\(" + b" ".join([b"(" + _STRING + b")"] * 4) + rb"\)"
_LISTS: Final = (b"FROM", b"SENDER", b"REPLY-TO", b"TO", b"CC", b"BCC")

_to_subject: Final = re.compile(
    rb"\(" + _STRING + rb" (?:(" + _STRING + rb")|\{([0-9]{1,9})\}\r\n)"
).match
_lists: Final = {
    field: re.compile(b"(?: " + _LIST + b"){%d} (" % i + _LIST + b") ").match
    for i, field in enumerate(_LISTS)
}
_addresses: Final = re.compile(_ADDRESS).findall


def subject(envelope: bytes) -> tuple[bytes] | tuple[()] | None:
    """Return the subject, () if there is none, or None if it is not known."""
    match = _to_subject(envelope)
    if match is None:
        return None
    if match[1] is not None:
        value = _decoded(match[1])
        return () if value is None else (value,)
    value = envelope[match.end() : match.end() + int(match[2])]
    # It may have been a NUL.
    return None if NUL_REPLACEMENT in value else (value,)


def address_list(envelope: bytes, field: bytes) -> bytes | None:
    """Return the encoded list of addresses of a field, None if it is not known.

    Args:
        envelope: the value of FETCH ENVELOPE.
        field: FROM, TO, CC or BCC.
    """
    match = _to_subject(envelope)
    if match is None:
        return None
    lists = _lists[field](envelope, match.end() + int(match[2] or b"0"))
    return None if lists is None else lists[1]


def addresses(encoded: bytes) -> list[Address]:
    """Return the addresses of a list that `address_list` has returned."""
    return [Address(*map(_decoded, parts)) for parts in _addresses(encoded)]


def _decoded(string: bytes) -> bytes | None:
    return None if string == b"NIL" else string[1:-1]
