"""The changes of a mailbox, as a store reports them (`Delta`) and as an open mailbox passes them to its listeners
(`Change`)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from imapshield.wire.sequence import SequenceSet


class MessageRow(NamedTuple):
    r"""The metadata of one message.

    Attributes:
        uid: the UID.
        flags: the flag list as FETCH sends it, without parentheses: ``\Seen $Junk``. It is in the canonical order of
            `wire.flags.flag_list`, so equal sets of flags are equal bytes. \Recent is not part of it.
        modseq: the MODSEQ of the last change (RFC 7162).
        size: RFC822.SIZE in bytes, or None if the message has not been measured yet.
        internaldate: INTERNALDATE in epoch seconds.
    """

    uid: int
    flags: bytes
    modseq: int
    size: int | None
    internaldate: int


@dataclass(slots=True)
class Delta:
    r"""Everything that changed in a mailbox after some MODSEQ.

    Attributes:
        rows: new and changed messages, in ascending order of UID.
        vanished: the UIDs of expunged messages. If the store has forgotten when messages were expunged, it may name
            every UID below `uidnext` that does not exist (RFC 7162 section 3.2.5).
        highestmodseq: the mailbox's HIGHESTMODSEQ.
        uidnext: the mailbox's UIDNEXT.
        recent: the UIDs of messages that no earlier call has claimed as \Recent. If this call claims them, no later
            call returns them (RFC 3501 section 2.3.2). Only `IStore.open` and `IStore.changes` fill it.
    """

    rows: list[MessageRow] = field(default_factory=list)
    vanished: SequenceSet = field(default_factory=SequenceSet)
    highestmodseq: int = 1
    uidnext: int = 1
    recent: list[int] = field(default_factory=list)


class Change(NamedTuple):
    r"""A delta as the listeners of a mailbox receive it: UIDs only, because the columns already contain the rest.

    Attributes:
        added: the UIDs of new messages, ascending.
        changed: the UIDs of known messages whose flags or MODSEQ changed, ascending.
        vanished: the UIDs of known messages that were expunged, ascending.
        recent: the UIDs that are \Recent to the listener's session.
    """

    added: Sequence[int]
    changed: Sequence[int]
    vanished: Sequence[int]
    recent: Sequence[int] = ()
