"""Runs imaptest against a server alone and behind imapshield: its scripts, and its random load for some minutes.

    python -m benchmarks.front_imaptest --scripts imaptest/src/tests --seconds 600
    python -m benchmarks.front_imaptest --peer courier --scripts imaptest/src/tests --seconds 120

Both servers run at the same time. The program imaptest (https://github.com/dovecot/imaptest) must be on PATH, and the
scripts are those of its source. Exit status 1: a script fails behind imapshield only, imaptest complains of something
behind it only, or its memory grows.
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
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.front_peer import BEHIND
from benchmarks.imaptest_measure import PROGRAM, load_command, session_count, write_mbox
from benchmarks.peers import PASSWORD, Peer, Settings, change_owner, start_with
from benchmarks.processes import own_memory
from system_tests.certificate import write_certificate
from system_tests.courier_server import courier_server
from system_tests.server import Server

PEERS = ("dovecot", "courier", "pymap")
CLIENTS = 20
SCRIPT_SECONDS = 60.0
"""How long one script may take: Courier delays the answers to some commands that fail."""
SETTLED = 0.3
"""The part of a run after which memory must not grow: all clients have had large answers until then."""
GROWTH = 3 << 20
"""Bytes that do not count as growth: the interpreter keeps free pages for later."""
_FAULT = re.compile(r"^(?:Fatal|Panic|Error|Warning)[^:]*: .*", re.MULTILINE)
_FAILED = re.compile(r"^\*\*\* Test (\S+ (?:command \d+|initialization))", re.MULTILINE)
_SUMMARY = re.compile(r"^1 test groups: \d+ failed, (\d+) skipped", re.MULTILINE)


@contextmanager
def served(name: str) -> Iterator[Peer]:
    """Run a server with empty mailboxes of alice and of the users of imaptest."""
    with tempfile.TemporaryDirectory(prefix="front-imaptest-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        users = ["alice", *(f"user{n:04d}" for n in range(1, CLIENTS + 1))]
        for user in users:
            for part in ("cur", "new", "tmp"):
                (root / user / part).mkdir(parents=True)
        change_owner(root)
        if name == "courier":
            with tempfile.TemporaryDirectory() as other:
                certificate = Path(write_certificate(other))
                with courier_server(root, users, PASSWORD, certificate) as peer:
                    yield peer
        else:
            with start_with(name, root, Settings(users=users)) as peer:
                yield peer


@contextmanager
def behind(name: str) -> Iterator[Peer]:
    """Run a server as `served` does, and imapshield in front of it, whose process is that of the `Peer`."""
    if name == "dovecot":
        with served(BEHIND) as peer:
            yield peer
        return
    with served(name) as peer:
        shield = Server("--backend", f"tcp:{peer.host}:{peer.port}")
        try:
            shield.wait_for_output("the first check has succeeded")
            yield replace(peer, name=f"{name}-behind", port=shield.port, pid=shield.process.pid)
        finally:
            shield.stop()


def run_imaptest(arguments: Sequence[str], timeout: float) -> str:
    """Run imaptest in a folder of its own; return what it prints.

    Raises:
        subprocess.TimeoutExpired: it does not end.
    """
    with tempfile.TemporaryDirectory(prefix="imaptest-") as folder:
        mbox = Path(folder, "mbox")
        write_mbox(mbox)
        done = subprocess.run(
            [PROGRAM, *arguments, f"mbox={mbox}"],
            capture_output=True, text=True, errors="replace", cwd=folder, check=False, timeout=timeout,
        )  # fmt: skip
    return done.stderr + done.stdout


@dataclass(slots=True)
class Scripts:
    """How the scripts ended with one server.

    Attributes:
        counts: of the scripts that pass, fail, and are skipped because the server lacks a capability.
        failures: the commands that fail, and the scripts that imaptest does not run to the end.
    """

    counts: Counter[str] = field(default_factory=Counter)
    failures: set[str] = field(default_factory=set)

    def add(self, name: str, printed: str) -> None:
        """Add what imaptest has printed about a script; "": it did not end."""
        failed = {match[1] for match in _FAILED.finditer(printed)}
        summary = _SUMMARY.search(printed)
        if summary is None:
            failed.add(f"{name} does not end")
        if failed:
            self.counts["failed"] += 1
        else:
            self.counts["skipped" if summary and summary[1] != "0" else "passed"] += 1
        self.failures |= failed

    def __str__(self) -> str:
        numbers = ", ".join(
            f"{self.counts[name]} {name}" for name in ("passed", "failed", "skipped")
        )
        return f"{self.counts.total()} scripts: {numbers}; {len(self.failures)} failures"


def run_scripts(peer: Peer, folder: Path) -> Scripts:
    """Run each script of a folder by itself: some responses of other servers make imaptest fail, or wait for ever."""
    address = [f"host={peer.host}", f"port={peer.port}", "user=alice", f"pass={peer.password}"]
    # Courier has all mailboxes below INBOX.
    box = ["box=INBOX.imaptest"] if peer.name.startswith("courier") else []
    result = Scripts()
    for script in sorted(folder.iterdir()):
        if script.is_file() and script.suffix != ".mbox":
            printed = ""
            with suppress(subprocess.TimeoutExpired):
                printed = run_imaptest([*address, *box, f"test={script}"], SCRIPT_SECONDS)
            result.add(script.name, printed)
    return result


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
    parser.add_argument("--peer", choices=PEERS, default="dovecot", help="default dovecot")
    parser.add_argument("--scripts", type=Path, help="folder of imaptest's scripts")
    parser.add_argument("--seconds", type=float, default=0, help="of the random load")
    options = parser.parse_args()
    wrong = False
    with ExitStack() as stack:
        peers = [stack.enter_context(run(options.peer)) for run in (served, behind)]
        if options.scripts:
            results = [run_scripts(peer, options.scripts) for peer in peers]
            for peer, scripts in zip(peers, results, strict=True):
                print(f"{peer.name}: {scripts}", flush=True)
            lost = results[1].failures - results[0].failures
            print(f"failures behind imapshield only: {sorted(lost) or 'none'}", flush=True)
            wrong |= bool(lost)
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
