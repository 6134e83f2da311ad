"""`imapshield.testing.running_server` in test suites of unittest, trial and pytest."""

from __future__ import annotations

import os
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

SUITE = """
import imaplib
import unittest

from imapshield.testing import running_server

class ClientTests(unittest.TestCase):
    def test_client_reads_mail(self):
        with running_server({"alice": "secret"}, tls=True) as server:
            server.append("alice", b"Subject: Hello\\r\\n\\r\\n")
            tls = server.tls
            with imaplib.IMAP4_SSL(server.host, tls.port, ssl_context=tls.context) as client:
                client.login("alice", "secret")
                self.assertEqual(client.select(), ("OK", [b"1"]))

    def test_wrong_limit(self):
        with running_server({"alice": "secret"}, backlogg=3) as server:
            pass
"""


class RunnerTests(SynchronousTestCase):
    def test_runners(self) -> None:
        """Under each runner a client uses TLS, and a wrong limit is an error with its cause and no other traceback."""
        folder = os.path.abspath(self.mktemp())
        os.mkdir(folder)
        with open(os.path.join(folder, "test_suite.py"), "w", encoding="utf-8") as file:
            file.write(SUITE)
        for runner, counts in (
            (("unittest", "test_suite"), "FAILED (errors=1)"),
            (("twisted.trial", "test_suite"), "FAILED (errors=1, successes=1)"),
            (("pytest", "-q", "-p", "no:cacheprovider"), "1 failed, 1 passed"),
        ):
            with self.subTest(runner=runner[0]):
                done = subprocess.run(
                    [sys.executable, "-m", *runner], cwd=folder, stdin=subprocess.DEVNULL,
                    capture_output=True, text=True, timeout=120, check=False,
                )  # fmt: skip
                output = done.stdout + done.stderr
                self.assertIn(counts, output)
                self.assertIn(
                    "the server has not started: there is no limit backlogg; did you mean backlog?",
                    output,
                )
                self.assertNotIn("server_process.py", output)
