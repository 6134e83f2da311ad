"""Responses as values, which `wire.encode` turns into bytes."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

Code = bytes | Iterable[bytes]
"""A response code without brackets; one that can be long is an iterable of its pieces."""


class Tagged(NamedTuple):
    """A tagged response without its tag.

    Args:
        condition: OK, NO or BAD.
        text: the text for the user, in one line of printable ASCII.
        code: the response code, or None.
    """

    condition: bytes
    text: str
    code: Code | None = None


def ok(text: str, code: Code | None = None) -> Tagged:
    """Return the response to a command that succeeded."""
    return Tagged(b"OK", text, code)


def no(text: str, code: Code | None = None) -> Tagged:
    """Return the response to a command that was refused or failed."""
    return Tagged(b"NO", text, code)


def bad(text: str, code: Code | None = None) -> Tagged:
    """Return the response to a command that breaks the grammar or is not permitted in this state."""
    return Tagged(b"BAD", text, code)


class ThreadNode(NamedTuple):
    """A message in a thread with the replies to it. A `number` of None is a missing parent (RFC 5256)."""

    number: int | None
    children: Sequence["ThreadNode"] = ()
