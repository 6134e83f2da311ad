"""Decodes Content-Transfer-Encodings (RFC 2045 section 6). From damaged input, the intact parts are decoded."""

import binascii
import re
from typing import Final

from imapshield.message.chunks import CHUNK_SIZE, line_chunks

IDENTITY: Final = frozenset((b"7bit", b"8bit", b"binary"))
KNOWN: Final = IDENTITY | {b"base64", b"quoted-printable"}

_NOT_BASE64: Final = bytes(
    set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
)
# White space before a line end was added in transit (RFC 2045 section 6.7 rule 3). The look-behind makes the pattern
# try each run of blanks once only; otherwise a line of a million blanks would cost quadratic time.
_trailing_space = re.compile(rb"(?<![ \t])[ \t]++(?=\r?\n|\Z)")


def decode(data: bytes, encoding: bytes) -> bytes:
    """Return `data` decoded from `encoding`, which is one of `KNOWN`."""
    if encoding == b"base64":
        return decode_base64(data)
    if encoding == b"quoted-printable":
        return decode_quoted_printable(data)
    return data


def decode_base64(data: bytes) -> bytes:
    """Decode base64. Bytes outside the alphabet are ignored, and so is everything after the padding."""
    if len(data) <= CHUNK_SIZE:
        return _decode_base64_chunk(data)
    decoded = []
    rest = b""
    for start in range(0, len(data), CHUNK_SIZE):
        chunk = data[start : start + CHUNK_SIZE]
        if b"=" in chunk:
            rest += chunk
            break
        digits = rest + chunk.translate(None, _NOT_BASE64)
        stop = len(digits) & ~3
        decoded.append(binascii.a2b_base64(digits[:stop]))
        rest = digits[stop:]
    return b"".join([*decoded, _decode_base64_chunk(rest)])


def _decode_base64_chunk(data: bytes) -> bytes:
    try:
        return binascii.a2b_base64(data)
    except binascii.Error:
        digits = data.partition(b"=")[0].translate(None, _NOT_BASE64)
        if len(digits) % 4 == 1:
            digits = digits[:-1]
        return binascii.a2b_base64(digits + b"=" * (-len(digits) % 4))


def decode_quoted_printable(data: bytes) -> bytes:
    """Decode quoted-printable. Line ends and invalid escapes are not changed."""
    if len(data) > CHUNK_SIZE:
        return b"".join(map(_decode_quoted_printable_chunk, line_chunks(data)))
    return _decode_quoted_printable_chunk(data)


def _decode_quoted_printable_chunk(data: bytes) -> bytes:
    if b" \r\n" in data or b"\t\r\n" in data or data[-1:] in (b" ", b"\t"):
        data = _trailing_space.sub(b"", data)
    return binascii.a2b_qp(data)
