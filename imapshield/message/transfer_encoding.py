"""Content-Transfer-Encodings undone (RFC 2045 section 6); damage costs only what is damaged."""

from __future__ import annotations

import binascii
import re
from typing import Final

from imapshield.message.chunks import CHUNK_SIZE, line_chunks

IDENTITY: Final = frozenset((b"7bit", b"8bit", b"binary"))
KNOWN: Final = IDENTITY | {b"base64", b"quoted-printable"}

_NOT_BASE64: Final = bytes(
    set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
)
# White space before a line end was added on the way (RFC 2045 section 6.7 rule 3). The look-behind
# lets each run of it be tried once only, or a line of a million blanks would cost their square.
_trailing = re.compile(rb"(?<![ \t])[ \t]++(?=\r?\n|\Z)")


def decode(octets: bytes, encoding: bytes) -> bytes:
    """`octets` decoded from `encoding`, which is one of `KNOWN`."""
    if encoding == b"base64":
        return decode_base64(octets)
    if encoding == b"quoted-printable":
        return decode_quoted_printable(octets)
    return octets


def decode_base64(octets: bytes) -> bytes:
    """Base64, less whatever is not of its alphabet; what follows the padding is not content."""
    if len(octets) <= CHUNK_SIZE:
        return _decode_base64(octets)
    decoded = []
    rest = b""
    for start in range(0, len(octets), CHUNK_SIZE):
        piece = octets[start : start + CHUNK_SIZE]
        if b"=" in piece:
            rest += piece
            break
        bare = rest + piece.translate(None, _NOT_BASE64)
        whole = len(bare) & ~3
        decoded.append(binascii.a2b_base64(bare[:whole]))
        rest = bare[whole:]
    return b"".join([*decoded, _decode_base64(rest)])


def _decode_base64(octets: bytes) -> bytes:
    try:
        return binascii.a2b_base64(octets)
    except binascii.Error:
        bare = octets.partition(b"=")[0].translate(None, _NOT_BASE64)
        size = len(bare)
        if size % 4 == 1:
            bare = bare[:-1]
        return binascii.a2b_base64(bare + b"=" * (-len(bare) % 4))


def decode_quoted_printable(octets: bytes) -> bytes:
    """Quoted-printable; what is not an escape stands as it is."""
    if len(octets) > CHUNK_SIZE:
        return b"".join(map(_decode_quoted_printable, line_chunks(octets)))
    return _decode_quoted_printable(octets)


def _decode_quoted_printable(octets: bytes) -> bytes:
    if b" \r\n" in octets or b"\t\r\n" in octets or octets[-1:] in (b" ", b"\t"):
        octets = _trailing.sub(b"", octets)
    return binascii.a2b_qp(octets)
