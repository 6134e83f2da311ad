"""The goals of the table of `benchmarks.run`."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.measures import MEASURES
from benchmarks.report import ConnectionMemory, Goal, Report, Row, missed, table


def row(cpu: float, wall: float = 1.0, goal: Goal = Goal(), others: float = 0) -> Row:  # noqa: B008
    return Row("NOOP", "command", [cpu], [wall], goal=goal, others=others)


class GoalTests(SynchronousTestCase):
    def test_each_part_of_a_goal_is_compared(self) -> None:
        """The ratio of CPU, the rate and the absolute limit are three parts; only those that are missed are named."""
        goal = Goal(cpu=1.5, rate=0.5, limit=3e-6)
        self.assertEqual(missed(goal, row(2e-6), row(3e-6)), [])
        self.assertEqual(missed(goal, row(1e-6), row(2e-6)), ["2"])
        self.assertEqual(missed(goal, row(4e-6), row(4e-6)), ["4 us"])
        self.assertEqual(missed(goal, row(1e-6), row(1e-6, wall=4.0)), ["rate 0.25"])

    def test_a_row_may_be_compared_with_another_one(self) -> None:
        """A goal can be the cost of another row of the same server, such as that of a smaller mailbox."""
        goal = Goal(steady="NOOP")
        self.assertEqual(missed(goal, row(9e-6), row(1.2e-6), row(1e-6)), [])
        self.assertEqual(missed(goal, row(9e-6), row(3e-6), row(1e-6)), ["rises 3"])
        reports = [
            Report(name, "", 10, rows=[row(1e-6), Row("large", "command", [3e-6], [1], goal=goal)])
            for name in ("dovecot", "imapshield")
        ]
        self.assertRegex(table(reports).splitlines()[4], r"^large .* rises 1\.25 .* rises 3$")

    def test_a_row_that_has_failed_misses_nothing(self) -> None:
        """Without figures only the failure is reported."""
        self.assertEqual(missed(Goal(cpu=1), row(1e-6), Row("NOOP", "command")), [])
        self.assertEqual(missed(Goal(cpu=1), Row("NOOP", "command"), row(1e-6)), [])

    def test_the_table_names_goals_misses_and_a_busy_machine(self) -> None:
        """A missed goal and a row that other programs disturbed are visible, and survive the JSON file."""
        goal = Goal(cpu=1.5)
        reports = [
            Report("dovecot", "2", 10, rows=[row(1e-6, goal=goal, others=0.4)]),
            Report("imapshield", "1", 10, rows=[row(4e-6, goal=goal, others=0.4)]),
        ]
        reports[0].memory = [ConnectionMemory("idle", 1e6, 1e6, goal=Goal(cpu=0.1))]
        reports[1].memory = [ConnectionMemory("idle", 5e5, 5e5, goal=Goal(cpu=0.1))]
        path = Path(self.mktemp())
        reports[1].save(path)
        for second in (reports[1], Report.load(path)):
            lines = table([reports[0], second]).splitlines()
            self.assertIn("BUSY", lines[0])
            self.assertRegex(lines[3], r"4 us +4\.00 +1\.5 .* 4, \(busy: 0\.4\)$")
            self.assertRegex(lines[6], r" 0\.1 .* 0\.5$")

    def test_names_are_unique(self) -> None:
        """Reports are compared by the names of rows; folders that are read once belong to one row each."""
        names = [measure.name for measure in MEASURES]
        self.assertEqual(len(names), len(set(names)))
        folders = [measure.folder for measure in MEASURES if measure.folder]
        self.assertEqual(len(folders), len(set(folders)))
        self.assertFalse(any("." in folder for folder in folders))
