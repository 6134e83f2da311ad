"""The figures of one server, as JSON and as a table beside the figures of other servers."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

STEADY = 1.25
"""How much the cost of a message may rise with the size of its mailbox, and that of a command with the users: caches of
the processor are small, and no measurement is exact."""

BUSY = 0.15
"""A row is not comparable if other programs used more processors than this."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What a server has to reach, compared with the first server of the run; 0 is no goal.

    Attributes:
        cpu: the most CPU time, as a multiple of that of the first server. For memory: the most private bytes.
        rate: the fewest units per second, as a fraction of those of the first server.
        limit: the most CPU seconds for each unit, whatever the first server needs.
        steady: the name of another row of the same server, of whose CPU time it may need `STEADY` times as much.
    """

    cpu: float = 0
    rate: float = 0
    limit: float = 0
    steady: str = ""


NO_GOAL = Goal()


@dataclass(slots=True)
class Row:
    """One row of the table: seconds for each unit, one value for each round; or `failed`, the reason.

    `others` is how many processors other programs used in the meantime.
    """

    name: str
    unit: str
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    failed: str = ""
    goal: Goal = NO_GOAL
    others: float = 0

    def text(self) -> str:
        """Return the medians on one line, for a look at a running measurement."""
        if self.failed:
            return f"FAILED {self.failed}"
        if self.unit == "core":
            return figure_text(self.unit, median(self.cpu))
        return f"{time_text(median(self.cpu))} CPU, {time_text(median(self.wall))} wall"


@dataclass(slots=True)
class ConnectionMemory:
    """The bytes of server memory for one idle connection; or `failed`, the reason."""

    name: str
    private: float
    pss: float
    failed: str = ""
    goal: Goal = NO_GOAL


@dataclass(slots=True)
class Report:
    """All figures of one server in one run."""

    server: str
    version: str
    messages: int
    rows: list[Row] = field(default_factory=list)
    memory: list[ConnectionMemory] = field(default_factory=list)
    kernel: str = field(default_factory=platform.release)

    @property
    def failures(self) -> list[str]:
        """Rows that failed, with their reasons."""
        entries: list[Row | ConnectionMemory] = [*self.rows, *self.memory]
        return [f"{self.server}: {e.name}: {e.failed}" for e in entries if e.failed]

    def save(self, path: Path) -> None:
        """Write the report as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Report:
        """Read a report that `save` has written."""
        fields = json.loads(path.read_text())
        for entry in [*fields["rows"], *fields["memory"]]:
            entry["goal"] = Goal(**entry["goal"])
        fields["rows"] = [Row(**row) for row in fields["rows"]]
        fields["memory"] = [ConnectionMemory(**entry) for entry in fields["memory"]]
        return cls(**fields)


def time_text(seconds: float | None) -> str:
    """Format a time with three significant figures, in us, ms or s."""
    if seconds is None:
        return "-"
    for factor, unit in ((1e6, "us"), (1e3, "ms")):
        if seconds * factor < 1000:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def size_text(size: float | None) -> str:
    """Format a number of bytes in kB."""
    if size is None:
        return "-"
    return f"{size / 1000:.3g} kB" if size < 1e6 else f"{size / 1000:.0f} kB"


def figure_text(unit: str, seconds: float | None) -> str:
    """Format CPU seconds for each unit; for each second they are cores."""
    if unit == "core" and seconds is not None:
        return f"{seconds:.2f}"
    return time_text(seconds)


def median(values: Sequence[float]) -> float | None:
    """Return the median, or None of nothing."""
    return statistics.median(values) if values else None


def table(reports: Sequence[Report]) -> str:
    """Format reports side by side. Ratios and goals are to the first report: below 1 is faster or smaller."""
    names = [f"{report.server} {report.version}".strip() for report in reports]
    heading = f"{reports[0].messages} messages; {', '.join(names)}; medians"
    if any(row.others > BUSY for row in reports[0].rows):
        heading += "; MEASURED ON A BUSY MACHINE: see the rows that are busy"
    lines = [heading, "", *_aligned(_time_cells(reports))]
    if any(report.memory for report in reports):
        lines += ["", *_aligned(_memory_cells(reports))]
    failures = [failure for report in reports for failure in report.failures]
    if failures:
        lines += ["", *(f"FAILED {failure}" for failure in failures)]
    return "\n".join(lines)


def missed(goal: Goal, first: Row | None, row: Row | None, steady: Row | None = None) -> list[str]:
    """Return what of a goal a row does not reach.

    Args:
        goal: the goal.
        first: the row of the first server.
        row: that of the server whose goal it is.
        steady: the other row of this server that `Goal.steady` names.
    """
    if row is None or not row.cpu:
        return []
    cpu, wall = statistics.median(row.cpu), statistics.median(row.wall)
    found = []
    if goal.limit and cpu > goal.limit:
        found.append(figure_text(row.unit, cpu))
    if steady is not None and steady.cpu and cpu > STEADY * statistics.median(steady.cpu):
        found.append(f"rises {cpu / statistics.median(steady.cpu):.2g}")
    if first is not None and first.cpu:
        ratio = cpu / statistics.median(first.cpu)
        rate = statistics.median(first.wall) / wall
        if goal.cpu and ratio > goal.cpu:
            found.append(f"{ratio:.3g}")
        if goal.rate and rate < goal.rate:
            found.append(f"rate {rate:.2f}")
    return found


def goal_text(goal: Goal, unit: str) -> str:
    """Describe a goal in a few characters."""
    texts = [f"{goal.cpu:g}"] if goal.cpu else []
    if goal.rate:
        texts.append(f"rate {goal.rate:g}")
    if goal.steady:
        texts.append(f"rises {STEADY:g}")
    if goal.limit:
        texts.append(figure_text(unit, goal.limit))
    return ", ".join(texts) or "-"


def _time_cells(reports: Sequence[Report]) -> list[list[str]]:
    known = {row.name: row for report in reports for row in report.rows}
    by_name = [{row.name: row for row in report.rows} for report in reports]
    cpu_titles, wall_titles = _columns(reports, "CPU"), _columns(reports, "wall")
    cells = [["", "a", *cpu_titles, "goal", *wall_titles, "missed"]]
    for name, some in known.items():
        rows = [named.get(name) for named in by_name]
        write = partial(figure_text, some.unit)
        cpu = _compared([median(row.cpu) if row else None for row in rows], write)
        # The duration of a row whose unit is cores is given.
        given = some.unit == "core"
        wall = _compared(
            [median(row.wall) if row and not given else None for row in rows], time_text
        )
        steady = by_name[-1 if len(rows) == 1 else 1].get(some.goal.steady)
        notes = missed(some.goal, rows[0], rows[1], steady) if len(rows) > 1 else []
        if some.others > BUSY:
            notes.append(f"(busy: {some.others:.1f})")
        goal = goal_text(some.goal, some.unit)
        cells.append([name, some.unit, *cpu, goal, *wall, ", ".join(notes)])
    return cells


def _memory_cells(reports: Sequence[Report]) -> list[list[str]]:
    known = {entry.name: entry.goal for report in reports for entry in report.memory}
    by_name = [{entry.name: entry for entry in report.memory} for report in reports]
    private_titles, pss_titles = _columns(reports, "private"), _columns(reports, "PSS")
    cells = [["", "a", *private_titles, "goal", *pss_titles, "missed"]]
    for name, goal in known.items():
        entries = [named.get(name) for named in by_name]
        private = [entry.private if entry and not entry.failed else None for entry in entries]
        pss = [entry.pss if entry and not entry.failed else None for entry in entries]
        ratio = _ratio(private[1], private[0]) if len(private) > 1 else None
        miss = f"{ratio:.3g}" if ratio is not None and goal.cpu and ratio > goal.cpu else ""
        compared = [
            *_compared(private, size_text),
            goal_text(goal, ""),
            *_compared(pss, size_text),
        ]
        cells.append([name, "connection", *compared, miss])
    return cells


def _columns(reports: Sequence[Report], figure: str) -> list[str]:
    titles = [f"{reports[0].server} {figure}"]
    for report in reports[1:]:
        titles += [f"{report.server} {figure}", "ratio"]
    return titles


def _ratio(value: float | None, first: float | None) -> float | None:
    return value / first if value is not None and first else None


def _compared(values: Sequence[float | None], write: Callable[[float | None], str]) -> list[str]:
    cells = [write(values[0])]
    for value in values[1:]:
        ratio = _ratio(value, values[0])
        cells += [write(value), "-" if ratio is None else f"{ratio:.2f}"]
    return cells


def _aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
