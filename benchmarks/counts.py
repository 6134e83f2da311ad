"""Counts what single commands cost in calls instead of time, and compares that with a stored file.

    python -m benchmarks.counts            # exit status 1 if a command needs more than `counts.json` says
    python -m benchmarks.counts --update   # store the counts of this version
    python -m benchmarks.counts --functions NOOP    # which functions a command calls

For each command: how often a thread hands a result to the reactor, calls of Python functions, and system calls. They
are the same on a slow and on a busy machine, so that an additional hop, read or write is noticed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.counted_server import CountedServer, Snapshot
from benchmarks.counted_work import OPERATIONS, write_mail

STORED = Path(__file__).with_name("counts.json")
ROUNDS = 7
"""How often each command is counted. Timers and other threads disturb some: the median counts."""
CALLS_TOLERANCE = 0.05
"""By how much calls of functions may grow: long work is divided by time, and other versions of Python and Twisted call
a few more functions of their own."""
SYSTEM_TOLERANCE = 0.02
"""By how much system calls of one kind may grow: none of less than 50."""
MORE = {"epoll_wait": 2, "pwrite": 2, "fcntl": 2}
"""How many more of these are allowed: the moments at which segments arrive and threads end decide about polls, and the
pages that SQLite changes about its writes and locks."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What one operation costs.

    Attributes:
        hops: how often a thread wakes the reactor.
        calls: calls of functions in Python.
        own: those of imapshield.
        system: system calls by name.
    """

    hops: int
    calls: int
    own: int
    system: dict[str, int]


def median_counts(rounds: Sequence[tuple[Snapshot, Counter[str]]]) -> Counts:
    """Return the median of each count over all rounds."""

    def median(values: list[int]) -> int:
        return sorted(values)[len(values) // 2]

    names = sorted({name for _, system in rounds for name in system})
    system = {name: median([system[name] for _, system in rounds]) for name in names}
    return Counts(
        hops=median([calls.hops for calls, _ in rounds]),
        calls=median([calls.functions.total() for calls, _ in rounds]),
        own=median([calls.own() for calls, _ in rounds]),
        system={name: count for name, count in system.items() if count},
    )


def measure(only: str = "") -> dict[str, list[tuple[Snapshot, Counter[str]]]]:
    """Count every operation, or the one of a name, `ROUNDS` times."""
    with tempfile.TemporaryDirectory(prefix="counts-") as folder:
        root = Path(folder)
        write_mail(root / "mail", ROUNDS)
        with CountedServer(root) as server:
            calls: dict[str, list[Snapshot]] = {}
            for operation in OPERATIONS:
                if only in ("", operation.name):
                    print(f"… {operation.name}", file=sys.stderr)
                    calls[operation.name] = [
                        server.count(operation, number) for number in range(ROUNDS)
                    ]
        system = server.system_calls()
    return {
        name: [(calls, system[name, number]) for number, calls in enumerate(rounds)]
        for name, rounds in calls.items()
    }


def differences(name: str, stored: Counts | None, found: Counts) -> tuple[list[str], list[str]]:
    """Return what an operation needs more than is stored, and what less."""
    if stored is None:
        return [f"{name}: not in {STORED.name}"], []
    more, less = [], []
    for what, old, new, allowed in (
        ("hops", stored.hops, found.hops, 0),
        ("calls", stored.calls, found.calls, 2 + int(CALLS_TOLERANCE * stored.calls)),
        ("calls in imapshield", stored.own, found.own, 2 + int(CALLS_TOLERANCE * stored.own)),
        *(
            (kind, old, found.system.get(kind, 0), _allowed(kind, old))
            for kind in sorted({*stored.system, *found.system})
            for old in [stored.system.get(kind, 0)]
        ),
    ):
        if new > old + allowed:
            more.append(f"{name}: {what} {old} -> {new}")
        elif new < old - allowed:
            less.append(f"{name}: {what} {old} -> {new}")
    return more, less


def _allowed(kind: str, stored: int) -> int:
    return int(SYSTEM_TOLERANCE * stored) + MORE.get(kind, 0)


def load() -> dict[str, Counts]:
    """Return the stored counts."""
    return {name: Counts(**counts) for name, counts in json.loads(STORED.read_text()).items()}


def stored_text(counts: dict[str, Counts]) -> str:
    """Return the file of these counts, one operation on a line, so that a change is readable."""
    lines = [f" {json.dumps(name)}: {json.dumps(asdict(value))}" for name, value in counts.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def table(counts: dict[str, Counts]) -> str:
    """Format the counts."""
    lines = [f"{'':28}{'hops':>6}{'calls':>8}{'of them':>9}{'system':>8}"]
    lines.append(f"{'':28}{'':>6}{'':>8}{'own':>9}{'calls':>8}")
    for name, found in counts.items():
        total = sum(found.system.values())
        system = ", ".join(f"{count} {kind}" for kind, count in found.system.items())
        lines.append(f"{name:28}{found.hops:>6}{found.calls:>8}{found.own:>9}{total:>8}  {system}")
    return "\n".join(lines)


def main() -> int:
    """Compare or store the counts; return 1 if something needs more than is stored."""
    parser = argparse.ArgumentParser(prog="counts", description="Count what commands cost.")
    parser.add_argument("--update", action="store_true", help="store the counts")
    parser.add_argument("--functions", metavar="NAME", help="list the calls of one operation")
    options = parser.parse_args()
    measured = measure(options.functions or "")
    if options.functions:
        calls, _ = measured[options.functions][ROUNDS // 2]
        for name, count in calls.functions.most_common():
            print(f"{count:6} {name}")
        return 0
    counts = {name: median_counts(rounds) for name, rounds in measured.items()}
    print(table(counts))
    if options.update:
        STORED.write_text(stored_text(counts))
        return 0
    stored = load()
    more: list[str] = []
    less: list[str] = []
    for name, found in counts.items():
        now_more, now_less = differences(name, stored.get(name), found)
        more += now_more
        less += now_less
    for text in less:
        print(f"less: {text} (store it: python -m benchmarks.counts --update)")
    for text in more:
        print(f"MORE: {text}")
    return 1 if more else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RuntimeError as error:  # strace does not work here, or the server did not start
        sys.exit(str(error))
