"""File names of one account: the folder of each mailbox, and unique names for new files."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from itertools import count

from imapshield.errors import BadMailboxName, NoSuchMailbox
from imapshield.maildir import filename, layout


class AccountPaths:
    """Paths inside the Maildir `root`.

    Args:
        root: the directory that holds ``cur``, ``new`` and ``tmp``.
        now: returns seconds since the epoch.
    """

    def __init__(self, root: str, now: Callable[[], float]) -> None:
        self.root = os.path.abspath(os.fsencode(root))
        self._now = now
        self._counter = count()
        self._host = os.uname().nodename
        self._tag = secrets.token_hex(4)

    def folder(self, mailbox: str) -> bytes:
        """Return the path of a mailbox's folder, whether or not it exists.

        Raises:
            BadMailboxName: no folder can have this name.
        """
        name = layout.folder_name(mailbox)
        return self.root + b"/" + name if name else self.root

    def existing_folder(self, mailbox: str) -> bytes:
        """Return the path of the folder of a mailbox that should exist; a name that no folder can have does not.

        Raises:
            NoSuchMailbox: no folder can have this name. A missing folder is not detected.
        """
        try:
            return self.folder(mailbox)
        except BadMailboxName:
            raise NoSuchMailbox from None

    def unique_name(self) -> bytes:
        """Return a base name that no other file has, for a new message or folder in ``tmp/``."""
        return filename.unique(self._now(), os.getpid(), next(self._counter), self._host, self._tag)
