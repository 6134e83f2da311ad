"""A store on a temporary Maildir, and helpers that act as other programs or as a failing disk."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import count
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from imapshield.mailbox.values import NewMessage
from imapshield.maildir.directory_state import CLOCK_TICK
from imapshield.maildir.store import MaildirStore
from imapshield.testing.store_contract import MAIL
from imapshield.wire import strings
from imapshield.wire.commands.base import MemoryLiteral
from imapshield.wire.commands.fetch import BodySection, Section

MAIL_LITERAL = strings.literal(MAIL)


class Clock:
    """The time of `base`, by default the time of day, plus `offset` seconds."""

    def __init__(self) -> None:
        self.offset = 0.0
        self.base: Callable[[], float] = time.time

    def __call__(self) -> float:
        return self.base() + self.offset


class DiskTestCase(SynchronousTestCase):
    """A test case with `store` on the Maildir `root`, and the `warnings` that the store logged."""

    def setUp(self) -> None:
        self.root = os.path.abspath(self.mktemp())
        self.clock = Clock()
        self.warnings: list[str] = []
        self._numbers = count()
        self.store = self.open_store()
        self.store.mailboxes()

    def open_store(self, root: str = "", **options: Any) -> MaildirStore:
        store = MaildirStore(
            root or self.root, now=self.clock, log_warning=self.warnings.append, **options
        )
        self.addCleanup(store.close)
        return store

    def path(self, *parts: str) -> str:
        return os.path.join(self.root, *parts)

    def deliver(
        self, content: bytes = MAIL, folder: str = "", name: str = "", directory: str = "new"
    ) -> str:
        """Deliver a message as a delivery agent does; return the name of the file."""
        name = name or f"17000000{next(self._numbers):02d}.P1.mx"
        with open(self.path(folder, "tmp", name), "wb") as file:
            file.write(content)
        os.rename(self.path(folder, "tmp", name), self.path(folder, directory, name))
        return name

    def append(
        self,
        *flags: bytes,
        name: str = "INBOX",
        content: bytes = MAIL,
        store: MaildirStore | None = None,
    ) -> int:
        """Append one message; return its UID."""
        message = NewMessage(flags, None, MemoryLiteral(content))
        return (store or self.store).append(name, [message]).uids[0]

    def flags(self, name: str = "INBOX", store: MaildirStore | None = None) -> dict[int, bytes]:
        """Return the flags of every message by UID."""
        opened = (store or self.store).open(name, False)
        return {row.uid: row.flags for row in opened.delta.rows}

    def cur(self, folder: str = "") -> list[str]:
        return sorted(os.listdir(self.path(folder, "cur")))

    def new(self, folder: str = "") -> list[str]:
        return sorted(os.listdir(self.path(folder, "new")))

    def tmp(self, folder: str = "") -> list[str]:
        return sorted(os.listdir(self.path(folder, "tmp")))

    def let_clock_tick(self) -> None:
        """Wait until what happens next is clearly later than the changes of the store until now."""
        time.sleep(1.5 * CLOCK_TICK / 1e9)

    def let_mtimes_age(self) -> None:
        """Advance the clock until all mtimes are old enough to be trusted."""
        self.clock.offset += 1.5


def path_of(name: Any, dir_fd: int | None = None) -> str:
    """Return the path of a file that was given to a function of `os`: a descriptor, or a name in a directory."""
    if isinstance(name, int):
        return os.readlink(f"/proc/self/fd/{name}")
    directory = "" if dir_fd is None else path_of(dir_fd)
    return os.path.join(directory, os.fsdecode(name))


@contextmanager
def counting_calls(name: str) -> Iterator[list[str]]:
    """Collect the paths, or source paths, of all calls of a function of `os`."""
    calls: list[str] = []
    real = getattr(os, name)

    def count_call(*args: Any, **kwargs: Any) -> Any:
        calls.append(path_of(args[0], kwargs.get("dir_fd", kwargs.get("src_dir_fd"))))
        return real(*args, **kwargs)

    with mock.patch.object(os, name, count_call):
        yield calls


def opened_messages(calls: Sequence[str]) -> list[str]:
    """Return those of the paths that `os.open` was called with that are message files."""
    return [path for path in calls if os.path.dirname(path).endswith(("/cur", "/new", "/tmp"))]


def crashed_copy(root: str, target: str) -> None:
    """Copy a Maildir as a crash would leave it now. The index of the copy does not look like a restored backup."""
    shutil.copytree(root, target, symlinks=True)
    path = os.path.join(target, "imapshield.sqlite")
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE account SET inode = ?, generation = 0", (os.stat(path).st_ino,))
        # The files of the copy are newer than those that a crash leaves.
        db.execute("UPDATE removed SET removed_at = ?", (2**62,))


@contextmanager
def failing(name: str, error: OSError, after: int = 0, times: int = 1) -> Iterator[None]:
    """Make `times` calls of a function of `os` raise `error`, after `after` calls that work."""
    real = getattr(os, name)
    calls = count()

    def fail(*args: Any, **kwargs: Any) -> Any:
        if after <= next(calls) < after + times:
            raise error
        return real(*args, **kwargs)

    with mock.patch.object(os, name, fail):
        yield


def fields(*names: bytes) -> BodySection:
    """Return the FETCH item of some header fields."""
    return BodySection(Section((), b"HEADER.FIELDS", names), True)


@contextmanager
def traced_peak() -> Iterator[list[int]]:
    """Yield a list that gets the most bytes of memory that the block has taken at the same time."""
    peak: list[int] = []
    tracemalloc.start()
    try:
        yield peak
        peak.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()
