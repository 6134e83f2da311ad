"""The workers of several servers decide nearly like one guard, through the process of each server that shares it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imapshield.guard import bans as bans_module
from imapshield.guard import shared_guard
from imapshield.guard.guard_relay import GuardRelay
from imapshield.guard.guard_report import RateTaken, network_bytes
from imapshield.guard.networks import networks_of
from imapshield.guard.process_guard import ProcessGuard
from imapshield.guard.shared_guard import SharedGuard
from imapshield.limits import Limits
from tests.guard.shared_guard_case import ADDRESS, OTHER, Member, exchange

NETWORK = networks_of(ADDRESS)[0]


class Server:
    """A server with two workers."""

    def __init__(self, name: str, limits: Limits) -> None:
        self.guard = ProcessGuard(limits, key=b"key")
        self.name = name
        self.outer = SharedGuard(self.guard, name)
        self.inner = SharedGuard(self.guard, "supervisor")
        GuardRelay(self.inner, self.outer)
        self.workers = [Member(f"worker {n} {name}", limits) for n in (1, 2)]

    def share(self, now: float) -> bool:
        """Have workers and supervising process tell each other what is new; return whether there was anything."""
        told = [("supervisor", self.inner), *((each.name, each.shared) for each in self.workers)]
        reports = [(name, shared, shared.take_report(now, always=False)) for name, shared in told]
        for name, teller, report in reports:
            for _, shared in told:
                if report is not None and shared is not teller:
                    shared.merge_report(name, report, now)
        return any(report for _, _, report in reports)


class RelayTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.start()

    def start(self, **limits: float) -> None:
        chosen = Limits(**limits)  # type: ignore[arg-type]
        self.servers = [Server(name, chosen) for name in ("a", "b")]
        self.servers[1].outer.clock_offset = self.servers[0].outer.clock_offset = 1000.0
        (self.a1, self.a2), (self.b1, self.b2) = (each.workers for each in self.servers)
        self.workers = [self.a1, self.a2, self.b1, self.b2]
        self.share()

    def share(self, now: float = 0.0) -> None:
        """Everybody tells everything."""
        a, b = self.servers
        for _ in range(20):
            is_news = a.share(now) | b.share(now)
            for teller, listener in ((a, b), (b, a)):
                report = teller.outer.take_report(now, always=False)
                if report is not None:
                    is_news = True
                    listener.outer.merge_report(teller.name, report._replace(rates=()), now)
            if not is_news:
                return
        self.fail("they never end to tell each other what they know")

    def strangers(self) -> list[int]:
        return [each.guard.shares.strangers_at(ADDRESS) for each in self.workers]

    def test_connections_are_those_of_all_workers(self) -> None:
        """Each worker counts the connections in all workers of all servers, and what ends."""
        held = [worker.connect() for worker in self.workers for _ in range(2)]
        alice = self.a1.login("alice", OTHER)
        self.share()
        self.assertEqual(self.strangers(), [8] * 4)
        users = [each.guard.shares.held_by("alice") for each in self.workers]
        self.assertEqual(users, [1] * 4)
        self.assertEqual(self.servers[0].guard.shares.strangers_at(ADDRESS), 8)
        self.a1.guard.close(held[0])
        self.a1.guard.close(alice)
        self.share()
        self.assertEqual(self.strangers(), [7] * 4)
        self.assertEqual(self.b2.guard.shares.held_by("alice"), 0)

    def test_a_worker_that_ends(self) -> None:
        """The connections of a worker that has ended count nowhere; one that starts learns all others."""
        for worker in self.workers:
            worker.connect()
        self.share()
        a = self.servers[0]
        for shared in (a.inner, self.a2.shared):
            shared.forget_member(self.a1.name)
        new = a.workers[0] = self.a1 = Member("worker 1 again")
        self.workers[0] = new
        self.a2.shared.tell_all()
        a.inner.tell_all()
        self.share()
        self.assertEqual(self.strangers(), [3] * 4)

    def test_a_server_that_ends(self) -> None:
        """The connections of a server that is silent count for no worker of the others, until it tells them again."""
        for worker in self.workers:
            worker.login("alice")
        self.b1.connect()
        self.share()
        a, b = self.servers
        a.outer.forget_member("b")
        self.share()
        self.assertEqual(self.strangers(), [0, 0, 1, 1])
        self.assertEqual(self.a1.guard.shares.held_by("alice"), 2)
        b.outer.tell_all()
        self.share()
        self.assertEqual(self.strangers(), [1] * 4)
        self.assertEqual(self.a1.guard.shares.held_by("alice"), 4)

    def test_many_connections_are_told_in_several_reports(self) -> None:
        """More addresses than fit in a report reach all workers, also when they are told again."""
        self.patch(shared_guard, "MAX_ENTRIES", 3)
        for host in range(1, 9):
            self.a1.connect(f"192.0.2.{host}")
        self.share()
        for server in self.servers:
            server.inner.tell_all()
        self.share()
        wide = networks_of(ADDRESS)[1]
        for worker in (self.a2, self.b1):
            remote = worker.guard.shares.remote
            assert remote is not None
            self.assertEqual(remote.networks[wide], 8)

    def test_logins_to_the_status_page(self) -> None:
        """The process of the status page tells its workers and all other servers of wrong passwords there."""
        a = self.servers[0]
        for number in range(9):
            a.guard.failures.failed(ADDRESS, b"\0admin", b"wrong %d" % number, 0.0)
        a.guard.failures.succeeded(OTHER, b"admin", 0.0)
        self.share()
        for worker in self.workers:
            reached = worker.guard.failures.failed(ADDRESS, b"alice", b"guess", 0.0).banned_for
            self.assertIsNotNone(reached)

    def test_what_the_process_between_counts(self) -> None:
        """Rates, guesses and violations that it counts itself reach its workers and all other servers, once."""
        guard = self.servers[0].guard
        connection = guard.connect(ADDRESS, 0.0).connection
        assert connection is not None
        guard.begin_login(connection, b"bob", 0.0)
        guard.violation(connection, "backlog", 0.0)
        report = self.servers[0].outer.take_report(0.0)
        assert report is not None
        kinds = {"connections", "guesses", "guesses of users"}
        self.assertEqual({each.kind for each in report.rates}, kinds)
        self.servers[1].outer.merge_report("a", report._replace(rates=()), 0.0)
        self.share()
        self.assertEqual(
            [each.guard.rate_taken(ADDRESS, 0.0) for each in (self.a1, self.a2)], [1, 1]
        )
        self.assertEqual(len(self.a1.guard.failures.guess_rates.users), 1)
        for worker in self.workers:
            self.assertEqual(worker.guard.bans.violations(ADDRESS, 0.0), 1)

    def test_bans_and_their_ends(self) -> None:
        """A ban in one worker applies in all, and so does its end; a later ban and its end, too."""
        for number in (1, 2, 3):
            self.a1.guard.bans.ban(ADDRESS, "backlog", number, seconds=100.0)
            self.share(number)
            for worker in self.workers:
                self.assertIsNotNone(worker.guard.bans.banned(ADDRESS, number), number)
            self.servers[1].guard.bans.unban(ADDRESS)
            self.share(number + 0.5)
            for worker in self.workers:
                self.assertIsNone(worker.guard.bans.banned(ADDRESS, number), number)

    def test_an_end_is_not_undone_by_whoever_learns_it_late(self) -> None:
        """A worker that has missed the end of a ban, and tells its bans again, brings it back nowhere."""
        self.a1.guard.bans.ban(ADDRESS, "backlog", 0.0, seconds=100.0)
        self.share()
        self.servers[1].guard.bans.unban(ADDRESS)
        late = self.servers[0].workers.pop()
        self.share(1.0)
        late.shared.tell_all()
        self.servers[0].workers.append(late)
        self.share(2.0)
        self.share(3.0)
        for worker in (self.a1, self.b1, self.b2):
            self.assertIsNone(worker.guard.bans.banned(ADDRESS, 3.0))

    def test_what_is_known_is_not_told_again(self) -> None:
        """Workers that tell all their bans again, after one has started, cause no report to other servers."""
        self.a1.guard.bans.ban(ADDRESS, "backlog", 0.0, seconds=100.0)
        self.share()
        for worker in self.workers:
            worker.shared.tell_all()
        self.servers[0].share(1.0)
        self.assertIsNone(self.servers[0].outer.take_report(1.0, always=False))

    def test_failed_logins_of_all_workers_ban(self) -> None:
        """Ten wrong passwords at four workers ban the address in all of them; a password that is repeated counts once."""
        for n in range(10):
            connection = self.workers[n % 4].connect(OTHER)
            for _ in range(2):
                self.workers[n % 4].guard.login_failed(connection, b"bob", b"%d" % n, 0.0)
            pairs = {each.guard.failures.pairs_of(OTHER, 0.0) for each in self.workers}
            self.share()
            self.assertLess(max(pairs), 10)
        for worker in self.workers:
            ban = worker.guard.bans.banned(OTHER, 0.0)
            assert ban is not None
            self.assertEqual(ban.reason, "max_failed_pairs")

    def test_logins_and_violations(self) -> None:
        """A user who has logged in at one worker is known at all, and violations count together."""
        self.a1.login("alice")
        connection = self.b2.connect(OTHER)
        self.b2.guard.violation(connection, "backlog", 0.0)
        self.b2.guard.violation(connection, "backlog", 0.0)
        self.share()
        for worker in self.workers:
            self.assertTrue(worker.guard.failures.is_known(ADDRESS, b"alice"))
            self.assertEqual(worker.guard.bans.violations(OTHER, 0.0), 2)

    def test_rates_are_told_as_sums(self) -> None:
        """What workers have taken is told to the other servers as one amount; what these have taken, to each worker."""
        self.a1.connect()
        self.a2.connect()
        self.a1.guard.begin_login(self.a1.connect(OTHER), b"bob", 0.0)
        a = self.servers[0]
        a.share(0.0)
        report = a.outer.take_report(0.0)
        assert report is not None
        taken = {(each.kind, each.key): each.amount for each in report.rates}
        self.assertEqual(taken["connections", network_bytes(NETWORK)], 2.0)
        self.assertEqual(
            {kind for kind, _ in taken}, {"connections", "guesses", "guesses of users"}
        )

        self.a1.connect()  # is not among those 20
        total = RateTaken("connections", network_bytes(NETWORK), 20.0)
        self.assertEqual(a.outer.set_taken(total, 0.0).amount, 20.0)
        self.assertEqual(self.a1.shared.set_taken(total, 0.0).amount, 21.0)
        self.assertAlmostEqual(self.a1.guard.rate_taken(ADDRESS, 0.0), 21.0)
        a.share(0.0)
        self.assertAlmostEqual(a.guard.rate_taken(ADDRESS, 0.0), 21.0)
        self.assertEqual(a.outer.set_taken(total, 0.0).amount, 21.0)
        less = total._replace(amount=-5.0)
        self.assertEqual(a.outer.set_taken(less, 0.0).amount, 0.0)

    def test_users_who_are_known(self) -> None:
        """Known users are told to the servers on request, and not to the own workers."""
        self.a1.login("alice")
        self.share()
        a = self.servers[0]
        a.outer.tell_all(0.0)
        outer, inner = a.outer.take_report(0.0), a.inner.take_report(0.0)
        assert outer is not None and inner is not None
        self.assertEqual((len(outer.logins), inner.logins), (1, ()))


class CountedTests(SynchronousTestCase):
    """A process that starts knows what the others have counted."""

    def setUp(self) -> None:
        self.old, self.new = Member("old"), Member("new")

    def copy(self) -> None:
        self.new.guard.merge_counted(self.old.guard.counted())
        for taken in self.old.shared.rates_taken(10, 5.0):
            self.new.shared.set_taken(taken, 5.0)

    def test_failed_logins(self) -> None:
        """It knows the failed logins, so a repeated one counts no more, and the tenth bans."""
        connection = self.old.connect()
        for n in range(9):
            self.old.guard.login_failed(connection, b"bob", b"%d" % n, 5.0)
        again = self.new.connect()
        self.new.guard.login_failed(again, b"bob", b"own", 5.0)
        self.new.guard.login_failed(again, b"bob", b"3", 5.0)
        self.copy()
        pairs = self.new.guard.failures.pairs_of(ADDRESS, 5.0)
        self.assertEqual(pairs, 10)
        self.copy()
        self.assertEqual(self.new.guard.failures.pairs_of(ADDRESS, 5.0), 10)
        self.assertIsNotNone(self.new.guard.login_failed(again, b"bob", b"3", 6.0)[1])

    def test_failed_logins_of_a_known_user(self) -> None:
        """The free pairs of a known user, and those of networks and users, are known, too."""
        for member in (self.old, self.new):
            member.login("alice")
        self.old.guard.login_failed(self.old.connect(), b"alice", b"old", 5.0)
        self.copy()
        failed, _ = self.new.guard.login_failed(self.new.connect(), b"alice", b"old", 6.0)
        self.assertTrue(failed.repeated)

    def test_violations(self) -> None:
        """It counts violations on from those of all, and each once."""
        connection = self.old.connect()
        most = Limits().max_limit_violations
        for _ in range(most - 2):
            self.old.guard.violation(connection, "backlog", 5.0)
        own = self.new.connect()
        self.new.guard.violation(own, "backlog", 5.0)
        self.copy()
        bans = self.new.guard.bans
        self.assertEqual(bans.violations(ADDRESS, 5.0), most - 1)
        self.copy()
        self.assertEqual(bans.violations(ADDRESS, 5.0), most - 1)
        self.assertIsNotNone(self.new.guard.violation(own, "backlog", 5.0)[1])

    def test_rates(self) -> None:
        """It knows the rates of which most was taken."""
        for _ in range(3):
            self.old.connect(now=5.0)
        self.old.connect(OTHER, now=5.0)
        self.old.guard.failures.failed(ADDRESS, b"bob", None, 5.0)
        self.old.guard.begin_login(self.old.connect(OTHER, now=5.0), b"bob", 5.0)
        self.copy()
        for address in (ADDRESS, OTHER):
            taken = [each.guard.rate_taken(address, 5.0) for each in (self.old, self.new)]
            self.assertAlmostEqual(*taken)
        self.assertEqual(len(self.new.guard.failures.scram_rate), 1)
        self.assertEqual(len(self.new.guard.failures.guess_rates.users), 1)
        ((network, most),) = self.old.guard.rate_of(NETWORK).most_taken(1, 5.0)
        self.assertEqual((network, round(most)), (NETWORK, 3))
        self.assertEqual(self.old.guard.rate_of(NETWORK).most_taken(5, 1e6), [])


class NewsTests(SynchronousTestCase):
    def test_bans_that_wait_are_bounded(self) -> None:
        """While nobody can be told, the networks that wait are bounded, and those banned now are told later."""
        self.patch(bans_module, "MAX_NEWS", 3)
        one, two = Member("one"), Member("two")
        for host in range(1, 6):
            one.guard.bans.ban(f"192.0.2.{host}", "backlog", 0.0)
        self.assertEqual(len(one.report().bans), 3)
        one.shared.tell_all()
        exchange(one, two)
        self.assertEqual(len(two.guard.bans), 5)

    def test_a_second_end_is_told(self) -> None:
        """A ban that is ended by hand, made again, and ended again, ends everywhere."""
        one, two = Member("one"), Member("two")
        for now in (1.0, 2.0):
            one.guard.bans.ban(ADDRESS, "backlog", now)
            exchange(one, two, now=now)
            self.assertIsNotNone(two.guard.bans.banned(ADDRESS, now))
            one.guard.bans.unban(ADDRESS)
            exchange(one, two, now=now + 0.5)
            self.assertIsNone(two.guard.bans.banned(ADDRESS, now + 0.5))
