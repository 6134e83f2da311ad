"""The rules of a connection, checked in every state that its guard can reach with small limits."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.guard_model import Settings
from benchmarks.guard_states import Search, configurations
from tests.guard.planted_bugs import PLANTED_BUGS, guard_with


class StateTests(SynchronousTestCase):
    def test_no_sequence_of_events_breaks_a_rule(self) -> None:
        """No sequence of events breaks a rule, if all limits are 2. (.ci/run does the same with 3.)"""
        result = Search(Settings(2)).run()
        self.assertEqual((result.violation, result.trace), (None, ()))
        self.assertTrue(result.closed)

    def test_no_short_sequence_breaks_a_rule_in_the_other_modes(self) -> None:
        """No short sequence of events breaks a rule with strict_backlog and report_only."""
        for settings in configurations(2)[1:]:
            result = Search(settings, max_states=2000).run()
            self.assertEqual((result.violation, result.trace), (None, ()), settings)


class PlantedBugTests(SynchronousTestCase):
    """One test for each planted bug."""


def _test(old: str, new: str) -> Callable[[SynchronousTestCase], None]:
    def test(self: SynchronousTestCase) -> None:
        guard = guard_with(old, new)
        searches = (
            Search(settings, guard, max_states=max_states)
            for max_states in (
                600,
                16_000,
            )  # most bugs show soon, but perhaps only in the last mode
            for settings in configurations(3)[:4]
        )
        self.assertTrue(any(search.run().violation for search in searches))

    return test


for _name, _change in PLANTED_BUGS.items():
    _method = _test(*_change)
    _method.__doc__ = f"The search notices this bug: {_name}."
    setattr(PlantedBugTests, "test_" + _name.replace(" ", "_").replace("'", ""), _method)
