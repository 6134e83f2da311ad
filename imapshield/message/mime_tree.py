"""A message into its tree of parts: one walk from boundary to boundary (RFC 2046 section 5.1).

The octets between boundaries are only ever searched by `bytes.find`, so what a message costs does
not depend on what its author put there. Python runs once for each boundary line that really ends
something, and those are as many as there are parts, which `MimeLimits` bounds.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from imapshield.message.headers import (
    Parameters,
    field_body,
    field_end,
    find_values,
    leading_token,
    parse_content_type,
    parse_disposition,
    parse_languages,
    sole_token,
)


@dataclass(frozen=True, slots=True)
class MimeLimits:
    """How much of one message is understood; what is beyond is no error but opaque.

    depth: parts inside parts. Dovecot's number; CVE-2020-12100 was the lack of it. BODYSTRUCTURE
        recurses, so keep it below 200.
    parts: in one message; Dovecot's number. A part costs about 15 µs and 60 octets of
        BODYSTRUCTURE.
    header: octets of one header that are looked into for fields; CVE-2024-23185 was the lack of it.
        The largest honest headers list some thousands of recipients; the worst that can be in one
        costs about a second.
    parameters: of one field; Dovecot's number since CVE-2026-27859.
    addresses: of one envelope, or of all in one structure; CVE-2024-23184 was the lack of it.
    boundary: octets of a boundary that count, of RFC 2046's 70 and a few to spare.
    """

    depth: int = 100
    parts: int = 10_000
    header: int = 1 << 19
    parameters: int = 128
    addresses: int = 10_000
    boundary: int = 80


DEFAULT_LIMITS: Final = MimeLimits()
MESSAGE_KINDS: Final = (b"message/rfc822", b"message/global")


@dataclass(slots=True)
class Part:
    """One part; offsets are into the message.

    Header: `start` to `body_start`, its blank line included. Body: `body_start` to `end`; the line
    end before a boundary belongs to the boundary (RFC 2046 section 5.1.1).
    `type` and `subtype` are as written, `kind` is both in lower case: ``text/plain``.
    `encoding` is as written, b"" when absent or unreadable.
    `fields` are the bodies of the Content-X fields by X in lower case; of two, the first.
    `lines` counts the line ends of the body.
    A multipart has `children`; a message/rfc822 or message/global has its message as `embedded`.
    `opaque` marks what would have either but is broken or beyond the limits.
    """

    start: int
    body_start: int = 0
    end: int = 0
    type: bytes = b"text"
    subtype: bytes = b"plain"
    kind: bytes = b"text/plain"
    params: Parameters = field(default_factory=list)
    encoding: bytes = b""
    fields: dict[bytes, bytes] = field(default_factory=dict)
    lines: int = 0
    is_multipart: bool = False
    opaque: bool = False
    children: list[Part] = field(default_factory=list)
    embedded: Part | None = None

    def walk(self) -> Iterator[Part]:
        """Yield this part and all below it, in the order of the message."""
        rest = [self]
        while rest:
            part = rest.pop()
            yield part
            if part.embedded is not None:
                rest.append(part.embedded)
            rest.extend(reversed(part.children))

    def parameter(self, name: bytes) -> bytes | None:
        """Return the value of a Content-Type parameter, None if absent; `name` in lower case."""
        for key, value in self.params:
            if key.lower() == name:
                return value
        return None

    def transfer_encoding(self) -> bytes:
        """Content-Transfer-Encoding as decoders need it: lower case, ``7bit`` by default."""
        body = self.fields.get(b"transfer-encoding")
        return b"7bit" if body is None else leading_token(body) or b"7bit"


class _Mark:
    """A boundary that may come: what to search, whose it is, where it is next, how far known."""

    __slots__ = ("depth", "hit", "known", "needle")

    def __init__(self, boundary: bytes, depth: int) -> None:
        self.needle = b"\n--" + boundary
        self.depth = depth
        self.hit = -1
        self.known = 0


def parse_mime_tree(data: bytes, limits: MimeLimits = DEFAULT_LIMITS) -> Part:
    """Return the tree of the message `data`.

    Args:
        data: the message; lines end in CRLF, or in LF where something put one.
        limits: how much of it to understand.
    """
    return _Scan(data, limits).run()


class _Scan:
    """The walk; `open` are the parts down to the one being read, `marks` their boundaries."""

    __slots__ = (
        *("counted", "counted_to", "cut", "data", "limits", "line_counts", "marks", "open"),
        "total",
    )

    def __init__(self, data: bytes, limits: MimeLimits) -> None:
        self.data = data
        self.limits = limits
        self.open: list[Part] = []
        self.line_counts: list[int] = []
        self.marks: list[_Mark] = []
        self.total = 1
        self.counted = 0
        self.counted_to = 0
        # Of the parts open, those from this one on have no body: see `_header`.
        self.cut = sys.maxsize

    def run(self) -> Part:
        part = root = Part(0)
        floor = self._header(root, False)
        while True:
            self.open.append(part)
            self._count(part.body_start)
            self.line_counts.append(self.counted)
            if part.kind in MESSAGE_KINDS:
                if len(self.open) < self.limits.depth and self.total < self.limits.parts:
                    self.total += 1
                    part.embedded = Part(part.body_start, part.body_start)
                    part = part.embedded
                    if self.cut > len(self.open):
                        floor = self._header(part, False)
                    continue
                part.opaque = True
            after = self._content(floor)
            if after < 0:
                self._close(0, len(self.data))
                return root
            parent = self.open[-1]
            self.total += 1
            part = Part(after)
            if parent.kind == b"multipart/digest":
                part.type, part.subtype, part.kind = b"message", b"rfc822", b"message/rfc822"
            parent.children.append(part)
            floor = self._header(part, True)

    def _content(self, floor: int) -> int:
        """Go on from `floor`, the start of a line, to where the next part starts; -1 if nowhere.

        Closes the parts that end on the way.
        """
        data = self.data
        while self.total < self.limits.parts:
            hit = self._next(floor - 1)
            if hit < 0:
                return -1
            line_end = data.find(b"\n", hit + 3)
            mark = self._marks_at(hit, line_end)
            end = hit - 1 if hit > floor and data[hit - 1] == 0x0D else hit
            self._close(mark.depth, max(end, floor))
            self.cut = sys.maxsize
            text_end = hit + len(mark.needle)
            closes = data.startswith(b"--", text_end)
            while self.marks[-1] is not mark:
                self.marks.pop()
            if closes:
                self.marks.pop()
            if line_end < 0:
                return -1
            floor = line_end + 1
            if not closes:
                return floor
        return -1

    def _next(self, pos: int) -> int:
        """Return where the next boundary is, the line end before it at `pos` or later; -1 if none.

        Boundaries are asked from the outside in, each only up to where one further out was found:
        that one would end the inner part anyway. So every octet is searched at most once for each
        level of nesting.
        """
        data = self.data
        limit = len(data)
        first = -1
        for mark in self.marks:
            if mark.hit < pos:
                start = max(pos, mark.known)
                if start > limit:
                    continue
                mark.hit = data.find(mark.needle, start, limit + len(mark.needle))
                if mark.hit < 0:
                    mark.known = limit + 1
                    continue
            if mark.hit <= limit:
                first = limit = mark.hit
        return first

    def _marks_at(self, hit: int, line_end: int) -> _Mark:
        """Return whose boundary the line at `hit` is: of those that are its prefix, the longest.

        A line that is ``foo--`` may close ``foo`` or stand for a boundary ``foo--``: the innermost
        exact one wins.
        """
        data = self.data
        stop = len(data) if line_end < 0 else line_end
        if data[stop - 1] == 0x0D:
            stop -= 1
        size = stop - hit
        dashes = size > 5 and data[stop - 2 : stop] == b"--"
        best: _Mark | None = None
        for mark in reversed(self.marks):
            if mark.hit == hit and (best is None or len(mark.needle) > len(best.needle)):
                best = mark
                if len(mark.needle) == size or (dashes and len(mark.needle) + 2 == size):
                    break
        assert best is not None
        return best

    def _count(self, pos: int) -> None:
        """Count line ends up to `pos`; it only grows, so the message is counted once."""
        self.counted += self.data.count(b"\n", self.counted_to, pos)
        self.counted_to = max(pos, self.counted_to)

    def _close(self, depth: int, end: int) -> None:
        """End all open parts below `depth`."""
        self._count(end)
        while len(self.open) > depth:
            part = self.open.pop()
            lines = self.line_counts.pop()
            if len(self.open) >= self.cut:
                part.end = part.body_start
            else:
                part.end = end
                part.lines = self.counted - lines

    def _header(self, part: Part, mime: bool) -> int:
        """Read the header that starts at ``part.start``; return the start of the line after it.

        It ends with a blank line, or at a boundary, or with the message. A boundary takes the line
        end before it, even that of a blank line: then the part has neither blank line nor body.
        """
        data = self.data
        start = part.start
        hit = self._next(start - 1) if self.marks and self.total < self.limits.parts else -1
        limit = len(data) if hit < 0 else hit
        end = _blank_line(data, start, limit + 1)
        whole = end >= 0 and end - 1 != hit
        stop = end
        if not whole:
            stop = hit - 1 if hit > start and data[hit - 1] == 0x0D else limit
            stop = max(start, stop)
        self._fields(part, data[start : min(stop, start + self.limits.header)], mime)
        if part.kind.startswith(b"multipart/"):
            own = self._multipart(part, end >= 0)
            if own is not None and not whole:
                self._next(hit)
                whole = self._marks_at(hit, data.find(b"\n", hit + 3)) is own
        if whole:
            part.body_start = part.end = end
            return end
        part.body_start = part.end = stop
        self.cut = len(self.open)
        return min(limit + 1, len(data))

    def _multipart(self, part: Part, has_blank: bool) -> _Mark | None:
        """Expect the boundary of `part`, if it has one and a body to look for it."""
        if not part.subtype:
            part.opaque = True
            return None
        part.is_multipart = True
        boundary = part.parameter(b"boundary") if has_blank else None
        if boundary is None:
            return None
        if len(self.open) + 1 >= self.limits.depth:
            part.opaque, part.is_multipart = True, False
            return None
        mark = _Mark(boundary[: self.limits.boundary], len(self.open) + 1)
        self.marks.append(mark)
        return mark

    def _fields(self, part: Part, header: bytes, mime: bool) -> None:
        """Take what the Content-… fields of `header` say."""
        block = b"\n" + header
        low = block.lower()
        found = part.fields
        settled: set[bytes] = set()
        at = low.find(b"\ncontent-")
        while at >= 0:
            line_end = low.find(b"\n", at + 9)
            colon = low.find(b":", at + 9, line_end if line_end >= 0 else len(low))
            if colon >= 0:
                end = field_end(block, colon)
                name = low[at + 9 : colon].rstrip(b" \t")
                if name not in settled:
                    if name not in found or self._says_nothing(name, found[name]):
                        found[name] = field_body(block, colon, end)
                    else:
                        settled.add(name)
                at = end - 2
            at = low.find(b"\ncontent-", at + 1)
        body = found.get(b"type")
        if body is None:
            if found and not mime and not find_values(block, low, b"mime-version"):
                # RFC 2045 section 4: without MIME-Version it is no MIME, and the other fields mean
                # nothing.
                found.clear()
        else:
            main, sub, part.params = parse_content_type(body, self.limits.parameters)
            part.type, part.subtype, part.kind = main, sub, (main + b"/" + sub).lower()
        body = found.get(b"transfer-encoding")
        if body is not None:
            part.encoding = sole_token(body)

    def _says_nothing(self, name: bytes, body: bytes) -> bool:
        """Whether a later field of that name is to be heard instead; the choice is Dovecot's."""
        if name == b"disposition":
            known = parse_disposition(body, self.limits.parameters)
            return known is None or not known[1]
        if name == b"transfer-encoding":
            return not sole_token(body)
        return name == b"language" and not parse_languages(body)


def _blank_line(data: bytes, start: int, limit: int) -> int:
    """Return the end of the first blank line of a header, -1 if there is none before `limit`."""
    if data.startswith(b"\r\n", start):
        return start + 2
    if data.startswith(b"\n", start):
        return start + 1
    with_cr = data.find(b"\n\r\n", start, limit)
    bare = data.find(b"\n\n", start, limit if with_cr < 0 else with_cr + 1)
    if bare >= 0:
        return bare + 2
    return with_cr + 3 if with_cr >= 0 else -1
