"""Runs imaptest against a server alone and behind imapshield: its scripts, and its random load for some minutes.

    python -m benchmarks.front_imaptest --scripts imaptest/src/tests --seconds 600
    python -m benchmarks.front_imaptest --peer courier --scripts imaptest/src/tests --only "append|copy"

Both servers run at the same time. The program imaptest (https://github.com/dovecot/imaptest) must be on PATH, and the
scripts are those of its source. `system_tests/install` unpacks Courier and Cyrus, which need root.
Each script is a run of imaptest of its own, with a time limit. For each that fails, the commands that fail are printed,
with the reasons of imaptest. Exit status 1: a command fails behind imapshield only, imaptest complains of something
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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.front_peer import BEHIND
from benchmarks.imaptest_measure import PROGRAM, load_command, session_count, write_mbox
from benchmarks.peers import PASSWORD, Peer, Settings, change_owner, start_with
from benchmarks.processes import own_memory
from system_tests.certificate import write_certificate
from system_tests.courier_server import courier_server
from system_tests.cyrus_server import cyrus_server
from system_tests.server import Server

PEERS = ("dovecot", "courier", "cyrus", "pymap")
BELOW_INBOX = ("courier", "cyrus")
"""Servers that have all mailboxes below INBOX, as Debian configures them."""
CLIENTS = 20
SCRIPT_SECONDS = 60.0
"""How long one script may take: Courier delays the answers to some commands that fail."""
ATTEMPTS = 3
"""A command that fails behind imapshield only may do so because of the time: its script is run again, with both."""
SETTLED = 0.3
"""The part of a run after which memory must not grow: all clients have had large answers until then."""
GROWTH = 3 << 20
"""Bytes that do not count as growth: the interpreter keeps free pages for later."""
_FAULT = re.compile(r"^(?:Fatal|Panic|Error|Warning)[^:]*: .*", re.MULTILINE)
_FAILED = re.compile(
    r"^\*\*\* Test \S+ (command [\d/]+|initialization).*(?:\n(?: - failed: )?(.*))?", re.MULTILINE
)
_SUMMARY = re.compile(
    r"^1 test groups: .*((?:\n.*: \d+/\d+ individual commands failed)+)", re.MULTILINE
)
_CRASH = re.compile(r"^(?:Fatal|Panic): .*", re.MULTILINE)
_REASON = 100
"""Characters of a reason of imaptest that are printed."""


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
        if name == "cyrus":
            with cyrus_server(users, PASSWORD) as peer:
                yield peer
        elif name == "courier":
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


@dataclass(frozen=True, slots=True)
class Ended:
    """How a script has ended with one server.

    Attributes:
        failures: the commands that have failed, with the reasons of imaptest.
        skipped: whether no command ran, because the server lacks a capability.
    """

    failures: dict[str, str]
    skipped: bool = False

    def __str__(self) -> str:
        if self.failures:
            return "failed"
        return "skipped" if self.skipped else "passed"


def ended(printed: str) -> Ended:
    """Return how a script has ended from what imaptest has printed."""
    failures = {match[1]: (match[2] or "")[:_REASON] for match in _FAILED.finditer(printed)}
    summary = _SUMMARY.search(printed)
    if summary is None:
        crash = _CRASH.search(printed)
        failures["imaptest"] = crash[0][:_REASON] if crash else "it ends without a summary"
    return Ended(failures, summary is not None and not re.search(r"/[1-9]", summary[1]))


def run_script(peer: Peer, script: Path, seconds: float) -> Ended:
    """Run one script. Some responses of other servers make imaptest fail, or wait for ever."""
    command = [f"host={peer.host}", f"port={peer.port}", "user=alice", f"pass={peer.password}"]
    if peer.name.removesuffix("-behind") in BELOW_INBOX:
        # Of its own: Cyrus ends the connection now and then when a mailbox is deleted and made again.
        command.append(f"box=INBOX.{script.name}")
    try:
        return ended(run_imaptest([*command, f"test={script}"], seconds))
    except subprocess.TimeoutExpired:
        return Ended({"imaptest": f"it does not end in {seconds:g} s"})


def lost(alone: Ended, behind: Ended) -> dict[str, str]:
    """Return the commands that fail behind imapshield only, with the reasons."""
    return {name: why for name, why in behind.failures.items() if name not in alone.failures}


def run_scripts(peers: Sequence[Peer], scripts: Sequence[Path], seconds: float) -> bool:
    """Run each script with both servers at once, and print how it ends; return whether the shield makes one fail."""
    totals: list[Counter[str]] = [Counter() for _ in peers]
    wrong: list[str] = []
    with ThreadPoolExecutor(len(peers)) as pool:
        for script in scripts:
            for _ in range(ATTEMPTS):
                alone, behind = pool.map(lambda peer: run_script(peer, script, seconds), peers)  # noqa: B023
                if not lost(alone, behind):
                    break
            else:
                wrong.append(script.name)
            for total, how in zip(totals, (alone, behind), strict=True):
                total[str(how)] += 1
                total["failures"] += len(how.failures)
            print(f"{script.name}: {alone} / {behind}", flush=True)
            for command, why in (alone.failures | behind.failures).items():
                where = [command in how.failures for how in (alone, behind)]
                place = "" if all(where) else " (alone only)" if where[0] else " (behind only)"
                print(f"    {command}{place}: {why}", flush=True)
    for peer, total in zip(peers, totals, strict=True):
        print(f"{peer.name}: {len(scripts)} scripts: {dict(total)}")
    print(f"scripts that fail behind imapshield only, or elsewhere: {wrong or 'none'}", flush=True)
    return bool(wrong)


def faults(printed: str) -> Counter[str]:
    """Return the kinds of complaints of imaptest, without names, numbers and tags, each with its count."""
    return Counter(
        re.sub(r"\[[^]]*\]|\b[\w.]*\d[\w.]*\b|'[^']*'", "…", line)[:100]
        for line in _FAULT.findall(printed)
    )


def stress(
    peer: Peer, seconds: float, clients: int
) -> tuple[Counter[str], int, list[tuple[float, int]]]:
    """Run the random load; return its faults, its sessions, and the memory of the first process over time."""
    command = load_command(peer.host, peer.port, peer.password, clients)
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
    parser.add_argument("--only", default="", metavar="REGEX", help="names of scripts")
    parser.add_argument("--script-seconds", type=float, default=SCRIPT_SECONDS, help="of a script")
    parser.add_argument("--seconds", type=float, default=0, help="of the random load")
    parser.add_argument("--clients", type=int, default=CLIENTS, help=f"{CLIENTS} or fewer")
    options = parser.parse_args()
    wrong = False
    with ExitStack() as stack:
        peers = [stack.enter_context(run(options.peer)) for run in (served, behind)]
        if options.scripts:
            scripts = [
                path
                for path in sorted(options.scripts.iterdir())
                if path.is_file() and path.suffix != ".mbox" and re.search(options.only, path.name)
            ]
            wrong |= run_scripts(peers, scripts, options.script_seconds)
        if options.seconds:
            with ThreadPoolExecutor() as pool:
                loads = list(
                    pool.map(lambda peer: stress(peer, options.seconds, options.clients), peers)
                )
            for peer, (found, sessions, used) in zip(peers, loads, strict=True):
                points = used[:: max(1, len(used) // 10)]
                sizes = " ".join(f"{size / 1e6:.1f}" for _, size in points)
                print(f"{peer.name}: {sessions} sessions; faults: {dict(found)}; MB: {sizes}")
            wrong |= bool(set(loads[1][0]) - set(loads[0][0])) or growth(loads[1][2]) > GROWTH
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
