"""Measures for how long a slow store stops the reactor, and with it all users.

    python -m benchmarks.slow_disk [--seconds 10] [--users 30]

Each user has a client that sends NOOP, STATUS, FETCH and STORE, one after the other. Then the disk of the server is
made slow (`benchmarks.slow_disk_server`), or another process locks the indexes. For each case, it prints how many
commands were answered in a second, the longest turn of the reactor, and the number and the sum of turns of more than
10 ms. The first seconds of a case are printed alone: short calls run in the reactor's thread until the server has
noticed that the disk is slow.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from benchmarks.client import Client, ServerError
from benchmarks.fairness_abuses import PASSWORD, message
from benchmarks.peers import HOST, REPOSITORY, free_port

MESSAGES = 50
FIRST_SECONDS = 2.0
WARM_SECONDS = 3.0
LOCKED = "index locked"
CASES = {
    "healthy": "healthy",
    "messages not in memory: 20 ms": "cold",
    "each access: 20 ms": "slow",
    "one access in 500: 1 s": "hangs",
    LOCKED: "healthy",
}


class Load:
    """Clients that send commands until they are stopped.

    Attributes:
        answered: how many commands were answered.
    """

    def __init__(self, port: int, users: Sequence[str]) -> None:
        self.answered = 0
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(port, user), daemon=True) for user in users
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let all clients end."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(30)

    def _run(self, port: int, user: str) -> None:
        with Client(HOST, port, timeout=60) as client:
            client.login(user, PASSWORD)
            client.select()
            number = 0
            while not self._stopped.is_set():
                number = number % MESSAGES + 1
                for command in (
                    "NOOP",
                    "STATUS INBOX (MESSAGES)",
                    f"FETCH {number} (BODY.PEEK[])",
                    "NOOP",
                    f"STORE {number} +FLAGS.SILENT (\\Seen)",
                ):
                    with suppress(ServerError):
                        client.command(command)
                    self.answered += 1
                    time.sleep(0.01)


@contextmanager
def _server(root: Path, users: Sequence[str]) -> Iterator[tuple[int, socket.socket]]:
    port, control = free_port(), free_port()
    command = [sys.executable, "-m", "benchmarks.slow_disk_server", str(control)]
    command += ["--listen", f"tcp:{port}:interface={HOST}", "--mail-root", str(root)]
    # The mailboxes of new accounts would add their creation to the first commands.
    command += ["--no-special-folders", "--no-text-index", "--state", "none"]
    command += ["--auth", "memory:" + ":".join(f"{user}:{PASSWORD}" for user in users)]
    with (root.parent / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=REPOSITORY)
    try:
        for _ in range(300):
            with suppress(ConnectionRefusedError):
                socket.create_connection((HOST, port)).close()
                with socket.create_connection((HOST, control)) as connection:
                    yield port, connection
                return
            time.sleep(0.1)
        raise RuntimeError((root.parent / "log").read_text())
    finally:
        process.kill()
        process.wait()


def _write_mail(root: Path, users: Sequence[str]) -> None:
    for user in users:
        for name in ("cur", "new", "tmp"):
            (root / user / name).mkdir(parents=True)
        for number in range(MESSAGES):
            (root / user / "cur" / f"{1_600_000_000 + number}.M1.bench:2,").write_bytes(
                message(number)
            )


def _change(control: socket.socket, disk: str) -> list[str]:
    """Change the disk; return what was measured before."""
    control.sendall(disk.encode() + b"\n")
    answer = b""
    while not answer.endswith(b"\n"):
        answer += control.recv(1000)
    return answer.decode().split()


def _lock(stack: ExitStack, root: Path, users: Sequence[str]) -> None:
    for user in users:
        path = root / user / "imapshield.sqlite"
        db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        stack.callback(db.close)
        db.execute("BEGIN IMMEDIATE")


def _row(name: str, answered: int, seconds: float, measured: Sequence[str]) -> str:
    longest, count, total, place = measured
    cells = [f"{name:42s}{answered / seconds:8.0f}{1000 * float(longest):9.0f}"]
    return f"{cells[0]}{count:>7s}{1000 * float(total):9.0f}  {place}"


def _measure(name: str, root: Path, users: Sequence[str], seconds: float) -> None:
    """Measure one case, with a server of its own."""
    with _server(root, users) as (port, control), ExitStack() as stack:
        load = Load(port, users)
        stack.callback(load.stop)
        time.sleep(WARM_SECONDS)
        if name == LOCKED:
            _lock(stack, root, users[::2])
        _change(control, CASES[name])
        for part, length in ((f"first {FIRST_SECONDS:.0f} s", FIRST_SECONDS), ("then", seconds)):
            before = load.answered
            time.sleep(length)
            measured = _change(control, CASES[name])
            print(_row(f"{name}, {part}", load.answered - before, length, measured), flush=True)
        _change(control, "healthy")


def main() -> int:
    """Measure every case."""
    parser = argparse.ArgumentParser(prog="slow_disk", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--users", type=int, default=30)
    options = parser.parse_args()
    users = [f"user{number}" for number in range(options.users)]
    base = Path(tempfile.mkdtemp(prefix="slow-disk-"))
    try:
        _write_mail(base / "mail", users)
        heads = f"{'':42s}{'commands':>8s}{'longest':>9s}{'turns':>7s}{'together':>9s}\n"
        print(heads + f"{'':42s}{'per s':>8s}{'turn, ms':>9s}{'>10 ms':>7s}{'ms':>9s}")
        for name in CASES:
            _measure(name, base / "mail", users, options.seconds)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    return 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(REPOSITORY))
    sys.exit(main())
