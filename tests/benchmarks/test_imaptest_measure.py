"""What the row of imaptest reads in the output of that program."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.client import ServerError
from benchmarks.imaptest_measure import sessions_of

TOTALS = """\
  32   19   31   2/  2

Totals:
Logi List Logo
100%  50% 100%
       5%
  96   53   95
"""


class SessionsTests(SynchronousTestCase):
    def test_completed_sessions_are_those_that_have_logged_out(self) -> None:
        """The number of LOGOUTs in the totals counts; the lines of single seconds and of percentages do not."""
        self.assertEqual(sessions_of(TOTALS), 95)

    def test_refusals_are_no_wrong_answers(self) -> None:
        """Two clients of a user may get NO; any other error, or no totals, is a failure of the row."""
        refused = "Error: user0001[17]: DELETE failed: 17.6 NO [EXPUNGEISSUED] gone\n"
        self.assertEqual(sessions_of(TOTALS, refused), 95)
        for output, errors in (
            (TOTALS, refused + "Error: user0001[17]: UID 3 changed\n"),
            (TOTALS, "Fatal: Missing username\n"),
            ("  32   19   31   2/  2\n", ""),
        ):
            self.assertRaises(ServerError, sessions_of, output, errors)
