r"""Which messages are \Recent: those that no session has claimed yet (RFC 3501 section 2.3.2).

A session that selects a mailbox claims them. Their files then move from ``new/`` to ``cur/``, as the Maildir
specification asks of a mail program that has shown them.
"""

import errno

from imapshield.maildir import filename, files
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.directory_state import record_own_change, stat_or_create
from imapshield.maildir.entry import Entry
from imapshield.maildir.mailbox_row import MailboxRow
from imapshield.maildir.message_table import IN_NEW
from imapshield.maildir.open_folders import Folder
from imapshield.maildir.paths import CUR, NEW


def has_claimable(account: AccountState, mailbox: MailboxRow) -> bool:
    """Whether `claim` would change anything."""
    if mailbox.last_claimed_uid + 1 < mailbox.uidnext:
        return True
    known = account.index.known()
    in_new = "in new", mailbox.key
    if in_new not in known:
        row = account.index.db.execute(f"SELECT 1 {IN_NEW} LIMIT 1", (mailbox.key,)).fetchone()
        known[in_new] = row is not None
    return bool(known[in_new])


def unclaimed(account: AccountState, mailbox: MailboxRow) -> list[int]:
    r"""Return the UIDs of the messages that no session has claimed as \Recent."""
    if mailbox.last_claimed_uid + 1 >= mailbox.uidnext:
        return []
    uids = account.index.db.execute(
        "SELECT uid FROM message WHERE mailbox = ? AND uid > ? ORDER BY uid",
        (mailbox.key, mailbox.last_claimed_uid),
    )
    return [uid for (uid,) in uids]


def claim(account: AccountState, mailbox: MailboxRow, folder: Folder) -> None:
    r"""Record that all messages were claimed as \Recent, and move their files from ``new/`` to ``cur/``."""
    db = account.index.db
    before = stat_or_create(folder)
    in_new = db.execute(f"SELECT uid, name {IN_NEW}", (mailbox.key,)).fetchall()
    moved: list[tuple[bytes, int, int]] = []
    for uid, name in in_new:
        target = name if b":2," in name else filename.base(name) + b":2,"
        try:
            moved.append((_move_to_cur(folder, name, target), mailbox.key, uid))
        except OSError:
            # Another program moved the file first; or the file cannot be moved, and can still be read in new/.
            continue
    db.executemany(
        f"UPDATE message SET name = ?, place = {CUR} WHERE mailbox = ? AND uid = ?",  # noqa: S608
        moved,
    )
    account.index.update_mailbox(mailbox.key, last_claimed_uid=mailbox.uidnext - 1)
    if moved:
        record_own_change(account.index, mailbox, folder, before)


def _move_to_cur(folder: Folder, name: bytes, target: bytes) -> bytes:
    """Rename a file of ``new/``; return its name in ``cur/``, which is `name` if `target` is too long."""
    try:
        files.rename(folder.entry(NEW, name), Entry(folder.directory(CUR), target))
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        files.rename(folder.entry(NEW, name), folder.entry(CUR, name))
        return name
    return target
