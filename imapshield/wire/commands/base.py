"""What all commands share: the base class, literals, secrets, and the commands without arguments."""

from dataclasses import dataclass
from typing import Protocol


class LiteralData(Protocol):
    """The content of a literal: held in memory, or in a temporary file for a large APPEND."""

    binary: bool
    """Whether it was sent as literal8, ``~{n}`` (RFC 3516), and may therefore contain NUL."""

    @property
    def size(self) -> int:
        """The size in bytes."""

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`, or fewer at the end of the literal."""

    def close(self) -> None:
        """Release the memory or file; the literal cannot be read afterwards."""


@dataclass(slots=True)
class MemoryLiteral:
    """A literal held in memory."""

    content: bytes
    binary: bool = False

    @property
    def size(self) -> int:
        """The size in bytes."""
        return len(self.content)

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`, or fewer at the end of the literal."""
        return self.content[offset : offset + size]

    def close(self) -> None:
        """Do nothing: memory is released by the garbage collector."""


@dataclass(frozen=True, slots=True)
class Secret:
    """Bytes that must not appear in a log, a repr or a traceback."""

    value: bytes

    def __repr__(self) -> str:
        return "Secret(...)"


class Command:
    """Base class of all commands.

    Where a command takes a `SequenceSet`, ``$`` (RFC 5182) is `sequence.SAVED`.

    Attributes:
        uid: whether the command was sent with the prefix UID, so that its numbers are UIDs: ``UID FETCH`` is `Fetch`
            with ``uid=True``. None for a command whose value does not depend on the prefix.
    """

    __slots__ = ()
    uid: bool | None = None


@dataclass(frozen=True, slots=True)
class BareCommand(Command):
    """A command without arguments, such as NOOP, CAPABILITY, LOGOUT, STARTTLS or CLOSE; `name` is in upper case."""

    name: bytes
