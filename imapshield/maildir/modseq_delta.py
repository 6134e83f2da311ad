"""What changed in a mailbox after a MODSEQ, as the index has it."""

from __future__ import annotations

from imapshield.mailbox.deltas import Delta, MessageRow
from imapshield.maildir.index import Index, MailboxRow
from imapshield.wire.sequence import SequenceSet

# Left to itself, SQLite picks the wrong one of these two plans, because it does not know how many messages have
# changed. The plus sign keeps it from using the index on modseq.
_COLUMNS = "SELECT uid, flags, modseq, size, internaldate FROM message"
_CHANGED = f"{_COLUMNS} INDEXED BY message_modseq WHERE mailbox = ? AND modseq > ? ORDER BY uid"
_ALL = f"{_COLUMNS} WHERE mailbox = ? AND +modseq > ? ORDER BY uid"


def delta_since(index: Index, key: int, since: int, recent: list[int] | None = None) -> Delta:
    """Return everything that changed in a mailbox after MODSEQ `since`.

    Args:
        index: the account's index.
        key: the mailbox.
        since: the MODSEQ; 0 for all messages.
        recent: the UIDs of \\Recent messages, to be part of the delta.
    """
    with index.snapshot() as db:
        mailbox = index.mailbox(key)
        rows: list[MessageRow] = []
        vanished = SequenceSet()
        if since < mailbox.highestmodseq:
            query = _CHANGED if since > 1 else _ALL
            # Equal flag lists are one object: thousands of messages may have the same four KiB of flags.
            flag_lists: dict[bytes, bytes] = {}
            rows = [
                MessageRow(uid, flag_lists.setdefault(flags, flags), *rest)
                for uid, flags, *rest in db.execute(query, (key, since))
            ]
            if since:
                vanished = _vanished_since(index, mailbox, since)
        return Delta(rows, vanished, mailbox.highestmodseq, mailbox.uidnext, recent or [])


def _vanished_since(index: Index, mailbox: MailboxRow, since: int) -> SequenceSet:
    if since >= mailbox.expunges_complete_after:
        uids = index.db.execute(
            "SELECT uid FROM expunged WHERE mailbox = ? AND modseq > ? ORDER BY uid",
            (mailbox.key, since),
        )
        return SequenceSet.from_uids(uid for (uid,) in uids)
    # The log does not reach back that far, so all UIDs without a message are returned, expunged then or earlier.
    uids = index.db.execute(
        "SELECT uid FROM message WHERE mailbox = ? ORDER BY uid", (mailbox.key,)
    )
    return SequenceSet.complement((uid for (uid,) in uids), mailbox.uidnext)
