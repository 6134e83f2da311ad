"""docs/operating.rst says what is stored about people, and for how long, with the numbers of the code."""

import os

from twisted.trial.unittest import SynchronousTestCase

from imapshield.control import arguments, end_history, trace
from imapshield.cred import checkers
from imapshield.guard import bans, login_failures
from imapshield.limits import Limits
from tests.test_architecture import CHECKOUT, read


class StoredDataTests(SynchronousTestCase):
    def test_numbers_are_those_of_the_code(self) -> None:
        """Each number in "What is stored about people" is that of the code."""
        page = read(os.path.join(CHECKOUT, "docs/operating.rst"))
        section = page.partition("What is stored about people\n")[2].partition("\nFrom a program")[
            0
        ]
        text = " ".join(section.split())
        for expected in (
            f"{end_history.MAX_USERS:,} entries of users, {end_history.MAX_ADDRESSES:,} of addresses",
            f"{end_history.MAX_NETWORKS:,} of networks",
            f"{end_history.MAX_PLACES + end_history.MAX_UNKNOWN_NAMES:,} of failed logins",
            f"{end_history.MAX_REFERENCES:,} of internal errors",
            f"last networks of {end_history.MAX_PLACES:,} users",
            f"At most {trace.MAX_WAITING:,} lines",
            f"up to {login_failures.MAX_KNOWN_ADDRESSES} addresses of each",
            f"last {checkers.CACHE_SIZE:,} users of a password file. A hash is not used after five minutes",
            f"{login_failures.MAX_KNOWN_USERS:,} users, without a time limit",
            f"users of an address for {login_failures.SHARED_SECONDS // 86400} days",
        ):
            self.assertIn(expected, text)
        self.assertEqual(checkers.CACHE_SECONDS, 300)
        self.assertEqual((trace.DEFAULT_SECONDS, arguments.MAX_TRACE_SECONDS), (600, 86400))
        self.assertEqual(Limits().max_ban_seconds, 86400)
        self.assertEqual((login_failures.PAIR_SECONDS, bans.VIOLATION_SECONDS), (86400, 3600))
