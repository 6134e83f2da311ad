"""Delivers messages into Maildirs as a mail server does, without the IMAP server's knowledge."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.powercut_model import SEPARATOR, Account, Mailbox
from benchmarks.powercut_operation import content_of


class DeliveryAgent:
    """Delivers messages.

    Args:
        root: contains a Maildir for each user.
        owner: (uid, gid) of the files, or None for this process's.
    """

    def __init__(self, root: Path, owner: tuple[int, int] | None) -> None:
        self._root, self._owner = root, owner

    def deliver(self, account: Account, mailbox: Mailbox, token: str) -> None:
        """Store a message durably: from now on it must not be lost."""
        folder = self._folder(account, mailbox.name)
        self._write(folder, token, sync=True)
        _sync(folder / "new")

    def write(self, account: Account, mailbox: Mailbox, token: str) -> None:
        """Store a message; the caller syncs the file system."""
        self._write(self._folder(account, mailbox.name), token, sync=False)

    def has_folder(self, account: Account, name: str) -> bool:
        """Whether the folder of a mailbox exists."""
        return self._folder(account, name).exists()

    def _folder(self, account: Account, name: str) -> Path:
        home = self._root / account.user
        levels = name.split(SEPARATOR)
        return home if name == "INBOX" else home / ("." + ".".join(levels))

    def _write(self, folder: Path, token: str, *, sync: bool) -> None:
        # As Postfix does. A CREATE in flight may have made only some of them.
        for directory in (folder / "tmp", folder / "new"):
            self._make(directory)
        temporary, final = folder / "tmp" / token, folder / "new" / token
        with temporary.open("wb") as file:
            file.write(content_of(token).replace(b"\r\n", b"\n"))
            if sync:
                file.flush()
                os.fsync(file.fileno())
        self._give(temporary)
        temporary.rename(final)

    def _make(self, directory: Path) -> None:
        if not directory.exists():
            directory.mkdir(0o700, exist_ok=True)
            self._give(directory)
            _sync(directory.parent)

    def _give(self, path: Path) -> None:
        if self._owner:
            os.chown(path, *self._owner)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
