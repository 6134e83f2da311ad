"""All rows, in the order of the table."""

from __future__ import annotations

from benchmarks import change_measures, mixed_load, read_measures, rows, session_measures

_ORDER = [
    module.__name__ for module in (session_measures, mixed_load, read_measures, change_measures)
]

MEASURES = sorted(rows.MEASURES, key=lambda measure: _ORDER.index(measure.round.__module__))
