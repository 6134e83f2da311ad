"""Messages that cannot be read or decoded: each is a failure of that message alone, and the operator gets one line."""

import errno
import os
import sqlite3

from imapshield.errors import CommandRefused, StoreError
from imapshield.maildir.account_state import AccountState

MAX_LOGGED_FILES = 1000
"""Files of one account that the operator is warned about. Without a limit they could fill the log and the memory."""

SERVER_ERRORS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT)
"""Errors of opening and reading a file whose reason is not in the file. Every other message would fail too."""


def log_once(account: AccountState, path: bytes, text: str) -> None:
    """Log a line about a file, unless one about the same file was logged since the store was opened.

    Args:
        account: the account.
        path: the file.
        text: what is wrong with it, and what to do.
    """
    logged = account.logged_files
    if path not in logged and len(logged) < MAX_LOGGED_FILES:
        logged.add(path)
        account.log_warning(f"{os.fsdecode(path)!r} {text}")


def log_unreadable(account: AccountState, path: bytes, error: Exception) -> None:
    """Log that a message cannot be read or decoded. The caller goes on with the other messages.

    Args:
        account: the account.
        path: the message's file.
        error: what reading or decoding it has raised.

    Raises:
        Exception: `error`, if it is not a failure of this message alone: the command is refused, the index fails, or
            the server lacks memory or file descriptors.
    """
    if isinstance(error, (StoreError, CommandRefused, sqlite3.Error)):
        raise error
    if not isinstance(error, OSError):
        text = f"cannot be decoded ({type(error).__name__}); report this message to the developers"
    elif error.errno in SERVER_ERRORS:
        raise error
    elif error.errno == errno.ELOOP:
        text = "is a symbolic link and is not read; replace the link by the file"
    else:
        text = f"cannot be read: {error.strerror}"
        if error.errno in (errno.EACCES, errno.EPERM):
            text += "; check the owner and permissions of the file and its folder"
    log_once(account, path, text)
