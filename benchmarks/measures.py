"""All rows, in the order of the table."""

from __future__ import annotations

from benchmarks import (
    change_measures,
    imaptest_measure,
    mixed_load,
    read_measures,
    rows,
    scale_measures,
    session_measures,
)

_ORDER = [
    module.__name__
    for module in (
        session_measures,
        mixed_load,
        imaptest_measure,
        read_measures,
        change_measures,
        scale_measures,
    )
]

MEASURES = sorted(rows.MEASURES, key=lambda measure: _ORDER.index(measure.round.__module__))
