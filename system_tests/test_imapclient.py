"""PyPI's imapclient: the functional tests that it ships for live servers, as they are."""

from __future__ import annotations

import re
import sys

from system_tests.cases import FAULTS, PASSWORD, USER, ServerCase
from system_tests.certificate import write_certificate

SKIPPED = {
    "Server doesn't support XLIST",  # what there was before SPECIAL-USE
    "Server doesn't support labels",  # Gmail's
    "Server doesn't support Gmail search",
    "Server doesn't support ACL",  # no shared folders here
    "test instance not configured for UID operations",
}
FAILED = {
    "test_fetch",  # compares an Envelope, which is a dataclass since 4.0, as if it were a sequence
    "test_move",  # without UIDs: asks for imaplib's IMAP4.move, which Python has not
    "test_small_connection_timeout_fail",  # wants a connection on loopback to take more than 1 ms
    "test_small_read_timeout_fail",  # and an answer more than 10 us
}
"""Failures of imapclient 4.1.0 that say nothing of the server, each with its reason."""


class LiveTests(ServerCase):
    # It asks for folders that are not there and hangs up in the middle of things, on purpose.
    complaints = FAULTS

    def prepare(self) -> None:
        self.pem = write_certificate(self.home)

    def start(self, **more) -> None:
        super().start(**{**more, "options": ("--certificate", self.pem)})

    def livetest(self, more="") -> None:
        config = self.write(
            "live.ini",
            f"[DEFAULT]\nhost = localhost\nport = {self.port}\nusername = {USER}\npassword = {PASSWORD}\n{more}",
        )
        # Its starttls() knows no ssl_ca_file; OpenSSL's variable does it.
        self.run_it(
            sys.executable, "-m", "imapclient.livetest", config, "-v",
            status=None, env={"SSL_CERT_FILE": self.pem},
        )  # fmt: skip
        ran = re.search(r"Ran (\d+) tests", self.log)
        self.assertTrue(ran, self.log[-3000:])
        self.assertGreater(int(ran[1]), 50)
        skipped = set(re.findall(r"skipped ['\"](.*)['\"]$", self.log, re.MULTILINE))
        self.assertEqual(skipped - SKIPPED, set())
        failed = set(re.findall(r"^(?:FAIL|ERROR): (\w+)", self.log, re.MULTILINE))
        self.assertEqual(failed - FAILED, set(), self.log[-6000:])

    def test_plain(self) -> None:
        """All of it, in the clear."""
        self.livetest("ssl = false\n")

    def test_starttls(self) -> None:
        """All of it behind STARTTLS with a certificate that is checked."""
        self.livetest("ssl = false\nstarttls = true\n")
