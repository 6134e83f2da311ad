"""Cuts the power under imapshield and Dovecot many times, and compares what survives with what was acknowledged.

python -m benchmarks.powercut --cuts 200 --fs both
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from benchmarks.peers import REPOSITORY
from benchmarks.powercut_model import KINDS as FAULT_KINDS
from benchmarks.powercut_model import Fault, is_in_flight
from benchmarks.powercut_volume import KINDS as FILE_SYSTEMS

SHARE_OF_DOVECOT = 20
LEAST_OF_DOVECOT = 20
_SHOWN_FAULTS = 10
_SHOWN_LINES = 25


@dataclass(slots=True)
class Tally:
    """The results of one server.

    Attributes:
        commands: the number by operation; those in flight have their own names, as in `Fault`.
        faults: by (operation, kind).
        failed: cuts that showed a fault.
        file_systems: the cuts by kind of file system.
        reports: describes each cut that showed a fault.
        errors: lanes that ended too early, with the end of their output.
    """

    server: str
    cuts: int = 0
    failed: int = 0
    seconds: float = 0
    commands: Counter[str] = field(default_factory=Counter)
    faults: Counter[tuple[str, str]] = field(default_factory=Counter)
    file_systems: Counter[str] = field(default_factory=Counter)
    reports: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def add(self, result: dict[str, Any]) -> None:
        """Add the result of a cut."""
        self.cuts += 1
        self.file_systems[result["fs"]] += 1
        self.failed += bool(result["faults"])
        self.commands.update(result["commands"])
        self.faults.update((operation, kind) for kind, operation, _ in result["faults"])


def run(
    server: str,
    cuts: int,
    *,
    kinds: str = "ext4",
    seed: str = "0",
    first: int = 0,
    lanes: int = 1,
    directory: Path | None = None,
    keep: Path | None = None,
    show: bool = True,
) -> Tally:
    """Cut the power of a server, and return what was found.

    Args:
        server: "imapshield" or "dovecot".
        cuts: how often.
        kinds: file systems, separated by commas; they alternate.
        seed: of all random numbers.
        first: the number of the first cut; the volume of a failed cut begins at the number in its report.
        lanes: how many volumes and servers at once.
        directory: for images; memory if possible.
        keep: a directory for images and logs of cuts that show faults.
        show: print each cut that shows a fault, and how many there were.
    """
    tally = Tally(server)
    started = time.monotonic()
    lines: SimpleQueue[str | None] = SimpleQueue()
    processes = []
    for lane in range(lanes):
        command = ["unshare", "--mount", sys.executable, "-m", "benchmarks.powercut_lane"]
        command += ["--server", server, "--first", str(first), "--cuts", str(cuts)]
        command += ["--lane", str(lane), "--lanes", str(lanes), "--seed", seed, "--kinds", kinds]
        command += ["--directory", str(directory or memory_directory())]
        command += ["--keep", str(keep.absolute())] if keep else []
        processes.append(
            subprocess.Popen(
                command,
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        for process in processes:
            threading.Thread(target=_read, args=(process, lines, tally), daemon=True).start()
        left = lanes
        while left:
            line = lines.get()
            if line is None:
                left -= 1
                continue
            result = json.loads(line)
            tally.add(result)
            tally.seconds = time.monotonic() - started
            if result["faults"]:
                tally.reports.append(describe(result, seed))
                if show:
                    print(tally.reports[-1], flush=True)
            if show:
                _progress(tally, cuts)
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
    tally.seconds = time.monotonic() - started
    return tally


def memory_directory() -> Path:
    """Return a directory in memory, so that the machine's disk does not limit the number of cuts."""
    shm = Path("/dev/shm")  # noqa: S108
    return shm if os.access(shm, os.W_OK) else Path(os.environ.get("TMPDIR", "/tmp"))  # noqa: S108


def _read(process: subprocess.Popen[str], lines: SimpleQueue[str | None], tally: Tally) -> None:
    assert process.stdout is not None and process.stderr is not None
    errors: list[str] = []
    stderr = process.stderr
    reader = threading.Thread(target=lambda: errors.extend(stderr), daemon=True)
    reader.start()
    for line in process.stdout:
        lines.put(line)
    reader.join()
    if process.wait():
        tally.errors.append("".join(errors)[-3000:] or f"exit status {process.returncode}")
    lines.put(None)


def _progress(tally: Tally, cuts: int) -> None:
    if sys.stderr.isatty() or tally.cuts % 100 == 0:
        end = "\r" if sys.stderr.isatty() else "\n"
        text = f"{tally.server}: {tally.cuts} of {cuts} cuts, {tally.seconds:.0f} s, {tally.failed} with faults"
        print(text, end=end, file=sys.stderr, flush=True)


def describe(result: dict[str, Any], seed: str) -> str:
    """Return the report of a cut that showed faults: what was expected and found, and how to repeat it."""
    number, begun = result["cut"], result["begun"]
    lines = [
        f"{result['server']} on {result['fs']}, cut {number}: {result['plan']}",
        f"  repeat with --seed {seed} --first {begun} --cuts {number - begun + 1}",
    ]
    faults = [Fault(*fault) for fault in result["faults"]]
    lines += [f"  {f.kind}: {f.operation}: {f.text}" for f in faults[:_SHOWN_FAULTS]]
    if len(faults) > _SHOWN_FAULTS:
        lines.append(f"  and {len(faults) - _SHOWN_FAULTS} more")
    lines += [f"  in flight: {text}" for text in result["in_flight"]]
    lines += [f"  | {text}" for text in result["log"][-_SHOWN_LINES:]]
    output = [line for line in result["output"].splitlines() if "rror" in line or "rning" in line]
    return "\n".join([*lines, *(f"  server: {line}" for line in output[-5:])])


def table(tallies: list[Tally]) -> str:
    """Return one table of all servers: first what was acknowledged, then what was in flight, with a total of each."""
    header = ["server", "operation", "commands", *FAULT_KINDS]
    rows = [header]
    for tally in tallies:
        operations = sorted(tally.commands.keys() | {operation for operation, _ in tally.faults})
        for flying, total in ((False, "all acknowledged"), (True, "all in flight")):
            sums = [0] * (1 + len(FAULT_KINDS))
            for operation in operations:
                if is_in_flight(operation) == flying:
                    counts = [tally.faults[operation, kind] for kind in FAULT_KINDS]
                    numbers = [tally.commands[operation], *counts]
                    sums = [a + b for a, b in zip(sums, numbers, strict=True)]
                    rows.append([tally.server, operation, *map(str, numbers)])
            rows.append([tally.server, total, *map(str, sums)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    lines += [
        f"{tally.server}: {tally.cuts} cuts in {tally.seconds:.0f} s; {tally.failed} showed faults"
        for tally in tallies
    ]
    return "\n".join(lines)


def missing_requirement(kinds: list[str]) -> str:
    """Return why this machine cannot run the benchmark, and what to do; "" if it can."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    if os.getuid():
        return "needs root, for loop devices and mounts; run it with sudo"
    if not os.path.exists("/dev/loop-control"):
        return "needs loop devices; run modprobe loop"
    for program, package in (
        ("unshare", "util-linux"),
        *((f"mkfs.{kind}", "e2fsprogs" if kind == "ext4" else "xfsprogs") for kind in kinds),
    ):
        if not shutil.which(program, path=path):
            return f"{program} not found: apt-get install {package}"
    return ""


def main() -> int:
    """Run the benchmark of the command line; return 1 if imapshield broke a promise."""
    parser = argparse.ArgumentParser(prog="powercut", description="Cut the power of IMAP servers.")
    parser.add_argument("--cuts", type=int, default=200)
    parser.add_argument("--fs", choices=[*FILE_SYSTEMS, "both"], default="both")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--first", type=int, default=0, help="the number of the first cut")
    parser.add_argument("--lanes", type=int, default=1, help="volumes and servers at once")
    parser.add_argument("--dovecot-cuts", type=int, help="0 leaves Dovecot out")
    parser.add_argument("--directory", type=Path, help="for images; default: /dev/shm")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep images of cuts with faults")
    options = parser.parse_args()
    kinds = list(FILE_SYSTEMS) if options.fs == "both" else [options.fs]
    if missing := missing_requirement(kinds):
        parser.error(missing)
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    dovecot_cuts = options.dovecot_cuts
    if dovecot_cuts is None:
        dovecot_cuts = max(options.cuts // SHARE_OF_DOVECOT, LEAST_OF_DOVECOT)
    tallies = [
        run(
            server,
            cuts,
            kinds=",".join(kinds),
            seed=options.seed,
            first=options.first,
            lanes=options.lanes,
            directory=options.directory,
            keep=options.keep,
        )
        for server, cuts in (("imapshield", options.cuts), ("dovecot", dovecot_cuts))
        if cuts
    ]
    print(table(tallies))
    errors = [f"{tally.server}: {text}" for tally in tallies for text in tally.errors]
    for text in errors:
        print(text, file=sys.stderr)
    own = [tally for tally in tallies if tally.server == "imapshield"]
    return 1 if errors or any(tally.failed for tally in own) else 0


if __name__ == "__main__":
    sys.exit(main())
