"""The table of the power cut benchmark, and the report of a cut."""

from __future__ import annotations

from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.powercut import Tally, describe, table

RESULT = {
    "server": "imapshield",
    "fs": "xfs",
    "cut": 57,
    "begun": 52,
    "plan": "Plan()",
    "commands": {"MOVE": 3, "MOVE, in flight": 1},
    "faults": [["duplicated", "MOVE, in flight", "m1"], ["lost", "APPEND", "m2"]],
    "in_flight": ["alice: UID MOVE 1 Box"],
    "log": [],
    "output": "",
}


class TableTests(SynchronousTestCase):
    def test_acknowledged_commands_and_those_in_flight_have_rows_and_totals_of_their_own(
        self,
    ) -> None:
        """Faults of commands in flight do not count as those of acknowledged ones."""
        tally = Tally("imapshield")
        tally.add(RESULT)
        rows = [line.split() for line in table([tally]).splitlines()]
        found = {" ".join(row[1:-10]): row[-10:-7] for row in rows[1:-1]}
        expected = {
            "APPEND": ["0", "1", "0"],
            "MOVE": ["3", "0", "0"],
            "all acknowledged": ["3", "1", "0"],
            "MOVE, in flight": ["1", "0", "1"],
            "all in flight": ["1", "0", "1"],
        }
        self.assertEqual(found, expected)
        self.assertEqual((tally.cuts, tally.failed), (1, 1))
        self.assertEqual(tally.file_systems, Counter({"xfs": 1}))

    def test_report_says_how_to_repeat_the_cut(self) -> None:
        """A report has the options that repeat the cut from a new file system, and each fault."""
        report = describe(RESULT, "5")
        self.assertIn("repeat with --seed 5 --first 52 --cuts 6", report)
        self.assertIn("duplicated: MOVE, in flight: m1", report)
