"""Finds BODY[section] and BINARY[section] in a message, given its MIME tree (RFC 9051 section 6.4.5.1)."""

import re
from collections.abc import Iterator
from typing import Final

from imapshield.errors import CommandRefused
from imapshield.message import transfer_encoding
from imapshield.message.chunks import CHUNK_SIZE
from imapshield.message.headers import field_end
from imapshield.message.mime_tree import Part
from imapshield.message.ordinary import fields_named
from imapshield.wire.commands.fetch import Section

# Matches a field together with its continuation lines, and skips blank lines.
_fields: Final = re.compile(rb"(?!\r?\n)[^\n]++(?:\n|\Z)(?:[ \t][^\n]*+(?:\n|\Z))*").findall


def find_part(part: Part, path: tuple[int, ...]) -> Part | None:
    """Return the part with the numbers `path`, such as (1, 2), or None if there is none. The path () is `part` itself.

    The body of a message that is not a multipart is part 1. The parts of a message/rfc822 part are numbered from 1.
    """
    found = part
    last = len(path) - 1
    is_message = True
    for index, number in enumerate(path):
        if found.is_multipart:
            # BODYSTRUCTURE has at least one part in every multipart, so that of an empty multipart can be fetched too.
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
    """Return the bytes of BODY[section], or their range in the message.

    Args:
        part: the MIME tree of the message.
        data: the message.
        section: the section, without a partial.

    Returns:
        a range of `data`, as (start, stop); bytes, for HEADER.FIELDS and HEADER.FIELDS.NOT; or None, which FETCH sends
        as NIL, if the part does not exist or has no such section.
    """
    if section.text not in (b"HEADER.FIELDS", b"HEADER.FIELDS.NOT"):
        found_range = plain_range(part, section)
        return None if found_range is None else found_range[:2]
    found = find_part(part, section.path)
    if found is not None and section.path:
        found = found.embedded
    if found is None:
        return None
    header = data[found.start : found.body_start]
    if found.body_start == found.end and data.startswith(b"\r\n", found.end):
        # The line end before a boundary belongs to the boundary, and here that line end is the blank line. But the
        # RFC says that "subsetting does not exclude" the blank line.
        header += b"\r\n" if header[-1:] in (b"", b"\n") else b""
    return header_fields(header, section.fields, exclude=section.text == b"HEADER.FIELDS.NOT")


def plain_range(part: Part, section: Section) -> tuple[int, int, bytes] | None:
    """Return where BODY[section] is in the message, for every section without fields; None if there is no such part.

    Args:
        part: the MIME tree of the message.
        section: the section, without a partial.

    Returns:
        (start, stop, encoding), as `binary_range` does. The encoding is always that of bytes as they are.
    """
    found = find_part(part, section.path)
    text = section.text
    if found is None:
        return None
    if text == b"MIME":
        return (found.start, found.body_start, b"binary") if section.path else None
    if section.path:
        if text == b"":
            return found.body_start, found.end, b"binary"
        found = found.embedded
        if found is None:
            return None
    if text == b"":
        return found.start, found.end, b"binary"
    if text == b"TEXT":
        return found.body_start, found.end, b"binary"
    return found.start, found.body_start, b"binary"


def header_fields(header: bytes, names: tuple[bytes, ...], exclude: bool = False) -> bytes:
    """Return the fields of `header` that have one of `names`, in their order, and the blank line if there is one.

    Args:
        header: a header block.
        names: field names in any case.
        exclude: return all other fields instead.
    """
    found = None if exclude else fields_named(header, names)
    if found is None:
        found = selected_fields(header, names, exclude)
    has_blank_line = header.endswith((b"\n\r\n", b"\n\n")) or header in (b"\r\n", b"\n")
    return found + b"\r\n" if has_blank_line else found


def selected_fields(header: bytes, names: tuple[bytes, ...], exclude: bool) -> bytes:
    """Return what `header_fields` returns, without the blank line."""
    wanted = {name.lower() for name in names}
    split = _fields if len(header) <= CHUNK_SIZE else _fields_of_large_header
    return b"".join(
        [
            field
            for field in split(header)
            if (field.partition(b":")[0].rstrip(b" \t").lower() in wanted) is not exclude
        ]
    )


def _fields_of_large_header(header: bytes) -> Iterator[bytes]:
    """Yield the same fields as `_fields`, but let other threads run after each field (`chunks`)."""
    pos = 0
    while pos < len(header):
        if header.startswith((b"\r\n", b"\n"), pos):
            pos = header.index(b"\n", pos) + 1
            continue
        end = field_end(header, pos)
        yield header[pos:end]
        pos = end


def binary_section(part: Part, data: bytes, path: tuple[int, ...]) -> bytes | None:
    """Return the decoded content of a part, for BINARY (RFC 3516), or None if there is no such part.

    Args:
        part: the MIME tree of the message.
        data: the message.
        path: the numbers of the part.

    Raises:
        CommandRefused: the part has an unknown Content-Transfer-Encoding (UNKNOWN-CTE).
    """
    found = binary_range(part, path)
    if found is None:
        return None
    start, end, encoding = found
    return transfer_encoding.decode(data[start:end], encoding)


def binary_range(part: Part, path: tuple[int, ...]) -> tuple[int, int, bytes] | None:
    """Return where the content of BINARY[path] is in the message, and how it is encoded; None if there is no such part.

    The whole message, path (), is never encoded.

    Args:
        part: the MIME tree of the message.
        path: the numbers of the part.

    Returns:
        (start, stop, encoding), which is one of `transfer_encoding.KNOWN`.

    Raises:
        CommandRefused: the part has an unknown Content-Transfer-Encoding (UNKNOWN-CTE).
    """
    found = find_part(part, path)
    if found is None:
        return None
    if not path:
        return found.start, found.end, b"binary"
    if found.is_multipart or found.embedded is not None:
        # RFC 2045 section 6.4: a multipart or message is never encoded itself.
        return found.body_start, found.end, b"binary"
    encoding = found.transfer_encoding()
    if encoding not in transfer_encoding.KNOWN:
        raise CommandRefused(b"UNKNOWN-CTE", "Unknown Content-Transfer-Encoding")
    return found.body_start, found.end, encoding
