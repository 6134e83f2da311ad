"""GETMETADATA and SETMETADATA (RFC 5464)."""

from __future__ import annotations

from dataclasses import dataclass

from imapshield.wire.commands.base import Command


@dataclass(frozen=True, slots=True)
class GetMetadata(Command):
    """GETMETADATA.

    Args:
        mailbox: the mailbox; "" means the server.
        entries: entry names in lower case, each once.
        max_size: the largest value that the client wants, in bytes (MAXSIZE); None means any size.
        depth: how many levels below each entry are wanted too: 0, 1, or None for infinity (DEPTH).
    """

    mailbox: str
    entries: tuple[bytes, ...]
    max_size: int | None = None
    depth: int | None = 0


@dataclass(frozen=True, slots=True)
class SetMetadata(Command):
    """SETMETADATA: pairs of entry name and value for a mailbox ("" means the server); None removes the entry."""

    mailbox: str
    values: tuple[tuple[bytes, bytes | None], ...]
