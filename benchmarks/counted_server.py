"""Runs `benchmarks.counting_server` under strace, and reads what it has counted."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from benchmarks.client import Client
from benchmarks.counted_work import PASSWORD, USER, Operation
from benchmarks.peers import HOST, REPOSITORY, free_port, wait_for_greeting

SETTLED = 0.02
"""Seconds in which a server that has finished its work calls no function."""
SETTLED_TIMEOUT = 10.0
UNCHANGED_SECONDS = 1.5

# Calls of the C library and of SQLite that depend on the machine, the scheduler or the user.
_IGNORED = re.compile(
    r"futex|sched_|clock_|mmap|munmap|mremap|mprotect|madvise|brk|get(pid|tid|e?[ug]id|random)|rt_sig|"
    r"f?chown|set_robust|rseq|restart_syscall"
)
# The same call has other names in other versions of the C library and of the kernel.
_NAMES = {
    "newfstatat": "stat", "fstat": "stat", "lstat": "stat", "statx": "stat", "fstatat64": "stat",
    "openat": "open", "openat2": "open", "pread64": "pread", "pwrite64": "pwrite",
    "renameat": "rename", "renameat2": "rename", "linkat": "link", "unlinkat": "unlink",
    "epoll_pwait": "epoll_wait", "epoll_pwait2": "epoll_wait", "mkdirat": "mkdir", "accept4": "accept",
    "clone3": "clone", "getdents64": "getdents",
}  # fmt: skip
_LINE = re.compile(r"(\d+) +(\w+)\((.*)")
_MARK = re.compile(r'1, "(begin|end) (\w+)')


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The calls up to a moment, or between two: of each function, and from a thread to the reactor."""

    hops: int
    functions: Counter[str]

    def since(self, before: Snapshot) -> Snapshot:
        """Return the difference to an earlier snapshot."""
        return Snapshot(self.hops - before.hops, self.functions - before.functions)

    def own(self) -> int:
        """Return the number of calls of functions of imapshield."""
        return sum(n for name, n in self.functions.items() if name.startswith("imapshield/"))


class CountedServer:
    """A server under strace; a context manager that ends it.

    Args:
        root: a folder that contains the mail, in ``mail``.

    Raises:
        RuntimeError: strace is missing or not permitted, or the server does not start.
    """

    def __init__(self, root: Path) -> None:
        self._record, self._log = root / "strace", root / "log"
        self._root = root
        self._labels: list[tuple[str, int]] = []
        self._port = free_port()

    def __enter__(self) -> CountedServer:
        if shutil.which("strace") is None:
            raise RuntimeError("strace not found: system_tests/install installs it")
        command = ["strace", "-f", "-q", "-e", "signal=none", "-o", str(self._record)]
        command += [sys.executable, "-m", "benchmarks.counting_server"]
        command += ["--listen", f"tcp:{self._port}:interface={HOST}"]
        command += ["--mail-root", str(self._root / "mail"), "--state", "none"]
        command += ["--no-special-folders"]  # they are made once for each account
        # The text of new mail is indexed at a later moment, in the middle of another operation.
        command += ["--no-text-index"]
        # How many commands share a turn must not depend on time.
        command += ["--limit", "turn_seconds=10"]
        command += ["--auth", f"memory:{USER}:{PASSWORD}"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=REPOSITORY
            )
        self._client = self._first_client()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()
        assert self._process.stdin is not None
        self._process.stdin.close()  # strace itself ignores SIGTERM
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()  # the server stops at the end of its input, as soon as it can
            raise RuntimeError("the server does not stop") from None

    def _connect(self) -> Client:
        return Client(HOST, self._port)

    def _first_client(self) -> Client:
        try:
            wait_for_greeting(self._process, self._port, 30)
        except TimeoutError:
            self._process.kill()
            raise RuntimeError(f"no server under strace: {self._log.read_text()[-2000:]}") from None
        client = self._connect()
        client.login(USER, PASSWORD)
        client.select()
        # A directory that has changed in the last second is listed again by each command.
        time.sleep(UNCHANGED_SECONDS)
        return client

    def count(self, operation: Operation, number: int) -> Snapshot:
        """Run an operation, and return the calls until the server does nothing any more."""
        if number == 0 and operation.warm:
            operation.before(self._client, number)
            operation.run(self._client, self._connect, number)
        operation.before(self._client, number)
        label = f"{len(self._labels)}"
        self._labels.append((operation.name, number))
        self._settle()
        before = self._snapshot(f"begin {label}")
        operation.run(self._client, self._connect, number)
        self._settle()
        return self._snapshot(f"end {label}").since(before)

    def _snapshot(self, label: str) -> Snapshot:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(label.encode() + b"\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline()[len(label) :])
        return Snapshot(answer["hops"], Counter(answer["functions"]))

    def _settle(self) -> None:
        """Wait until no function is called for a while."""
        deadline = time.monotonic() + SETTLED_TIMEOUT
        before = self._snapshot("settle").functions
        while time.monotonic() < deadline:
            time.sleep(SETTLED)
            now = self._snapshot("settle").functions
            if now == before:
                return
            before = now

    def system_calls(self) -> dict[tuple[str, int], Counter[str]]:
        """Return the system calls of each operation and round, once the server has ended."""
        counts: defaultdict[tuple[str, int], Counter[str]] = defaultdict(Counter)
        current: tuple[str, int] | None = None
        answering = None
        with self._record.open(errors="replace") as lines:
            for line in lines:
                if not (match := _LINE.match(line)):
                    continue
                thread, name, arguments = match.groups()
                if name == "read" and arguments.startswith("0,"):
                    answering = thread
                if thread == answering:
                    if name == "write" and (mark := _MARK.match(arguments)):
                        current = self._labels[int(mark[2])] if mark[1] == "begin" else None
                elif current is not None and not _IGNORED.match(name):
                    counts[current][_NAMES.get(name, name)] += 1
        return counts
