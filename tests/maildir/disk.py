"""A store on a Maildir of the test's own, and what other programs do to it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from imapshield.mailbox.values import NewMessage
from imapshield.maildir.store import MaildirStore
from imapshield.testing.store_contract import MAIL
from imapshield.wire.commands.base import MemoryLiteral


class Clock:
    """The time of day, and as much later as the test wants; or what `stand_at` says."""

    def __init__(self) -> None:
        self.later = 0.0
        self.stand_at: Callable[[], float] = time.time

    def __call__(self) -> float:
        return self.stand_at() + self.later


class DiskTestCase(SynchronousTestCase):
    """Has `store` on the Maildir `root`, and its `notes` to the operator."""

    def setUp(self) -> None:
        self.root = os.path.abspath(self.mktemp())
        self.clock = Clock()
        self.warnings: list[str] = []
        self._numbers = count()
        self.store = self.open_store()
        self.store.mailboxes()

    def open_store(self) -> MaildirStore:
        store = MaildirStore(self.root, now=self.clock, log_warning=self.warnings.append)
        self.addCleanup(store.close)
        return store

    def path(self, *parts: str) -> str:
        return os.path.join(self.root, *parts)

    def deliver(
        self, content: bytes = MAIL, folder: str = "", name: str = "", place: str = "new"
    ) -> str:
        """Do as a delivery agent does; returns the file's name."""
        name = name or f"17000000{next(self._numbers):02d}.P1.mx"
        with open(self.path(folder, "tmp", name), "wb") as file:
            file.write(content)
        os.rename(self.path(folder, "tmp", name), self.path(folder, place, name))
        return name

    def put(self, *flags: bytes, name: str = "INBOX", content: bytes = MAIL) -> int:
        return self.store.append(name, [NewMessage(flags, None, MemoryLiteral(content))]).uids[0]

    def flags(self, name: str = "INBOX", store: Any = None) -> dict[int, bytes]:
        opened = (store or self.store).open(name, False)
        return {row.uid: row.flags for row in opened.delta.rows}

    def cur(self, folder: str = "") -> list[str]:
        return sorted(os.listdir(self.path(folder, "cur")))

    def new(self, folder: str = "") -> list[str]:
        return sorted(os.listdir(self.path(folder, "new")))

    def cool(self) -> None:
        """Let the second pass after which directories are looked at again."""
        self.clock.later += 1.5


@contextmanager
def counted(name: str) -> Iterator[list[Any]]:
    """Count calls of a function of `os`."""
    calls: list[Any] = []
    real = getattr(os, name)

    def counting(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return real(*args, **kwargs)

    with mock.patch.object(os, name, counting):
        yield calls


@contextmanager
def failing(name: str, error: OSError, after: int = 0) -> Iterator[None]:
    """Let a function of `os` raise `error` once, after `after` calls that work."""
    real = getattr(os, name)
    left = [after]

    def sometimes(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] == -1:
            raise error
        return real(*args, **kwargs)

    with mock.patch.object(os, name, sometimes):
        yield
