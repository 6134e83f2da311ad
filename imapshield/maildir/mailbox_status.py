"""STATUS, RFC822.SIZE and quota usage: counts and sizes, from the index where it has them."""

from bisect import bisect_left
from collections.abc import Sequence
from contextlib import suppress

from imapshield.errors import NoSuchMailbox
from imapshield.mailbox.request import check_wanted
from imapshield.mailbox.values import MailboxStatus, Quota, SizesResult
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.folders import mailboxes
from imapshield.maildir.index import Index
from imapshield.maildir.mailbox_row import MailboxRow
from imapshield.maildir.message_file import FILE_COLUMNS, MessageFile, MessageFiles
from imapshield.maildir.sync import find_or_add, synchronize
from imapshield.maildir.unreadable import log_unreadable

MAX_MEASURED_BY_STATUS = 16 << 20
"""STATUS measures messages of unknown size if their files have at most this many bytes together. Otherwise it counts an
upper bound for each, as RFC 8438 section 3 permits, so that the first STATUS of a large mailbox does not read all of
it."""

MAX_MEASURED_AT_ONCE = 64 << 20
"""Bytes of messages that one call measures: a tenth of a second."""

# x'5c5365656e' is \Seen, x'5c44656c65746564' is \Deleted, and x'2c533d' is ",S=": the size of a compressed file before
# compression. With CRLF a message is at most twice as large.
_COUNT = """
    SELECT count(*), total(uid > ?), total(instr(flags, x'5c5365656e') > 0), total(deleted),
        total(octets), total(iif(deleted, octets, 0))
    FROM (SELECT uid, flags, coalesce(size, 2 * max(physical, iif(instr(name, x'2c533d'),
        CAST(substr(name, instr(name, x'2c533d') + 3, 15) AS INTEGER), 0))) AS octets,
        instr(flags, x'5c44656c65746564') > 0 AS deleted FROM message WHERE mailbox = ?)
"""


def status(account: AccountState, name: str) -> MailboxStatus:
    """Return the status of a mailbox after a sync; `IStore.status` describes the result.

    A message that cannot be measured counts with the upper bound of its size.
    """
    index, key = account.index, synchronize(account, find_or_add(account, name), claim=False)[0].key
    known: MailboxStatus | None = index.known().get(("status", key))
    if known is not None:
        return known
    is_measured = _measure_some(account, key)
    with index.snapshot():
        status = _count(index, index.mailbox(key))
        if is_measured:
            index.known()["status", key] = status
    return status


def _count(index: Index, mailbox: MailboxRow) -> MailboxStatus:
    counts = index.db.execute(_COUNT, (mailbox.last_claimed_uid, mailbox.key)).fetchone()
    messages, recent, seen, deleted, size, deleted_size = map(int, counts)
    return MailboxStatus(
        messages=messages,
        recent=recent,
        unseen=messages - seen,
        deleted=deleted,
        uidnext=mailbox.uidnext,
        uidvalidity=mailbox.uidvalidity,
        highestmodseq=mailbox.highestmodseq,
        size=size,
        mailbox_id=mailbox.mailbox_id,
        deleted_size=deleted_size,
    )


def _measure_some(account: AccountState, key: int) -> bool:
    """Measure messages of unknown size, unless they are large; return whether there were none."""
    rows = account.index.db.execute(
        "SELECT uid, physical FROM message INDEXED BY message_unmeasured"
        " WHERE mailbox = ? AND size IS NULL",
        (key,),
    ).fetchall()
    if rows and sum(physical for _, physical in rows) <= MAX_MEASURED_BY_STATUS:
        sizes(account, key, [uid for uid, _ in rows])
    return not rows


def sizes(account: AccountState, key: int, uids: Sequence[int]) -> SizesResult:
    """Return sizes on the wire, measuring those that are not known; `IStore.sizes` describes the arguments."""
    message_files = MessageFiles(account.folder(key))
    found: list[tuple[int, int]] = []
    unreadable: list[int] = []
    count = None
    octets = 0
    for row in account.index.message_rows(FILE_COLUMNS, key, uids):
        check_wanted()
        message = MessageFile._make(row)
        if octets >= MAX_MEASURED_AT_ONCE:
            count = bisect_left(uids, message.uid)
            break
        octets += message.physical if message.size is None else 0
        try:
            size = message.size if message.size is not None else message_files.measure(message)
        except OSError as error:
            log_unreadable(account, message_files.path(message), error)
            unreadable.append(message.uid)
            continue
        if size is not None:
            found.append((message.uid, size))
    account.cache.add(key, [], message_files.measured)
    return SizesResult(found, unreadable, count)


def quota(account: AccountState) -> Quota:
    """Return usage and limits, after a sync of every folder: some may have mail that the index does not have yet."""
    for info in mailboxes(account):
        if info.selectable:
            with suppress(NoSuchMailbox):
                synchronize(account, find_or_add(account, info.name), claim=False)
            account.folders.release()  # there may be more folders than descriptors
    return account.usage()
