"""The figures of one server, as JSON and as a table beside those of others."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(slots=True)
class MessageRow:
    """One row: seconds a unit, a value for each round. Or `failed`, and why."""

    name: str
    unit: str
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    failed: str = ""


@dataclass(slots=True)
class Holding:
    """What one idle connection holds in the server, in octets."""

    name: str
    private: float
    pss: float
    failed: str = ""


@dataclass(slots=True)
class Report:
    """All that was measured of one server in one run."""

    server: str
    version: str
    messages: int
    rows: list[MessageRow] = field(default_factory=list)
    memory: list[Holding] = field(default_factory=list)
    kernel: str = field(default_factory=platform.release)
    # What else the machine was doing before it began, as a load average: figures of a busy one lie.
    busy: float = field(default_factory=lambda: round(os.getloadavg()[0], 1))

    @property
    def failures(self) -> list[str]:
        """Rows that failed, with their reasons."""
        entries: list[MessageRow | Holding] = [*self.rows, *self.memory]
        return [f"{self.server}: {e.name}: {e.failed}" for e in entries if e.failed]

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Report:
        """Read what `save` wrote."""
        fields = json.loads(path.read_text())
        fields["rows"] = [MessageRow(**row) for row in fields["rows"]]
        fields["memory"] = [Holding(**entry) for entry in fields["memory"]]
        return cls(**fields)


def time_text(seconds: float | None) -> str:
    """Write a time with three figures: µs below a millisecond, then ms, then s."""
    if seconds is None:
        return "-"
    for factor, unit in ((1e6, "us"), (1e3, "ms")):
        if seconds * factor < 1000:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def size_text(octets: float | None) -> str:
    """Write a size in kB."""
    return (
        "-"
        if octets is None
        else f"{octets / 1000:.3g} kB"
        if octets < 1e6
        else f"{octets / 1000:.0f} kB"
    )


def table(reports: Sequence[Report]) -> str:
    """Lay reports side by side. Ratios are of each to the first: below 1 is faster or smaller."""
    names = [f"{report.server} {report.version}".strip() for report in reports]
    heading = f"{reports[0].messages} messages; {', '.join(names)}; medians"
    if (busy := max(report.busy for report in reports)) > 0.5:
        heading += f"; MEASURED ON A BUSY MACHINE (load average {busy})"
    lines = [heading, ""]
    rows = {row.name: row.unit for report in reports for row in report.rows}
    found = [{row.name: row for row in report.rows} for report in reports]
    cells = [["", "a", *_columns(reports, "CPU"), *_columns(reports, "wall")]]
    for name, unit in rows.items():
        of = [one.get(name) for one in found]
        cpu = [statistics.median(row.cpu) if row and row.cpu else None for row in of]
        wall = [statistics.median(row.wall) if row and row.wall else None for row in of]
        cells.append([name, unit, *_compared(cpu, time_text), *_compared(wall, time_text)])
    lines += _aligned(cells)
    held = {entry.name: None for report in reports for entry in report.memory}
    if held:
        kept = [{entry.name: entry for entry in report.memory} for report in reports]
        cells = [["", "a", *_columns(reports, "private"), *_columns(reports, "PSS")]]
        for name in held:
            entries = [one.get(name) for one in kept]
            private = [entry.private if entry and not entry.failed else None for entry in entries]
            pss = [entry.pss if entry and not entry.failed else None for entry in entries]
            cells.append(
                [name, "connection", *_compared(private, size_text), *_compared(pss, size_text)]
            )
        lines += ["", *_aligned(cells)]
    failures = [failure for report in reports for failure in report.failures]
    return "\n".join([*lines, *([""] if failures else []), *(f"FAILED {one}" for one in failures)])


def _columns(reports: Sequence[Report], what: str) -> list[str]:
    return [
        title
        for place, report in enumerate(reports)
        for title in (
            [f"{report.server} {what}"] if place == 0 else [f"{report.server} {what}", "ratio"]
        )
    ]


def _compared(values: Sequence[float | None], write: Callable[[float | None], str]) -> list[str]:
    first, cells = values[0], []
    for place, value in enumerate(values):
        cells.append(write(value))
        if place:
            cells.append(f"{value / first:.2f}" if value is not None and first else "-")
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
