"""The figures, tables, goals and charts of the flood benchmark."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.flood import write_document
from benchmarks.flood_attacks import ATTACKS
from benchmarks.flood_chart import PANELS, chart
from benchmarks.flood_measure import Flood, attack_cores
from benchmarks.flood_report import (
    MARKER,
    Run,
    cuts_text,
    failed_visits,
    latency_text,
    memory_text,
    missed_goals,
    tables,
)
from benchmarks.flood_swarm import Tally
from benchmarks.flood_victims import Latency

QUIET = Latency(100, 0, 0.005, 0.010, 0.011)
BOTH = ("newcomer", "resident")


def a_flood(
    server: str, attack: str = "idle", *, p99: float = 0.010, failures: int = 0, **more: object
) -> Flood:
    during = Latency(100, failures, 0.006, p99, p99)
    flood = Flood(server, attack, 50, seconds=8.0, **more)  # type: ignore[arg-type]
    flood.quiet = dict.fromkeys(BOTH, QUIET)
    flood.during = dict.fromkeys(BOTH, during)
    return flood


def a_run(*floods: Flood) -> Run:
    return Run("python -m benchmarks.flood", "Linux", 0.1, {"imapshield": "1"}, list(floods))


class FigureTests(SynchronousTestCase):
    def test_the_work_for_the_victims_is_not_counted_as_that_of_the_attack(self) -> None:
        """Half as many visits as before cost half as much."""
        self.assertAlmostEqual(attack_cores(0.2, 0.5, 40, 20), 0.4)
        self.assertEqual(attack_cores(0.2, 0.1, 40, 40), 0)
        self.assertEqual(attack_cores(0.2, 0.5, 0, 0), 0.5)

    def test_p99_of_a_hundred_visits_is_the_second_worst(self) -> None:
        """The latency of failed visits is included; without any visit it is infinite."""
        times = [0.001] * 98 + [0.5, 0.9]
        latency = Latency.of(times, 1)
        self.assertEqual((latency.p99, latency.worst, latency.median), (0.9, 0.9, 0.001))
        self.assertTrue(math.isinf(Latency.of([], 0).p99))

    def test_cells_have_the_figures_in_one_unit(self) -> None:
        """Latency is in milliseconds, memory in megabytes; failures and cuts are named."""
        flood = a_flood("imapshield", p99=1.5, failures=2)
        flood.growth, flood.kept = 3_400_000, {5: -200_000, 30: 100_000}
        flood.tally = Tally(connections=9, resets=7, held=2, cut_after=[0.1, 0.2, 0.9])
        self.assertEqual(latency_text(flood, "newcomer"), "6/1500/1500 F2")
        self.assertEqual(memory_text(flood), "+3.4 (-0.2 +0.1)")
        self.assertEqual(cuts_text(flood), "7 reset, 2 held; 0.2 s")
        self.assertEqual(cuts_text(flood, short=True), "R7 H2; 0.2 s")


class GoalTests(SynchronousTestCase):
    def misses(self, *floods: Flood) -> list[str]:
        return [line for line in missed_goals(a_run(*floods)) if line.startswith("*")]

    def test_a_server_within_the_goals_misses_none(self) -> None:
        """Twice the quiet p99, 16 MB and as much CPU as Dovecot are permitted."""
        mine = a_flood("imapshield", p99=0.020, growth=16_000_000, kept={30: 2_000_000})
        self.assertEqual(self.misses(mine, a_flood("dovecot")), [])

    def test_failed_visits_are_counted_for_each_server(self) -> None:
        """A sentence says how many visits failed on each server, and in how many rows."""
        run = a_run(a_flood("dovecot", failures=2), a_flood("imapshield"))
        self.assertEqual(
            failed_visits(run),
            "Visits of the honest users that failed: dovecot 4 in 1 of 1 rows; imapshield 0 in 0 of 1 rows.",
        )

    def test_every_goal_that_is_missed_is_named(self) -> None:
        """Latency, failures, memory, release and CPU are judged, and only imapshield's."""
        mine = a_flood(
            "imapshield", p99=0.021, failures=1, growth=16_100_000, kept={5: 0, 30: 2_100_000},
            attack_cores=0.3,
        )  # fmt: skip
        lines = self.misses(a_flood("dovecot", p99=9.0, attack_cores=0.2), mine)
        self.assertEqual((len(lines), lines[0].count(";")), (1, 6))
        for text in (
            "p99 of the resident 21 ms, quiet 10 ms",
            "+16.1 MB",
            "kept after 30 s",
            "Dovecot 0.20",
        ):
            self.assertIn(text, "\n".join(lines))

    def test_rows_that_were_not_measured_are_not_judged(self) -> None:
        """A skipped attack has no figures, and a busy processor is no attack."""
        skipped = Flood("imapshield", "thread", 50, skipped="no THREAD")
        self.assertEqual(self.misses(skipped, a_flood("imapshield", "busy", p99=9.0)), [])


class ReportTests(SynchronousTestCase):
    def test_a_saved_run_is_the_same_when_it_is_loaded(self) -> None:
        """JSON keeps all figures."""
        flood = a_flood("imapshield", kept={5: 1, 30: 2})
        flood.tally = Tally(connections=1, cut_after=[0.5])
        run = a_run(flood)
        path = Path(self.mktemp())
        run.save(path)
        self.assertEqual(Run.load(path), run)

    def test_tables_have_a_row_for_each_attack_and_a_column_for_each_server(self) -> None:
        """What was not measured is a dash, and all lines of a table are aligned."""
        lines = list(
            tables(a_run(a_flood("dovecot"), a_flood("imapshield"), a_flood("dovecot", "tiny")))
        )
        heading = next(n for n, line in enumerate(lines) if "with new connections" in line)
        rule, names, _, quiet, first, second, end = lines[heading + 3 : heading + 10]
        self.assertEqual((rule, names.split()), (end, ["\\", "dovecot", "imapshield"]))
        self.assertEqual(quiet.split(), ["quiet", "p99", "10", "10"])
        self.assertTrue(first.startswith(ATTACKS["tiny"].title), first)
        self.assertTrue(first.endswith("–"), first)
        self.assertEqual(second.split()[-2:], ["6/10/10", "6/10/10"])

    def test_document_keeps_its_text_and_gets_new_figures(self) -> None:
        """What is above the marker stays; below it are the command, the charts, the goals and the tables."""
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "floods.rst").write_text(f"Text.\n\n{MARKER}\nold\n")
        write_document(a_run(a_flood("imapshield", p99=9.0)), folder)
        text = (folder / "floods.rst").read_text()
        self.assertTrue(text.startswith(f"Text.\n\n{MARKER}\n\n``python -m benchmarks.flood``\n"))
        self.assertIn("image:: floods-50.svg", text)
        self.assertIn("imapshield: 0 of 1 rows meet all goals.", text)
        self.assertNotIn("old", text)
        self.assertIn("<svg", (folder / "floods-50.svg").read_text())

    def test_chart_is_xml_with_a_mark_for_each_server_in_each_panel(self) -> None:
        """The chart is well-formed, follows the colour scheme, and shows every figure."""
        text = chart(a_run(a_flood("dovecot"), a_flood("imapshield")), 50)
        document = ElementTree.fromstring(text)  # noqa: S314 - our own
        titles = [element.text for element in document.iter() if element.tag.endswith("title")]
        self.assertEqual(len(titles), 2 + 2 * len(PANELS))
        self.assertIn("prefers-color-scheme: dark", text)

    def test_what_is_off_the_scale_is_drawn_at_the_edge(self) -> None:
        """No mark leaves its panel, and equal ratios have equal distances."""
        panel = PANELS[0]
        self.assertEqual((panel.position(0), panel.position(1e9)), (0.0, 1.0))
        steps = [panel.position(10.0**n) for n in (1, 2, 3)]
        self.assertAlmostEqual(steps[2] - steps[1], steps[1] - steps[0])
