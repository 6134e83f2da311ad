"""The figures of a flood: as JSON, as tables with a column for each server, and the goals that a server missed."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.flood_attacks import ATTACKS
from benchmarks.flood_measure import Flood
from benchmarks.flood_swarm import Tally
from benchmarks.flood_victims import Latency

MB = 1e6
MAX_GROWTH = 16 * MB
"""The goal for the growth of memory, with any number of connections."""
RELEASED = 2 * MB
"""What counts as released: the interpreter keeps a few free pages for later."""
_NONE = "–"


@dataclass(slots=True)
class Run:
    """All figures of one run, and how it was made.

    Attributes:
        command: the command line.
        machine: the kernel and the processors.
        busy: the load average before the run: figures of a busy machine are not comparable.
        versions: the version of each server.
        floods: a row of a table for one server each.
    """

    command: str
    machine: str
    busy: float
    versions: dict[str, str] = field(default_factory=dict)
    floods: list[Flood] = field(default_factory=list)

    @classmethod
    def begin(cls, command: str, processors: tuple[int, int] | None) -> Run:
        """Describe this machine."""
        pinned = (
            "servers on one core, attackers and victims on another" if processors else "one core"
        )
        machine = f"Linux {platform.release()}, {os.cpu_count()} cores; {pinned}"
        return cls(command, machine, round(os.getloadavg()[0], 1))

    def add(self, flood: Flood) -> None:
        """Add the figures of one attack on one server."""
        self.floods.append(flood)

    def save(self, path: Path) -> None:
        """Write everything as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Run:
        """Read what `save` has written."""
        fields = json.loads(path.read_text())
        fields["floods"] = [_flood(flood) for flood in fields["floods"]]
        return cls(**fields)

    def servers(self) -> list[str]:
        """Return the names of the servers, in the order of the run."""
        return list(dict.fromkeys(flood.server for flood in self.floods))

    def find(self, server: str, attack: str, connections: int) -> Flood | None:
        """Return one row for one server."""
        for flood in self.floods:
            if (flood.server, flood.attack, flood.connections) == (server, attack, connections):
                return flood
        return None

    def quiet_p99(self, server: str, kind: str, hashes: bool = False) -> float:
        """Return the median of the quiet p99 of all rows: that of one row is two or three samples.

        Args:
            server: its name.
            kind: the kind of the victim.
            hashes: whether of rows with hashed passwords.
        """
        values = [
            flood.quiet[kind].p99
            for flood in self.floods
            if flood.server == server and kind in flood.quiet
            if ATTACKS[flood.attack].hashes == hashes
        ]
        return statistics.median(values) if values else float("inf")


def _flood(fields: dict[str, object]) -> Flood:
    flood = Flood(**fields)  # type: ignore[arg-type]
    for name in ("quiet", "during"):
        latencies = {kind: Latency(**value) for kind, value in getattr(flood, name).items()}
        setattr(flood, name, latencies)
    flood.kept = {int(seconds): size for seconds, size in flood.kept.items()}
    flood.tally = Tally(**flood.tally)  # type: ignore[arg-type]
    return flood


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3g}" if seconds < 1 else f"{seconds * 1000:.0f}"


def latency_text(flood: Flood, kind: str) -> str:
    """Format the p50, p99 and maximum of a victim in milliseconds, and its failures."""
    latency = flood.during.get(kind)
    if latency is None:
        return _NONE
    text = "/".join(_ms(value) for value in (latency.median, latency.p99, latency.worst))
    return f"{text} F{latency.failures}" if latency.failures else text


def memory_text(flood: Flood) -> str:
    """Format the growth of memory at the peak, and what is left of it later, in MB."""
    kept = " ".join(f"{size / MB:+.1f}" for size in flood.kept.values())
    return f"{flood.growth / MB:+.1f} ({kept})" + (" stopped" if flood.stopped else "")


def cuts_text(flood: Flood) -> str:
    """Format how the connections ended, and the median time until the server cut one."""
    tally = flood.tally
    counts = {
        "reset": tally.resets, "closed": tally.closed, "refused": tally.refused,
        "left": tally.finished,
        "unserved": tally.unserved, "stalled": tally.stalled, "held": tally.held,
    }  # fmt: skip
    text = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "none"
    if tally.cut_after:
        text += f"; {statistics.median(tally.cut_after):.2g} s"
    return text


def cores_text(flood: Flood) -> str:
    """Format the server's CPU per second for the attackers."""
    return f"{flood.attack_cores:.2f}"


def answers_text(flood: Flood) -> str:
    """Format the commands answered per second."""
    return f"{flood.tally.answers / flood.seconds:.0f}" if flood.seconds else _NONE


_COLUMNS: Sequence[tuple[str, Callable[[Flood], str]]] = (
    ("A user who connects anew (ms: p50/p99/max, F: failed visits)", lambda f: latency_text(f, "newcomer")),
    ("A user who stays logged in (ms: p50/p99/max, F: failed visits)", lambda f: latency_text(f, "resident")),
    ("Server CPU for the attackers (seconds per second)", cores_text),
    ("Server memory (MB): growth at the peak, and what is left of it later", memory_text),
    ("TCP buffers of the machine (MB): growth at the peak", lambda f: f"{f.kernel_growth / MB:+.1f}"),
    ("Commands answered per second", answers_text),
    ("How attacking connections ended, and the median time until the server cut one", cuts_text),
    ("CPU of the attackers (seconds per second)", lambda f: f"{f.tally.cpu / f.seconds:.2f}"),
)  # fmt: skip


def progress(flood: Flood) -> str:
    """Describe one row of one server in a line."""
    start = f"{flood.attack} x{flood.connections} {flood.server}: "
    if flood.skipped:
        return start + flood.skipped.splitlines()[0]
    return start + "; ".join(
        (
            f"newcomer {latency_text(flood, 'newcomer')} ms",
            f"resident {latency_text(flood, 'resident')} ms",
            f"CPU {flood.cores:.2f}, of it {cores_text(flood)} for the attackers",
            f"memory {memory_text(flood)} MB",
            f"{answers_text(flood)} answers/s",
            f"waited {flood.run_delay:.2f} s/s",
            cuts_text(flood),
        )
    )


def tables(run: Run) -> Iterator[str]:
    """Yield the lines of all tables, as reStructuredText."""
    servers = run.servers()
    versions = ", ".join(f"{name} {run.versions.get(name, '')}".strip() for name in servers)
    yield f"{versions}. {run.machine}."
    if run.busy > 0.5:
        yield f"MEASURED ON A BUSY MACHINE (load average {run.busy})."
    for count in sorted({flood.connections for flood in run.floods}):
        for title, write in _COLUMNS:
            heading = f"{title}, {count} connections"
            yield from ("", heading, "~" * len(heading), "")
            yield from _simple_table(["", *servers], _cells(run, servers, count, write))


def _cells(
    run: Run, servers: Sequence[str], count: int, write: Callable[[Flood], str]
) -> list[list[str]]:
    present = [name for name in ATTACKS if any(run.find(s, name, count) for s in servers)]
    cells = []
    if write in [column for _, column in _COLUMNS[:2]]:
        kind = "newcomer" if write is _COLUMNS[0][1] else "resident"
        for title, hashes in (("quiet p99", False), ("quiet p99, hashed passwords", True)):
            values = [run.quiet_p99(server, kind, hashes) for server in servers]
            if any(map(math.isfinite, values)):
                cells.append([title, *(_ms(v) if math.isfinite(v) else _NONE for v in values)])
    for name in present:
        floods = [run.find(server, name, count) for server in servers]
        texts = [_NONE if flood is None or flood.skipped else write(flood) for flood in floods]
        cells.append([ATTACKS[name].title, *texts])
    return cells


def _simple_table(heading: list[str], cells: list[list[str]]) -> Iterator[str]:
    rows = [heading, *cells]
    widths = [max(1, *(len(row[column]) for row in rows)) for column in range(len(heading))]
    rule = "  ".join("=" * width for width in widths)
    heading = [heading[0] or "\\ ", *heading[1:]]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [heading, *cells]
    ]
    yield from (rule, lines[0], rule, *lines[1:], rule)


def missed_goals(run: Run) -> Iterator[str]:
    """Yield a line for each goal that an imapshield of the run has missed."""
    for server in run.servers():
        if server.startswith("imapshield"):
            misses = [
                miss
                for flood in run.floods
                if flood.server == server
                for miss in _missed(run, flood)
            ]
            yield from (
                "",
                f"{server}: {len(misses)} goals missed",
                *(f"* {miss}" for miss in misses),
            )


def _missed(run: Run, flood: Flood) -> Iterator[str]:
    if flood.skipped or ATTACKS[flood.attack].behave is None:
        return
    row = f"{flood.attack} x{flood.connections}"
    for kind, latency in flood.during.items():
        quiet = run.quiet_p99(flood.server, kind, ATTACKS[flood.attack].hashes)
        if latency.p99 > 2 * quiet:
            yield f"{row}: p99 of the {kind} {_ms(latency.p99)} ms, quiet {_ms(quiet)} ms"
        if latency.failures:
            yield f"{row}: {latency.failures} failed visits of the {kind}"
    if flood.growth > MAX_GROWTH:
        yield f"{row}: memory {flood.growth / MB:+.1f} MB"
    for seconds, size in list(flood.kept.items())[-1:]:
        if size > RELEASED:
            yield f"{row}: {size / MB:.1f} MB are kept after {seconds} s"
    other = run.find("dovecot", flood.attack, flood.connections)
    if other and not other.skipped and flood.attack_cores > other.attack_cores:
        yield f"{row}: CPU {flood.attack_cores:.2f}, Dovecot {other.attack_cores:.2f}"
