"""Writes BODY and BODYSTRUCTURE of messages as nearly all are, without a tree of their parts.

Whatever is not ordinary is left to `mime_tree` and `structure`: messages in messages, boundaries that are missing or
begin alike, large messages. ``tests/message/test_ordinary_structure.py`` compares the results. What is written of a
part, besides its size, depends on its header alone. Many parts have the same one, and it is remembered.
"""

import re
from functools import lru_cache
from typing import Final, NamedTuple

from imapshield.message import ordinary
from imapshield.message.headers import header_end
from imapshield.message.mime_limits import DEFAULT_LIMITS
from imapshield.message.mime_tree import MESSAGE_KINDS, Part
from imapshield.message.structure import has_lines, multipart_end, single_part_text

MAX_SIZE: Final = 64 << 10
"""Bytes of the largest message that is ordinary: a tenth of a millisecond of work. The parts of a larger one will be
fetched one by one, and then its tree is needed (`maildir.message_layout`)."""

MAX_PARTS: Final = 50
MAX_DEPTH: Final = 8
"""Parts and levels of an ordinary message. So one that turns out to be none has not taken long."""

KNOWN_HEADERS: Final = 512
MAX_KNOWN_SIZE: Final = 256
"""Headers of parts that are remembered, and bytes of the longest one: a mebibyte with what is written of them."""

_boundary: Final = re.compile(rb"[0-9A-Za-z'()+_,./:=?-]{1,70}").fullmatch


class _Template(NamedTuple):
    """What is written of a part with a certain header.

    Attributes:
        before: what precedes the size; b"" for a multipart.
        after: what follows the lines, or the parts of a multipart.
        has_lines: whether the size is followed by the number of lines.
        needle: for a multipart, the line end, the two dashes and the boundary.
    """

    before: bytes
    after: bytes
    has_lines: bool
    needle: bytes


def structure(data: bytes, extended: bool) -> bytes | None:
    """Return the value of FETCH BODY, or of BODYSTRUCTURE if `extended` is true; None if it is not an ordinary message.

    Args:
        data: the message.
        extended: whether to write the extension data.
    """
    end = header_end(data, 0, MAX_SIZE) if len(data) <= MAX_SIZE else -1
    if end < 0:
        return None
    fields = ordinary.content_fields(data[:end])
    if fields is None or (fields and b"type" not in fields):  # then MIME-Version decides
        return None
    items = tuple(fields.items())
    is_short = sum(map(len, fields.values())) <= MAX_KNOWN_SIZE
    template = (_known_template if is_short else _template)(items, extended)
    if template is None:
        return None
    writer = _Writer(data, extended)
    return b"".join(writer.out) if writer.write(template, end, len(data)) else None


class _Writer:
    """Writes one structure to `out`, as far as the message is ordinary. `needles` are those of the open multiparts."""

    __slots__ = ("data", "extended", "needles", "out", "parts")

    def __init__(self, data: bytes, extended: bool) -> None:
        self.data = data
        self.extended = extended
        self.out: list[bytes] = []
        self.needles: list[bytes] = []
        self.parts = 0

    def write(self, template: _Template, start: int, end: int) -> bool:
        """Write the part whose body is ``data[start:end]``; return whether it is ordinary."""
        before, after, counts_lines, needle = template
        if needle:
            self.out.append(b"(")
            if not self.multipart(needle, start, end):
                return False
            self.out.append(after + b")")
        elif counts_lines:
            lines = self.data.count(b"\n", start, end)
            self.out.append(b"(%b%d %d%b)" % (before, end - start, lines, after))
        else:
            self.out.append(b"(%b%d%b)" % (before, end - start, after))
        return True

    def multipart(self, needle: bytes, start: int, stop: int) -> bool:
        """Write the parts between the boundaries in ``data[start:stop]``; return whether they are ordinary."""
        if len(self.needles) >= MAX_DEPTH:
            return False
        for outer in self.needles:
            if outer.startswith(needle) or needle.startswith(outer):
                return False
        self.needles.append(needle)
        data = self.data
        first = self.parts
        hit = data.find(needle, start - 1, stop)
        while hit >= 0:
            pos = hit + len(needle)
            if data.startswith(b"\r\n", pos):
                pos += 2
            elif data.startswith(b"\n", pos):
                pos += 1
            else:
                self.needles.pop()
                return self.parts > first and self.is_closing(pos)
            # The line end of this boundary may begin the next.
            hit = data.find(needle, pos - 1, stop)
            body = header_end(data, pos, hit)
            if not pos < body <= hit or self.parts >= MAX_PARTS:
                return False
            self.parts += 1
            template = _template_of(data[pos:body], self.extended)
            end = hit - 1 if hit > body and data[hit - 1] == 0x0D else hit
            if template is None or not self.write(template, body, hit if template.needle else end):
                return False
        return False

    def is_closing(self, pos: int) -> bool:
        """Return whether the rest of a line, after a boundary, says that no part follows."""
        data = self.data
        if not data.startswith(b"--", pos):
            return False
        rest = data[pos + 2 : pos + 4]
        return rest in (b"", b"\r\n") or rest.startswith(b"\n")


def _template_of(header: bytes, extended: bool) -> _Template | None:
    """Return what is written of a part of a multipart; None if it is not ordinary."""
    if len(header) <= MAX_KNOWN_SIZE:
        return _known_template_of(header, extended)
    fields = ordinary.content_fields(header)
    return None if fields is None else _template(tuple(fields.items()), extended)


@lru_cache(KNOWN_HEADERS)
def _known_template_of(header: bytes, extended: bool) -> _Template | None:
    fields = ordinary.content_fields(header)
    return None if fields is None else _template(tuple(fields.items()), extended)


def _template(fields: tuple[tuple[bytes, bytes], ...], extended: bool) -> _Template | None:
    """Return what is written of a part with these fields (`ordinary.content_fields`); None if it is not ordinary."""
    limits = DEFAULT_LIMITS
    part = Part(0)
    part.set_fields(dict(fields), limits.parameters)
    if part.kind in MESSAGE_KINDS or part.kind == b"multipart/digest":
        return None
    if not part.kind.startswith(b"multipart/"):
        before, after = single_part_text(part, limits, extended)
        return _Template(before, after, has_lines(part), b"")
    boundary = part.parameter(b"boundary")
    if not part.subtype or boundary is None or not _boundary(boundary):
        return None
    return _Template(b"", multipart_end(part, limits, extended), False, b"\n--" + boundary)


_known_template = lru_cache(KNOWN_HEADERS)(_template)
