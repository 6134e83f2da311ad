"""TODO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class LiteralData(Protocol):
    """A literal's content, wherever the edge put it: in memory, or in a file for a large APPEND."""

    binary: bool
    """Whether it came as literal8, ``~{n}`` (RFC 3516), and may hold NUL."""

    @property
    def size(self) -> int:
        """How many octets there are."""

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` octets from `offset`; fewer only at the end."""

    def close(self) -> None:
        """Release what holds them; they cannot be read any more."""


@dataclass(slots=True)
class MemoryLiteral:
    """Octets held in memory; `content` is all of them."""

    content: bytes
    binary: bool = False

    @property
    def size(self) -> int:
        """How many octets there are."""
        return len(self.content)

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` octets from `offset`; fewer only at the end."""
        return self.content[offset : offset + size]

    def close(self) -> None:
        """Do nothing: memory needs no release."""


@dataclass(frozen=True, slots=True)
class Secret:
    """Bytes that no log, repr or traceback may show."""

    value: bytes

    def __repr__(self) -> str:
        return "Secret(...)"


class Command:
    """Base of all commands. ``UID FETCH`` is ``FETCH`` with `uid` set.

    Where a command takes a `SequenceSet`, ``$`` (RFC 5182) is `sequence.SAVED`.
    """

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class BareCommand(Command):
    """A command without arguments: CAPABILITY NOOP LOGOUT STARTTLS NAMESPACE CHECK CLOSE IDLE."""

    name: bytes
