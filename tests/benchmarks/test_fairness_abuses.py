"""The commands of `benchmarks.fairness_abuses`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.fairness_abuses import DEEP, OR, WIDE
from imapshield.wire.grammar import parse


class AbuseTests(SynchronousTestCase):
    def test_long_searches_are_executed(self) -> None:
        """The long searches are within the limits of the grammar: a refused command would measure nothing."""
        for command in (DEEP, OR, WIDE):
            parse([command.encode("ascii")])
