"""Runs imaptest against Dovecot alone and behind imapshield: its scripts, and its random load for some minutes.

    python -m benchmarks.front_imaptest --scripts imaptest/src/tests --seconds 600

Both servers run at the same time. The program imaptest (https://github.com/dovecot/imaptest) must be on PATH, and the
scripts are those of its source. Exit status 1: the servers differ, or the memory of imapshield grows.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.front_peer import BEHIND
from benchmarks.imaptest_measure import PROGRAM, load_command, session_count, write_mbox
from benchmarks.peers import Peer, Settings, change_owner, start_with
from benchmarks.processes import own_memory

SERVERS = ("dovecot", BEHIND)
CLIENTS = 20
SETTLED = 0.3
"""The part of a run after which memory must not grow: all clients have had large answers until then."""
GROWTH = 3 << 20
"""Bytes that do not count as growth: the interpreter keeps free pages for later."""
_FAULT = re.compile(r"^(?:Fatal|Panic|Error|Warning)[^:]*: .*", re.MULTILINE)
_FAILED_SCRIPT = re.compile(r"^\*\*\* Test (\S+) command .*", re.MULTILINE)
_SUMMARY = re.compile(r"^(\d+ test groups|base protocol|extensions): .*", re.MULTILINE)


@contextmanager
def served(name: str, configuration: str = "") -> Iterator[Peer]:
    """Run one of `SERVERS` with empty mailboxes of alice and of the users of imaptest."""
    with tempfile.TemporaryDirectory(prefix="front-imaptest-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        users = ["alice", *(f"user{n:04d}" for n in range(1, CLIENTS + 1))]
        for user in users:
            for part in ("cur", "new", "tmp"):
                (root / user / part).mkdir(parents=True)
        change_owner(root)
        with start_with(name, root, Settings(users=users, configuration=configuration)) as peer:
            yield peer


def run_imaptest(arguments: Sequence[str], timeout: float) -> str:
    """Run imaptest in a folder of its own; return what it prints."""
    with tempfile.TemporaryDirectory(prefix="imaptest-") as folder:
        mbox = Path(folder, "mbox")
        write_mbox(mbox)
        done = subprocess.run(
            [PROGRAM, *arguments, f"mbox={mbox}"],
            capture_output=True, text=True, errors="replace", cwd=folder, check=False, timeout=timeout,
        )  # fmt: skip
    return done.stderr + done.stdout


def run_scripts(peer: Peer, scripts: str) -> tuple[list[str], list[str]]:
    """Run the scripts of a folder; return the names of those that fail, and the lines of the summary.

    Raises:
        RuntimeError: the program has not run them.
    """
    address = [f"host={peer.host}", f"port={peer.port}", "user=alice", f"pass={peer.password}"]
    printed = run_imaptest([*address, f"test={scripts}"], 600)
    failed = sorted(set(_FAILED_SCRIPT.findall(printed)))
    summary = [match[0] for match in _SUMMARY.finditer(printed)]
    if not summary:
        raise RuntimeError(f"{PROGRAM} has not run the scripts: {printed[-500:]}")
    return failed, summary


def faults(printed: str) -> Counter[str]:
    """Return the kinds of complaints of imaptest, without names, numbers and tags, each with its count."""
    return Counter(
        re.sub(r"\[[^]]*\]|\b[\w.]*\d[\w.]*\b|'[^']*'", "…", line)[:100]
        for line in _FAULT.findall(printed)
    )


def stress(peer: Peer, seconds: float) -> tuple[Counter[str], int, list[tuple[float, int]]]:
    """Run the random load; return its faults, its sessions, and the memory of the first process over time."""
    command = load_command(peer.host, peer.port, peer.password, CLIENTS)
    used: list[tuple[float, int]] = []
    with ThreadPoolExecutor(1) as pool:
        started = time.monotonic()
        load = pool.submit(run_imaptest, [*command, f"secs={seconds:.0f}"], seconds + 120)
        while not load.done():
            used.append((time.monotonic() - started, own_memory(peer.pid)))
            time.sleep(min(5, seconds / 20))
    printed = load.result()
    return faults(printed), session_count(printed), used


def growth(used: Sequence[tuple[float, int]]) -> int:
    """Return by how many bytes the peak of the last fifth exceeds that of the fifth after the first `SETTLED`."""
    first, last = (len(used) * SETTLED, len(used) * 0.8)
    width = max(1, len(used) // 5)
    early = max(size for _, size in used[int(first) : int(first) + width])
    return max(size for _, size in used[int(last) :]) - early


def main() -> int:
    """Run what the command line asks for, and report."""
    parser = argparse.ArgumentParser(prog="front_imaptest", description=__doc__)
    parser.add_argument("--scripts", help="folder of imaptest's scripts")
    parser.add_argument("--seconds", type=float, default=0, help="of the random load")
    options = parser.parse_args()
    wrong = False
    with ExitStack() as stack:
        peers = [stack.enter_context(served(name)) for name in SERVERS]
        if options.scripts:
            results = [run_scripts(peer, options.scripts) for peer in peers]
            for peer, (failed, summary) in zip(peers, results, strict=True):
                print(f"{peer.name}: {'; '.join(summary)}; failed: {failed or 'none'}", flush=True)
            wrong |= results[0] != results[1]
        if options.seconds:
            with ThreadPoolExecutor() as pool:
                loads = list(pool.map(lambda peer: stress(peer, options.seconds), peers))
            for peer, (found, sessions, used) in zip(peers, loads, strict=True):
                points = used[:: max(1, len(used) // 10)]
                sizes = " ".join(f"{size / 1e6:.1f}" for _, size in points)
                print(f"{peer.name}: {sessions} sessions; faults: {dict(found)}; MB: {sizes}")
            wrong |= bool(set(loads[1][0]) - set(loads[0][0])) or growth(loads[1][2]) > GROWTH
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
