"""The mailboxes of a new account: for drafts, sent mail, junk, trash and the archive.

A new account is one that no IMAP server has served: its index has no mailbox, and it has no subscriptions and no lists
of Dovecot or Courier. A delivery agent may have put mail into INBOX, Junk or one of the others. Any other mailbox
belongs to somebody who has chosen names already.
"""

import sqlite3

from imapshield.errors import StoreError
from imapshield.maildir import files, subscription_file
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.folders import make_folder
from imapshield.maildir.special_use import USES
from imapshield.maildir.sqlite_file import is_locked
from imapshield.wire.names import INBOX

_NAMES = {names[0]: use for use, names in USES.items()}
_OF_SERVERS = (b"subscriptions", b"dovecot", b"courierimap")


def add_special_folders(account: AccountState) -> None:
    """Make and subscribe the mailboxes, if the account is new and is to have them.

    A failure is logged: mail can be read without them. Of two processes that open a new account at the same time, one
    makes them.
    """
    if not account.has_special_folders or not _is_new(account):
        return
    try:
        with files.UndoSteps() as undo, account.index.write(undo=undo):
            if not _is_new(account):
                return  # another process was faster
            existing = account.folders.mailboxes()
            for name, use in _NAMES.items():
                if name not in existing:
                    make_folder(account, name, use, undo)
            account.folders.sync()
        subscription_file.subscribe_first(account, [INBOX, *_NAMES])
    except (OSError, sqlite3.Error, StoreError) as error:
        if isinstance(error, sqlite3.Error) and is_locked(error):
            return
        account.folders.log_once(
            f"cannot create the mailboxes {', '.join(_NAMES)} of a new account: {error};"
            " a client can create them, or use --no-special-folders"
        )


def _is_new(account: AccountState) -> bool:
    if account.index.db.execute("SELECT 1 FROM mailbox LIMIT 1").fetchone():
        return False
    if not {INBOX, *_NAMES}.issuperset(account.folders.mailboxes()):
        return False
    return not any(name.startswith(_OF_SERVERS) for name in files.names(account.folders.fd))
