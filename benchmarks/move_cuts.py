"""Cuts the power of the nodes, or kills programs, in the middle of moves: the user stays intact on exactly one node.

    python -m benchmarks.move_cuts --moves 300

Needs root, for loop devices and mounts. Each node has a file system of its own, and the command runs on the first one.
It is ended at a random step: before a system call that changes a directory, before a commit of a mark, at a request to
a node, or at a file that rsync has copied. Then the nodes are looked at, and the move is repeated, or aborted.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.moved_account import (
    dump_account,
    fill_account,
    is_refused,
    opened_store,
    steps_counted,
)
from benchmarks.powercut import memory_directory, missing_requirement
from benchmarks.powercut_volume import KINDS, BootId, Volume, cut_power
from imapshield import cli
from imapshield.maildir.store import MaildirStore
from imapshield.move import move_command
from imapshield.move.journal import GIVEN_UP, GIVING_UP, Journal
from imapshield.move.places import sync_file_system

FAULTS = {
    "both": "the power of both nodes, and of the command, is cut",
    "source": "the power of the old node is cut; the command is on another machine",
    "target": "the power of the new node is cut",
    "command": "the command is killed",
    "rsync": "rsync is killed",
}
STEPS = 118
"""A move has about so many steps. A fault at a later one does not happen."""


def run_command(base: str, *words: str) -> int:
    """Run ``imapshield move`` in this process, and return its exit status."""
    files = ("--nodes", f"{base}/nodes.toml", "--journal", f"{base}/one/volume/mail/journal")
    return cli.main(["move", *words, *files, "--max-pause", "30"])


class Fault:
    """Happens in the command at a step, which the command counts. The file systems may be synced at an earlier one.

    Args:
        base: the directory of the nodes.
        kind: one of `FAULTS`.
        step: the number of the step.
        synced: the number of the step at which everything reaches the disks.
    """

    def __init__(self, base: str, kind: str, step: int, synced: int) -> None:
        self._base, self._kind, self._left, self._synced = base, kind, step, synced
        self._process: subprocess.Popen[bytes] | None = None

    def step(self, *_: object) -> None:
        """Count a step."""
        self._left -= 1
        self._synced -= 1
        if self._synced == 0:
            for node in ("one", "two"):
                sync_file_system(os.fsencode(f"{self._base}/{node}/volume"))
        if self._left == 0:
            self._happen()

    def _happen(self) -> None:
        if self._kind == "rsync":
            if self._process is not None:
                self._process.kill()
            return
        for node, kinds in (("one", ("both", "source")), ("two", ("both", "target"))):
            if self._kind in kinds:
                cut_power(Path(f"{self._base}/{node}/volume"))
        if self._kind in ("both", "command"):
            os.kill(os.getpid(), signal.SIGKILL)

    def run(self, *words: str) -> int:
        """Run the command."""
        popen = subprocess.Popen

        def start(command: Sequence[str], **options: Any) -> Any:
            self.step()
            self._process = popen(command, **options)
            return self._process

        with (
            steps_counted(self.step),
            mock.patch.object(move_command._Progress, "step", self.step),
            mock.patch.object(subprocess, "Popen", start),
            mock.patch("time.sleep"),
        ):
            return run_command(self._base, *words)


class Nodes:
    """Two nodes on file systems of their own; the journal and the map are on that of the first one.

    Args:
        base: a directory for both.
        kind: of the file systems.
    """

    def __init__(self, base: Path, kind: str) -> None:
        self.base, self.boot_id = base, BootId(base)
        self.volumes = {}
        for node in ("one", "two"):
            (base / node).mkdir()
            self.volumes[node] = Volume(base / node, kind)
            for part in ("users", "index", "journal"):
                (self.root(node) / part).mkdir()
        self.offset = 0.0

    def root(self, node: str) -> Path:
        """Return the directory of a node."""
        return self.volumes[node].root

    def configure(self, has_index_root: bool) -> None:
        """Write the file of the nodes, and the map."""
        (self.root("one") / "map").write_text("* one\n")
        lines = [f'map = "{self.root("one")}/map"']
        for node in self.volumes:
            lines += [f"[nodes.{node}]", f'mail-root = "{self.root(node)}/users"']
            if has_index_root:
                lines += [f'index-root = "{self.root(node)}/index"']
        (self.base / "nodes.toml").write_text("\n".join(lines))

    def clear(self) -> None:
        """Remove all users and moves."""
        for node in self.volumes:
            for part in self.root(node).iterdir():
                for path in part.iterdir() if part.is_dir() else ():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def unmount(self) -> None:
        """Unmount, when rsync has ended."""
        gc.collect()  # closes databases
        for volume in self.volumes.values():
            for _ in range(100):
                with suppress(RuntimeError):
                    volume.unmount()
                    break
                time.sleep(0.05)

    def restart(self) -> None:
        """Let both nodes start again."""
        self.unmount()
        self.boot_id.change()
        for volume in self.volumes.values():
            volume.remount()


class User:
    """A user on the nodes, who has mail on the first one.

    Args:
        nodes: the nodes.
        name: the name.
        has_index_root: whether the index is outside the Maildir.
    """

    def __init__(self, nodes: Nodes, name: str, has_index_root: bool) -> None:
        self._nodes, self.name, self._has_index_root = nodes, name, has_index_root

    def maildir(self, node: str) -> str:
        """Return the Maildir on a node."""
        return f"{self._nodes.root(node)}/users/{self.name}"

    def index(self, node: str) -> str:
        """Return the directory of the index."""
        own = f"{self._nodes.root(node)}/index/{self.name}"
        return own if self._has_index_root else self.maildir(node)

    def _open(self, node: str) -> AbstractContextManager[MaildirStore]:
        offset = self._nodes.offset
        return opened_store(
            self.maildir(node), self.index(node), lambda: time.time() + offset, lambda _: None
        )

    def fill(self) -> None:
        """Give the user mail."""
        with self._open("one") as store:
            fill_account(store, self.maildir("one"))

    def dump(self, node: str) -> dict[str, Any]:
        """Return everything that clients can see."""
        with self._open(node) as store:
            return dump_account(store, self.maildir(node), self.index(node))

    def is_served(self, node: str) -> bool:
        """Whether a node has the account, and its server would open it."""
        if not os.path.isdir(f"{self.maildir(node)}/cur"):
            return False
        with self._open(node) as store:
            return not is_refused(store)


class Sweep:
    """Moves a user after the other, with a fault in each move.

    Args:
        nodes: the nodes.

    Attributes:
        results: how many moves of each kind of fault left the mail on which node.
        problems: how often something was wrong.
    """

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self.results: Counter[tuple[str, str]] = Counter()
        self.problems = 0

    def move(self, number: int, kind: str, step: int, dice: random.Random) -> None:
        """Move a user with a fault.

        Args:
            number: of the move.
            kind: one of `FAULTS`.
            step: the step of the fault.
            dice: chooses the rest.
        """
        nodes, what = self._nodes, f"move {number}, {kind} at step {step}"
        has_index_root = bool(number % 2)
        nodes.offset = 0.0
        nodes.clear()
        nodes.configure(has_index_root)
        user = User(nodes, f"user{number}", has_index_root)
        user.fill()
        before = user.dump("one")
        for volume in nodes.volumes.values():
            volume.sync()
        fault = Fault(str(nodes.base), kind, step, dice.randrange(2 * step + 2))
        self._run(lambda: fault.run(user.name, "two"))
        if kind in ("both", "source", "target"):
            nodes.restart()
        nodes.offset = dice.choice((0.0, 61.0))
        served = [node for node in nodes.volumes if user.is_served(node)]
        entry = Journal(str(nodes.root("one") / "journal")).read(user.name)
        state = served[0] if served else "none"
        self.results[kind, state] += 1
        if len(served) > 1:
            self._report(f"{what}: both nodes serve the user")
        for node in served:
            self._compare(f"{what}: {node}", before, user.dump(node))
        if (
            not served
            and nodes.offset
            and (entry is None or entry.phase not in (GIVING_UP, GIVEN_UP))
        ):
            self._report(f"{what}: no node serves the user, {entry}")
        nodes.offset = 0.0
        base = str(nodes.base)
        if (
            entry
            and dice.random() < 0.3
            and not self._run(lambda: run_command(base, user.name, "--abort"))
        ):
            self._compare(f"{what}: after the abort", before, user.dump("one"))
        if self._run(lambda: run_command(base, user.name, "two")):
            self._report(f"{what}: {self._output()}")
            return
        self._compare(f"{what}: at the end", before, user.dump("two"))
        if user.is_served("one"):
            self._report(f"{what}: the old node serves the user at the end")
        if user.name not in (nodes.root("one") / "map").read_text():
            self._report(f"{what}: the map has not the user")

    def _report(self, problem: str) -> None:
        self.problems += 1
        print(problem, flush=True)

    def _compare(self, what: str, before: dict[str, Any], found: dict[str, Any]) -> None:
        for part, value in before.items():
            if found[part] != value:
                self._report(f"{what}: {part}: {found[part]!r} and not {value!r}")

    def _run(self, command: Callable[[], int]) -> int:
        """Run a command in a process of its own, and return its exit status."""
        gc.collect()
        process = os.fork()
        if not process:
            status = 99
            try:
                with (
                    open(self._nodes.base / "output", "w", buffering=1) as file,
                    redirect_stdout(file),
                    redirect_stderr(file),
                ):
                    status = command()
            except BaseException:
                with open(self._nodes.base / "output", "a") as file:
                    traceback.print_exc(file=file)
            finally:
                os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

    def _output(self) -> str:
        return (self._nodes.base / "output").read_text()[-1500:]


def sweep(moves: int, *, kind: str = "ext4", first: int = 0, faults: Sequence[str] = ()) -> Sweep:
    """Move users, each with a fault at a random step. The process must have a mount namespace of its own.

    Args:
        moves: how many.
        kind: of the file systems.
        first: the number of the first move, which chooses its fault.
        faults: those of `FAULTS` that happen; all if there are none.
    """
    faults = faults or [*FAULTS]
    with tempfile.TemporaryDirectory(prefix="imapshield-", dir=memory_directory()) as base:
        nodes = Nodes(Path(base), kind)
        try:
            found = Sweep(nodes)
            for number in range(first, first + moves):
                dice = random.Random(f"move {number}")
                # Every step has its turn, and so has every fault.
                step = 1 + number // (2 * len(faults)) * 37 % STEPS
                found.move(number, faults[number // 2 % len(faults)], step, dice)
                print(f"{number - first + 1} of {moves}", end="\r", file=sys.stderr, flush=True)
        finally:
            nodes.unmount()
    return found


def main() -> int:
    """Run the command; return 1 if a user was not intact."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--moves", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="the number of the first move")
    parser.add_argument("--fs", choices=KINDS, default="ext4")
    parser.add_argument("--faults", choices=FAULTS, nargs="*", default=[])
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if missing := missing_requirement([options.fs]):
        parser.error(missing)
    if not options.inside:
        command = [sys.executable, "-m", "benchmarks.move_cuts", "--inside", *sys.argv[1:]]
        unshare = shutil.which("unshare") or "unshare"
        return subprocess.run([unshare, "--mount", *command], check=False).returncode
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # which removes the images
    found = sweep(options.moves, kind=options.fs, first=options.first, faults=options.faults)
    print("the mail is, before the move is repeated, on")
    states = ("one", "two", "none")
    for kind in options.faults or FAULTS:
        numbers = "  ".join(f"{state} {found.results[kind, state]:>4}" for state in states)
        print(f"{numbers}  {FAULTS[kind]}")
    print(f"{options.moves} moves, {found.problems} problems")
    return 1 if found.problems else 0


if __name__ == "__main__":
    sys.exit(main())
