"""Answers that are more than a line of bytes: values that `wire.encode` writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Tagged(NamedTuple):
    """The end of a command: OK, NO or BAD, a text of ours, a response code without brackets."""

    condition: bytes
    text: str
    code: bytes | None = None


def ok(text: str, code: bytes | None = None) -> Tagged:
    """Return a success."""
    return Tagged(b"OK", text, code)


def no(text: str, code: bytes | None = None) -> Tagged:
    """Return a failure."""
    return Tagged(b"NO", text, code)


def bad(text: str, code: bytes | None = None) -> Tagged:
    """Return the answer to a command that could not be understood."""
    return Tagged(b"BAD", text, code)


class ThreadNode(NamedTuple):
    """A message in a thread and the answers to it; `number` None is RFC 5256's missing parent."""

    number: int | None
    children: Sequence[ThreadNode] = ()
