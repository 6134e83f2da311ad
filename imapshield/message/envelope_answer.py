"""Finds a field in the value of FETCH ENVELOPE that `envelope` has written, so that SEARCH need not read the header.

Nearly all envelopes have strings without backslashes, and a literal only as the subject. Names with 8-bit characters
are literals, too: lists with those are read string by string.
"""

import re
from typing import Final

from imapshield.message.addresses import Address
from imapshield.message.lexer import NUL_REPLACEMENT
from imapshield.message.pauses import pause_point

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
_any_string: Final = re.compile(rb'"([^"\\]*+(?:\\["\\][^"\\]*+)*)"|NIL|\{([0-9]{1,9})\}\r\n').match
_escape: Final = re.compile(rb'\\(["\\])')


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
    start = match.end() + int(match[2] or b"0")
    lists = _lists[field](envelope, start)
    if lists is not None:
        return lists[1]
    for name in _LISTS:
        end = _end_of_list(envelope, start + 1)
        if end is None:
            break
        if name == field:
            return envelope[start + 1 : end]
        start = end
    return None


def addresses(encoded: bytes) -> list[Address]:
    """Return the addresses of a list that `address_list` has returned."""
    if b"{" in encoded or b"\\" in encoded:
        found: list[Address] = []
        _end_of_list(encoded, 0, found)
        return found
    return [Address(*map(_decoded, parts)) for parts in _addresses(encoded)]


def _end_of_list(envelope: bytes, pos: int, found: list[Address] | None = None) -> int | None:
    """Return where the list of addresses that begins at `pos` ends, None if it is not known; add them to `found`."""
    if envelope.startswith(b"NIL", pos):
        return pos + 3
    pos += 1
    while envelope.startswith(b"(", pos):
        strings: list[bytes | None] = []
        for _ in range(4):
            pos += 1
            match = _any_string(envelope, pos)
            if match is None:
                return None
            pos = match.end()
            value = match[1]
            if value is not None:
                value = _escape.sub(rb"\1", value)
            elif match[2] is not None:
                value = envelope[pos : pos + int(match[2])]
                pos += len(value)
                if NUL_REPLACEMENT in value:  # It may have been a NUL.
                    return None
            strings.append(value)
        pos += 1
        if found is not None:
            pause_point()
            found.append(Address(*strings))
    return pos + 1


def _decoded(string: bytes) -> bytes | None:
    return None if string == b"NIL" else string[1:-1]
