"""Metadata (RFC 5464): entries and values of mailboxes, stored in the index."""

from collections.abc import Mapping, Sequence

from imapshield.errors import TooMuchMetadata
from imapshield.limits import LimitReached
from imapshield.mailbox.values import MAX_METADATA_ENTRIES
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.sync import find_or_add

_ACCOUNT_KEY = 0
"""Stands in place of a mailbox's key for the account's own entries (RFC 5464 section 3)."""


def metadata(
    account: AccountState, name: str, entries: Sequence[bytes] | None = None
) -> dict[bytes, bytes]:
    """Return some or all entries of a mailbox, or of the account if `name` is empty, and their values."""
    key = _key(account, name)
    if entries is None:
        return _entries(account, key)
    query = "SELECT value FROM metadata WHERE mailbox = ? AND entry = ?"
    rows = [(entry, account.index.db.execute(query, (key, entry)).fetchone()) for entry in entries]
    return {entry: row[0] for entry, row in rows if row is not None}


def metadata_sizes(account: AccountState, name: str) -> dict[bytes, int]:
    """Return all entries of a mailbox, or of the account if `name` is empty, and the sizes of their values."""
    rows = account.index.db.execute(
        "SELECT entry, length(value) FROM metadata WHERE mailbox = ? ORDER BY entry",
        (_key(account, name),),
    )
    return dict(rows.fetchall())


def set_metadata(account: AccountState, name: str, entries: Mapping[bytes, bytes | None]) -> None:
    """Set entries, or remove those whose value is None; all of them or none.

    If anything changes, the mailbox gets a new HIGHESTMODSEQ (RFC 7162 section 3.2).

    Entries and values count towards the quota.

    Raises:
        TooMuchMetadata: there would be more than `MAX_METADATA_ENTRIES`.
        QuotaExceeded: the account would be over its quota.
    """
    key = _key(account, name)
    with account.index.write() as db:
        before = _entries(account, key)
        for entry, value in entries.items():
            # Not REPLACE: whether that runs the trigger for the deleted row depends on how SQLite was built.
            db.execute("DELETE FROM metadata WHERE mailbox = ? AND entry = ?", (key, entry))
            if value is not None:
                db.execute("INSERT INTO metadata VALUES (?, ?, ?)", (key, entry, value))
        after = _entries(account, key)
        if len(after) > MAX_METADATA_ENTRIES:
            count = len(after)
            reached = LimitReached("MAX_METADATA_ENTRIES", MAX_METADATA_ENTRIES, count)
            raise TooMuchMetadata(reached=reached)
        if (growth := _octets(after) - _octets(before)) > 0:
            account.check_quota(0, growth, counted=True)
        if after != before and key != _ACCOUNT_KEY:
            modseq = account.index.mailbox(key).highestmodseq + 1
            account.index.update_mailbox(key, highestmodseq=modseq)


def copy_metadata(account: AccountState, key: int, target_key: int) -> None:
    """Copy all entries of one mailbox to another, in a write transaction."""
    account.index.db.execute(
        "INSERT INTO metadata SELECT ?, entry, value FROM metadata WHERE mailbox = ?",
        (target_key, key),
    )


def _key(account: AccountState, name: str) -> int:
    return find_or_add(account, name).key if name else _ACCOUNT_KEY


def _octets(entries: Mapping[bytes, bytes]) -> int:
    return sum(len(entry) + len(value) for entry, value in entries.items())


def _entries(account: AccountState, key: int) -> dict[bytes, bytes]:
    rows = account.index.db.execute(
        "SELECT entry, value FROM metadata WHERE mailbox = ? ORDER BY entry", (key,)
    )
    return dict(rows.fetchall())
