"""Rates, bans and failed logins of all connections together. Trusted networks have shares only."""

from twisted.trial.unittest import SynchronousTestCase

from imapshield.guard import refused_connections
from imapshield.guard.guess_rates import Guess
from imapshield.guard.networks import NetworkSet
from imapshield.guard.process_guard import BANNED, RATE_PACE, VIOLATION_PACE, ProcessGuard
from imapshield.guard.shares import Connection
from imapshield.limits import LimitReached, Limits

ADDRESS, OTHER = "192.0.2.1", "198.51.100.1"


def connect(guard: ProcessGuard, address: str = ADDRESS, now: float = 0.0) -> Connection:
    connection = guard.connect(address, now).connection
    assert connection is not None
    return connection


class RateTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.guard = ProcessGuard(
            Limits(connections_per_minute=6), NetworkSet.parse(["127.0.0.0/8"])
        )

    def test_connections_without_a_login_have_a_rate(self) -> None:
        """An address above its rate is refused, and admitted again when time has passed."""
        for _ in range(6):
            self.guard.close(connect(self.guard))
        refused = self.guard.connect(ADDRESS, 0.0)
        assert refused.reached is not None
        self.assertEqual(
            (refused.connection, refused.reached.limit), (None, "connections_per_minute")
        )
        connect(self.guard, OTHER)
        connect(self.guard, now=10.0)

    def test_a_login_gives_its_connection_back(self) -> None:
        """A webmail host opens any number of connections that log in."""
        for i in range(1000):
            connection = connect(self.guard)
            self.assertEqual(
                self.guard.login(connection, f"user{i % 50}", b"user", 0.0), ([], None)
            )
            self.guard.close(connection)

    def test_a_trusted_network_has_no_rate(self) -> None:
        """A trusted network has no rate."""
        for _ in range(100):
            self.guard.close(connect(self.guard, "127.0.0.5"))

    def test_one_login_gives_one_connection_back(self) -> None:
        """A client that logs in and out in a loop (UNAUTHENTICATE) gives its connection back once."""
        for i in range(6):
            connection = connect(self.guard)
            for _ in range(5 if i == 0 else 0):
                self.guard.login(connection, "alice", b"alice", 0.0)
                self.guard.logout(connection)
            self.guard.close(connection)
        self.guard.close(connect(self.guard))
        self.assertIsNone(self.guard.connect(ADDRESS, 0.0).connection)

    def test_report_only_does_not_pace(self) -> None:
        """If the rate is only reported, trusted addresses are not paced."""
        limits = Limits(connections_per_minute=6, report_only=True)
        guard = ProcessGuard(limits, NetworkSet.parse(["127.0.0.0/8"]))
        for _ in range(10):
            self.assertIsNone(guard.connect("127.0.0.5", 0.0).reached)
        self.assertEqual(guard.pace("127.0.0.5", 0.0), 0)

    def test_an_ended_probation_does_not_make_the_next_slower(self) -> None:
        """A probation that has ended does not count for the pace of the next."""
        connection = connect(self.guard, "127.0.0.5")
        self.guard.violation(connection, "backlog", 0.0)
        self.assertEqual(self.guard.pace("127.0.0.5", 1.0), VIOLATION_PACE)
        for _ in range(8):
            self.guard.close(connect(self.guard, "127.0.0.5", 1000.0))
        self.assertEqual(self.guard.pace("127.0.0.5", 1000.0), RATE_PACE)

    def test_a_trusted_address_above_the_rate_is_paced(self) -> None:
        """A trusted address above the rate is not refused, but its connections are begun at a pace for some seconds."""
        for _ in range(7):
            self.assertEqual(self.guard.pace("127.0.0.5", 0.0), 0)
            self.guard.close(connect(self.guard, "127.0.0.5"))
        self.assertEqual(self.guard.pace("127.0.0.5", 0.0), RATE_PACE)
        self.assertEqual(self.guard.pace("127.0.0.6", 0.0), 0)
        self.assertEqual(self.guard.pace("127.0.0.5", 11.0), 0)

    def test_a_network_has_a_rate(self) -> None:
        """A /26 has the rate of three addresses, and what it refuses is not taken from the address."""
        for i in range(18):
            self.guard.close(connect(self.guard, f"192.0.2.{i}"))
        self.assertIsNone(self.guard.connect("192.0.2.40", 0.0).connection)
        for _ in range(3):
            self.guard.close(connect(self.guard, "192.0.2.41", 10.0))

    def test_a_burst_does_not_ban(self) -> None:
        """An office whose clients all connect at once is refused for a moment, but not banned."""
        for _ in range(500):
            arrival = self.guard.connect(ADDRESS, 0.0)
            if arrival.connection:
                self.guard.close(arrival.connection)
        connect(self.guard, now=30.0)

    def test_a_permanent_flood_bans(self) -> None:
        """An address that exceeds its rate for a minute and more is banned, and its refusals are silent."""
        bans = reports = 0
        for i in range(20_000):
            arrival = self.guard.connect(ADDRESS, i * 0.01)
            if arrival.connection:
                self.guard.close(arrival.connection)
            bans += arrival.ban is not None and not arrival.silent
            reports += arrival.reached is not None and not arrival.silent
        self.assertEqual((bans, reports), (1, 10))
        self.assertIsNone(self.guard.connect(ADDRESS, 201.0).connection)
        connect(self.guard, OTHER, 201.0)
        connect(self.guard, ADDRESS, 1000.0)


class BanTests(SynchronousTestCase):
    def test_violations_ban(self) -> None:
        """Ten connections that exceed a limit which correct clients do not reach ban their address."""
        guard = ProcessGuard(Limits())
        bans = []
        for i in range(10):
            connection = connect(guard, now=float(i))
            bans.append(guard.violation(connection, "backlog", float(i))[1])
            guard.close(connection)
        self.assertEqual([ban is not None for ban in bans], [False] * 9 + [True])
        self.assertTrue(guard.connect(ADDRESS, 10.0).silent)

    def test_limits_that_honest_clients_reach_do_not_ban(self) -> None:
        """Time-outs, invalid commands, users with a login and trusted networks do not ban."""
        guard = ProcessGuard(Limits(), NetworkSet.parse([OTHER]))
        for i in range(30):
            for address, limit in (
                (ADDRESS, "preauth_seconds"),
                (ADDRESS, "preauth_bad_commands"),
                (OTHER, "backlog"),
            ):
                connection = connect(guard, address, i * 60.0)
                self.assertEqual(guard.violation(connection, limit, i * 60.0), (None, None))
                guard.close(connection)
            connection = connect(guard, ADDRESS, i * 60.0)
            guard.login(connection, "alice", b"alice", i * 60.0)
            self.assertEqual(guard.violation(connection, "backlog", i * 60.0), (None, None))
            guard.close(connection)

    def test_a_guesser_is_banned(self) -> None:
        """The tenth pair of user and password bans the address, and its connections without a login are known."""
        guard = ProcessGuard(Limits())
        connection, user = connect(guard), connect(guard)
        guard.login(user, "alice", b"alice", 0.0)
        results = [guard.login_failed(connection, b"bob", b"%d" % i, 0.0) for i in range(10)]
        self.assertEqual([ban is not None for _, ban in results], [False] * 9 + [True])
        ban = results[-1][1]
        assert ban is not None
        self.assertEqual(list(guard.strangers_of([ban.network])), [connection])

    def test_a_shared_address_is_banned_for_strangers_only(self) -> None:
        """An address from which five users have logged in can still be used by them during its ban, but by no others."""
        guard = ProcessGuard(Limits())
        for i in range(5):
            guard.login(connect(guard), f"user{i}", b"user%d" % i, 0.0)
        guesser = connect(guard)
        self.assertIsNone(guard.refuse_login(guesser, b"bob", 0.0))
        for i in range(10):
            guard.login_failed(guesser, b"bob", b"%d" % i, 0.0)
        arrived = connect(guard)
        self.assertIsNone(guard.refuse_login(arrived, b"user0", 0.0))
        self.assertEqual(guard.refuse_login(arrived, b"bob", 0.0), BANNED)
        self.assertIsNone(guard.refuse_login(arrived, b"bob", 600.0))

    def test_a_flood_from_a_shared_address_does_not_ban_its_users(self) -> None:
        """Violations ban a shared address for strangers only."""
        guard = ProcessGuard(Limits())
        for i in range(5):
            guard.login(connect(guard), f"user{i}", b"user%d" % i, 0.0)
        bans = [guard.violation(connect(guard), "backlog", 0.0)[1] for _ in range(10)]
        self.assertTrue(bans[9] is not None and bans[9].strangers_only)
        self.assertIsNone(guard.refuse_login(connect(guard), b"user0", 0.0))

    def test_no_login_on_an_open_connection_of_a_banned_address(self) -> None:
        """A connection from before the ban that has not been reset cannot log in; one of a trusted network can."""
        guard = ProcessGuard(Limits(), NetworkSet.parse([OTHER]))
        connection, trusted = connect(guard), connect(guard, OTHER)
        for address in (ADDRESS, OTHER):
            guard.bans.ban(address, "by hand", 0.0)
        self.assertEqual(guard.refuse_login(connection, b"alice", 0.0), BANNED)
        self.assertIsNone(guard.refuse_login(trusted, b"alice", 0.0))

    def test_trusted_networks_are_not_banned(self) -> None:
        """A guesser of a trusted network is neither delayed nor banned."""
        guard = ProcessGuard(Limits(), NetworkSet.parse([ADDRESS]))
        connection = connect(guard)
        for i in range(50):
            failed, ban = guard.login_failed(connection, b"bob", b"%d" % i, 0.0)
            self.assertEqual((failed.delay, ban), (0.0, None))

    def test_report_only_counts_violations(self) -> None:
        """What would ban is reported at the tenth violation. A limit that is itself report-only does not count."""
        for limits, expected in (
            (Limits(report_only=True), True),
            (Limits(report_only_limits=frozenset({"max_limit_violations"})), True),
            (Limits(report_only=True, report_only_limits=frozenset({"backlog"})), False),
        ):
            guard = ProcessGuard(limits)
            results = [guard.violation(connect(guard), "backlog", 0.0) for _ in range(10)]
            reached = LimitReached("max_limit_violations", 10, 10) if expected else None
            self.assertEqual(results, [(None, None)] * 9 + [(reached, None)])
            self.assertIsNone(guard.bans.banned(ADDRESS, 0.0))

    def test_report_only_counts_connections_above_the_rate(self) -> None:
        """Connections above the rate that would ban are reported, at the pace at which they would count."""
        guard = ProcessGuard(Limits(report_only=True, connections_per_minute=1))
        arrivals = [guard.connect(ADDRESS, i * 6.0) for i in range(20)]
        arrivals += [guard.connect(ADDRESS, 120.0) for _ in range(9)]
        reached = [arrival.violations for arrival in arrivals if arrival.violations]
        self.assertEqual(reached, [LimitReached("max_limit_violations", 10, 10)])
        self.assertTrue(all(arrival.connection for arrival in arrivals))

    def test_refused_connections_are_counted(self) -> None:
        """The connections that bans refuse are counted for each network, and taken out once, the largest first."""
        self.patch(refused_connections, "MAX_REFUSED", 1)
        guard = ProcessGuard(Limits())
        for address in (ADDRESS, "2001:db8::1"):
            guard.bans.ban(address, "backlog", 0.0)
        for address in (ADDRESS, "2001:db8::1", ADDRESS, "2001:db8::2", ADDRESS):
            self.assertTrue(guard.connect(address, 100.0).silent)
        self.assertEqual(
            guard.refused.take(guard.bans, 100.0), [("192.0.2.1/32", 3, 500.0), ("others", 2, 0.0)]
        )
        self.assertEqual(guard.refused.take(guard.bans, 700.0), [])

    def test_refused_connections_of_a_ban_that_has_ended(self) -> None:
        """Connections that were refused are reported with 0 seconds if the ban has ended since then."""
        guard = ProcessGuard(Limits())
        for address in (ADDRESS, OTHER):
            guard.bans.ban(address, "backlog", 0.0)
            guard.connect(address, 599.5)
        guard.bans.unban(OTHER)
        self.assertEqual(
            guard.refused.take(guard.bans, 601.0),
            [("192.0.2.1/32", 1, 0.0), (f"{OTHER}/32", 1, 0.0)],
        )

    def test_trusted_networks_have_no_rate_of_guesses(self) -> None:
        """Any number of guesses of a trusted network are looked at, and count for no user."""
        guard = ProcessGuard(Limits(), NetworkSet.parse([ADDRESS]))
        connection = connect(guard)
        for i in range(1000):
            self.assertIsNone(guard.begin_login(connection, b"bob", 0.0))
            guard.login_failed(connection, b"bob", b"%d" % i, 0.0)
        self.assertIsNone(guard.refuse_login(connect(guard, OTHER), b"bob", 0.0))

    def test_passwords_that_are_looked_at_have_a_rate(self) -> None:
        """Guesses that begin count at once, for the network and the user; `refuse_login` counts nothing."""
        guard = ProcessGuard(Limits(max_failed_pairs=2, max_login_checks=1))
        connection = connect(guard)
        for _ in range(100):
            self.assertIsNone(guard.refuse_login(connection, b"bob", 0.0))
        guesses = [guard.begin_login(connection, b"bob", 0.0) for _ in range(7)]
        reached = LimitReached("network_logins_per_minute", 3, 4)
        self.assertEqual(guard.begin_login(connection, b"bob", 0.0), reached)
        self.assertEqual(guard.refuse_login(connect(guard, "192.0.2.63"), b"x", 0.0), reached)
        self.assertIsNone(guard.refuse_login(connect(guard, "192.0.2.64"), b"x", 0.0))
        self.assertIsNone(guard.refuse_login(connection, b"x", 20.0))
        assert isinstance(guesses[0], Guess)
        guard.not_a_guess(guesses[0], 0.0)
        self.assertIsNone(guard.refuse_login(connection, b"x", 0.0))

    def test_a_user_has_a_rate_except_where_known(self) -> None:
        """When a user is guessed from everywhere, new addresses are refused, and no address where the user is known."""
        guard = ProcessGuard(Limits(max_failed_pairs=1, max_login_checks=1))
        guard.login(connect(guard), "bob", b"bob", 0.0)
        reached = LimitReached("user_logins_per_minute", 18, 19)
        for n in range(19):
            guard.login_failed(connect(guard, f"10.{n}.0.9"), b"x", b"%d" % n, 0.0)
            guard.begin_login(connect(guard, f"10.{n}.0.1"), b"bob", 0.0)
        self.assertEqual(guard.refuse_login(connect(guard, "10.0.0.2"), b"bob", 0.0), reached)
        for n in range(19):  # networks without a failed login have a rate of their own
            self.assertIsNotNone(guard.begin_login(connect(guard, f"11.{n}.0.1"), b"bob", 0.0))
        self.assertEqual(guard.refuse_login(connect(guard, OTHER), b"bob", 0.0), reached)
        self.assertIsNone(guard.refuse_login(connect(guard, OTHER), b"carol", 0.0))
        self.assertIsNone(guard.begin_login(connect(guard), b"bob", 0.0))

    def test_repetitions_of_a_trusted_network(self) -> None:
        """A stale password of a user behind a trusted webmail host is repeated, not one guess after the other."""
        guard = ProcessGuard(Limits(), NetworkSet.parse([ADDRESS]))
        connection = connect(guard)
        repeated = [
            guard.login_failed(connection, b"bob", secret, 0.0)[0].repeated
            for secret in (b"old", b"old", b"other", b"old", None, None)
        ]
        self.assertEqual(repeated, [False, True, False, True, False, True])

    def test_known_user_during_a_ban_for_strangers(self) -> None:
        """During a ban for strangers only, a known user who reaches the limit of pairs causes no ban and no report."""
        guard = ProcessGuard(Limits())
        for i in range(5):
            guard.login(connect(guard), f"user{i}", b"user%d" % i, 0.0)
        connection = connect(guard)
        guard.bans.ban(ADDRESS, "backlog", 0.0, strangers_only=True)
        for i in range(20):
            failed, ban = guard.login_failed(connection, b"user0", b"%d" % i, 0.0)
            self.assertEqual((failed.banned_for, ban), (None, None))

    def test_report_only(self) -> None:
        """In report-only mode nobody is banned or refused for a rate, which is reported."""
        guard = ProcessGuard(Limits(report_only=True, connections_per_minute=5))
        guard.bans.ban(ADDRESS, "restored from an earlier run", 0.0)
        connection = connect(guard)
        self.assertIsNone(guard.refuse_login(connection, b"bob", 0.0))
        for i in range(50):
            self.assertIsNone(guard.login_failed(connection, b"bob", b"%d" % i, 0.0)[1])
            self.assertIsNone(guard.violation(connection, "backlog", 0.0)[1])
        reached = [guard.connect(ADDRESS, 0.0) for _ in range(6)][-1]
        self.assertEqual(
            (reached.connection is not None, reached.reached is not None), (True, True)
        )
