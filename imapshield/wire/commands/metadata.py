"""TODO."""

from __future__ import annotations

from dataclasses import dataclass

from imapshield.wire.commands.base import Command


@dataclass(frozen=True, slots=True)
class GetMetadata(Command):
    """GETMETADATA (RFC 5464); `mailbox` "" is the server.

    `entries` in lower case; `most` is MAXSIZE; `depth` None is infinity.
    """

    mailbox: str
    entries: tuple[bytes, ...]
    max_size: int | None = None
    depth: int | None = 0


@dataclass(frozen=True, slots=True)
class SetMetadata(Command):
    """SETMETADATA: values by entry, None removes."""

    mailbox: str
    values: tuple[tuple[bytes, bytes | None], ...]
