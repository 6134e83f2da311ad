"""A flood from three addresses, while another user works with imaplib."""

from __future__ import annotations

import statistics
import threading
import time

from benchmarks.flood import FloodResult, flood
from system_tests.maildirs import small_message
from system_tests.server_case import FAULTS, PASSWORD, USER, ServerCase

SECONDS = 5
PAUSE = 0.05
"""Seconds between two rounds of the user's work."""


class FloodTests(ServerCase):
    forbidden_log_texts = FAULTS

    def work_during_flood(self, reading: bool) -> None:
        """Flood the server, and append, select, fetch and store in a session that was open before."""
        self.fill(100)
        results: list[FloodResult] = []
        times: list[float] = []
        failures: list[Exception] = []

        def attack() -> None:
            try:
                results.append(
                    flood(
                        "127.0.0.1", self.port, user=USER, password=PASSWORD, pid=self.server.process.pid,
                        seconds=SECONDS, quiet_seconds=1, reading=reading,
                    )
                )  # fmt: skip
            except Exception as error:
                failures.append(error)

        client = self.login("bob")
        thread = threading.Thread(target=attack, daemon=True)
        thread.start()
        number = 0
        while thread.is_alive() and number < 2000:
            started = time.monotonic()
            message = small_message(f"m{number}")
            self.ok(client.append("INBOX", "", "", message))
            self.assertEqual(self.ok(client.select()), [b"%d" % (number + 1)])
            self.assertEqual(self.ok(client.fetch("*", "BODY[]"))[0][1], message)
            self.ok(client.store("*", "+FLAGS", "(\\Flagged)"))
            times.append(time.monotonic() - started)
            number += 1
            thread.join(PAUSE)
        thread.join(60)
        self.assertEqual(failures, [])
        (result,) = results
        self.assertEqual(result.quiet.failures + result.during.failures + result.after.failures, 0)
        self.assertGreater(result.attackers.connections, 50)
        self.assertGreater(result.attackers.resets, 50)
        self.assertGreater(len(times), 20)
        self.assertLess(statistics.median(times), 1.0)
        self.assertLess(result.rss_peak - result.rss_before, 50e6)

    def test_attackers_that_never_read_are_reset(self) -> None:
        """Attackers that never read are reset; during the flood, the open session and new logins are served."""
        self.work_during_flood(reading=False)

    def test_attackers_that_read_are_reset_too(self) -> None:
        """Attackers that read their responses are reset as well."""
        self.work_during_flood(reading=True)
