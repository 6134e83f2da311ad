"""How `benchmarks.front_clients` runs a test, compares its two ends, and keeps the comparisons."""

from __future__ import annotations

import contextlib
import io
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.front_clients import (
    Comparison,
    Results,
    TooSlow,
    compared,
    interrupted_after,
    line,
    report,
)

TRACE = 'File "test_curl.py", line {}, in test_upload\nFailTest: {}'


def comparison(
    alone: str = "", behind: str = "", test: str = "CurlTests.test_upload"
) -> Comparison:
    """Return how a test of curl ends with Courier."""
    return Comparison("curl", "courier", test, alone, behind)


class ComparisonTests(SynchronousTestCase):
    def test_only_what_passes_alone_is_lost(self) -> None:
        """The shield must not make a test fail. What fails alone may pass behind the shield."""
        self.assertTrue(comparison(behind="no").lost)
        self.assertFalse(comparison(alone="no", behind="no").lost)
        self.assertFalse(comparison(alone="no").lost)

    def test_a_test_that_fails_alone_may_fail_later_behind_the_shield(self) -> None:
        """It must not fail in an earlier line, or in the same one for another reason. Numbers in a reason may differ."""
        alone = TRACE.format(36, "timeout of port 4711")
        for behind, elsewhere in (
            (TRACE.format(36, "timeout of port 1234"), False),
            (TRACE.format(37, "wrong size"), False),
            (TRACE.format(36, "wrong size"), True),
            (TRACE.format(35, "wrong size"), True),
            ("a script says why", True),
            ("", False),
        ):
            self.assertIs(comparison(alone, behind).elsewhere, elsewhere, behind)


class RunTests(SynchronousTestCase):
    def ends(self, *reasons: str) -> tuple[tuple[str, str], int]:
        """Return how a test ends whose runs end for `reasons`, one after another, and how many runs are left."""
        left = list(reasons)
        return compared(lambda _: left.pop(0)), len(left)

    def test_an_equal_end_needs_one_run_each(self) -> None:
        """Most tests run twice."""
        self.assertEqual(self.ends("", "", "-"), (("", ""), 1))
        self.assertEqual(self.ends("no 1", "no 2", "-"), (("no 1", "no 2"), 1))

    def test_a_test_that_depends_on_time_gets_another_chance(self) -> None:
        """Three behind the shield, if it passes alone; two if it fails in another place; and two alone."""
        self.assertEqual(self.ends("", "late", "late", "", "-"), (("", ""), 1))
        self.assertEqual(self.ends("", "a", "b", "c", "-"), (("", "c"), 1))
        self.assertEqual(self.ends("no", "a", "b", "-"), (("no", "b"), 1))
        self.assertEqual(self.ends("no", "", "", "-"), (("", ""), 1))

    def test_a_missing_program_is_an_error(self) -> None:
        """It is no failure of a server."""
        self.assertRaises(
            RuntimeError, self.ends, "RuntimeError: pymap not found: pip install pymap"
        )

    def test_a_test_that_takes_too_long_is_interrupted(self) -> None:
        """Also while it waits. What comes after it is not interrupted."""
        with self.assertRaises(TooSlow), interrupted_after(0.001):
            time.sleep(60)
        with interrupted_after(60):
            pass


class ResultsTests(SynchronousTestCase):
    def test_a_later_run_knows_what_has_ended(self) -> None:
        """The file of one run is read by the next; without a file, nothing is kept."""
        path = Path(self.mktemp())
        ended = comparison(alone="it is\nbroken")
        Results(path).add(ended)
        self.assertIn(str(ended), Results(path))
        self.assertEqual(Results(path).of("curl", "courier"), [ended])
        self.assertEqual(Results(path).of("curl", "pymap"), [])
        Results(None).add(ended)

    def test_what_took_too_long_runs_again(self) -> None:
        """The machine may have been busy. The last end counts."""
        path = Path(self.mktemp())
        results = Results(path)
        results.add(comparison(behind="TooSlow: 300 s"))
        self.assertNotIn(str(comparison()), Results(path))
        results.add(comparison())
        self.assertIn(str(comparison()), Results(path))
        self.assertEqual(Results(path).of("curl", "courier"), [comparison()])


class ReportTests(SynchronousTestCase):
    def test_the_report_says_what_the_shield_changes(self) -> None:
        """It has the tests that the shield breaks, then the others that fail; it is wrong if there is one of the first."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            self.assertFalse(report([comparison(), comparison(alone="FailTest: 1 != 2")]))
            self.assertTrue(report([comparison(behind="reset")]))
        self.assertIn(
            "Fail alone: 1\ncourier: curl.CurlTests.test_upload (passes behind): 1 != 2",
            printed.getvalue(),
        )
        self.assertIn(
            "fail behind the shield: 1\ncourier: curl.CurlTests.test_upload: reset",
            printed.getvalue(),
        )

    def test_a_line_counts_what_passes(self) -> None:
        """Alone, and behind the shield."""
        ended = [comparison(), comparison(alone="no"), comparison(alone="no", behind="no")]
        self.assertEqual(line("curl", "courier", ended).split(), ["curl", "courier", "3", "1", "2"])
