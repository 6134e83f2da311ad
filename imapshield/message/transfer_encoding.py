"""Decodes Content-Transfer-Encodings (RFC 2045 section 6). From damaged input, the intact parts are decoded."""

import binascii
import re
from contextlib import suppress
from typing import Final

from imapshield.message.chunks import CHUNK_SIZE, line_chunks

IDENTITY: Final = frozenset((b"7bit", b"8bit", b"binary"))
KNOWN: Final = IDENTITY | {b"base64", b"quoted-printable"}

_NOT_BASE64: Final = bytes(
    set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")
)
# Groups of four digits that contain no padding, but may contain other "=".
_groups: Final = re.compile(rb"(?:=*+[^=]=*+[^=]=?+[^=][^=])*").match
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
    """Decode base64. Bytes outside the alphabet are ignored, and so is everything after the padding.

    An ``=`` that does not complete a group of four is not padding, and is ignored too.
    """
    if len(data) <= CHUNK_SIZE:
        with suppress(binascii.Error):
            return binascii.a2b_base64(data)
    decoded = []
    rest = b""  # the group that has begun: up to three digits, or two and the first ``=`` of two
    for start in range(0, len(data), CHUNK_SIZE):
        text = rest + data[start : start + CHUNK_SIZE].translate(None, _NOT_BASE64)
        padding = text.find(b"=")
        groups = _groups(text, (len(text) if padding < 0 else padding) & ~3)
        assert groups is not None
        whole = groups.end()
        decoded.append(binascii.a2b_base64(text[:whole].replace(b"=", b"")))
        rest = text[whole:]
        try:
            last = binascii.a2b_base64(rest)
        except binascii.Error:  # the group continues in the next chunk
            digits = rest.replace(b"=", b"")
            rest = digits + b"=" if len(digits) == 2 and rest.endswith(b"=") else digits
        else:
            if last:
                return b"".join([*decoded, last])
            rest = b""
    digits = rest.replace(b"=", b"")
    if len(digits) > 1:
        decoded.append(binascii.a2b_base64(digits + b"=="))
    return b"".join(decoded)


def decode_quoted_printable(data: bytes) -> bytes:
    """Decode quoted-printable. Line ends and invalid escapes are not changed."""
    if len(data) > CHUNK_SIZE:
        return b"".join(map(_decode_quoted_printable_chunk, line_chunks(data)))
    return _decode_quoted_printable_chunk(data)


def _decode_quoted_printable_chunk(data: bytes) -> bytes:
    if b" \r\n" in data or b"\t\r\n" in data or data[-1:] in (b" ", b"\t"):
        data = _trailing_space.sub(b"", data)
    return binascii.a2b_qp(data)
