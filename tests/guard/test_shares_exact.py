"""The exact numbers of the shares: at which connection each one applies, and what it reports."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imapshield.guard.networks import level_factor
from imapshield.guard.shares import Connection, ConnectionShares, files_for
from imapshield.guard.verdicts import LimitReached
from imapshield.limits import Limits


class ExactShareTests(SynchronousTestCase):
    def test_networks_have_multiples_of_the_share_of_an_address(self) -> None:
        """Each wider network has three times the share; one that an operator has written has that of an address."""
        levels = [(4, 32), (4, 26), (4, 21), (6, 64), (6, 56), (6, 48), (6, 32), (4, 8), (5, 64)]
        self.assertEqual(
            [level_factor((*level, 0)) for level in levels], [1, 3, 9, 1, 3, 9, 27, 1, 1]
        )

    def test_descriptors(self) -> None:
        """64 descriptors are spare, a quarter of the rest is for open accounts, and half of the connections may be
        strangers."""
        shares = ConnectionShares(Limits(), open_files=1066)
        found = shares.max_connections, shares.max_strangers, shares.max_idle_accounts
        self.assertEqual(found, (752, 376, 31))
        shares.set_open_files(None)
        found = shares.max_connections, shares.max_strangers, shares.max_idle_accounts
        limits = Limits()
        self.assertEqual(
            found,
            (
                limits.max_connections,
                min(limits.max_preauth_connections, limits.max_connections // 2),
                None,
            ),
        )
        shares.set_open_files(0)
        found = shares.max_connections, shares.max_strangers, shares.max_idle_accounts
        self.assertEqual(found, (1, 1, 0))
        shares.set_open_files(1065)
        found = shares.max_connections, shares.max_strangers, shares.max_idle_accounts
        self.assertEqual(repr(found), "(751, 375, 31)")
        self.assertEqual(ConnectionShares(Limits(max_connections=9)).max_connections, 9)

    def test_front_mode(self) -> None:
        """With a backend, each user needs three descriptors, and accounts need none."""
        shares = ConnectionShares(Limits(), open_files=64 + 300)
        shares.count_for_backend()
        self.assertEqual((shares.max_connections, shares.max_idle_accounts), (300, 0))
        users = 0
        while (connection := shares.connect(f"192.0.{users}.1")[0]) is not None:
            self.assertIsNone(shares.login(connection, f"user{users}")[1])
            users += 1
        self.assertEqual(users, 100)

    def test_files_that_are_asked_for(self) -> None:
        """The files that a server asks for suffice for all connections: 64, and four for every three of them."""
        self.assertEqual([files_for(n) for n in (3, 4, 5, 1000)], [68, 70, 71, 1398])
        for n in range(1, 300):
            shares = ConnectionShares(Limits(max_connections=n), files_for(n))
            self.assertEqual(shares.max_connections, n)

    def test_an_address_has_at_most_half_of_the_strangers(self) -> None:
        """One address has at most half of the connections without a login, rounded down, but one at least."""
        for most, share in ((14, 3), (6, 1), (1, 1)):
            shares = ConnectionShares(Limits(max_connections=most))
            for _ in range(share):
                self.assertEqual(list(shares.connect("192.0.2.1")[1]), [])
            _, evictions, _ = shares.connect("192.0.2.1")
            reached = evictions[0].reached
            self.assertEqual((reached.value, reached.observed), (share, share + 1), most)

    def test_files_are_counted(self) -> None:
        """A login takes two descriptors and its account eight; the next connection without any left is refused."""
        shares = ConnectionShares(Limits(), open_files=64 + 26)
        for user in ("alice", "bob"):
            connection, _, _ = shares.connect("192.0.2.1")
            assert connection is not None
            self.assertEqual(shares.login(connection, user), ([], None))
        self.assertEqual(
            shares.connect("192.0.2.1"), (None, [], LimitReached("open_files", 90, 21))
        )

    def test_an_account_counts_once(self) -> None:
        """Several connections of one user share the descriptors of the account."""
        shares = ConnectionShares(Limits(), open_files=64 + 21)
        self.patch(shares, "_refuse_user", lambda _: None)
        held = []
        for _ in range(4):
            connection, _, _ = shares.connect("192.0.2.1")
            assert connection is not None
            held.append(connection)
            self.assertEqual(shares.login(connection, "alice"), ([], None))
        self.assertEqual(shares.connect("192.0.2.1")[2], LimitReached("open_files", 85, 17))
        shares.close(held[0])
        self.assertIsNone(shares.connect("192.0.2.1")[2])

    def test_values_are_small(self) -> None:
        """A counted connection has no dictionary, and an eviction cannot be changed: there are thousands of them."""
        shares = ConnectionShares(Limits(max_preauth_per_address=1))
        connection, _, _ = shares.connect("192.0.2.1")
        eviction = shares.connect("192.0.2.1")[1][0]
        assert connection is not None
        self.assertFalse(eviction.only_reported or connection.took_rate)
        self.assertFalse(hasattr(connection, "__dict__") or hasattr(eviction, "__dict__"))
        self.assertRaises((AttributeError, TypeError), setattr, eviction, "only_reported", True)

    def test_files_add_up(self) -> None:
        """Three connections of one user take three sockets, three files for messages, and eight for the account."""
        shares = ConnectionShares(Limits(), open_files=64 + 18)
        self.patch(shares, "_refuse_user", lambda _: None)
        for _ in range(3):
            connection, _, _ = shares.connect("192.0.2.1")
            assert connection is not None
            self.assertEqual(shares.login(connection, "alice"), ([], None))
        self.assertEqual(shares.connect("192.0.2.1")[2], LimitReached("open_files", 82, 15))

    def test_report_only_evicts_what_does_not_fit(self) -> None:
        """In report-only mode, too, a connection is evicted for the number of all connections."""
        shares = ConnectionShares(Limits(report_only=True, max_connections=2))
        first = shares.connect("192.0.2.1")[0]
        shares.connect("198.51.100.1")
        _, evictions, _ = shares.connect("198.51.100.2")
        really = [e for e in evictions if not e.only_reported]
        self.assertEqual(
            [(e.connection, e.reached.limit) for e in really], [(first, "max_connections")]
        )

    def test_a_login_without_files_is_refused(self) -> None:
        """A login whose account would take more descriptors than there are is refused, and counts as a stranger again."""
        shares = ConnectionShares(Limits(), open_files=64 + 6)
        connection, _, _ = shares.connect("192.0.2.1")
        assert connection is not None
        evictions, reached = shares.login(connection, "alice")
        self.assertEqual((evictions, reached), ([], LimitReached("open_files", 70, 10)))
        self.assertEqual((shares.strangers, connection.logged_in), (1, False))

    def test_sockets_of_evicted_connections(self) -> None:
        """Evicted connections keep their sockets until they are closed: half of the spare ones are for them."""
        shares = ConnectionShares(Limits(), open_files=64 + 16)
        accepted = [shares.connect(f"10.{n}.0.1")[0] is not None for n in range(50)]
        self.assertEqual(accepted, [True] * (12 + 32) + [False] * 6)

    def test_a_server_without_descriptors_reports_them(self) -> None:
        """A process that may open no file refuses everybody because of open_files."""
        shares = ConnectionShares(Limits(), open_files=0)
        self.assertEqual(shares.connect("192.0.2.1")[2], LimitReached("open_files", 0, 1))

    def test_connections_of_a_user(self) -> None:
        """A user may have `max_connections_per_user` connections; the next login is refused."""
        shares = ConnectionShares(Limits(max_connections_per_user=1))
        first, second = (shares.connect(f"192.0.2.{n}")[0] for n in (1, 2))
        assert first is not None and second is not None
        self.assertEqual(shares.login(first, "alice"), ([], None))
        reached = LimitReached("max_connections_per_user", 1, 2)
        self.assertEqual(shares.login(second, "alice"), ((), reached))

    def log_in(self, shares: ConnectionShares, user: str) -> LimitReached | None:
        """Log `user` in on a new connection; return the limit that refuses it."""
        connection = shares.connect("192.0.2.1")[0]
        assert connection is not None
        reached = shares.login(connection, user)[1]
        if reached is not None:
            shares.close(connection)
        return reached

    def test_a_user_may_have_half_of_what_others_leave(self) -> None:
        """A user may have half of the connections that all others leave free, the own ones included."""
        shares = ConnectionShares(Limits(max_connections=10))
        for n in range(4):
            self.assertIsNone(self.log_in(shares, f"user{n}"))
        reached = LimitReached("max_connections_per_user", 3, 4, binding="max_connections")
        found = [self.log_in(shares, "alice") for _ in range(4)]
        self.assertEqual(repr(found), repr([None] * 3 + [reached]))
        for n in range(2):
            self.assertIsNone(self.log_in(shares, f"late{n}"))
        reached = LimitReached("max_connections_per_user", 2, 4, binding="max_connections")
        self.assertEqual(self.log_in(shares, "alice"), reached)

    def test_a_user_may_have_half_of_the_files_that_others_leave(self) -> None:
        """The same is true of descriptors, of which each account takes eight, and each connection two."""
        for others, most in ((0, 6), (1, 3), (2, 1)):
            shares = ConnectionShares(
                Limits(), open_files=64 + 42
            )  # 32 without those of idle accounts
            for n in range(others):
                self.assertIsNone(self.log_in(shares, f"user{n}"))
            self.assertEqual([self.log_in(shares, "alice") for _ in range(most)], [None] * most)
            reached = LimitReached("max_connections_per_user", most, most + 1, binding="open_files")
            self.assertEqual(repr(self.log_in(shares, "alice")), repr(reached))

    def test_files_are_free_again(self) -> None:
        """A closed connection frees its two files, and the last one of a user those of the account, too."""
        shares = ConnectionShares(Limits(), open_files=1000)
        held = []
        for user in ("alice", "alice", "bob"):
            connection = shares.connect("192.0.2.1")[0]
            assert connection is not None
            shares.login(connection, user)
            held.append(connection)
        used = [shares._used_files()]
        for connection in held:
            shares.close(connection)
            used.append(shares._used_files())
        self.assertEqual(used, [22, 20, 10, 0])

    def test_login_of_an_evicted_connection(self) -> None:
        """A connection that is to make room cannot log in any more."""
        shares = ConnectionShares(Limits(max_preauth_per_address=1))
        first = shares.connect("192.0.2.1")[0]
        assert first is not None
        shares.connect("192.0.2.1")
        expected = ((), LimitReached("max_preauth_per_address", 1, 0))
        self.assertEqual(shares.login(first, "alice"), expected)

    def test_the_largest_address(self) -> None:
        """The address with most logins is known, and none when all of them have ended."""
        shares = ConnectionShares(Limits())
        one, other = "192.0.2.1", "192.0.2.2"
        held: dict[str, list[Connection]] = {one: [], other: []}
        for address in (one, other, one, other, one, one):
            connection = shares.connect(address)[0]
            assert connection is not None
            shares.login(connection, "alice")
            held[address].append(connection)
        self.assertEqual(shares.largest_address(), one)
        shares.close(held[one].pop())
        self.assertEqual(shares.largest_address(), one)
        for _ in range(2):
            shares.logout(held[one].pop())
        self.assertEqual(shares.largest_address(), other)
        for address, largest in ((one, other), (other, other), (other, "")):
            shares.close(held[address].pop())
            self.assertEqual(shares.largest_address(), largest)

    def test_a_reported_share_evicts_nobody(self) -> None:
        """A share that is only reported evicts nobody, and names the connection that it would evict."""
        limits = Limits(
            max_preauth_per_address=1,
            report_only_limits=frozenset({"max_preauth_per_address"}),
        )
        shares = ConnectionShares(limits)
        first = shares.connect("192.0.2.1")[0]
        _, evictions, reached = shares.connect("192.0.2.1")
        self.assertEqual([(e.connection, e.only_reported) for e in evictions], [(first, True)])
        self.assertEqual((shares.strangers, reached), (2, None))

    def test_the_limit_that_is_reached_is_reported(self) -> None:
        """The limit of strangers counts strangers, and that of all connections counts all."""
        shares = ConnectionShares(Limits(max_connections=4, max_preauth_connections=2))
        for n in range(3):
            connection = shares.connect(f"10.{n}.0.1")[0]
            assert connection is not None
            shares.login(connection, f"user{n}")
        shares.connect("10.5.0.1")
        _, evictions, _ = shares.connect("10.6.0.1")
        self.assertEqual([e.reached for e in evictions], [LimitReached("max_connections", 4, 5)])
        shares = ConnectionShares(Limits(max_connections=8, max_preauth_connections=2))
        for n in range(2):
            shares.connect(f"10.{n}.0.1")
        _, evictions, _ = shares.connect("10.6.0.1")
        self.assertEqual(
            [e.reached for e in evictions], [LimitReached("max_preauth_connections", 2, 3)]
        )
