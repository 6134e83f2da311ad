"""Measures what one user can do to another: a victim's commands while somebody else abuses the server.

    python -m benchmarks.fairness [--only REGEX] [--seconds 8] [--messages 100000]

For each abuse of `benchmarks.fairness_abuses`, it prints the victim's p50, p99 and maximum of LOGIN, SELECT, FETCH and
NOOP, and the longest turn of the reactor. The goal is twice the p99 of a quiet server, plus 20 ms. Abuse runs in other
processes, so that a client that computes does not delay the victim's.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.client import Client, ServerError
from benchmarks.fairness_abuses import ABUSES, PASSWORD, USERS, Abuse, abuse, write_mail
from benchmarks.peers import HOST, Settings, free_port, start_with

COMMANDS = ("LOGIN", "SELECT", "FETCH", "NOOP")


@dataclass(slots=True)
class Visits:
    """Seconds of each of the victim's commands, and how many visits failed."""

    times: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in COMMANDS})
    failures: int = 0

    def quantile(self, name: str, part: float) -> float:
        """Return a quantile of a command's times; infinite if there are none."""
        ordered = sorted(self.times[name]) or [float("inf")]
        return ordered[min(len(ordered) - 1, int(len(ordered) * part))]

    def row(self, name: str) -> str:
        """Return p50, p99 and the maximum, in milliseconds."""
        values = [self.quantile(name, part) for part in (0.5, 0.99, 1.0)]
        return "/".join(f"{1000 * value:.0f}" for value in values)


def visit(port: int, seconds: float) -> Visits:
    """Log in, read some mail and log out, again and again, as a user with one client."""
    visits = Visits()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with Client(HOST, port, source="127.0.2.1", timeout=60) as client:
                _timed(visits, "LOGIN", client, f"LOGIN victim {PASSWORD}")
                _timed(visits, "SELECT", client, "SELECT INBOX")
                for number in (1, 50):
                    items = "(UID FLAGS ENVELOPE BODY.PEEK[])"
                    _timed(visits, "FETCH", client, f"FETCH {number}:{number + 5} {items}")
                    for _ in range(3):
                        time.sleep(0.01)
                        _timed(visits, "NOOP", client, "NOOP")
        except (OSError, ServerError):
            visits.failures += 1
            time.sleep(0.05)
    return visits


def _timed(visits: Visits, name: str, client: Client, text: str) -> None:
    start = time.perf_counter()
    client.command(text)
    visits.times[name].append(time.perf_counter() - start)


@contextmanager
def server(root: Path, options: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Start `benchmarks.fairness_server`; yield its port and its control port."""
    control = free_port()
    module = "benchmarks.fairness_server", str(control)
    settings = Settings(options, users=[*USERS, "victim"], module=module)
    with start_with("imapshield", root, settings) as peer:
        turns(control)
        yield peer.port, control


def turns(control: int) -> str:
    """Return what the meter has measured since the last call, in milliseconds: the longest turn, the longest CPU time
    of the reactor's thread in a turn, and the longest garbage collection; and where the longest turn was seen."""
    with socket.create_connection((HOST, control), 60) as connection:
        *times, place = connection.makefile().readline().split()
        return " ".join([*(f"{1000 * float(seconds):5.0f}" for seconds in times), place])


def _abuse_all(chosen: Abuse, port: int, root: Path, seconds: float) -> None:
    """Run all clients of an abuse; the body of a process."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    with ExitStack() as idle:
        for i in range(chosen.idle):
            client = idle.enter_context(Client(HOST, port, source=f"127.0.1.{i % 200 + 1}"))
            client.login(chosen.users[0], PASSWORD)
            client.select()
            client.idle()
            threading.Thread(target=_read, args=(client,), daemon=True).start()
        threads = [
            threading.Thread(target=abuse, args=(chosen, i, HOST, port, root, seconds), daemon=True)
            for i in range(chosen.clients)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _read(client: Client) -> None:
    while client.socket.recv(1 << 16):
        pass


def measure(chosen: Abuse, port: int, control: int, root: Path, seconds: float) -> str:
    """Return the row of one abuse."""
    process = multiprocessing.Process(target=_abuse_all, args=(chosen, port, root, seconds + 1))
    process.start()
    time.sleep(1.0 + 0.01 * chosen.idle)
    turns(control)
    visits = visit(port, seconds)
    longest = turns(control)
    process.terminate()
    process.join(10)
    return _row(chosen.name, chosen.clients + chosen.idle, visits, longest)


def _row(name: str, clients: int, visits: Visits, longest: str) -> str:
    cells = [f"{name:27s}", f"{clients:4d}"]
    cells += [f"{visits.row(command):>13s}" for command in COMMANDS]
    cells += [f"{visits.failures:4d}", longest]
    return "  ".join(cells)


def main() -> int:
    """Measure every abuse; return 1 if one exceeds the goal."""
    parser = argparse.ArgumentParser(prog="fairness", description=__doc__)
    parser.add_argument("--only", default="", metavar="REGEX", help="only abuses with such names")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--folders", type=int, default=9000)
    parser.add_argument("--imapshield-options", default="", help="more options for the server")
    options = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="fairness-"))
    try:
        write_mail(base / "mail", options.messages, options.folders)
        with server(base / "mail", options.imapshield_options.split()) as (port, control):
            visit(port, 1)
            turns(control)
            quiet = visit(port, options.seconds)
            head = [f"{'milliseconds: p50/p99/max':27s}", "clie"]
            head += [f"{name:>13s}" for name in COMMANDS]
            print("  ".join([*head, "fail", "longest turn, CPU, GC"]))
            print(_row("quiet", 0, quiet, turns(control)), flush=True)
            for chosen in ABUSES:
                if re.search(options.only, chosen.name):
                    print(
                        measure(chosen, port, control, base / "mail", options.seconds), flush=True
                    )
    finally:
        shutil.rmtree(base, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
