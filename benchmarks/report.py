"""The figures of one server, as JSON and as a table beside the figures of other servers."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(slots=True)
class Row:
    """One row of the table: seconds for each unit, one value for each round; or `failed`, the reason."""

    name: str
    unit: str
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    failed: str = ""


@dataclass(slots=True)
class ConnectionMemory:
    """The bytes of server memory for one idle connection; or `failed`, the reason."""

    name: str
    private: float
    pss: float
    failed: str = ""


@dataclass(slots=True)
class Report:
    """All figures of one server in one run."""

    server: str
    version: str
    messages: int
    rows: list[Row] = field(default_factory=list)
    memory: list[ConnectionMemory] = field(default_factory=list)
    kernel: str = field(default_factory=platform.release)
    # The load average before the run: figures of a busy machine are not comparable.
    busy: float = field(default_factory=lambda: round(os.getloadavg()[0], 1))

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


def table(reports: Sequence[Report]) -> str:
    """Format reports side by side. Ratios are to the first report: below 1 is faster or smaller."""
    names = [f"{report.server} {report.version}".strip() for report in reports]
    heading = f"{reports[0].messages} messages; {', '.join(names)}; medians"
    if (busy := max(report.busy for report in reports)) > 0.5:
        heading += f"; MEASURED ON A BUSY MACHINE (load average {busy})"
    lines = [heading, "", *_aligned(_time_cells(reports))]
    if any(report.memory for report in reports):
        lines += ["", *_aligned(_memory_cells(reports))]
    failures = [failure for report in reports for failure in report.failures]
    if failures:
        lines += ["", *(f"FAILED {failure}" for failure in failures)]
    return "\n".join(lines)


def _time_cells(reports: Sequence[Report]) -> list[list[str]]:
    units = {row.name: row.unit for report in reports for row in report.rows}
    by_name = [{row.name: row for row in report.rows} for report in reports]
    cells = [["", "a", *_columns(reports, "CPU"), *_columns(reports, "wall")]]
    for name, unit in units.items():
        rows = [named.get(name) for named in by_name]
        cpu = [statistics.median(row.cpu) if row and row.cpu else None for row in rows]
        wall = [statistics.median(row.wall) if row and row.wall else None for row in rows]
        cells.append([name, unit, *_compared(cpu, time_text), *_compared(wall, time_text)])
    return cells


def _memory_cells(reports: Sequence[Report]) -> list[list[str]]:
    names = dict.fromkeys(entry.name for report in reports for entry in report.memory)
    by_name = [{entry.name: entry for entry in report.memory} for report in reports]
    cells = [["", "a", *_columns(reports, "private"), *_columns(reports, "PSS")]]
    for name in names:
        entries = [named.get(name) for named in by_name]
        private = [entry.private if entry and not entry.failed else None for entry in entries]
        pss = [entry.pss if entry and not entry.failed else None for entry in entries]
        compared = [*_compared(private, size_text), *_compared(pss, size_text)]
        cells.append([name, "connection", *compared])
    return cells


def _columns(reports: Sequence[Report], figure: str) -> list[str]:
    titles = [f"{reports[0].server} {figure}"]
    for report in reports[1:]:
        titles += [f"{report.server} {figure}", "ratio"]
    return titles


def _compared(values: Sequence[float | None], write: Callable[[float | None], str]) -> list[str]:
    first = values[0]
    cells = [write(first)]
    for value in values[1:]:
        cells += [write(value), f"{value / first:.2f}" if value is not None and first else "-"]
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
