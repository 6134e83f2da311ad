"""Parses responses into values that can be compared between two servers.

Atoms and strings are bytes, whichever form a string was sent in; numbers are int, NIL is None, and a
parenthesized list is a list.
"""

from __future__ import annotations

import re

from benchmarks.client import Parts, Response

Value = bytes | int | list["Value"] | None
FetchResult = dict[str, Value]
"""The data items of one message by their names in capitals."""

_fetch = re.compile(rb"\* (\d+) FETCH (?=\()").match
_parenthesis = re.compile(rb"[()]")
_quoted = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL).match
_literal = re.compile(rb"~?\{\d+\}\r\n\Z").match
# BODY[HEADER.FIELDS (From To)]<0> is one word.
_word = re.compile(rb"[^ ()\[\r\n]+(?:\[[^\]]*\](?:<\d+>)?)?").match


def fetched(response: Response) -> dict[int, FetchResult]:
    """Parse all FETCH responses; return the data items by sequence number.

    Raises:
        ValueError: a response is not valid IMAP.
    """
    found: dict[int, FetchResult] = {}
    for parts in response.untagged:
        if match := _fetch(parts[0]):
            items = _Parser(parts, match.end()).value()
            assert isinstance(items, list)
            names = [name.decode().upper() for name in items[::2] if isinstance(name, bytes)]
            found.setdefault(int(match[1]), {}).update(zip(names, items[1::2], strict=True))
    return found


def sorted_numbers(response: Response) -> list[int]:
    """Return the numbers of a SORT response."""
    lines = [line for (line, *_) in response.untagged if line.startswith(b"* SORT")]
    return [int(word) for line in lines for word in line.split()[2:]]


def threads(response: Response) -> list[bytes]:
    """Return the threads of a THREAD response, each with its parentheses."""
    found, depth, start = [], 0, 0
    for line, *_ in response.untagged:
        if not line.startswith(b"* THREAD"):
            continue
        for parenthesis in _parenthesis.finditer(line):
            if parenthesis[0] == b"(":
                start = start if depth else parenthesis.start()
                depth += 1
            else:
                depth -= 1
                if not depth:
                    found.append(line[start : parenthesis.end()])
    return found


class _Parser:
    def __init__(self, parts: Parts, pos: int) -> None:
        self.parts = parts
        self.index = 0
        self.pos = pos

    def value(self) -> Value:
        """Parse one value, and the space before it."""
        line = self._skip_spaces()
        if line[self.pos : self.pos + 1] == b"(":
            return self._list()
        if match := _quoted(line, self.pos):
            self.pos = match.end()
            return re.sub(rb"\\(.)", rb"\1", match[1], flags=re.DOTALL)
        if _literal(line, self.pos):
            self.index += 2
            self.pos = 0
            return self.parts[self.index - 1]
        match = _word(line, self.pos)
        if match is None:
            raise ValueError(line[self.pos : self.pos + 80])
        self.pos = match.end()
        word: bytes = match[0]
        if word.upper() == b"NIL":
            return None
        return int(word) if word.isdigit() else word

    def _list(self) -> list[Value]:
        """Parse up to the closing parenthesis."""
        self.pos += 1
        found: list[Value] = []
        while True:
            line = self._skip_spaces()
            if line[self.pos : self.pos + 1] == b")":
                self.pos += 1
                return found
            found.append(self.value())

    def _skip_spaces(self) -> bytes:
        """Move to the next character that is no space, and return the current line."""
        line = self.parts[self.index]
        while line[self.pos : self.pos + 1] == b" ":
            self.pos += 1
        return line
