"""QRESYNC (RFC 7162 section 3.2): which messages were expunged while a client was away."""

from __future__ import annotations

from itertools import takewhile

from imapshield.errors import BadCommand
from imapshield.mailbox.view import View
from imapshield.session.state import SessionState
from imapshield.wire import encode
from imapshield.wire.commands.select import Qresync
from imapshield.wire.sequence import MAX_NUMBER, SequenceSet


def require_enabled(state: SessionState) -> None:
    """Raise `BadCommand` if the client has not enabled QRESYNC and uses its parameters."""
    if not state.qresync:
        raise BadCommand("ENABLE QRESYNC first")


def highest_matching_uid(view: View, known: Qresync) -> int:
    """Return the highest UID that the client has under the right number, or 0 (RFC 7162 section 3.2.5.2).

    Below that UID the client knows which messages are gone, even if the store has forgotten when they were expunged.
    """
    if known.match_sequence is None or known.match_uids is None:
        return 0
    numbers = takewhile(len(view.uids).__ge__, known.match_sequence)
    pairs = zip(numbers, known.match_uids, strict=False)
    return max((uid for number, uid in pairs if view.uids[number - 1] == uid), default=0)


async def send_vanished(
    state: SessionState, uids: SequenceSet, since: int, *, above: int = 0
) -> None:
    """Send VANISHED (EARLIER) for messages that were expunged.

    Messages whose EXPUNGE is still pending are left out.

    Args:
        state: the session.
        uids: the messages to consider.
        since: a MODSEQ; messages expunged after it are sent.
        above: only UIDs above this one are sent.
    """
    if uids.saved:
        uids = SequenceSet.from_uids(state.saved_search)
    expunged = await state.mailbox.vanished(since)
    view = state.view
    largest = view.columns.uidnext - 1
    vanished = expunged.intersection(uids.resolve(largest)).intersection([(above + 1, MAX_NUMBER)])
    if vanished.matching_slices(view.uids, 0):
        vanished = vanished.intersection(SequenceSet.complement(view.uids, largest + 1).ranges)
    if vanished:
        state.io.write(encode.vanished(vanished, earlier=True))


def send_synced_modseq(state: SessionState) -> None:
    """Send a QRESYNC client the HIGHESTMODSEQ up to which it is in sync, if updates are pending.

    Without it, a client that has seen a higher MODSEQ and loses its connection now would never learn of the pending
    updates (RFC 7162 section 6).
    """
    if state.qresync and state.view.has_pending_updates:
        code = b"HIGHESTMODSEQ %d" % state.view.synced_modseq
        state.io.write(encode.untagged(b"OK", "Some updates are pending", code))
