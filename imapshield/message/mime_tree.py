"""Parses a message into the tree of its MIME parts, in one pass from boundary to boundary (RFC 2046 section 5.1).

The bytes between boundaries are only searched (`chunks.find`), once for each level of nesting. So the cost of a message
is at most its size times its nesting. Python code runs once for each boundary line that ends a part, and
`MimeLimits` bounds nesting and parts.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from imapshield.message import headers
from imapshield.message.chunks import CHUNK_SIZE, count_lines, find
from imapshield.message.mime_limits import DEFAULT_LIMITS, MimeLimits
from imapshield.message.ordinary import content_fields
from imapshield.message.pauses import pause_point

MESSAGE_KINDS: Final = (b"message/rfc822", b"message/global")
_FIELDS: Final = frozenset(
    (
        *(b"type", b"transfer-encoding", b"id", b"description", b"md5"),
        *(b"disposition", b"language", b"location"),
    )
)
"""The Content-X fields that BODYSTRUCTURE and decoding need, by X."""


@dataclass(slots=True)
class Part:
    """One part of a message. Positions are offsets into the message.

    Attributes:
        start: where the header starts.
        body_start: where the header, including its blank line, ends and the body starts.
        end: where the body ends. The line end before a boundary belongs to the boundary (RFC 2046 section 5.1.1).
        type: the media type, as written.
        subtype: the media subtype, as written.
        kind: type and subtype in lower case: ``text/plain``.
        params: the parameters of Content-Type, as written.
        encoding: the Content-Transfer-Encoding, as written; b"" if it is missing or unreadable.
        fields: the bodies of the Content-X fields of BODYSTRUCTURE, by X in lower case. If a field occurs twice, the
            first one counts.
        lines: the number of line ends in the body.
        is_multipart: whether this is a multipart.
        opaque: whether this would be a multipart or a message, but is broken or beyond the limits.
        children: the parts of a multipart.
        embedded: the message in a message/rfc822 or message/global part.
    """

    start: int
    body_start: int = 0
    end: int = 0
    type: bytes = b"text"
    subtype: bytes = b"plain"
    kind: bytes = b"text/plain"
    params: headers.Parameters = field(default_factory=list)
    encoding: bytes = b""
    fields: dict[bytes, bytes] = field(default_factory=dict)
    lines: int = 0
    is_multipart: bool = False
    opaque: bool = False
    children: list[Part] = field(default_factory=list)
    embedded: Part | None = None

    def walk(self) -> Iterator[Part]:
        """Yield this part and all parts below it, in the order of the message."""
        stack = [self]
        while stack:
            part = stack.pop()
            yield part
            if part.embedded is not None:
                stack.append(part.embedded)
            stack.extend(reversed(part.children))

    def set_fields(self, fields: dict[bytes, bytes], limit: int) -> None:
        """Set `fields`, and what the type and the encoding among them say; `limit` is the maximum of parameters."""
        self.fields = fields
        body = fields.get(b"type")
        if body is not None:
            main, sub, self.params = headers.content_type(body, limit)
            self.type, self.subtype, self.kind = main, sub, (main + b"/" + sub).lower()
        body = fields.get(b"transfer-encoding")
        if body is not None:
            self.encoding = headers.sole_token(body)

    def parameter(self, name: bytes) -> bytes | None:
        """Return the value of the Content-Type parameter `name` (in lower case), or None if it is missing."""
        for key, value in self.params:
            if key.lower() == name:
                return value
        return None

    def transfer_encoding(self) -> bytes:
        """Return the Content-Transfer-Encoding as decoders need it: in lower case, and ``7bit`` by default."""
        body = self.fields.get(b"transfer-encoding")
        return b"7bit" if body is None else headers.leading_token(body) or b"7bit"


@dataclass(slots=True, eq=False)
class _Boundary:
    """The boundary of an open multipart.

    `needle` is the line end, the two dashes and the boundary. `depth` is the number of open parts from the root down
    to the multipart. `position` is where the needle was found last, or -1. It does not occur before `searched_to`.
    """

    needle: bytes
    depth: int
    position: int = -1
    searched_to: int = 0


def parse_mime_tree(data: bytes, limits: MimeLimits = DEFAULT_LIMITS) -> Part:
    """Return the MIME tree of a message. Every message has one, however broken it is.

    Args:
        data: the message. Its lines end with CRLF or with LF alone.
        limits: how much of it to parse.
    """
    return _TreeParser(data, limits).parse()


@dataclass(slots=True)
class _TreeParser:
    """Parses one message.

    `open_parts` are the parts from the root down to the one that is being read. `boundaries` are their boundaries, and
    `line_counts` are the numbers of line ends before their bodies. `total` is the number of parts so far, and `lines`
    is the number of line ends before `lines_to`. The open parts from index `bodiless_from` on have no body, because a
    boundary ended their header (`_read_header`). `header_bytes` and `field_bytes` are the sizes of all headers and
    fields so far.
    """

    data: bytes
    limits: MimeLimits
    open_parts: list[Part] = field(default_factory=list)
    line_counts: list[int] = field(default_factory=list)
    boundaries: list[_Boundary] = field(default_factory=list)
    total: int = 1
    header_bytes: int = 0
    field_bytes: int = 0
    lines: int = 0
    lines_to: int = 0
    bodiless_from: int = sys.maxsize

    def parse(self) -> Part:
        part = root = Part(0)
        line_start = self._read_header(root, False)
        while True:
            pause_point()
            self.open_parts.append(part)
            self._count_lines(part.body_start)
            self.line_counts.append(self.lines)
            if part.kind in MESSAGE_KINDS:
                if len(self.open_parts) < self.limits.depth and self._may_have_more_parts():
                    self.total += 1
                    part.embedded = Part(part.body_start, part.body_start)
                    part = part.embedded
                    if self.bodiless_from > len(self.open_parts):
                        line_start = self._read_header(part, False)
                    continue
                part.opaque = True
            part_start = self._read_body(line_start)
            if part_start < 0:
                self._close_parts(0, len(self.data))
                return root
            parent = self.open_parts[-1]
            self.total += 1
            part = Part(part_start)
            if parent.kind == b"multipart/digest":
                part.type, part.subtype, part.kind = b"message", b"rfc822", b"message/rfc822"
            parent.children.append(part)
            line_start = self._read_header(part, True)

    def _may_have_more_parts(self) -> bool:
        """Whether the limits on the whole message allow another part."""
        limits = self.limits
        return (
            self.total < limits.parts
            and self.header_bytes < limits.headers
            and self.field_bytes < limits.fields
        )

    def _read_body(self, line_start: int) -> int:
        """Return the position after `line_start` where the next part starts, or -1 if no part follows.

        Parts that end before that position are closed.
        """
        data = self.data
        while self._may_have_more_parts():
            hit = self._next_boundary(line_start - 1)
            if hit < 0:
                return -1
            line_end = find(data, b"\n", hit + 3, len(data))
            boundary = self._boundary_at(hit, line_end)
            end = hit - 1 if hit > line_start and data[hit - 1] == 0x0D else hit
            self._close_parts(boundary.depth, max(end, line_start))
            self.bodiless_from = sys.maxsize
            is_closing = data.startswith(b"--", hit + len(boundary.needle))
            while self.boundaries[-1] is not boundary:
                self.boundaries.pop()
            if is_closing:
                self.boundaries.pop()
            if line_end < 0:
                return -1
            line_start = line_end + 1
            if not is_closing:
                return line_start
        return -1

    def _next_boundary(self, pos: int) -> int:
        """Return the position of the line end before the next boundary, at `pos` or later, or -1 if there is none.

        Boundaries are searched from the outermost to the innermost. Each is searched only up to where an outer one
        was found, because the outer one would end the inner part anyway. So every byte is searched at most once for
        each level of nesting.
        """
        data = self.data
        limit = len(data)
        first = -1
        for boundary in self.boundaries:
            if boundary.position < pos:
                start = max(pos, boundary.searched_to)
                if start > limit:
                    continue
                stop = min(limit + len(boundary.needle), len(data))
                boundary.position = find(data, boundary.needle, start, stop)
                if boundary.position < 0:
                    boundary.searched_to = limit + 1
                    continue
            if boundary.position <= limit:
                first = limit = boundary.position
        return first

    def _boundary_at(self, hit: int, line_end: int) -> _Boundary:
        """Return the boundary of the line at `hit`: the longest one with which the line starts.

        A line ``foo--`` can close ``foo``, or separate parts of a multipart with the boundary ``foo--``. The innermost
        exact match wins.
        """
        data = self.data
        stop = len(data) if line_end < 0 else line_end
        if data[stop - 1] == 0x0D:
            stop -= 1
        size = stop - hit
        ends_in_dashes = size > 5 and data[stop - 2 : stop] == b"--"
        best: _Boundary | None = None
        for boundary in reversed(self.boundaries):
            length = len(boundary.needle)
            if boundary.position == hit and (best is None or length > len(best.needle)):
                best = boundary
                if length == size or (ends_in_dashes and length + 2 == size):
                    break
        assert best is not None
        return best

    def _count_lines(self, pos: int) -> None:
        """Count the line ends up to `pos`. The positions never decrease, so every byte is counted once."""
        self.lines += count_lines(self.data, self.lines_to, pos)
        self.lines_to = max(pos, self.lines_to)

    def _close_parts(self, depth: int, end: int) -> None:
        """Close the open parts below `depth`. Their bodies end at `end`."""
        self._count_lines(end)
        while len(self.open_parts) > depth:
            part = self.open_parts.pop()
            lines_before = self.line_counts.pop()
            if len(self.open_parts) >= self.bodiless_from:
                part.end = part.body_start
            else:
                part.end = end
                part.lines = self.lines - lines_before

    def _read_header(self, part: Part, is_child: bool) -> int:
        """Read the header that starts at ``part.start``, and return where the line after it starts.

        The header ends with a blank line, at a boundary, or with the message. The line end before a boundary belongs
        to the boundary, even if it is the blank line: then the part has neither blank line nor body.

        Args:
            part: receives the fields, and the positions of the header and the body.
            is_child: whether the part belongs to a multipart, and is not a message.
        """
        data = self.data
        start = part.start
        expects_boundary = self.boundaries and self._may_have_more_parts()
        hit = self._next_boundary(start - 1) if expects_boundary else -1
        limit = len(data) if hit < 0 else hit
        end = headers.header_end(data, start, limit + 1)
        is_complete = end >= 0 and end - 1 != hit
        stop = end
        if not is_complete:
            stop = hit - 1 if hit > start and data[hit - 1] == 0x0D else limit
            stop = max(start, stop)
        header = data[start : min(stop, start + self.limits.header)]
        self.header_bytes += len(header)
        self._read_fields(part, header, is_child)
        if part.kind.startswith(b"multipart/"):
            own_boundary = self._start_multipart(part, end >= 0)
            if own_boundary is not None and not is_complete:
                self._next_boundary(hit)
                found = self._boundary_at(hit, data.find(b"\n", hit + 3))
                is_complete = found is own_boundary
        if is_complete:
            part.body_start = part.end = end
            return end
        part.body_start = part.end = stop
        self.bodiless_from = len(self.open_parts)
        return min(limit + 1, len(data))

    def _start_multipart(self, part: Part, has_body: bool) -> _Boundary | None:
        """Make `part` a multipart. Return its boundary, or None if no boundary can occur in its body."""
        if not part.subtype:
            part.opaque = True
            return None
        part.is_multipart = True
        parameter = part.parameter(b"boundary") if has_body else None
        if parameter is None:
            return None
        if len(self.open_parts) + 1 >= self.limits.depth:
            part.opaque, part.is_multipart = True, False
            return None
        needle = b"\n--" + parameter[: self.limits.boundary]
        boundary = _Boundary(needle, len(self.open_parts) + 1)
        self.boundaries.append(boundary)
        return boundary

    def _read_fields(self, part: Part, header: bytes, is_child: bool) -> None:
        """Read the Content-X fields of `header` into `part`."""
        found = content_fields(header) if self.limits.field >= CHUNK_SIZE else None
        if found is None:
            found = self._all_content_fields(header)
        else:
            self.field_bytes += sum(map(len, found.values()))
        is_typed = is_child or b"type" in found
        if found and not is_typed and not headers.header_values(header, b"mime-version"):
            # RFC 2045 section 4: a message without MIME-Version is not a MIME message. Its Content-X fields have no
            # meaning.
            found.clear()
        part.set_fields(found, self.limits.parameters)

    def _all_content_fields(self, header: bytes) -> dict[bytes, bytes]:
        """Return what `content_fields` returns, for any header, and count its bytes."""
        block = b"\n" + header
        low = block.lower()
        found: dict[bytes, bytes] = {}
        final: set[bytes] = set()
        pos = low.find(b"\ncontent-")
        while pos >= 0:
            line_end = low.find(b"\n", pos + 9)
            colon = low.find(b":", pos + 9, line_end if line_end >= 0 else len(low))
            if colon >= 0:
                end = headers.field_end(block, colon)
                name = low[pos + 9 : min(colon, pos + 100)].rstrip(b" \t")
                if name in _FIELDS and name not in final:
                    if name not in found or self._is_replaceable(name, found[name]):
                        stop = min(end, colon + self.limits.field)
                        found[name] = headers.field_body(block, colon, stop)
                        self.field_bytes += len(found[name])
                    else:
                        final.add(name)
                pos = end - 2
            pos = low.find(b"\ncontent-", pos + 1)
        return found

    def _is_replaceable(self, name: bytes, body: bytes) -> bool:
        """Return whether a field is unreadable, so that a later one with the same name replaces it, as in Dovecot."""
        if name == b"disposition":
            parsed = headers.parse_disposition(body, self.limits.parameters)
            return parsed is None or not parsed[1]
        if name == b"transfer-encoding":
            return not headers.sole_token(body)
        return name == b"language" and not headers.parse_languages(body, 1)
