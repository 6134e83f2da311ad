"""STORE, COPY, MOVE and EXPUNGE, each with its UID form (RFC 9051 section 6.4)."""

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
    """STORE and UID STORE.

    Args:
        sequence: the messages.
        operation: b"+" adds the flags, b"-" removes them, b"" replaces all flags by them.
        flags: canonical flags, each once.
        silent: whether the FETCH responses are to be left out (.SILENT).
        uid: whether the command was UID STORE.
        unchanged_since: the MODSEQ of UNCHANGEDSINCE (RFC 7162).
    """

    sequence: SequenceSet
    operation: bytes
    flags: tuple[bytes, ...]
    silent: bool = False
    uid: bool = False
    unchanged_since: int | None = None


@dataclass(frozen=True, slots=True)
class Copy(Command):
    """COPY and UID COPY, or MOVE and UID MOVE (RFC 6851) when `is_move`."""

    sequence: SequenceSet
    mailbox: str
    uid: bool = False
    is_move: bool = False
