"""A process that changes a Maildir as other programs do, so that the tests see what only two processes can show.

    python -m tests.maildir.other_program

Each line on standard input is a JSON list: the name of a function of this module, the Maildir, and arguments. The answer
is an empty line, written when the change is complete.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import sys
import time

from imapshield.mailbox.values import NewMessage
from imapshield.maildir.store import MaildirStore
from imapshield.testing.store_contract import MAIL
from imapshield.wire.commands.base import MemoryLiteral

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_stores: dict[str, MaildirStore] = {}


def deliver(folder: str, name: str, directory: str = "new") -> None:
    """Deliver a message by a rename."""
    _write(folder, name)
    os.rename(f"{folder}/tmp/{name}", f"{folder}/{directory}/{name}")


def link(folder: str, name: str) -> None:
    """Deliver a message by a link, as the Maildir specification says."""
    _write(folder, name)
    os.link(f"{folder}/tmp/{name}", f"{folder}/new/{name}")
    os.unlink(f"{folder}/tmp/{name}")


def _write(folder: str, name: str) -> None:
    with open(f"{folder}/tmp/{name}", "wb") as file:
        file.write(MAIL)


def flag(folder: str, base: str, letters: str) -> None:
    """Give the file in ``cur/`` with this base name other letters."""
    (name,) = (name for name in os.listdir(f"{folder}/cur") if name.startswith(base))
    os.rename(f"{folder}/cur/{name}", f"{folder}/cur/{base}:2,{letters}")


def remove(folder: str, base: str) -> None:
    """Remove the file in ``cur/`` with this base name."""
    for name in os.listdir(f"{folder}/cur"):
        if name.startswith(base):
            os.unlink(f"{folder}/cur/{name}")


def move(source: str, target: str) -> None:
    """Rename a folder."""
    os.rename(source, target)


def exchange(first: str, second: str) -> None:
    """Let two folders change places in one step."""
    libc = ctypes.CDLL(None, use_errno=True)
    paths = first.encode(), second.encode()
    if libc.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), first)


def make_again(folder: str) -> None:
    """Remove a folder, and make an empty one of the same name."""
    shutil.rmtree(folder)
    for name in ("tmp", "new", "cur"):
        os.makedirs(f"{folder}/{name}")


def store(root: str, uid: int, keyword: str) -> None:
    """Replace the flags of a message of INBOX, as another imapshield."""
    other = _store(root)
    other.store_flags(other.mailbox_key("INBOX"), [uid], b"", [keyword.encode()], None, 0)


def append(root: str) -> None:
    """Append a message to INBOX, as another imapshield."""
    _store(root).append("INBOX", [NewMessage((), None, MemoryLiteral(MAIL))])


def rename(root: str, old: str, new: str) -> None:
    """Rename a mailbox, as another imapshield."""
    _store(root).rename(old, new)


def delete(root: str, name: str) -> None:
    """Delete a mailbox, as another imapshield."""
    _store(root).delete(name)


def _store(root: str) -> MaildirStore:
    if root not in _stores:
        _stores[root] = MaildirStore(root, now=time.time, log_warning=lambda _: None)
    return _stores[root]


if __name__ == "__main__":
    for line in sys.stdin:
        function, *arguments = json.loads(line)
        globals()[function](*arguments)
        sys.stdout.write("\n")
        sys.stdout.flush()
