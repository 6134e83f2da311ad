"""BODY[section] and BINARY[section], as ranges where they are (RFC 9051 section 6.4.5.1)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from imapshield.errors import CommandRefused
from imapshield.message import transfer_encoding
from imapshield.message.chunks import CHUNK_SIZE
from imapshield.message.headers import field_end
from imapshield.message.mime_tree import Part
from imapshield.wire.commands.fetch import Section

# All but blank lines: a field with the lines that continue it.
_fields: Final = re.compile(rb"(?!\r?\n)[^\n]++(?:\n|\Z)(?:[ \t][^\n]*+(?:\n|\Z))*").findall


def find_part(part: Part, path: tuple[int, ...]) -> Part | None:
    """Return the part that `path` numbers, None if there is none; () is `part` itself.

    A message that is no multipart has its body as part 1; inside a message/rfc822 part numbering
    starts anew.
    """
    found = part
    last = len(path) - 1
    is_message = True
    for index, number in enumerate(path):
        if found.is_multipart:
            # The part that a structure makes up for a multipart without any is there to be fetched.
            children = found.children or [Part(found.end, found.end, found.end)]
            if not 1 <= number <= len(children):
                return None
            found = children[number - 1]
            is_message = False
        elif number != 1 or not is_message:
            return None
        if index < last:
            if found.embedded is not None:
                found = found.embedded
                is_message = True
            elif not found.is_multipart:
                return None
    return found


def body_section(part: Part, data: bytes, section: Section) -> tuple[int, int] | bytes | None:
    """Return what BODY[section] of the message `data` is.

    Returns:
        a range of `data`, or octets put together from it (HEADER.FIELDS and HEADER.FIELDS.NOT), or
        None, which is answered NIL, where there is no such part or the part has no such text.
    """
    found = find_part(part, section.path)
    text = section.text
    if found is None:
        return None
    if text == b"MIME":
        return (found.start, found.body_start) if section.path else None
    if section.path:
        if text == b"":
            return found.body_start, found.end
        found = found.embedded
        if found is None:
            return None
    if text == b"":
        return found.start, found.end
    if text == b"TEXT":
        return found.body_start, found.end
    if text == b"HEADER":
        return found.start, found.body_start
    header = data[found.start : found.body_start]
    if found.body_start == found.end and data.startswith(b"\r\n", found.end):
        # A boundary follows the blank line and took it, but "subsetting does not exclude" it.
        header += b"\r\n" if header[-1:] in (b"", b"\n") else b""
    return header_fields(header, section.fields, exclude=text == b"HEADER.FIELDS.NOT")


def header_fields(header: bytes, names: tuple[bytes, ...], exclude: bool = False) -> bytes:
    """Return the fields of `header` called one of `names`, or all others.

    Order and repetitions are the message's. The blank line is included if there is one.

    Args:
        header: a header block.
        names: field names in any case.
        exclude: return the other fields.
    """
    wanted = {name.lower() for name in names}
    out = [
        line
        for line in (_fields(header) if len(header) <= CHUNK_SIZE else _large_fields(header))
        if (line.partition(b":")[0].rstrip(b" \t").lower() in wanted) is not exclude
    ]
    if _has_blank(header):
        out.append(b"\r\n")
    return b"".join(out)


def _large_fields(header: bytes) -> Iterator[bytes]:
    """Yield what `_fields` finds, line by line."""
    at = 0
    while at < len(header):
        if header.startswith((b"\r\n", b"\n"), at):
            at = header.index(b"\n", at) + 1
            continue
        end = field_end(header, at)
        yield header[at:end]
        at = end


def _has_blank(header: bytes) -> bool:
    return header.endswith((b"\n\r\n", b"\n\n")) or header in (b"\r\n", b"\n")


def binary_section(part: Part, data: bytes, path: tuple[int, ...]) -> bytes | None:
    """Return the content of a part, decoded (RFC 3516); None if there is no such part.

    The whole message, path (), is not encoded and is returned as it is.

    Raises:
        Refused: UNKNOWN-CTE.
    """
    found = find_part(part, path)
    if found is None:
        return None
    if not path:
        return data[found.start : found.end]
    if found.is_multipart or found.embedded is not None:
        # RFC 2045 section 6.4: what is composed of parts is never encoded itself.
        return data[found.body_start : found.end]
    encoding = found.transfer_encoding()
    if encoding not in transfer_encoding.KNOWN:
        raise CommandRefused(
            b"UNKNOWN-CTE", "The part has a Content-Transfer-Encoding that is not known here"
        )
    return transfer_encoding.decode(data[found.body_start : found.end], encoding)
