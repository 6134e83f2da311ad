"""QRESYNC: telling a client that comes back what went while it was away (RFC 7162 section 3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imapshield.errors import Malformed
from imapshield.wire import encode
from imapshield.wire.sequence import SequenceSet

if TYPE_CHECKING:
    from imapshield.session.session import Session


def check(session: Session) -> None:
    """Refuse QRESYNC's parameters to a client that has not enabled it."""
    if not session.qresync:
        raise Malformed("ENABLE QRESYNC first")


async def vanished(session: Session, uids: SequenceSet, since: int) -> None:
    """Tell which of `uids` went after MODSEQ `since`, but for those that an EXPUNGE is still to be told of."""
    if uids.saved:
        uids = SequenceSet.from_uids(session.saved)
    gone = await session.mailbox.vanished(since)
    view = session.view
    largest = view.columns.uidnext - 1
    told = [uid for uid in gone if uids.contains(uid, largest) and view.number(uid) is None]
    if told:
        session.io.write(encode.vanished(SequenceSet.from_uids(told), earlier=True))
