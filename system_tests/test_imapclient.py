"""imapclient (PyPI): the functional tests that it ships for live servers, unchanged."""

from __future__ import annotations

import re
import sys

from system_tests.server_case import FAULTS, PASSWORD, USER, TlsServerCase

EXPECTED_SKIPS = {
    "Server doesn't support XLIST",  # the predecessor of SPECIAL-USE
    "Server doesn't support labels",  # Gmail only
    "Server doesn't support Gmail search",
    "Server doesn't support ACL",  # imapshield has no shared folders
    "test instance not configured for UID operations",
}
EXPECTED_FAILURES = {
    "test_fetch",  # compares an Envelope, which is a dataclass since 4.0, as if it were a sequence
    "test_move",  # without UIDs: calls IMAP4.move of imaplib, which does not exist in Python
    "test_small_connection_timeout_fail",  # expects a connection on loopback to take more than 1 ms
    "test_small_read_timeout_fail",  # expects a response to take more than 10 us
}
"""Failures of imapclient 4.1.0 that are not the server's, each with its reason."""


class LiveCase(TlsServerCase):
    # The tests select absent folders and disconnect in the middle of commands, on purpose.
    forbidden_log_texts = FAULTS

    def livetest(self, settings: str) -> None:
        config = self.write_home_file(
            "live.ini",
            f"[DEFAULT]\nhost = localhost\nport = {self.port}\n"
            f"username = {USER}\npassword = {PASSWORD}\n{settings}",
        )
        # Its starttls() ignores ssl_ca_file; OpenSSL's variable has the same effect.
        self.run_client(
            sys.executable, "-m", "imapclient.livetest", config, "-v",
            status=None, env={"SSL_CERT_FILE": self.pem},
        )  # fmt: skip
        ran = re.search(r"Ran (\d+) tests", self.log)
        assert ran is not None, self.log[-3000:]
        self.assertGreater(int(ran[1]), 50)
        skipped = set(re.findall(r"skipped ['\"](.*)['\"]$", self.log, re.MULTILINE))
        self.assertEqual(skipped - EXPECTED_SKIPS, set())
        failed = set(re.findall(r"^(?:FAIL|ERROR): (\w+)", self.log, re.MULTILINE))
        self.assertEqual(failed - EXPECTED_FAILURES, set(), self.log[-6000:])


class LiveTests(LiveCase):
    def test_live_tests_pass_without_tls(self) -> None:
        """All live tests of imapclient pass without TLS."""
        self.livetest("ssl = false\n")

    def test_live_tests_pass_with_starttls(self) -> None:
        """All live tests of imapclient pass with STARTTLS and a certificate that is checked."""
        self.livetest("ssl = false\nstarttls = true\n")


class CourierNamesTests(LiveCase):
    options = ("--separator", ".", "--prefix", "INBOX.")

    def test_live_tests_pass_below_a_prefix(self) -> None:
        """All live tests pass if NAMESPACE has a prefix, below which they make their mailboxes."""
        self.livetest("ssl = false\n")
