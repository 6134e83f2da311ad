"""A store with some folders, and commands for several folders that are killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from imapshield.maildir.files import UndoSteps
from imapshield.maildir.store import MaildirStore
from imapshield.testing.store_contract import FLAGGED, SEEN
from tests.maildir.disk import DiskTestCase
from tests.maildir.test_move_log import Killed

STEPS = ("rename", "mkdir", "rmdir", "unlink", "fsync")
SENT = b"\\Sent"

State = dict[str, tuple[int, dict[int, bytes], tuple[bytes, ...]]]


@contextmanager
def killed(store: MaildirStore, after: int, names: tuple[str, ...] = STEPS) -> Iterator[list[int]]:
    """Kill the process of a store after so many system calls; yield a list that gets an element for each.

    At that moment nothing is undone, and the transaction is not committed. The block must close the store.
    """
    calls: list[int] = []

    def counted(name: str) -> Any:
        real = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if len(calls) >= after:
                raise Killed
            calls.append(1)
            return real(*args, **kwargs)

        return mock.patch.object(os, name, call)

    patches = [counted(name) for name in names]
    patches.append(mock.patch.object(UndoSteps, "undo", lambda _: None))
    patches.append(mock.patch.object(store._account.index, "undo_moves", None))
    for patch in patches:
        patch.start()
    try:
        yield calls
    except Killed:
        calls.append(-1)
    finally:
        for patch in patches:
            patch.stop()
        store._account.index.undo_moves = None
        store.close()


class FolderLogTestCase(DiskTestCase):
    """The mailboxes INBOX, Old, Old/a and Old/b with one message each, and another process that has them open."""

    def setUp(self) -> None:
        super().setUp()
        self.store.create("Old", [SENT])
        self.store.create("Old/a", [])
        self.store.create("Old/b", [])
        for name, flag in (("INBOX", SEEN), ("Old", SEEN), ("Old/a", FLAGGED), ("Old/b", b"$Mine")):
            self.append(flag, name=name)
            self.store.set_metadata(name, {b"/private/comment": name.encode()})
        self.let_mtimes_age()
        self.before = self.state(self.store)
        self.other = self.open_store()
        self.state(self.other)

    def state(self, store: MaildirStore) -> State:
        """Return UIDVALIDITY, flags by UID, and special uses of all mailboxes."""
        state: State = {}
        for info in store.mailboxes():
            if not info.selectable:
                continue
            opened = store.open(info.name, False)
            rows = {row.uid: row.flags for row in opened.delta.rows}
            comment = store.metadata(info.name).get(b"/private/comment", b"")
            state[info.name] = opened.uidvalidity, rows, (*info.special_use, comment)
        return state

    def renamed(self, old: str, new: str) -> State:
        return {
            new + name[len(old) :] if name.startswith(old) else name: value
            for name, value in self.before.items()
        }

    def names(self) -> list[str]:
        """Return the names in the Maildir, without those of the index."""
        return sorted(n for n in os.listdir(self.root) if not n.startswith("imapshield"))

    def entries(self) -> list[object]:
        return self.other._account.index.db.execute("SELECT * FROM moving").fetchall()

    def make_folder(self, folder: str, *file_names: str) -> None:
        """Make a folder as another program does, with files beside its directories."""
        for part in ("cur", "new", "tmp"):
            os.makedirs(self.path(folder, part))
        self.make_files(folder, *file_names)

    def make_files(self, folder: str, *file_names: str) -> None:
        os.makedirs(self.path(folder), exist_ok=True)
        for name in file_names:
            with open(self.path(folder, name), "wb"):
                pass

    def interrupt_rename(self, after: int = 2, old: str = "Old", new: str = "New") -> None:
        """Kill a RENAME after it has renamed so many folders."""
        with killed(self.store, after, ("rename",)):
            self.store.rename(old, new)
        self.assertTrue(os.path.exists(self.path("." + new)))
        self.assertTrue(os.path.exists(self.path(f".{old}.b")))
