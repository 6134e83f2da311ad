"""Shares: who exceeds one loses its own oldest connection, and a user never loses a place to strangers."""

from collections.abc import Sequence

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.guard.guard_report import GuardReport
from imapshield.guard.networks import networks_of
from imapshield.guard.process_guard import ProcessGuard
from imapshield.guard.shared_guard import SharedGuard
from imapshield.guard.shares import (
    ALIKE_PARTS,
    FILES_PER_ACCOUNT,
    SPARE_FILES,
    Connection,
    ConnectionShares,
    Eviction,
)
from imapshield.limits import Limits
from imapshield.workers.division import divided_limits

ATTACKER, VICTIM = "192.0.2.1", "198.51.100.1"


def connect(shares: ConnectionShares, address: str, evicted: list[Connection]) -> Connection | None:
    """Connect from `address`, and close the connections that make room, as the server does."""
    connection, evictions, _ = shares.connect(address)
    for eviction in evictions:
        evicted.append(eviction.connection)
        shares.close(eviction.connection)
    return connection


class AddressShareTests(SynchronousTestCase):
    def test_an_address_loses_its_own_oldest_connection(self) -> None:
        """An address above its share loses its oldest connection, and the newcomer gets in."""
        evicted: list[Connection] = []
        shares = ConnectionShares(Limits(max_preauth_per_address=3))
        held = [connect(shares, ATTACKER, evicted) for _ in range(5)]
        self.assertNotIn(None, held)
        self.assertEqual(evicted, held[:2])
        self.assertEqual(shares.strangers, 3)

    def test_a_64_is_one_address(self) -> None:
        """All addresses of an IPv6 /64 share one share."""
        evicted: list[Connection] = []
        shares = ConnectionShares(Limits(max_preauth_per_address=3))
        for i in range(5):
            connect(shares, f"2001:db8::{i}", evicted)
        self.assertEqual(len(evicted), 2)

    def test_networks_have_shares(self) -> None:
        """A /26 has the share of three addresses, a /21 that of nine."""
        evicted: list[Connection] = []
        shares = ConnectionShares(Limits(max_preauth_per_address=2))
        for i in range(8):
            connect(shares, f"192.0.2.{i}", evicted)
        self.assertEqual([c.address for c in evicted], ["192.0.2.0", "192.0.2.1"])
        for i in range(30):
            connect(shares, f"192.0.{i // 4}.{i * 8}", evicted)
        self.assertEqual(shares.strangers, 18)

    def test_logins_do_not_count(self) -> None:
        """A webmail host has hundreds of users on one address."""
        evicted: list[Connection] = []
        shares = ConnectionShares(Limits(max_preauth_per_address=3))
        for i in range(500):
            connection = connect(shares, ATTACKER, evicted)
            assert connection is not None
            self.assertEqual(shares.login(connection, f"user{i}"), ([], None))
        self.assertEqual((evicted, shares.connections), ([], 500))

    def test_trusted_networks_have_shares(self) -> None:
        """An address that is no address, such as that of a UNIX socket, has a share too."""
        evicted: list[Connection] = []
        shares = ConnectionShares(Limits(max_preauth_per_address=3))
        for _ in range(5):
            connect(shares, "local", evicted)
        self.assertEqual(len(evicted), 2)


class ServerShareTests(SynchronousTestCase):
    def test_the_address_that_has_most_makes_room(self) -> None:
        """When all strangers together are too many, the oldest one of the address that has most is reset."""
        evicted: list[Connection] = []
        shares = ConnectionShares(Limits(max_preauth_connections=10))
        first = connect(shares, VICTIM, evicted)
        held = [connect(shares, ATTACKER, evicted) for _ in range(5)]
        for i in range(20):
            connect(shares, f"203.0.113.{i * 2}", evicted)
        self.assertEqual(evicted[: len(held) - 1], held[:-1])
        self.assertEqual(shares.strangers, 10)
        self.assertIsNotNone(first)

    def test_an_office_logs_in_during_a_flood_from_everywhere(self) -> None:
        """If no address has many, the oldest of all makes room, and not the office whose clients log in together."""
        evicted: list[Connection] = []
        for places, most in ((6 * ALIKE_PARTS, 6), (2 * ALIKE_PARTS, 4), (150, 3)):
            shares = ConnectionShares(Limits(max_preauth_connections=places))
            for i in range(places):
                connect(shares, f"10.{i // 250}.{i % 250}.1", evicted)
            office = [connect(shares, VICTIM, evicted) for _ in range(most)]
            flood = [connect(shares, f"11.0.{i}.1", evicted) for i in range(100)]
            self.assertFalse({*evicted} & {*office, *flood})
            connect(shares, VICTIM, evicted)
            self.assertIs(evicted[-1], office[0])  # one more is too many

    def test_the_office_with_many_workers(self) -> None:
        """With the default limits and 16 workers, addresses with four connections in one of them are alike."""
        evicted: list[Connection] = []
        limits = divided_limits(Limits(), 16)
        shares = ConnectionShares(limits)
        for i in range(shares.max_strangers - 4):
            connect(shares, f"10.{i // 250}.{i % 250}.1", evicted)
        office = [connect(shares, VICTIM, evicted) for _ in range(4)]
        for i in range(100):
            connect(shares, f"11.0.{i}.1", evicted)
        self.assertEqual(len(evicted), 100)
        self.assertFalse({*evicted} & {*office})

    def test_share_of_an_address_with_many_workers(self) -> None:
        """The share of an address is that in all workers together, so it does not become smaller with their number."""
        for count in (1, 2, 16, 64):
            guard = ProcessGuard(divided_limits(Limits(), count), processes=count)
            shared = SharedGuard(guard, "one")
            most, reports = Limits().max_preauth_per_address, []
            for n in range(1, count):
                held = ((networks_of(VICTIM)[0], most // count),)
                reports.append((f"worker {n}", GuardReport(1, 0.0, True, connections=held)))
            for name, report in reports:
                shared.merge_report(name, report, 0.0)
            for _ in range(most - (count - 1) * (most // count)):
                self.assertEqual(guard.shares.connect(VICTIM)[1], [])
            self.assertEqual(len(guard.shares.connect(VICTIM)[1]), 1)

    def test_strangers_never_take_the_places_of_users(self) -> None:
        """Strangers have at most half of all connections, whatever their own limit is."""
        evicted: list[Connection] = []
        shares = ConnectionShares(Limits(max_connections=8))
        for i in range(50):
            connect(shares, f"10.{i}.0.1", evicted)
        self.assertEqual(shares.strangers, 4)

    def test_a_newcomer_is_refused_only_if_all_have_a_login(self) -> None:
        """With as many users as connections, a newcomer is refused, and the event names the limit."""
        evicted: list[Connection] = []
        shares = ConnectionShares(Limits(max_connections=4))
        for i in range(4):
            connection = connect(shares, f"10.{i}.0.1", evicted)
            assert connection is not None
            shares.login(connection, f"user{i}")
        connection, evictions, reached = shares.connect(VICTIM)
        assert reached is not None
        self.assertEqual(
            (connection, list(evictions), reached.limit), (None, [], "max_connections")
        )
        self.assertEqual(shares.connections, 4)

    def test_connections_of_a_user(self) -> None:
        """A user has at most `max_connections_per_user` connections; a refused login stays a stranger."""
        shares = ConnectionShares(Limits(max_connections_per_user=2))
        connections = [c for _ in range(3) if (c := connect(shares, VICTIM, []))]
        results = [shares.login(c, "alice")[1] for c in connections]
        self.assertEqual(
            [r and (r.limit, r.value, r.observed) for r in results],
            [None, None, ("max_connections_per_user", 2, 3)],
        )
        self.assertEqual((shares.strangers, shares.largest_address()), (1, VICTIM))
        shares.logout(connections[0])
        self.assertIsNone(shares.login(connections[2], "alice")[1])


class UserShareTests(SynchronousTestCase):
    def logins(self, shares: ConnectionShares, user: str) -> int:
        """Log in as `user` as often as possible; return how often."""
        for i in range(1000):
            connection, _, _ = shares.connect(VICTIM)
            if connection is None or shares.login(connection, user)[1] is not None:
                return i
        return 1000

    def test_a_user_leaves_as_much_as_it_takes(self) -> None:
        """A user may have as many connections as stay free, so there is always room for one more user."""
        for shares in (
            ConnectionShares(Limits(max_connections=80, max_connections_per_user=1000)),
            ConnectionShares(Limits(), 300),
        ):
            logins = [self.logins(shares, f"user{i}") for i in range(4)]
            self.assertEqual(logins, sorted(logins, reverse=True))
            self.assertGreater(min(logins), 1)

    def test_the_limit_that_binds_is_named(self) -> None:
        """A refusal because of few descriptors names them."""
        shares = ConnectionShares(Limits(), 256)
        held = self.logins(shares, "alice")
        connection, _, _ = shares.connect(VICTIM)
        assert connection is not None
        reached = shares.login(connection, "alice")[1]
        assert reached is not None
        self.assertEqual(
            (reached.limit, reached.observed, reached.binding),
            ("max_connections_per_user", held + 1, "open_files"),
        )


class NetworkTests(SynchronousTestCase):
    def test_a_neighbour_stays(self) -> None:
        """In a network above its share, the address that has most loses its oldest, not a neighbour with one."""
        evicted: list[Connection] = []
        shares = ConnectionShares(Limits(max_preauth_per_address=10))
        typist = connect(shares, "192.0.2.9", evicted)
        for i in range(60):
            connect(shares, f"192.0.2.{i % 4}", evicted)
        self.assertNotIn(typist, evicted)
        self.assertEqual(len(evicted), 31)

    def test_a_logout_makes_room(self) -> None:
        """Clients that log out (UNAUTHENTICATE) have the share of strangers."""
        shares = ConnectionShares(Limits(max_preauth_per_address=3))
        connections = [shares.connect(VICTIM)[0] for _ in range(3)]
        for connection in connections:
            assert connection is not None
            shares.login(connection, "alice")
        for _ in range(3):
            shares.connect(VICTIM)
        assert connections[0] is not None
        evictions = shares.logout(connections[0])
        self.assertEqual(len(evictions), 1)
        self.assertEqual(shares.strangers, 3)


class BindingTests(SynchronousTestCase):
    def test_the_event_names_the_limit_that_binds(self) -> None:
        """A share that is smaller than configured names the limit that has to be changed."""
        for limits, open_files, value, binding in (
            (Limits(max_preauth_per_address=3), None, 3, ""),
            (Limits(max_preauth_connections=8), None, 4, "max_preauth_connections"),
            (Limits(max_connections=16), None, 4, "max_connections"),
            (Limits(), 96, 6, "open_files"),
        ):
            shares = ConnectionShares(limits, open_files)
            reached = next(e.reached for _ in range(9) for e in shares.connect(ATTACKER)[1])
            self.assertEqual(
                (reached.limit, reached.value, reached.binding),
                ("max_preauth_per_address", value, binding),
            )


class OpenFileTests(SynchronousTestCase):
    def test_limits_fit_the_open_files(self) -> None:
        """With 256 open files, strangers get half of the files that are left, and users log in all the same."""
        evicted: list[Connection] = []
        shares = ConnectionShares(Limits(), 256)
        for _ in range(400):
            self.assertIsNotNone(connect(shares, ATTACKER, evicted))
        self.assertLessEqual(shares.strangers, (256 - SPARE_FILES) // 2)
        users = 0
        for i in range(100):
            connection = connect(shares, VICTIM, evicted)
            if connection is None or shares.login(connection, f"user{i}")[1] is not None:
                break
            users += 1
        self.assertGreater(users, 13)
        idle = shares.max_idle_accounts or 0
        self.assertLessEqual(shares._used_files() + idle * FILES_PER_ACCOUNT + SPARE_FILES, 256)

    def test_a_burst_is_refused_before_the_files_are_gone(self) -> None:
        """Evicted sockets that are not closed yet count: a burst in one turn does not exhaust the open files."""
        shares = ConnectionShares(Limits(), 256)
        admitted = sum(shares.connect(ATTACKER)[0] is not None for _ in range(1000))
        self.assertLess(admitted, 256 - SPARE_FILES // 2)

    def test_a_login_evicts_strangers(self) -> None:
        """A login needs files for its account; strangers make room for it."""
        shares = ConnectionShares(Limits(max_preauth_per_address=1000), 240)
        connection = shares.connect(VICTIM)[0]
        assert connection is not None
        for i in range(60):
            shares.connect(f"10.{i // 2}.0.1")
        for i in range(8):
            other = shares.connect(f"172.16.{i * 8}.1")[0]
            if other is not None:
                shares.login(other, f"user{i}")
        evictions, reached = shares.login(connection, "alice")
        self.assertIsNone(reached)
        self.assertTrue(all(not e.connection.logged_in for e in evictions))


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["connect", "login", "logout", "close"]), st.integers(0, 9)),
    max_size=80,
)


class PropertyTests(SynchronousTestCase):
    @given(OPERATIONS, st.sampled_from([None, 90, 120]))
    @example([*[("connect", 2)] * 2, ("login", 0), ("connect", 2), ("logout", 0)], None)
    def test_counts_are_sums(
        self, operations: list[tuple[str, int]], open_files: int | None
    ) -> None:
        """Whatever happens, the counts equal the sums of the open connections, and no share is exceeded."""
        limits = Limits(
            max_connections=12,
            max_preauth_connections=6,
            max_preauth_per_address=2,
            max_connections_per_user=3,
        )
        shares = ConnectionShares(limits, open_files)
        alive: list[Connection] = []
        for operation, number in operations:
            if operation == "connect":
                evicted: list[Connection] = []
                connection = connect(shares, f"10.0.{number}.{number * 20}", evicted)
                self.assertFalse(any(c.logged_in for c in evicted))
                alive = [c for c in [*alive, connection] if c and c not in evicted]
            elif alive:
                chosen = alive[number % len(alive)]
                evictions: Sequence[Eviction] = ()
                if operation == "login" and not chosen.logged_in:
                    evictions, _ = shares.login(chosen, f"user{number % 3}")
                elif operation == "logout":
                    evictions = shares.logout(chosen)
                elif operation == "close":
                    shares.close(chosen)
                    alive.remove(chosen)
                for eviction in evictions:
                    shares.close(eviction.connection)
                    alive.remove(eviction.connection)
            strangers = [c for c in alive if not c.logged_in]
            self.assertEqual((shares.strangers, shares.connections), (len(strangers), len(alive)))
            self.assertLessEqual(len(alive), limits.max_connections)
            for user in ("user0", "user1", "user2"):
                self.assertLessEqual(sum(c.user == user and c.logged_in for c in alive), 3)
            largest = max((len(shares.strangers_of(c.networks[0])) for c in strangers), default=0)
            largest_of_all = shares._strangers.oldest_of_largest()
            address = largest_of_all.networks[0] if largest_of_all else (0, 0, 0)
            self.assertEqual(len(shares.strangers_of(address)), largest)
