"""Servers that exchange reports over a link that is fast, slow, lost or lying."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from imapshield.edge.admission import Admission
from imapshield.guard.guard_report import GuardReport, RateTaken
from imapshield.guard.process_guard import BANNED, ProcessGuard
from imapshield.guard.shared_guard import SharedGuard
from imapshield.limits import Limits
from imapshield.observe.talkers import Source, Talkers, Work
from imapshield.shared import server_exchange
from imapshield.shared.server_exchange import ServerExchange
from imapshield.shared.signed_messages import Message, Request, SignedMessages

ADDRESS = "192.0.2.1"


class FakeLink:
    """A link to all others of a `Net`."""

    def __init__(self, net: Net) -> None:
        self.net, self.is_ready, self.clock_offset = net, True, 1000.0
        self.waiting: list[Deferred[Any]] = []

    def send(self, data: bytes, rates: tuple[RateTaken, ...]) -> Deferred[list[float] | None]:
        sent: Deferred[list[float] | None] = Deferred()
        if self.net.is_slow:
            self.waiting.append(sent)
            return sent
        for server in self.net.servers:
            if server.link.is_ready:
                server.exchange.message(data)
        totals = []
        for rate in rates:
            self.net.rates[rate.key] = self.net.rates.get(rate.key, 0.0) + rate.amount
            totals.append(self.net.rates[rate.key])
        sent.callback(totals)
        return sent


class Net:
    def __init__(self) -> None:
        self.clock, self.servers = Clock(), list[Server]()
        self.is_slow, self.rates = False, dict[bytes, float]()

    def add(self) -> Server:
        server = Server(self, f"s_{len(self.servers)}")
        self.servers.append(server)
        server.exchange.start()
        server.exchange.connected()
        return server

    def wait(self, seconds: float = 3.0) -> None:
        self.clock.pump([0.25] * int(seconds * 4))


class Server:
    def __init__(self, net: Net, name: str) -> None:
        clock = net.clock
        self.guard = ProcessGuard(Limits(max_connections_per_user=2), key=b"k")
        self.admission = Admission(self.guard, [], clock.seconds)
        self.talkers, self.link = Talkers(0.0), FakeLink(net)
        self.shared = SharedGuard(self.guard, name)
        self.exchange = ServerExchange(
            *(self.shared, self.admission, SignedMessages(b"s"), name, self.link),
            *(self.talkers, clock),
        )
        self.admission.on_ban, self.admission.on_unban = self.exchange.tell_bans(
            self.admission.on_ban, self.admission.on_unban
        )


class ExchangeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.net = Net()
        self.one, self.two = self.net.add(), self.net.add()
        self.lines: list[str] = []

        def observe(event: Any) -> None:
            self.lines.append(event["log_format"].format(**event))

        globalLogPublisher.addObserver(observe)  # type: ignore[arg-type]
        self.addCleanup(globalLogPublisher.removeObserver, observe)  # type: ignore[arg-type]
        self.net.wait()

    def test_servers_find_each_other(self) -> None:
        """Each hears of the others, and of their end."""
        self.assertEqual(self.one.exchange.members, ["s_1"])
        self.two.exchange.stop()
        self.two.exchange.stop()
        self.net.wait(7)
        self.assertEqual(self.one.exchange.members, [])
        self.assertIn(
            "guard-redis: s_1 is silent; its connections do not count any more", self.lines
        )

    def test_a_ban_is_told_at_once(self) -> None:
        """A ban applies elsewhere in the next turn of the reactor, and so does its end."""
        self.one.admission.ban_by_operator(ADDRESS, 60.0)
        self.net.clock.advance(0)
        self.assertEqual(self.two.guard.connect(ADDRESS, self.net.clock.seconds()).reached, BANNED)
        self.two.admission.unban_by_operator(ADDRESS)
        self.net.clock.advance(0)
        self.assertIsNone(self.one.guard.ban_of(ADDRESS, self.net.clock.seconds()))
        self.assertIn("guard-redis: s_0 has banned 192.0.2.1/32", self.lines)
        self.assertIn("guard-redis: s_1 has ended the bans of 192.0.2.1/32", self.lines)

    def test_many_bans_are_one_line(self) -> None:
        """The log names three of many networks that another server has banned."""
        for host in range(5):
            self.one.guard.bans.ban(f"192.0.2.{host}", "test", 0.0, seconds=99.0)
        self.net.wait(1)
        self.assertEqual(len([line for line in self.lines if line.endswith(" and 2 more")]), 1)

    def test_rates_are_added_up(self) -> None:
        """What all have taken counts here as soon as something is taken here."""
        now = self.net.clock.seconds()
        self.one.guard.connect(ADDRESS, now)
        self.two.guard.connect(ADDRESS, now)
        self.net.clock.advance(0.25)
        taken = self.two.guard.rate_taken(ADDRESS, self.net.clock.seconds())
        self.assertAlmostEqual(taken, 2.0)

    def test_a_new_server_learns_what_was_before(self) -> None:
        """A server that starts gets bans, connections and known users of those that run."""
        now = self.net.clock.seconds()
        connection = self.one.guard.connect(ADDRESS, now).connection
        assert connection is not None
        self.one.guard.login(connection, "alice", b"alice", now)
        self.one.guard.bans.ban("192.0.2.9", "test", now)
        self.net.wait(30)
        three = self.net.add()
        self.net.wait()
        self.assertTrue(three.guard.failures.is_known(ADDRESS, b"alice"))
        self.assertIsNotNone(three.guard.ban_of("192.0.2.9", self.net.clock.seconds()))
        remote = three.guard.shares.remote
        assert remote is not None
        self.assertEqual(sum(remote.users.values()), 1)

    def test_talkers_are_shared(self) -> None:
        """Who works at one server is in the tables of all, and is not told back."""
        source = Source("1", ADDRESS, "192.0.2.0/26", "alice")
        self.one.talkers.add(source, Work(5, 100), self.net.clock.seconds())
        self.one.talkers.end_second(self.net.clock.seconds())
        self.net.wait()
        for server in (self.one, self.two):
            report = server.talkers.report("minute", "user", "commands", self.net.clock.seconds())
            self.assertEqual([(s.key, s.amount) for s in report.shares], [("alice", 5)])
            self.assertEqual(report.total, 5)
        report = self.two.talkers.report("minute", "connection", "commands", 3.0)
        self.assertEqual(report.shares, [])
        self.two.talkers.add_remote([("unknown", "commands", "x", 1.0)])

    def test_nobody_waits_for_a_slow_link(self) -> None:
        """One report is on its way at a time; after an error it is repeated, and what happened meanwhile follows."""
        self.net.is_slow = True
        self.one.guard.bans.ban(ADDRESS, "test", self.net.clock.seconds())
        self.net.wait(5)
        self.assertEqual(len(self.one.link.waiting), 1)
        self.one.guard.bans.ban("192.0.2.2", "test", self.net.clock.seconds())
        self.one.link.is_ready = False
        self.one.link.waiting.pop().errback(OSError())
        self.net.wait(1)
        self.net.is_slow, self.one.link.is_ready = False, True
        self.one.exchange.connected()
        self.net.wait(1)
        now = self.net.clock.seconds()
        self.assertEqual(len(list(self.two.guard.bans.active(now))), 2)

    def test_a_long_failure(self) -> None:
        """After a minute, the report that was not sent is dropped, and rates of that time are not told."""
        self.net.is_slow = True
        self.one.guard.connect(ADDRESS, self.net.clock.seconds())
        self.net.wait(1)
        self.one.link.is_ready = False
        self.one.link.waiting.pop().errback(OSError())
        self.one.guard.connect(ADDRESS, self.net.clock.seconds())
        self.net.wait(60)
        self.net.is_slow, self.one.link.is_ready = False, True
        self.one.exchange.connected()
        self.net.wait(1)
        self.assertEqual(self.net.rates, {})
        remote = self.two.guard.shares.remote
        assert remote is not None
        self.assertEqual(sum(remote.networks.values()), 2 * 3)

    def test_lies_are_refused(self) -> None:
        """Malformed messages, and reports of another time, are counted and named once in a minute."""
        old = GuardReport(99, 5.0)
        for data in (b"nonsense", SignedMessages(b"s").encode(Message("x_1", old))):
            self.one.exchange.message(data)
        self.assertEqual(self.one.exchange.malformed, 2)
        self.assertIn("are the clocks right?", self.one.exchange.last_refusal)
        self.assertEqual(len([line for line in self.lines if "was refused" in line]), 1)
        self.assertEqual(self.one.exchange.members, ["s_1"])

    def test_recorded_messages_count_once(self) -> None:
        """A server that is silent is forgotten although somebody repeats its messages, and they stay without effect."""
        recorded: list[bytes] = []
        deliver = self.one.exchange.message

        def record(data: bytes) -> None:
            recorded.append(data)
            deliver(data)

        self.patch(self.one.exchange, "message", record)
        self.two.guard.connect(ADDRESS, self.net.clock.seconds())
        self.net.wait(2)
        self.two.exchange.stop()
        self.two.link.is_ready = False
        remote = self.one.guard.shares.remote
        assert remote is not None
        for _ in range(8):
            for data in recorded[:20]:
                deliver(data)
            self.net.wait(1)
        self.assertEqual((self.one.exchange.members, sum(remote.networks.values())), ([], 0))
        self.two.exchange.start()
        self.two.link.is_ready = True
        self.net.wait(3)
        self.assertEqual(self.one.exchange.members, ["s_1"])
        self.assertEqual(sum(remote.networks.values()), 3)

    def test_a_flood_of_messages_is_not_read(self) -> None:
        """Above the maximum of a second, messages are refused without a look at them."""
        self.patch(server_exchange, "MAX_MESSAGES", 0)
        for _ in range(5):
            self.one.exchange.message(b"nonsense")
        self.assertTrue(any("more than 0 messages a second" in line for line in self.lines))
        self.assertEqual(self.one.exchange.malformed, 5)

    def test_requests_of_others_are_not_for_us(self) -> None:
        """A request to another server, and a second one within five seconds, tell nothing."""
        before = self.two.exchange.received
        self.net.clock.advance(0.25)
        for name in ("s_1", "s_0", "s_0"):
            self.one.exchange.message(
                SignedMessages(b"s").encode(Message("x_1", Request(name, False)))
            )
        self.net.wait(0.5)
        self.assertLessEqual(self.two.exchange.received, before + 3)

    def test_too_many_servers(self) -> None:
        """Reports of a server beyond the maximum are ignored."""
        from imapshield.guard import shared_guard

        self.patch(shared_guard, "MAX_MEMBERS", 1)
        self.net.add()
        self.net.wait()
        self.assertEqual(self.one.exchange.members, ["s_1"])

    def test_without_talkers(self) -> None:
        """A process that does not count work exchanges everything else."""
        guard = ProcessGuard(Limits())
        clock = self.net.clock
        admission = Admission(guard, [], clock.seconds)
        link: Any = FakeLink(self.net)
        exchange = ServerExchange(
            SharedGuard(guard, "t"), admission, SignedMessages(b"s"), "t_1", link, None, clock
        )
        exchange.tick()
        exchange.message(
            SignedMessages(b"s").encode(Message("x_1", GuardReport(1, 1000.0 + clock.seconds())))
        )
        self.assertEqual(exchange.members, ["x_1"])
