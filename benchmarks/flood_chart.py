"""Draws the figures of a flood as SVG: a row for each attack, a panel for each figure, a mark for each server."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape

from benchmarks.flood_attacks import ATTACKS
from benchmarks.flood_measure import Flood
from benchmarks.flood_report import MB, Run

_ROW, _TOP, _LABELS, _PANEL, _GAP, _MARGIN = 26, 74, 290, 190, 30, 16
_STYLE = """\
.back{fill:#ffffff} .text{fill:#1f2328} .soft{fill:#59636e} .line{stroke:#d1d9e0} .goal{stroke:#cf222e}
.s0{fill:#8250df} .s1{fill:#0969da} .s2{fill:#1a7f37} .s3{fill:#bc4c00} .s4{fill:#bf3989}
@media (prefers-color-scheme: dark) {
.back{fill:#0d1117} .text{fill:#f0f6fc} .soft{fill:#9198a1} .line{stroke:#3d444d} .goal{stroke:#f85149}
.s0{fill:#ab7df8} .s1{fill:#4493f8} .s2{fill:#3fb950} .s3{fill:#f0883e} .s4{fill:#f778ba}
}
text{font:13px system-ui,sans-serif} .small{font-size:11px} .bold{font-weight:600}"""


@dataclass(frozen=True, slots=True)
class Panel:
    """One figure on a logarithmic axis; what is below `lowest` is drawn at its edge.

    Attributes:
        title: above the panel.
        value: the figure.
        lowest: the left edge.
        highest: the right edge.
        ticks: values with a line and a label.
        goal: where to draw the line of the goal; 0 means no line.
    """

    title: str
    value: Callable[[Flood], float]
    lowest: float
    highest: float
    ticks: tuple[float, ...]
    goal: float = 0

    def position(self, value: float) -> float:
        """Return where a value is in the panel, from 0 to 1."""
        inside = min(max(value, self.lowest), self.highest)
        return math.log(inside / self.lowest) / math.log(self.highest / self.lowest)


def _p99(kind: str) -> Callable[[Flood], float]:
    return lambda flood: flood.during[kind].p99 * 1000 if kind in flood.during else 0.0


PANELS = (
    Panel("p99 of a new user (ms)", _p99("newcomer"), 3, 30_000, (10, 100, 1000, 10_000)),
    Panel("p99 of one logged in (ms)", _p99("resident"), 1, 30_000, (1, 10, 100, 1000, 10_000)),
    Panel("CPU of the attack (cores)", lambda f: f.attack_cores, 0.001, 1.2, (0.001, 0.01, 0.1, 1)),
    Panel("memory growth (MB)", lambda f: f.growth / MB, 0.1, 4000, (1, 10, 100, 1000), 16),
)  # fmt: skip


def _mark(number: int, x: float, y: float, title: str) -> str:
    shapes = (
        f'<circle cx="{x:.1f}" cy="{y}" r="5"',
        f'<rect x="{x - 4.5:.1f}" y="{y - 4.5}" width="9" height="9"',
        f'<path d="M{x:.1f} {y - 6}l6 11h-12z"',
        f'<path d="M{x:.1f} {y - 6}l6 6l-6 6l-6 -6z"',
        f'<path d="M{x - 6:.1f} {y - 2}h12v4h-12z"',
    )
    shape = shapes[number % len(shapes)]
    return f'{shape} class="s{number % 5}"><title>{escape(title)}</title></{shape[1:].split()[0]}>'


def _text(x: float, y: float, text: str, kind: str = "text", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def chart(run: Run, connections: int) -> str:
    """Return the chart of all attacks with one number of connections."""
    attacks = [a for a in ATTACKS if any(run.find(s, a, connections) for s in run.servers())]
    width = _MARGIN + _LABELS + len(PANELS) * (_PANEL + _GAP)
    height = _TOP + len(attacks) * _ROW + 34
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
            f"<style>{_STYLE}</style>",
            f'<rect class="back" width="{width}" height="{height}"/>',
            _text(_MARGIN, 24, f"{connections} attacking connections", "text bold"),
            *_legend(run.servers()),
            *(
                _text(_MARGIN, _TOP + number * _ROW + 16, ATTACKS[attack].title)
                for number, attack in enumerate(attacks)
            ),
            *(
                line
                for number, panel in enumerate(PANELS)
                for line in _panel(run, connections, attacks, panel, _MARGIN + _LABELS + number * (_PANEL + _GAP))
            ),
            "</svg>",
            "",
        ]
    )  # fmt: skip


def _legend(servers: list[str]) -> Iterator[str]:
    x = float(_MARGIN + _LABELS)
    for number, server in enumerate(servers):
        yield _mark(number, x + 6, 20, server)
        yield _text(x + 16, 24, server)
        x += 34 + 7.2 * len(server)


def _panel(
    run: Run, connections: int, attacks: list[str], panel: Panel, left: int
) -> Iterator[str]:
    bottom = _TOP + len(attacks) * _ROW
    yield _text(left, _TOP - 14, panel.title, "text bold")
    for tick in panel.ticks:
        x = left + panel.position(tick) * _PANEL
        yield f'<path class="line" d="M{x:.1f} {_TOP}V{bottom}"/>'
        yield _text(x, bottom + 16, f"{tick:g}", "soft small", "middle")
    if panel.goal:
        x = left + panel.position(panel.goal) * _PANEL
        yield f'<path class="goal" stroke-dasharray="4 3" d="M{x:.1f} {_TOP}V{bottom}"/>'
        yield _text(x, bottom + 28, f"goal {panel.goal:g}", "soft small", "middle")
    servers = run.servers()
    for row, attack in enumerate(attacks):
        middle = _TOP + row * _ROW + 12
        yield f'<path class="line" d="M{left} {middle}h{_PANEL}"/>'
        for number, server in enumerate(servers):
            y = middle + 2.5 * (number - (len(servers) - 1) / 2)  # equal values stay visible
            flood = run.find(server, attack, connections)
            if flood and not flood.skipped:
                value = panel.value(flood)
                x = left + panel.position(value) * _PANEL
                yield _mark(number, x, y, f"{server}, {ATTACKS[attack].title}: {value:.3g}")
