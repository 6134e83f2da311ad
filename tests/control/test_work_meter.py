"""The work of connections is counted once, whoever does it and however a connection ends."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from imapshield.control.request_lines import Request
from imapshield.control.work_meter import WorkMeter
from imapshield.testing.in_process import Server


class WorkMeterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.meter = WorkMeter(self.clock)
        self.server = Server(clock=self.clock, observers=[self.meter])
        self.meter.start(self.server.factory)
        self.addCleanup(self.meter.stop)

    def talkers(self, **arguments: Any) -> Any:
        answer = Deferred.fromCoroutine(self.meter.talkers(Request("talkers", arguments)))
        self.clock.pump([0] * 10)
        return self.successResultOf(answer)

    def commands_of(self, subject: str) -> dict[str, float]:
        answer = self.talkers()
        total = answer["totals"]["commands"]
        return {row["key"]: row["commands"] * total for row in answer["tables"][subject]}

    def test_every_command_counts_once(self) -> None:
        """Commands count for the connection, its address, network and user, while it is open and when it ends."""
        alice, stranger = self.server.login(), self.server.connect("192.0.2.9")
        for second in range(5):
            alice(b"a NOOP")
            alice.protocol._runner.count_seconds(0.01)
            self.clock.advance(1)
            self.assertEqual(self.commands_of("user"), {"alice": second + 2})
        stranger(b"a NOOP")
        stranger.lose_connection()
        alice(b"b LOGOUT")
        alice.lose_connection()
        self.clock.advance(1)
        self.assertEqual(self.commands_of("user"), {"alice": 7})
        self.assertEqual(self.commands_of("address"), {"127.0.0.1": 7, "192.0.2.9": 1})
        self.assertEqual(self.commands_of("network"), {"127.0.0.0/26": 7, "192.0.2.0/26": 1})

    def test_flood_is_the_headline(self) -> None:
        """Three hosts that flood are the first line, and their resets are counted, with a login or without."""
        for host in range(1, 4):
            self.server.connect(f"192.0.2.{host}").send(b"a NOOP\r\n" * 101)
        for host in range(30):
            self.server.connect(f"198.51.100.{host}")(b"a NOOP")
        for connection in list(self.server.factory.connections):
            connection.connectionLost()
        self.clock.advance(1)
        answer = self.talkers()
        self.assertEqual(answer["headlines"][0], "3 hosts, 91 % of commands")
        self.assertIn("3 hosts, 100 % of resets", answer["headlines"])
        self.assertEqual(answer["totals"]["resets"], 3)
