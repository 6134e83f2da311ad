"""How a store says that a mailbox changed, and how an open mailbox passes the change on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from imapshield.wire.sequence import SequenceSet


class MessageRow(NamedTuple):
    """One message: `flags` such as ``\\Seen $Junk``, `internaldate` in epoch seconds, `size` None if unmeasured."""

    uid: int
    flags: bytes
    modseq: int
    size: int | None
    internaldate: int


@dataclass(slots=True)
class Delta:
    """Everything that changed after some MODSEQ: new and changed messages by rising UID, and those that went.

    `vanished` may name every UID below `uidnext` that is not there, if the store has forgotten when they went. `recent`
    are new messages which the asker, having claimed them, is the first to hear of.
    """

    rows: list[MessageRow] = field(default_factory=list)
    vanished: SequenceSet = field(default_factory=SequenceSet)
    highestmodseq: int = 1
    uidnext: int = 1
    recent: list[int] = field(default_factory=list)


class Change(NamedTuple):
    """A delta as the listeners hear it: uids only, the rest stands in the columns by now."""

    added: Sequence[int]
    changed: Sequence[int]
    vanished: Sequence[int]
    recent: Sequence[int] = ()
