"""A row of the index's table of mailboxes."""

from typing import NamedTuple


class MailboxRow(NamedTuple):
    """A row of the table ``mailbox``; schema.sql describes the columns, some of which have other names there."""

    key: int
    name: str
    uidvalidity: int
    uidnext: int
    highestmodseq: int
    last_claimed_uid: int
    mailbox_id: bytes
    special_use: bytes
    keywords: bytes
    expunges_complete_after: int
    expunges_logged: int
    cur_mtime: int
    cur_ino: int
    new_mtime: int
    new_ino: int
    directory_flags: int
    listed_at: float
    synced_modseq: int
    changed_at: int
    cur_files: int


COLUMNS = {field: field for field in MailboxRow._fields} | {
    "key": "id",
    "last_claimed_uid": "recentuid",
    "expunges_complete_after": "floor",
    "expunges_logged": "logged",
    "directory_flags": "hot",
    "listed_at": "scanned",
}
"""The column of each field."""
