"""Every attack of the flood benchmark, on a small scale, while honest users work."""

from __future__ import annotations

import statistics
import threading
import time
from pathlib import Path

from benchmarks.flood_attacks import ATTACKS
from benchmarks.flood_mail import ATTACKERS, USERS, VICTIMS, write_mail
from benchmarks.flood_measure import Flood, Scale, Target, measure, missing_capability
from benchmarks.flood_swarm import SOURCES
from system_tests.certificate import write_certificate
from system_tests.maildirs import small_message
from system_tests.server_case import FAULTS, PASSWORD, ServerCase

WORKER = "carol"
"""A user who appends, fetches and stores during floods."""
PAUSE = 0.05
"""Seconds between two rounds of her work."""
MAX_GROWTH = 64e6
"""Bytes by which the server's memory may grow in an attack of 12 connections."""
HOSTILE_GROWTH = 256e6
"""As much for mail that is expensive to parse."""


class FloodTests(ServerCase):
    forbidden_log_texts = FAULTS
    auth = "memory:" + ":".join(f"{user}:{PASSWORD}" for user in (*USERS, WORKER))

    def prepare(self) -> None:
        write_mail(Path(self.root))
        self.options = ("--certificate", write_certificate(self.base))

    def flood(self, attack: str, scale: Scale) -> Flood:
        """Flood the server with one attack; nothing may fail for the victims."""
        target = Target(
            name="imapshield",
            host="127.0.0.1",
            port=self.port,
            pid=self.server.process.pid,
            victims=VICTIMS,
            attackers=ATTACKERS,
            password=PASSWORD,
        )
        self.assertEqual(missing_capability(target, attack), "")
        flood = measure(target, attack, scale).finish()
        self.assertEqual(flood.failures, {}, attack)
        self.assertGreater(min(visits.samples for visits in flood.during.values()), 0, attack)
        return flood

    def test_every_attack_leaves_the_honest_users_served(self) -> None:
        """In every attack no visit of an honest user fails, memory is bounded, and the server lives."""
        scale = Scale(
            seconds=1.2,
            quiet_seconds=0.3,
            connections=12,
            sources=SOURCES[:3],
            released_after=[0],
        )
        for attack in ATTACKS.values():
            if attack.behave is not None:
                flood = self.flood(attack.name, scale)
                self.assertGreaterEqual(flood.tally.connections, 12, attack.name)
                limit = HOSTILE_GROWTH if "hostile" in attack.title else MAX_GROWTH
                self.assertLess(flood.growth, limit, attack.name)
        self.assertIsNone(self.server.process.poll())

    def work_during_flood(self, attack: str) -> None:
        """Flood the server, and append, select, fetch and store in a session that was open before."""
        results: list[Flood | Exception] = []

        def run() -> None:
            try:
                results.append(
                    self.flood(attack, Scale(seconds=4, quiet_seconds=1, released_after=[0]))
                )
            except Exception as error:
                results.append(error)

        client = self.login(WORKER)
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        times: list[float] = []
        while thread.is_alive() and len(times) < 2000:
            started = time.monotonic()
            message = small_message(f"m{len(times)}")
            self.ok(client.append("INBOX", "", "", message))
            self.assertEqual(self.ok(client.select()), [b"%d" % (len(times) + 1)])
            self.assertEqual(self.ok(client.fetch("*", "BODY[]"))[0][1], message)
            self.ok(client.store("*", "+FLAGS", "(\\Flagged)"))
            times.append(time.monotonic() - started)
            thread.join(PAUSE)
        thread.join(60)
        (flood,) = results
        assert isinstance(flood, Flood), flood
        self.assertGreater(flood.tally.resets, 50)
        self.assertGreater(len(times), 20)
        self.assertLess(statistics.median(times), 1.0)

    def test_attackers_that_never_read_are_reset(self) -> None:
        """Attackers that never read are reset; during the flood, the open session and new logins are served."""
        self.work_during_flood("noop-unread")

    def test_attackers_that_read_are_reset_too(self) -> None:
        """Attackers that read their responses are reset as well."""
        self.work_during_flood("noop-read")
