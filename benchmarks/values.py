"""What was answered, as values that two servers' answers can be compared by.

Atoms and strings are bytes, whichever way a string was sent, numbers are int, NIL is None, and what
stands in parentheses is a list.
"""

from __future__ import annotations

import re

from benchmarks.client import Answer, Pieces

Value = bytes | int | list["Value"] | None
FetchResult = dict[str, Value]
"""The items of one message, their names in capitals."""

_fetched = re.compile(rb"\* (\d+) FETCH (?=\()").match
_parenthesis = re.compile(rb"[()]")
_quoted = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL).match
_literal = re.compile(rb"~?\{\d+\}\r\n\Z").match
# BODY[HEADER.FIELDS (From To)]<0> is one word.
_word = re.compile(rb"[^ ()\[\r\n]+(?:\[[^\]]*\](?:<\d+>)?)?").match


def fetched(answer: Answer) -> dict[int, FetchResult]:
    """Read all FETCH answers: of each message number the items, their names in capitals.

    Raises ValueError where an answer is no IMAP.
    """
    found: dict[int, FetchResult] = {}
    for pieces in answer.untagged:
        if match := _fetched(pieces[0]):
            items = _Reader(pieces, match.end()).value()
            assert isinstance(items, list)
            names = [name.decode().upper() for name in items[::2] if isinstance(name, bytes)]
            found.setdefault(int(match[1]), {}).update(zip(names, items[1::2], strict=True))
    return found


def sorted_numbers(answer: Answer) -> list[int]:
    """List the numbers of a SORT answer."""
    lines = [line for (line, *_) in answer.untagged if line.startswith(b"* SORT")]
    return [int(word) for line in lines for word in line.split()[2:]]


def threads(answer: Answer) -> list[bytes]:
    """List the threads of a THREAD answer, each in its parentheses."""
    found, depth, start = [], 0, 0
    for line, *_ in answer.untagged:
        if not line.startswith(b"* THREAD"):
            continue
        for mark in _parenthesis.finditer(line):
            if mark[0] == b"(":
                start = start if depth else mark.start()
                depth += 1
            else:
                depth -= 1
                if not depth:
                    found.append(line[start : mark.end()])
    return found


class _Reader:
    def __init__(self, pieces: Pieces, pos: int) -> None:
        self.pieces = pieces
        self.index = 0
        self.pos = pos

    def value(self) -> Value:
        """Read one value, and the space before it."""
        line = self.pieces[self.index]
        while line[self.pos : self.pos + 1] == b" ":
            self.pos += 1
        if line[self.pos : self.pos + 1] == b"(":
            return self.values()
        if match := _quoted(line, self.pos):
            self.pos = match.end()
            return re.sub(rb"\\(.)", rb"\1", match[1], flags=re.DOTALL)
        if _literal(line, self.pos):
            self.index += 2
            self.pos = 0
            return self.pieces[self.index - 1]
        match = _word(line, self.pos)
        if match is None:
            raise ValueError(line[self.pos : self.pos + 80])
        self.pos = match.end()
        word: bytes = match[0]
        if word.upper() == b"NIL":
            return None
        return int(word) if word.isdigit() else word

    def values(self) -> list[Value]:
        """Read up to the closing parenthesis."""
        self.pos += 1
        found: list[Value] = []
        while True:
            line = self.pieces[self.index]
            while line[self.pos : self.pos + 1] == b" ":
                self.pos += 1
            if line[self.pos : self.pos + 1] == b")":
                self.pos += 1
                return found
            found.append(self.value())
