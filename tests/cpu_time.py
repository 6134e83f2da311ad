"""Checks that work is linear by its CPU time, with room for a machine that is disturbed now and then."""

from __future__ import annotations

from collections.abc import Callable
from time import process_time
from unittest import TestCase

ATTEMPTS = 5
"""Attempts of which one must be short enough. Another process may disturb some; quadratic work is long in all."""


def check_cpu_time(case: TestCase, most: float, work: Callable[[], object], what: str = "") -> None:
    """Check that `work`, which can be repeated, takes less than `most` seconds of CPU time; `what` it is about."""
    taken = float("inf")
    for _ in range(ATTEMPTS):
        start = process_time()
        work()
        taken = min(taken, process_time() - start)
        if taken < most:
            return
    case.fail(f"{what} took {taken:.3f} s of {most}")
