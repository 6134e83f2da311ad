"""A small flood of `benchmarks.simulate_flood`: 2,000 addresses against four shield nodes."""

from __future__ import annotations

import functools
from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.simulate_flood import QUICK, report, scenarios
from benchmarks.simulated_flood import Result, Scenario, run
from imapshield.limits import Limits

NODES = 4
LOUD = 20
SMALL = Scenario(nodes=NODES, addresses=2000, loud=LOUD / 2000, rate=100.0, seconds=20, users=300)
GROUPS_WITH_BOTS = ("infected office", "NAT with bots", "NAT with bots, new there")


@functools.cache
def result(scenario: Scenario) -> Result:
    """Return the result of a scenario, which is simulated once."""
    return run(scenario)


def failed(result: Result, but: tuple[str, ...] = GROUPS_WITH_BOTS) -> int:
    """Return how many logins of users failed who share no address with an attacker."""
    return sum(tally.failed for group, tally in result.tallies.items() if group not in but)


def worst_delay(result: Result) -> float:
    return max(delay for tally in result.tallies.values() for delay in tally.delays)


class SharedGuardTests(SynchronousTestCase):
    def test_ban_reaches_all_nodes(self) -> None:
        """Each ban is in force on all nodes within two seconds, though one report in a hundred is lost."""
        shared = result(SMALL)
        self.assertEqual((shared.bans, shared.missing), (LOUD, 0))
        self.assertGreaterEqual(len(shared.spread), LOUD * (NODES - 2))
        self.assertLess(shared.spread[-1], 2)

    def test_nodes_count_as_one(self) -> None:
        """An address gets nearly as few connections as from one guard for all, and far fewer than from nodes alone."""
        shared, alone, one = (
            result(scenario)
            for scenario in (
                SMALL, replace(SMALL, shared=False), replace(SMALL, one_guard=True)
            )
        )  # fmt: skip
        middle = [each.before_ban[len(each.before_ban) // 2] for each in (one, shared, alone)]
        self.assertEqual(middle[0], Limits().max_limit_violations)
        self.assertLessEqual(middle[1], middle[0] + 4)
        self.assertGreater(middle[2], 2.5 * middle[0])

    def test_guesses_of_one_user(self) -> None:
        """Of the passwords of one user hardly more are checked than by one guard, and far more by nodes alone."""
        guess = replace(SMALL, attack="guess", rate=200.0, loud=0.5)
        shared, alone, one = (
            result(scenario).total_checked
            for scenario in (
                guess, replace(guess, shared=False), replace(guess, one_guard=True)
            )
        )  # fmt: skip
        self.assertLess(shared, 1.5 * one)
        self.assertGreater(alone, 2 * one)

    def test_honest_users(self) -> None:
        """No honest user is kept out who shares no address with an attacker, and no address of theirs is banned."""
        for attack in ("noop", "guess", "spray"):
            honest = result(replace(SMALL, attack=attack))
            self.assertEqual((honest.wrong, failed(honest)), (0, 0), attack)


class FailureTests(SynchronousTestCase):
    def test_redis_fails(self) -> None:
        """Each node decides alone while Redis fails, and has all bans soon after its return."""
        outage = result(replace(SMALL, redis_fails=(2, 12)))
        self.assertEqual((outage.missing, failed(outage)), (0, 0))
        self.assertGreater(outage.spread[-1], 2)
        self.assertLess(outage.spread[-1], 12 - 2 + 2)

    def test_a_third_of_the_nodes_fail(self) -> None:
        """Users of nodes that fail log in elsewhere; a node that comes back with nothing soon has all bans."""
        for redis_fails in (None, (6.0, 12.0)):
            broken = result(replace(SMALL, nodes_fail=(6, 16), redis_fails=redis_fails))
            self.assertEqual((broken.missing, failed(broken)), (0, 0))
            self.assertLess(worst_delay(broken), 10)
            self.assertTrue(broken.returned)
            self.assertLess(broken.returned[-1], 3)

    def test_dns(self) -> None:
        """A client of a DNS name with all addresses logs in at another node within ten seconds."""
        broken = result(replace(SMALL, nodes_fail=(6, 16), balancer="dns"))
        self.assertEqual(failed(broken), 0)


class ReportTests(SynchronousTestCase):
    def test_same_seed_gives_same_result(self) -> None:
        """All random choices depend on the seed."""
        short = replace(SMALL, seconds=6)
        self.assertEqual(run(short), run(short))
        self.assertNotEqual(run(short), run(replace(short, seed=1)))

    def test_tables(self) -> None:
        """The tables have a row for each run, and the figures that the page about planning explains."""
        rows = scenarios(replace(SMALL, seconds=6, rate=50.0))
        chosen = {
            row: scenario for row, scenario in rows.items() if row[0] == "noop" and scenario.nodes_fail
        }  # fmt: skip
        chosen = {("noop", "one guard for all"): rows["noop", "one guard for all"], **chosen}
        text = "\n".join(report({row: result(each) for row, each in chosen.items()}, NODES))
        for expected in ("a third of the nodes fail", "to all nodes, s: median", "new address"):
            self.assertIn(expected, text)
        self.assertLess(QUICK["nodes"], Scenario().nodes)
