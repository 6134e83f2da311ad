"""What was acknowledged survives a power cut on ext4 and XFS: `benchmarks.powercut`, in about a minute.

Needs root, for loop devices and mounts; without it the tests fail.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.powercut import missing_requirement, run
from benchmarks.powercut_volume import KINDS

CUTS = 200
OPERATIONS = (
    "APPEND", "MULTIAPPEND", "COPY", "MOVE", "STORE", "STORE, over 26 keywords", "EXPUNGE", "UID EXPUNGE",
    "REPLACE", "REPLACE across mailboxes", "CREATE", "DELETE", "RENAME", "RENAME of a parent", "SUBSCRIBE",
    "UNSUBSCRIBE", "SETMETADATA", "delivery", "APPEND, in flight", "MULTIAPPEND, in flight", "MOVE, in flight",
    "COPY, in flight", "RENAME of a parent, in flight",
)  # fmt: skip


class PowerCutTests(SynchronousTestCase):
    def test_power_cuts_undo_nothing_that_was_acknowledged(self) -> None:
        """No message is lost, duplicated, changed or renumbered, no flag lost, and no UID or MODSEQ announced twice."""
        if missing := missing_requirement(list(KINDS)):
            self.fail(f"{missing} (system_tests/install installs programs)")
        tally = run("imapshield", CUTS, kinds=",".join(KINDS), seed="system", lanes=2, show=False)
        if problems := [*tally.errors, *tally.reports[:10]]:
            self.fail("\n\n".join(problems))
        self.assertEqual(tally.faults.total(), 0)
        self.assertEqual(tally.cuts, CUTS)
        self.assertEqual(set(tally.file_systems), set(KINDS))
        self.assertEqual(set(OPERATIONS) - {*tally.commands}, set())
