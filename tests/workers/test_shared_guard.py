"""The guards of all workers decide as one."""

from typing import Any

from twisted.internet.defer import succeed

from imapshield.guard import guard_report, shared_guard
from imapshield.guard.guard_report import GuardReport
from imapshield.guard.networks import networks_of
from imapshield.guard.process_guard import ProcessGuard
from imapshield.guard.shared_guard import SharedGuard
from imapshield.guard.shares import Connection
from imapshield.limits import Limits
from imapshield.shared.guard_sharing import derived_key
from imapshield.shared.redis_link import RedisLink
from imapshield.shared.signed_messages import Message as Signed
from imapshield.shared.signed_messages import SignedMessages
from imapshield.workers.guard_exchange import SHARE_SECONDS
from imapshield.workers.link import MAX_UNSENT
from imapshield.workers.link_messages import BadMessage, Shared
from tests.workers.cluster import ClusterTestCase


def _noted(calls: list[str], name: str, function: Any) -> Any:
    """Return a function that notes its calls."""

    def call(*arguments: Any, **keywords: Any) -> Any:
        calls.append(name)
        return function(*arguments, **keywords)

    return call


class SharedGuardTests(ClusterTestCase):
    def admission(self, number: int) -> Any:
        return self.worker(number).parts.factory.shared.admission

    def test_nothing_to_tell(self) -> None:
        """A process that counts nothing is not woken to tell it; what it counts is told within SHARE_SECONDS."""
        self.pump(3.0)
        taken: list[str] = []
        for number in (1, 2):
            shared = self.worker(number)._exchange.shared
            self.patch(shared, "take_report", _noted(taken, str(number), shared.take_report))
        self.pump(2.0)
        self.assertLessEqual(len(taken), 2 * 2)
        self.connect(1, "192.0.2.7")
        taken.clear()
        self.pump(SHARE_SECONDS)
        self.assertIn("1", taken)
        remote: Any = self.worker(2).parts.guard.shares.remote
        self.assertEqual(remote.networks[networks_of("192.0.2.7")[0]], 1)

    def test_link_that_is_full(self) -> None:
        """What could not be told, because the other process did not read, is told when it does."""
        worker = self.worker(1)
        worker._link.transport.dataBuffer = bytes(MAX_UNSENT + 1)
        self.connect(1, "192.0.2.7")
        self.pump(0.2)
        remote: Any = self.worker(2).parts.guard.shares.remote
        network = networks_of("192.0.2.7")[0]
        self.assertEqual(remote.networks[network], 0)
        worker._link.transport.dataBuffer = b""
        self.pump(2 * SHARE_SECONDS)
        self.assertEqual(remote.networks[network], 1)

    def test_ban_by_guesses_in_both(self) -> None:
        """Wrong passwords count together: ten in two workers ban the address in both, and are one ban in the log."""
        connection = Connection("192.0.2.7", networks_of("192.0.2.7"))

        def guess() -> None:
            for n in range(10):
                admission = self.admission(1 + n % 2)
                admission.login_failed(connection, b"alice", b"secret%d" % n)
                self.pump(0.1)

        lines = self.lines(guess)
        self.assertEqual([ban["reason"] for ban in self.ask("bans")], ["max_failed_pairs"])
        for number in (1, 2):
            self.assertFalse(hasattr(self.connect(number, "192.0.2.7"), "reporter"))
        self.assertEqual(len([line for line in lines if line.startswith("banned ")]), 1, lines)
        self.assertEqual(self.parts.operator._counters.bans, {"max_failed_pairs": 1})

    def test_an_old_password_counts_once(self) -> None:
        """A device that repeats an old password is counted once, whichever workers it meets, also new ones."""
        connection = Connection("192.0.2.7", networks_of("192.0.2.7"))
        for n in range(12):
            admission = self.admission(1 + n % 2)
            secret = admission.guard.failures.digest(b"old")
            failed, ban = admission.login_failed(connection, b"alice", secret)
            self.assertEqual((failed.repeated, ban), (n > 0, None))
            self.pump(0.1)
            if n == 6:
                self.kill(1)
                self.pump(61)
        failures = self.admission(2).guard.failures
        self.assertEqual(failures.pairs_of("192.0.2.7", self.reactor.seconds()), 1)

    def test_connections_of_a_user(self) -> None:
        """The connections of a user in both workers count for max_connections_per_user, until a worker ends."""
        counted: Any = self.worker(1).parts.guard.shares
        for _ in range(299):
            connection, _, _ = counted.connect("192.0.2.1")
            counted.login(connection, "alice")
        self.pump(0.2)
        admission = self.admission(2)
        first = admission.admit("192.0.2.1").connection
        self.assertIsNone(admission.login(first, "alice", b"alice"))
        second = admission.admit("192.0.2.1").connection
        reached = admission.login(second, "alice", b"alice")
        self.assertEqual((reached.limit, reached.observed), ("max_connections_per_user", 301))
        self.kill(1)
        self.pump(0.1)
        self.assertIsNone(admission.login(second, "alice", b"alice"))

    def test_rate_of_an_address(self) -> None:
        """The connections of an address in both workers count for connections_per_minute."""
        for n in range(300):
            server = self.connect(1 + n % 2, "192.0.2.9")
            self.assertTrue(hasattr(server, "reporter"), n)
            server.transport.abortConnection()
            if n % 10 == 0:
                self.pump(0.1)
        self.pump(0.1)
        taken = [
            self.worker(n).parts.guard.rate_taken("192.0.2.9", self.reactor.seconds())
            for n in (1, 2)
        ]
        self.assertGreater(min(taken), 280)

    def test_new_worker_learns_counts(self) -> None:
        """A worker that replaces another one knows the connections of the others."""
        for _ in range(5):
            self.connect(1, "192.0.2.1")
        self.kill(2)
        self.pump(0.3)
        self.assertEqual(self.worker(2).parts.guard.shares.strangers_at("192.0.2.1"), 5)

    def test_known_user_reaches_the_state(self) -> None:
        """A user who logs in at one worker is known in the other one, and in the supervising process."""
        self.worker(1).parts.guard.failures.succeeded("192.0.2.9", b"alice", 0)
        self.pump(0.1)
        for guard in (self.worker(2).parts.guard, self.parts.guard):
            self.assertTrue(guard.failures.is_known("192.0.2.9", b"alice"))

    def test_state_that_is_loaded_late(self) -> None:
        """When the state file is loaded after the start, all workers get its keys, and count together as before."""
        self.parts.guard.failures.restart(b"k" * 32)
        self.patch(self.parts.state, "secret", lambda _: b"k" * 32)
        self.parts.guard.failures.succeeded("192.0.2.9", b"alice", 0)
        self.parts.state.on_load()
        self.pump(0.2)
        self.assertTrue(self.worker(1).parts.guard.failures.is_known("192.0.2.9", b"alice"))

    def test_malformed_report(self) -> None:
        """A report that is none is an error of its message."""
        with self.assertRaises(BadMessage):
            self.worker(1).received(Shared("worker 2 1", b"nonsense"))

    def test_report_of_another(self) -> None:
        """A malformed report of a worker reaches no other, and whatever name it tells, its own one counts."""
        self.connect(1)
        self.pump(0.1)
        sent: list[Any] = []
        self.patch(self.worker(1)._exchange, "merge", sent.append)
        link = self.processes[1].link
        link.send(Shared("worker 2 1", b"nonsense"))
        self.worker(2).parts.guard.shares.connect("192.0.2.2")
        report = self.worker(2)._exchange.shared.take_report(1.0)
        assert report is not None
        link.send(Shared("worker 1 1", report.encode()))
        self.pump()
        self.assertEqual(len(self.flushLoggedErrors(BadMessage)), 1)
        self.assertEqual(sent, [Shared("worker 2 1", report.encode())])
        self.assertEqual(self.parts.guard.shares.strangers_at("192.0.2.1"), 1)

    def test_bans_of_a_new_worker_are_no_news(self) -> None:
        """A worker that starts late takes over bans as they are, and no ban is announced or changed again."""
        self.ask("ban", network="192.0.2.7")
        before = {n: self.parts.guard.bans.get(n) for n in self.parts.guard.bans}
        announced: list[Any] = []
        self.patch(self.parts.factory.shared.admission, "on_ban", announced.append)
        self.kill(2)
        self.reactor.advance(0)
        self.reactor.advance(5)  # it loads
        self.pump(2)
        self.assertEqual({n: self.parts.guard.bans.get(n) for n in before}, before)
        (ban,), (own,) = before.values(), self.worker(2).parts.guard.bans.active(7.0)
        self.assertAlmostEqual(ban.until, own.until, delta=0.01)
        self.assertEqual(announced, [])

    def test_worker_that_does_not_read(self) -> None:
        """Reports to a worker that does not read are left out; when it reads again, it learns all counts and bans."""
        ours = self.processes[1].ours
        ours.dataBuffer = bytes(MAX_UNSENT + 1)

        def happens() -> None:
            self.connect(1)
            self.ask("ban", network="192.0.2.7")
            self.pump(1.1)

        (line,) = [line for line in self.lines(happens) if "does not read" in line]
        self.assertTrue(line.startswith("worker 2 "))
        guard = self.worker(2).parts.guard
        self.assertEqual((guard.shares.strangers_at("192.0.2.1"), len(guard.bans)), (0, 0))
        ours.dataBuffer = bytes(MAX_UNSENT // 4 + 1)
        self.pump(1.1)
        self.assertEqual(guard.shares.strangers_at("192.0.2.1"), 0)
        ours.dataBuffer = b""
        self.pump(1.2)
        self.assertEqual((guard.shares.strangers_at("192.0.2.1"), len(guard.bans)), (1, 1))

    def test_supervising_process_that_does_not_read(self) -> None:
        """A worker keeps its reports for later while the supervising process does not read."""
        theirs = self.processes[0].theirs
        theirs.dataBuffer = bytes(MAX_UNSENT + 1)
        self.connect(1)
        self.pump(0.5)
        self.assertEqual(self.parts.guard.shares.strangers_at("192.0.2.1"), 0)
        theirs.dataBuffer = b""
        self.pump(0.1)
        self.assertEqual(self.parts.guard.shares.strangers_at("192.0.2.1"), 1)

    def test_advice_sees_all_workers(self) -> None:
        """What is advised about connections of a user is about those of all workers."""
        shares: Any = self.worker(1).parts.guard.shares
        for _ in range(3):
            connection, _, _ = shares.connect("192.0.2.1")
            shares.login(connection, "alice")
        self.pump(0.2)
        self.assertEqual(self.parts.guard.shares.held_by("alice"), 3)

    def test_new_worker_knows_failed_logins(self) -> None:
        """A worker that replaces another one knows the failed logins, violations and rates of the time before."""
        connection = Connection("192.0.2.7", networks_of("192.0.2.7"))
        for n in range(9):
            self.admission(1).login_failed(connection, b"alice", b"secret%d" % n)
        self.admission(2).guard.violation(connection, "backlog", self.reactor.seconds())
        for _ in range(20):
            self.connect(1, "192.0.2.7").transport.abortConnection()
        self.pump(0.1)
        self.kill(2)
        self.pump(0.3)
        guard, now = self.worker(2).parts.guard, self.reactor.seconds()
        self.assertEqual(guard.failures.pairs_of("192.0.2.7", now), 9)
        self.assertEqual(guard.bans.violations("192.0.2.7", now), 1)
        self.assertGreater(guard.rate_taken("192.0.2.7", now), 15)
        self.admission(2).login_failed(connection, b"alice", b"the tenth")
        self.pump(0.1)
        self.assertEqual([ban["reason"] for ban in self.ask("bans")], ["max_failed_pairs"])

    def test_worker_that_has_not_read_learns_failed_logins(self) -> None:
        """A worker that reads again after some time learns the failed logins of this time, too."""
        connection = Connection("192.0.2.7", networks_of("192.0.2.7"))
        self.processes[1].ours.dataBuffer = bytes(MAX_UNSENT + 1)
        self.admission(1).login_failed(connection, b"alice", b"secret")
        self.pump(0.1)
        failures = self.worker(2).parts.guard.failures
        self.assertEqual(failures.pairs_of("192.0.2.7", self.reactor.seconds()), 0)
        self.processes[1].ours.dataBuffer = b""
        self.pump(1.2)
        self.assertEqual(failures.pairs_of("192.0.2.7", self.reactor.seconds()), 1)


class GuardRedisTests(ClusterTestCase):
    """The server shares its guard with others through Redis, to which only the supervising process talks."""

    @property
    def options(self) -> tuple[str, ...]:  # type: ignore[override]
        secret = self.mktemp()
        with open(secret, "w") as file:
            file.write("0123456789abcdef")
        return "--guard-redis", "redis://127.0.0.1:1", "--guard-secret", secret

    def setUp(self) -> None:
        for name in ("start", "stop"):
            self.patch(RedisLink, name, lambda _: None)
        self.patch(RedisLink, "send", lambda _, data, rates: self.send(data, rates))
        self.messages = SignedMessages(derived_key(b"0123456789abcdef", b"messages"))
        super().setUp()
        self.exchange = self.parts.sharing.exchange
        self.parts.sharing.link.is_ready = True
        self.other = ProcessGuard(Limits(), key=derived_key(b"0123456789abcdef", b"failures"))
        self.shared = SharedGuard(self.other, "other")
        self.pump(0.3)

    def send(self, data: bytes, rates: Any) -> Any:
        """Take the place of Redis: the others have taken 7 of each rate."""
        content = self.messages.decode(data).content
        if isinstance(content, GuardReport):
            self.shared.merge_report("this", content, self.reactor.seconds())
        return succeed([7.0 + each.amount for each in rates])

    def tell(self) -> None:
        """Have the other server tell what is new."""
        report = self.shared.take_report(self.reactor.seconds())
        assert report is not None
        self.exchange.message(self.messages.encode(Signed("other", report)))
        self.pump(0.1)

    def test_names(self) -> None:
        """No worker of another server has the name of one here, so no two count the same excess of SCRAM logins."""
        for number in (1, 2):
            name = self.worker(number)._start.member
            self.assertEqual(name, f"worker {number} 1 {self.parts.sharing.shared.name}")

    def test_both_directions(self) -> None:
        """Bans, connections and failed logins in the workers reach other servers, and theirs reach the workers."""
        self.assertIsNone(self.worker(1).parts.sharing)
        self.connect(1)
        self.connect(2)
        connection = Connection("192.0.2.7", networks_of("192.0.2.7"))
        for n in range(9):
            admission = self.worker(1 + n % 2).parts.factory.shared.admission
            admission.login_failed(connection, b"alice", b"secret%d" % n)
        self.pump(0.5)
        self.assertEqual(self.other.shares.strangers_at("192.0.2.1"), 2)
        now = self.reactor.seconds()
        self.assertEqual(self.other.failures.pairs_of("192.0.2.7", now), 9)

        self.other.failures.failed("192.0.2.7", b"alice", b"the tenth", now)
        self.other.connect("192.0.2.1", now)
        self.tell()
        for number in (1, 2):
            guard = self.worker(number).parts.guard
            self.assertEqual(guard.shares.strangers_at("192.0.2.1"), 3)
            self.assertIsNotNone(guard.bans.banned("192.0.2.7", now))
        self.assertEqual(self.ask("status")["guard_redis"]["others"], ["other"])

    def test_much_to_tell(self) -> None:
        """What does not fit into one report is told at once, in a few more; the rest with the next ones."""
        for module in (shared_guard, guard_report):
            self.patch(module, "MAX_ENTRIES", 2)
        now = self.reactor.seconds()
        for host in range(1, 12):
            self.other.connect(f"192.0.2.{host}", now)
        for _ in range(6):
            report = self.shared.take_report(now)
            assert report is not None
            self.exchange.message(self.messages.encode(Signed("other", report)))
        remote, wide = self.worker(1).parts.guard.shares.remote, networks_of("192.0.2.1")[1]
        assert remote is not None
        self.pump(0.05)
        self.assertEqual(remote.networks[wide], 8)
        self.pump(0.05)
        self.assertEqual(remote.networks[wide], 11)

    def test_rates_of_all(self) -> None:
        """What all servers have taken of a rate counts in each worker."""
        self.connect(1, "192.0.2.9")
        self.pump(0.5)
        for number in (1, 2):
            guard = self.worker(number).parts.guard
            self.assertGreater(guard.rate_taken("192.0.2.9", self.reactor.seconds()), 5)

    def test_ban_by_the_operator_of_another(self) -> None:
        """It resets the connections without a login in all workers, as every ban does, and its end reaches them."""
        factories = [self.worker(number).parts.factory for number in (1, 2)]
        for number in (1, 2):
            self.connect(number)
            self.connect(number, "192.0.2.2")
        self.other.bans.ban("192.0.2.1", "operator", self.reactor.seconds())
        self.other.bans.ban("192.0.2.3", "backlog", self.reactor.seconds())
        self.tell()
        self.assertEqual([len(each.connections) for each in factories], [1, 1])
        self.other.bans.unban("192.0.2.0/24")
        self.tell()
        self.assertEqual([len(self.worker(n).parts.guard.bans) for n in (1, 2)], [0, 0])

    def test_replaced_worker(self) -> None:
        """A worker that is replaced knows the bans and connections of other servers."""
        now = self.reactor.seconds()
        self.other.bans.ban("192.0.2.7", "backlog", now)
        self.other.connect("192.0.2.1", now)
        self.tell()
        self.kill(1)
        self.pump(0.5)
        guard = self.worker(1).parts.guard
        self.assertIsNotNone(guard.bans.banned("192.0.2.7", now))
        self.assertEqual(guard.shares.strangers_at("192.0.2.1"), 1)
        self.pump(6)  # the other server says nothing any more
        self.assertEqual(guard.shares.strangers_at("192.0.2.1"), 0)
