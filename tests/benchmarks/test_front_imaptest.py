"""What `benchmarks.front_imaptest` reads in the output of imaptest, and what it compares."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.front_imaptest import Ended, ended, lost

FAILED = """\
*** Test copy command 17/24 (line 32)
 - failed: Missing 3 untagged replies (3 mismatches)
 - first unexpanded: 1 fetch

*** Test copy initialization failed: Unexpected disconnection
"""
SUMMARY = """\
1 test groups: {} failed, 0 skipped due to missing capabilities
base protocol: {}/{} individual commands failed
extensions: 0/0 individual commands failed
"""


class EndedTests(SynchronousTestCase):
    def test_failed_commands_have_the_reasons_of_imaptest(self) -> None:
        """A script fails if one of its commands does."""
        found = ended(FAILED + SUMMARY.format(1, 1, 24))
        self.assertEqual(
            found.failures["command 17/24"], "Missing 3 untagged replies (3 mismatches)"
        )
        self.assertIn("initialization", found.failures)
        self.assertEqual(str(found), "failed")

    def test_script_without_a_summary_has_failed(self) -> None:
        """It crashes because of some responses, or ends without a word."""
        crash = "Panic: file commands.c: line 140: assertion failed"
        self.assertEqual(ended(crash).failures, {"imaptest": crash})
        self.assertEqual(ended("").failures, {"imaptest": "it ends without a summary"})

    def test_script_of_which_no_command_ran_is_skipped(self) -> None:
        """The program does not count a script as skipped if the capability is missing after the login."""
        self.assertEqual(str(ended(SUMMARY.format(0, 0, 0))), "skipped")
        self.assertEqual(str(ended(SUMMARY.format(0, 0, 7))), "passed")


class ComparisonTests(SynchronousTestCase):
    def test_only_what_passes_alone_is_lost(self) -> None:
        """A command that fails with both servers says nothing about the shield."""
        alone, behind = (
            Ended({"command 1/9": "no"}),
            Ended({"command 1/9": "no", "command 2/9": "x"}),
        )
        self.assertEqual(lost(alone, behind), {"command 2/9": "x"})
        self.assertEqual(lost(behind, alone), {})
