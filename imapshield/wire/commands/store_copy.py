"""TODO."""

from __future__ import annotations

from dataclasses import dataclass

from imapshield.wire.commands.base import Command
from imapshield.wire.sequence import SequenceSet


@dataclass(frozen=True, slots=True)
class Expunge(Command):
    """EXPUNGE, or UID EXPUNGE of `uids` (RFC 4315)."""

    uids: SequenceSet | None = None


@dataclass(frozen=True, slots=True)
class Store(Command):
    """STORE and UID STORE; `op` is b"+", b"-" or b"" (replace)."""

    sequence: SequenceSet
    operation: bytes
    flags: tuple[bytes, ...]
    silent: bool = False
    uid: bool = False
    unchanged_since: int | None = None


@dataclass(frozen=True, slots=True)
class Copy(Command):
    """COPY and UID COPY, or MOVE (RFC 6851) when `move`."""

    sequence: SequenceSet
    mailbox: str
    uid: bool = False
    is_move: bool = False
