"""QRESYNC: telling a client that comes back what went while it was away (RFC 7162 section 3.2)."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING

from imapshield.errors import BadCommand
from imapshield.wire import encode
from imapshield.wire.commands.select import Qresync
from imapshield.wire.sequence import MAX_NUMBER, SequenceSet

if TYPE_CHECKING:
    from imapshield.mailbox.view import View
    from imapshield.session.session import Session


def check(session: Session) -> None:
    """Refuse QRESYNC's parameters to a client that has not enabled it."""
    if not session.qresync:
        raise BadCommand("ENABLE QRESYNC first")


def agreed(view: View, known: Qresync) -> int:
    """The highest UID that the client has under its right number, 0 if it sent none (RFC 7162 section 3.2.5.2).

    Of what was below that, the client knows what is gone, even if the store has forgotten when it went.
    """
    if known.match_sequence is None or known.match_uids is None:
        return 0
    numbers = takewhile(len(view.uids).__ge__, known.match_sequence)
    pairs = zip(numbers, known.match_uids, strict=False)
    return max((uid for number, uid in pairs if view.uids[number - 1] == uid), default=0)


async def vanished(session: Session, uids: SequenceSet, since: int, above: int = 0) -> None:
    """Tell which of `uids`, of those over `above`, went after MODSEQ `since`, but for those that an EXPUNGE is still to
    be told of."""
    if uids.saved:
        uids = SequenceSet.from_uids(session.saved_search)
    gone = await session.mailbox.vanished(since)
    view = session.view
    largest = view.columns.uidnext - 1
    told = gone.intersection(uids.resolve(largest)).intersection([(above + 1, MAX_NUMBER)])
    if told.matching_slices(view.uids, 0):
        told = told.intersection(SequenceSet.complement(view.uids, largest + 1).ranges)
    if told:
        session.io.write(encode.vanished(told, earlier=True))
