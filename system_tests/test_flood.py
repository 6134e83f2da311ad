"""A flood from three addresses, while somebody works with imaplib."""

from __future__ import annotations

import statistics
import threading
import time

from benchmarks.flood import flood
from system_tests.cases import FAULTS, PASSWORD, USER, ServerCase, simple

SECONDS = 5


class FloodTests(ServerCase):
    complaints = FAULTS

    def flooded(self, reading):
        self.fill(100)
        results, times, broken = [], [], []

        def attack() -> None:
            try:
                results.append(
                    flood(
                        "127.0.0.1", self.port, user=USER, password=PASSWORD, pid=self.server.process.pid,
                        seconds=SECONDS, quiet_seconds=1, reading=reading,
                    )
                )  # fmt: skip
            except Exception as error:
                broken.append(error)

        client = self.login("bob")
        thread = threading.Thread(target=attack, daemon=True)
        thread.start()
        number = 0
        while thread.is_alive() and number < 2000:
            began = time.monotonic()
            self.ok(client.append("INBOX", "", None, simple(f"m{number}")))
            self.assertEqual(self.ok(client.select()), [b"%d" % (number + 1)])
            self.assertEqual(self.ok(client.fetch("*", "BODY[]"))[0][1], simple(f"m{number}"))
            self.ok(client.store("*", "+FLAGS", "(\\Flagged)"))
            times.append(time.monotonic() - began)
            number += 1
            time.sleep(0.05)
        thread.join(60)
        self.assertEqual(broken, [])
        (result,) = results
        self.assertEqual(result.quiet.failures + result.during.failures + result.after.failures, 0)
        self.assertGreater(result.attackers.connections, 50)
        self.assertGreater(result.attackers.resets, 50)
        self.assertGreater(len(times), 20)
        self.assertLess(statistics.median(times), 1.0)
        self.assertLess(result.rss_peak - result.rss_before, 50e6)
        return result

    def test_flood(self) -> None:
        """Attackers who never read are reset; the session that is open and new logins are served meanwhile."""
        self.flooded(reading=False)

    def test_reading_flood(self) -> None:
        """Attackers who read their answers are stopped as well."""
        self.flooded(reading=True)
