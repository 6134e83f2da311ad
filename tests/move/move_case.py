"""Two nodes in one directory, a user with mail on one of them, and a move in this process that can die at each step."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.moved_account import (
    dump_account,
    fill_account,
    is_refused,
    opened_store,
    steps_counted,
)
from imapshield.maildir.index_check import accept_moved
from imapshield.maildir.store import MaildirStore
from imapshield.move.agent import LocalAgent
from imapshield.move.journal import Entry, Journal, new_entry
from imapshield.move.mover import Mover
from imapshield.move.nodes_file import Node
from tests.maildir.disk import Clock


class Died(BaseException):
    """The move was killed."""


class Mortal:
    """Lets the process die at the n-th step: from then on, no step does anything.

    Args:
        last: the number of the step before which it dies; a very large one counts the steps.
    """

    def __init__(self, last: int) -> None:
        self.last, self.steps = last, 0
        self.is_dead = False

    def step(self) -> None:
        """Count a step, or die."""
        if self.steps >= self.last or self.is_dead:
            self.is_dead = True
            raise Died
        self.steps += 1

    def at_work(self) -> AbstractContextManager[None]:
        """Return a context in which each system call that changes a directory, and each commit of a mark, is a step."""
        return steps_counted(self.step)


class TreeCopier:
    """Copies as rsync does, without a process.

    Args:
        before_last: called before the last copy.
    """

    def __init__(self) -> None:
        self.before_last: Callable[[], object] = lambda: None

    def copy(
        self, source: str, target: str, *, is_last: bool, seconds: float | None = None
    ) -> None:
        if is_last:
            self.before_last()

        def ignore(directory: str, names: list[str]) -> list[str]:
            is_top, last = directory == source, os.path.basename(directory)
            return [
                name
                for name in names
                if last == "tmp"
                or (
                    name.endswith((".tmp", "-wal", "-shm"))
                    and last not in ("cur", "new")
                    and not os.path.isdir(f"{directory}/{name}")
                )
                or name.startswith("imapshield.search")
                or (is_top and name == "imapshield.moved")
                or (is_top and name == "imapshield.manifest" and not is_last)
            ]

        shutil.rmtree(target)
        shutil.copytree(source, target, symlinks=True, ignore=ignore)

    def act_as(self, uid: int, gid: int) -> None: ...

    def copy_files(self, source: str, paths: Sequence[str], target: str) -> None:
        for path in paths:
            os.makedirs(os.path.dirname(f"{target}/{path}"), exist_ok=True)
            shutil.copy2(f"{source}/{path}", f"{target}/{path}")


class FakeShields:
    """Counts how often the user was held."""

    def __init__(self) -> None:
        self.held = 0
        self.calls: list[str] = []
        self.during_hold: Callable[[], object] = lambda: None

    def hold(self, seconds: float) -> None:
        assert seconds > 2
        self.held += 1
        self.calls.append("hold")
        self.during_hold()

    def release(self, node: str = "") -> None:
        self.held = 0
        self.calls.append("release")


class MoveCase(SynchronousTestCase):
    """Alice has mail on the node one; two has an empty mail root.

    Attributes:
        index_root: whether the indexes have directories of their own.
    """

    index_root = False
    template = ""

    @classmethod
    def setUpClass(cls) -> None:
        cls.template = ""

    @classmethod
    def tearDownClass(cls) -> None:
        shutil.rmtree(cls.template, ignore_errors=True)

    def setUp(self) -> None:
        # Thousands of commits do not wait for a disk where there is a file system in memory.
        memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
        self.directory = tempfile.mkdtemp(prefix="imapshield-move-", dir=memory)
        self.addCleanup(shutil.rmtree, self.directory)
        self.base, self.number = "", 0
        self.start_again()

    def start_again(self) -> None:
        """Give the user the same mail on other nodes."""
        self.number += 1
        self.base = f"{self.directory}/{self.number}"
        self.clock = Clock()
        self.warnings: list[str] = []
        self.nodes = {name: self.make_node(name) for name in ("one", "two")}
        self.journal = Journal(f"{self.base}/journal")
        self.map = {"alice": "one"}
        self.shields, self.copier = FakeShields(), TreeCopier()
        self.reports: list[str] = []
        self.slept: list[float] = []
        self.fill("one")
        self.before = self.dump("one")

    def fill(self, node: str) -> None:
        """Give the user mail of all kinds, the first time by commands, and then as a copy."""
        if not self.template:
            self.fill_by_commands(node)
            type(self).template = tempfile.mkdtemp(prefix="imapshield-move-")
            shutil.copytree(f"{self.base}/{node}", self.template, dirs_exist_ok=True)
            return
        shutil.copytree(self.template, f"{self.base}/{node}", dirs_exist_ok=True)
        accept_moved(os.fsencode(self.index(node)))

    def make_node(self, name: str) -> Node:
        os.makedirs(f"{self.base}/{name}/mail")
        index = f"{self.base}/{name}/index" if self.index_root else ""
        if index:
            os.makedirs(index)
        return Node(name, f"{self.base}/{name}/mail", index)

    def maildir(self, node: str, *parts: str) -> str:
        return os.path.join(self.base, node, "mail", "alice", *parts)

    def index(self, node: str) -> str:
        return f"{self.base}/{node}/index/alice" if self.index_root else self.maildir(node)

    def store(self, node: str) -> AbstractContextManager[MaildirStore]:
        """Open the account on a node, as its server does."""
        return opened_store(self.maildir(node), self.index(node), self.clock, self.warnings.append)

    def fill_by_commands(self, node: str) -> None:
        """Give the user mail of all kinds."""
        with self.store(node) as store:
            fill_account(store, self.maildir(node))

    def dump(self, node: str) -> dict[str, Any]:
        """Return everything that clients can see of the account on a node."""
        with self.store(node) as store:
            return dump_account(store, self.maildir(node), self.index(node))

    def mover(self, entry: Entry | None = None, **options: Any) -> Mover:
        """Return a move of the user from one to two, or what the journal has of one."""
        entry = entry or self.journal.read("alice")
        if entry is None:
            entry = self.journal.write(new_entry("alice", "one", "two"))
        source, target = (self.nodes[name] for name in (entry.source, entry.target))
        return Mover(
            self.journal,
            entry,
            LocalAgent(source, "alice"),
            LocalAgent(target, "alice"),
            self.copier,
            self.shields,
            self.map.__setitem__,
            report=self.reports.append,
            sleep=self.slept.append,
            **options,
        )

    def refuses(self, node: str) -> bool:
        """Whether the account cannot be opened on a node, because it is or was moved away."""
        with self.store(node) as store:
            return is_refused(store)
