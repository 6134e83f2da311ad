"""Checks that bytes are IMAP responses, without knowledge of what they mean (RFC 9051 section 7)."""

from __future__ import annotations

import re

_FIRST = re.compile(rb"(?:\* |\+ |[^\x00-\x20\x7f-\xff(){%*\"\\+]+ (?:OK|NO|BAD) )")
_STATUS = re.compile(rb"\S+ (?:OK|NO|BAD|BYE|PREAUTH) |\+ ")
_LITERAL = re.compile(rb"~?\{(\d+)\}\r\n")
_QUOTED = re.compile(rb'"(?:[^"\\\r\n\0]|\\["\\])*"')
_OTHER = re.compile(rb'[^"(){}\r\n\0]+|[{}]')


class NotResponses(Exception):
    """The bytes are not IMAP responses."""


def check_responses(data: bytes) -> None:
    """Raise `NotResponses` unless `data` consists of complete responses."""
    at = 0
    while at < len(data):
        if _FIRST.match(data, at) is None:
            raise NotResponses(data[at : at + 80])
        if _STATUS.match(data, at):  # the text is free; a response code has been written by us
            end = data.find(b"\r\n", at)
            if end < 0 or b"\0" in data[at:end] or b"\n" in data[at:end] or b"\r" in data[at:end]:
                raise NotResponses(data[at : at + 80])
            at = end + 2
        else:
            at = _data_response(data, at)


def _data_response(data: bytes, start: int) -> int:
    """Return the end of the untagged response at `start`: strings, and parentheses in pairs."""
    at, depth = start, 0
    while True:
        if data.startswith(b"\r\n", at):
            if depth:
                raise NotResponses(data[start:at])
            return at + 2
        if literal := _LITERAL.match(data, at):
            at = literal.end() + int(literal[1])
        elif found := _QUOTED.match(data, at) or _OTHER.match(data, at):
            at = found.end()
        elif data[at : at + 1] in (b"(", b")"):
            depth += 1 if data[at : at + 1] == b"(" else -1
            at += 1
        else:
            raise NotResponses(data[start : at + 80])
        if depth < 0:
            raise NotResponses(data[start:at])
