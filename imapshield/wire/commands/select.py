"""SELECT and EXAMINE (RFC 9051 section 6.3.2) with the parameters of RFC 7162."""

from __future__ import annotations

from dataclasses import dataclass

from imapshield.wire.commands.base import Command
from imapshield.wire.sequence import SequenceSet


@dataclass(frozen=True, slots=True)
class Qresync:
    """The QRESYNC parameter of SELECT: what the client remembers of the mailbox (RFC 7162 section 3.2.5).

    Args:
        uidvalidity: the last known UIDVALIDITY.
        modseq: the last known HIGHESTMODSEQ.
        known_uids: the UIDs that the client has; None means all of them.
        match_sequence: sequence numbers of the client's messages, to find where it and the server agree.
        match_uids: the UIDs of the messages in `match_sequence`.
    """

    uidvalidity: int
    modseq: int
    known_uids: SequenceSet | None = None
    match_sequence: SequenceSet | None = None
    match_uids: SequenceSet | None = None


@dataclass(frozen=True, slots=True)
class Select(Command):
    """SELECT, or EXAMINE when `readonly`. `mailbox` is "" when the client sent a name that no mailbox can have."""

    mailbox: str
    readonly: bool = False
    condstore: bool = False
    qresync: Qresync | None = None
