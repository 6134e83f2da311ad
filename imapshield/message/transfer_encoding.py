"""Decodes Content-Transfer-Encodings (RFC 2045 section 6). From damaged input, the intact parts are decoded."""

import binascii
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final

from imapshield.message.chunks import CHUNK_SIZE, SCAN_SIZE, chunks
from imapshield.message.pauses import pause_point

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
# The part of a long line that can be decoded without the rest. It ends at a soft line break, and at an escape that may
# continue behind the end.
_whole_escapes = re.compile(
    rb"[^=\n]*+(?:(?:==|=[0-9A-Fa-f]{2}|=(?![=\r\n]|[0-9A-Fa-f]{2})(?=[^\n]{2}))[^=\n]*+)*"
).match
_blanks = re.compile(rb"[ \t\r]*+").match
_BLANKS_BEFORE_LINE_END: Final = (b" \r\n", b"\t\r\n", b" \n", b"\t\n")


def decode(data: bytes, encoding: bytes) -> bytes:
    """Return `data` decoded from `encoding`, which is one of `KNOWN`."""
    return b"".join(decoded_chunks(data, encoding, 0, len(data)))


def decoded_chunks(data: bytes, encoding: bytes, start: int, stop: int) -> Iterable[bytes]:
    """Yield ``data[start:stop]`` decoded from `encoding`, which is one of `KNOWN`, in chunks (`chunks`)."""
    if encoding == b"base64":
        return _base64_chunks(data, start, stop)
    if encoding == b"quoted-printable":
        return _quoted_printable_chunks(data, start, stop)
    return chunks(data, start, stop)


def decode_base64(data: bytes) -> bytes:
    """Decode base64. Bytes outside the alphabet are ignored, and so is everything after the padding.

    An ``=`` that does not complete a group of four is not padding, and is ignored too.
    """
    return b"".join(_base64_chunks(data, 0, len(data)))


def _base64_chunks(data: bytes, start: int, stop: int) -> Iterable[bytes]:
    if stop - start <= CHUNK_SIZE:
        with suppress(binascii.Error):
            return (binascii.a2b_base64(data[start:stop]),)
    return _long_base64_chunks(data, start, stop)


def _long_base64_chunks(data: bytes, start: int, stop: int) -> Iterator[bytes]:
    rest = b""  # the group that has begun: up to three digits, or two and the first ``=`` of two
    for chunk in chunks(data, start, stop):
        text = rest + chunk.translate(None, _NOT_BASE64)
        padding = text.find(b"=")
        groups = _groups(text, (len(text) if padding < 0 else padding) & ~3)
        assert groups is not None
        whole = groups.end()
        yield binascii.a2b_base64(text[:whole].replace(b"=", b""))
        rest = text[whole:]
        try:
            last = binascii.a2b_base64(rest)
        except binascii.Error:  # the group continues in the next chunk
            digits = rest.replace(b"=", b"")
            rest = digits + b"=" if len(digits) == 2 and rest.endswith(b"=") else digits
        else:
            if last:
                yield last
                return
            rest = b""
    digits = rest.replace(b"=", b"")
    if len(digits) > 1:
        yield binascii.a2b_base64(digits + b"==")


def decode_quoted_printable(data: bytes) -> bytes:
    """Decode quoted-printable. Line ends and invalid escapes are not changed."""
    return decode(data, b"quoted-printable")


def _quoted_printable_chunks(data: bytes, start: int, stop: int) -> Iterator[bytes]:
    rest = b""  # what cannot be decoded without the bytes that follow
    for read in _without_trailing_space(data, start, stop):
        chunk = rest + read
        end = chunk.rfind(b"\n") + 1
        if not end:
            escapes = _whole_escapes(chunk)
            assert escapes is not None
            end = escapes.end()
        yield binascii.a2b_qp(chunk[:end])
        rest = chunk[end:]
        if rest.startswith(b"=\r"):
            rest = b"=\r"  # The decoder ignores what follows, up to the line end.
    yield binascii.a2b_qp(rest)


def _end_of_blanks(data: bytes, start: int, stop: int) -> int:
    """Return where the run of blanks and CRs that begins at `start` ends."""
    while start < stop:
        blanks = _blanks(data, start, min(start + SCAN_SIZE, stop))
        assert blanks is not None
        if blanks.end() == start:
            break
        pause_point()
        start = blanks.end()
    return start


def _without_trailing_space(data: bytes, start: int, stop: int) -> Iterator[bytes]:
    """Yield ``data[start:stop]`` without the blanks before line ends, in chunks that end at line ends if possible."""
    while start < stop:
        pause_point()
        last = start + CHUNK_SIZE
        end = stop if last >= stop else data.rfind(b"\n", start, last) + 1
        if end:
            chunk = data[start:end]
            if chunk[-1] in b" \t" or any(blank in chunk for blank in _BLANKS_BEFORE_LINE_END):
                chunk = _trailing_space.sub(b"", chunk)
            yield chunk
        elif part := data[start:last].rstrip(b" \t\r"):  # The line end may follow the blanks.
            end = start + len(part)
            yield part
        else:
            end = kept = _end_of_blanks(data, start, stop)
            is_line_end = data.startswith(b"\n", end, stop)
            cr = b"\r" if is_line_end and data[end - 1] == 0x0D else b""
            if is_line_end or end == stop:
                kept = max(data.rfind(b"\r", start, end - len(cr)) + 1, start)
            yield from chunks(data, start, kept)
            yield cr
        start = end
