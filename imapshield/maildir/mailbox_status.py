"""STATUS and RFC822.SIZE: counts and sizes, from the index where it has them."""

from __future__ import annotations

from collections.abc import Sequence

from imapshield.mailbox.values import MailboxStatus
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.fetch_cache import FetchCache
from imapshield.maildir.index import MailboxRow
from imapshield.maildir.message_file import FILE_COLUMNS, MessageFile, MessageFiles

MAX_MEASURED_BY_STATUS = 16 << 20
"""STATUS measures messages of unknown size if their files have at most this many bytes together. Otherwise it counts an
upper bound for each, as RFC 8438 section 3 permits, so that the first STATUS of a large mailbox does not read all of
it."""

# x'5c5365656e' is \Seen and x'5c44656c65746564' is \Deleted. With CRLF a file is at most twice as large.
_COUNT = """
    SELECT count(*), total(uid > ?), total(instr(flags, x'5c5365656e') > 0), total(deleted), total(octets),
        total(iif(deleted, octets, 0))
    FROM (SELECT uid, flags, coalesce(size, 2 * physical) AS octets,
        instr(flags, x'5c44656c65746564') > 0 AS deleted FROM message WHERE mailbox = ?)
"""


class MailboxCounts:
    """The counting part of `IStore.status`, and the method `sizes`."""

    def __init__(self, account: AccountState, cache: FetchCache) -> None:
        self._account = account
        self._index = account.index
        self._cache = cache

    def status(self, mailbox: MailboxRow) -> MailboxStatus:
        """Return the status of a mailbox, as the index has it."""
        self._measure_some(mailbox.key)
        with self._index.snapshot() as db:
            mailbox = self._index.mailbox(mailbox.key)
            messages, recent, seen, deleted, size, deleted_size = db.execute(
                _COUNT, (mailbox.last_claimed_uid, mailbox.key)
            ).fetchone()
        return MailboxStatus(
            messages=messages,
            recent=int(recent),
            unseen=messages - int(seen),
            deleted=int(deleted),
            uidnext=mailbox.uidnext,
            uidvalidity=mailbox.uidvalidity,
            highestmodseq=mailbox.highestmodseq,
            size=int(size),
            mailbox_id=mailbox.mailbox_id,
            deleted_size=int(deleted_size),
        )

    def _measure_some(self, key: int) -> None:
        rows = self._index.db.execute(
            "SELECT uid, physical FROM message INDEXED BY message_unmeasured"
            " WHERE mailbox = ? AND size IS NULL",
            (key,),
        ).fetchall()
        if rows and sum(physical for _, physical in rows) <= MAX_MEASURED_BY_STATUS:
            self.sizes(key, [uid for uid, _ in rows])

    def sizes(self, key: int, uids: Sequence[int]) -> list[tuple[int, int]]:
        """Return sizes on the wire, measuring those that are not known; `IStore.sizes` describes the arguments."""
        folder = self._account.paths.folder(self._index.mailbox(key).name)
        message_files = MessageFiles(folder)
        sizes: list[tuple[int, int]] = []
        for row in self._index.message_rows(FILE_COLUMNS, key, uids):
            message = MessageFile._make(row)
            size = message.size if message.size is not None else message_files.measure(message)
            if size is not None:
                sizes.append((message.uid, size))
        self._cache.add(key, [], message_files.measured)
        return sizes
