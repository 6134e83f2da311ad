"""`ConnectionShares`: counts the connections of each address, network and user, and decides which one must make room.

Rules
-----
* A share applies before the server is full, and it applies to trusted networks too.
* Who exceeds a share loses its own oldest connection without a login. In a network that exceeds its share, that is the
  address that has most; in the server it is that address, or the oldest of all if no address has many. A newcomer is
  refused only if every connection has a login.
* A user may have as many connections as stay free for the others. So there is always room for one more user.
* A connection with a login is never reset to make room.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from imapshield.guard.networks import Network, level_factor, networks_of
from imapshield.guard.preauth_connections import PreauthConnections
from imapshield.guard.remote_counts import CountNews, RemoteCounts
from imapshield.guard.verdicts import LimitReached
from imapshield.limits import Limits

FILES_PER_LOGIN = 1
"""Open files of a connection with a login besides its socket: the message that it uploads."""

FILES_PER_ACCOUNT = 8
"""Open files of an account: its Maildir, the directory of ``--index-root``, its index and its text index, each with two
or three files of SQLite."""

SPARE_FILES = 64
"""Open files that no connection may use: logs, listening sockets, inotify, the event loop, libraries."""

ALIKE_PARTS = 300
"""Addresses with at most this part of the places of strangers are alike: the oldest connection of all makes room. A
flood from thousands of addresses has one or two connections of each, and an office, where several clients log in at the
same time, a few more. So it would be the office that has most."""

LEAST_ALIKE, LEAST_ALIKE_PARTS = 4, 50
"""Addresses with so many connections are alike, too, if that is at most this part of the places: each worker, and a
small server, has few places, but an office has as many clients."""


def files_for(connections: int) -> int:
    """Return how many files the process must be permitted to open, so that `connections` fit."""
    return SPARE_FILES + -(-connections * 4 // 3)


@dataclass(slots=True, eq=False)
class Connection:
    """A connection as `ConnectionShares` counts it.

    Attributes:
        address: the address of the client as text.
        networks: the networks that contain the address, the smallest first. It is never empty.
        owner: any object of the caller, which has to reset the connection when it is evicted.
        logged_in: whether a user is logged in.
        user: the user who is logged in, or was.
        evicted: whether the connection must make room. It counts as an open file until it is closed.
        took_rate: whether it counts for the rate of its networks, until it logs in.
    """

    address: str
    networks: Sequence[Network]
    owner: Any = None
    logged_in: bool = False
    user: str = ""
    evicted: bool = False
    took_rate: bool = False


@dataclass(frozen=True, slots=True)
class Eviction:
    """A connection that must be reset to make room, and the limit that its holder has reached.

    In report-only mode it stays open, unless the server is full.
    """

    connection: Connection
    reached: LimitReached
    only_reported: bool = False


class ConnectionShares:
    """The connections of one server.

    Args:
        limits: the limits of the shares.
        open_files: how many files the system permits the process to open; None means no limit.
        processes: as for `ProcessGuard`.

    Attributes:
        logins: the number of connections with a login.
        remote: the connections of other processes, which count for the shares of networks and users; None if there are
            none. A process evicts only its own, so the newest of an address stays: there may be as many more
            as there are other processes.
        user_news: collects the users whose number of connections changes. None collects nothing.
        hash_user: returns the hash of a user by which `remote` counts.
    """

    def __init__(self, limits: Limits, open_files: int | None = None, processes: int = 1) -> None:
        self._limits, self._processes = limits, processes
        self._strangers: PreauthConnections[Connection] = PreauthConnections()
        # Dicts, because a Counter calls a Python function for each new key and for each that is deleted.
        self._users: dict[str, int] = {}
        self._addresses: dict[str, int] = {}  # of connections with a login
        self._open = self.logins = 0
        self._per_login, self._per_account = FILES_PER_LOGIN, FILES_PER_ACCOUNT
        self.remote: RemoteCounts | None = None
        self.user_news: CountNews[str] | None = None
        self.hash_user: Callable[[str], bytes] = str.encode
        self.set_open_files(open_files)

    def set_limits(self, limits: Limits) -> None:
        """Apply other limits to connections and logins from now on."""
        self._limits = limits
        self.set_open_files(self._open_files)

    def count_for_backend(self) -> None:
        """Count open files as in front mode: a login has a connection to the backend besides, and an account none."""
        self._per_login, self._per_account = FILES_PER_LOGIN + 1, 0
        self.set_open_files(self._open_files)

    def set_open_files(self, open_files: int | None) -> None:
        """Set how many files the system permits the process to open.

        A quarter of them is for the accounts that stay open after the last session has ended (`max_idle_accounts`).
        """
        limits, self._open_files = self._limits, open_files
        self.max_connections = limits.max_connections
        if open_files is None:
            self.max_idle_accounts: int | None = None
            self._available: int | None = None
        else:
            spare = max(0, open_files - SPARE_FILES)
            of_idle_accounts = spare // 4 if self._per_account else 0
            self.max_idle_accounts = of_idle_accounts // FILES_PER_ACCOUNT
            self._available = spare - of_idle_accounts
            self.max_connections = max(1, min(limits.max_connections, self._available))
        self.max_strangers = max(1, min(limits.max_preauth_connections, self.max_connections // 2))
        of_all = self.max_strangers * self._processes  # as the connections of an address are
        self._max_per_address = max(1, min(limits.max_preauth_per_address, of_all // 2))
        # Each share is at most a part of the one before, which then determines it.
        shares = {
            "open_files": True,
            "max_connections": self.max_connections == limits.max_connections,
            "max_preauth_connections": self.max_strangers == limits.max_preauth_connections,
            "max_preauth_per_address": self._max_per_address == limits.max_preauth_per_address,
        }
        self._binding: dict[str, str] = {}
        binding = ""
        for name, is_as_configured in shares.items():
            binding = name if is_as_configured else binding
            self._binding[name] = "" if is_as_configured else binding

    def _reached(self, limit: str, value: float, observed: float) -> LimitReached:
        return LimitReached(limit, value, observed, binding=self._binding[limit])

    @property
    def connections(self) -> int:
        """The number of open connections, without those that are evicted."""
        return self._strangers.total + self.logins

    @property
    def strangers(self) -> int:
        """The number of connections without a login."""
        return self._strangers.total

    def held_by(self, user: str) -> int:
        """Return how many connections a user has, here and in other processes."""
        held, elsewhere = self._users.get(user, 0), self.remote.users if self.remote else None
        return held + (elsewhere.get(self.hash_user(user), 0) if elsewhere else 0)

    def strangers_at(self, address: str) -> int:
        """Return how many connections without a login an address has (IPv6: its /64), here and in other processes."""
        networks = networks_of(address)[:1]
        remote = sum(self.remote.networks.get(each, 0) for each in networks) if self.remote else 0
        return sum(map(self._strangers.count, networks)) + remote

    def connect(
        self, address: str
    ) -> tuple[Connection | None, Sequence[Eviction], LimitReached | None]:
        """Count a new connection.

        Returns:
            the connection, and those that must be reset for it; or None and the limit, if there is no room.
        """
        networks = networks_of(address) or ((0, 0, hash(address)),)
        connection = Connection(address, networks)
        self._strangers.add(connection)
        self._open += 1
        evictions = list(self._make_room(connection))
        reached = self._full()
        if reached is not None:
            self.close(connection)
            return None, evictions, reached
        return connection, evictions, None

    def _make_room(self, newest: Connection) -> Iterator[Eviction]:
        strangers = self._strangers
        for network in newest.networks:
            share = self._max_per_address * level_factor(network)
            held = strangers.count(network)
            if self.remote is not None:
                held += self.remote.networks.get(network, 0)
            victim = strangers.oldest_of_largest(network) if held > share else None
            if victim is not None and victim is not newest:
                reached = self._reached("max_preauth_per_address", share, held)
                yield self._evict(victim, reached)
        if strangers.total > self.max_strangers:
            reached = self._reached("max_preauth_connections", self.max_strangers, strangers.total)
            yield from self._evict_largest(reached, newest)
        if self.connections > self.max_connections:
            reached = self._reached("max_connections", self.max_connections, self.connections)
            yield from self._evict_largest(reached, newest)
        yield from self._free_files(newest)

    def make_room(self, networks: Iterable[Network]) -> list[Eviction]:
        """Return the own connections that must be reset because other processes have more in `networks`.

        Each process gives up the same part of its connections, but keeps one in a network. In report-only mode none
        does: what is above a share is reported by the process that accepts it.
        """
        strangers, evictions = self._strangers, list[Eviction]()
        if self.remote is None or self._limits.reports_only("max_preauth_per_address"):
            return evictions
        for network in networks:
            share = self._max_per_address * level_factor(network)
            own = strangers.count(network)
            held = own + self.remote.networks.get(network, 0)
            if held > share:
                reached = self._reached("max_preauth_per_address", share, held)
                for _ in range(own - max(1, own * share // held)):
                    victim = strangers.oldest_of_largest(network)
                    assert victim is not None
                    evictions.append(self._evict(victim, reached))
        return evictions

    def share_counts(self, hash_user: Callable[[str], bytes]) -> Sequence[CountNews[Any]]:
        """Begin to count the connections of other processes, and return what collects changes for them."""
        self.remote, self.hash_user = RemoteCounts(), hash_user
        self.user_news, self._strangers.news = CountNews(), CountNews()
        self.tell_all_counts()
        return self.user_news, self._strangers.news

    def tell_all_counts(self) -> None:
        """Have `take_counts` return all counts again."""
        assert self.user_news is not None and self._strangers.news is not None
        self.user_news.restart(self._users.items())
        self._strangers.news.restart(self._strangers.addresses())

    def take_counts(
        self, number: int
    ) -> tuple[list[tuple[Network, int]], list[tuple[bytes, int]], bool]:
        """Return at most `number` changed counts of addresses and of users, and whether these are all counts again."""
        users, addresses = self.user_news, self._strangers.news
        assert users is not None and addresses is not None
        if is_restarted := users.is_lost or addresses.is_lost:
            self.tell_all_counts()
        changed = [(self.hash_user(user), count) for user, count in users.take(number)]
        return addresses.take(number), changed, is_restarted

    def _free_files(self, newest: Connection | None) -> Iterator[Eviction]:
        while self._missing_files() > 0 and self._strangers.total:
            reached = self._out_of_files()
            evicted = list(self._evict_largest(reached, newest))
            if not evicted:
                return
            yield from evicted

    def _evict_largest(
        self, reached: LimitReached, newest: Connection | None
    ) -> Iterator[Eviction]:
        strangers = self._strangers
        places = self.max_strangers
        alike = max(places // ALIKE_PARTS, min(LEAST_ALIKE, places // LEAST_ALIKE_PARTS))
        are_alike = strangers.most <= alike
        victim = strangers.oldest() if are_alike else strangers.oldest_of_largest()
        if victim is not None and victim is not newest:
            yield self._evict(victim, reached)

    def _evict(self, victim: Connection, reached: LimitReached) -> Eviction:
        limit = reached.limit
        if self._limits.reports_only(limit) and limit.startswith("max_preauth_"):
            return Eviction(victim, reached, only_reported=True)
        victim.evicted = True
        self._strangers.remove(victim)
        return Eviction(victim, reached)

    def _used_files(self) -> int:
        of_accounts = len(self._users) * self._per_account
        return self.connections + self.logins * self._per_login + of_accounts

    def _missing_files(self) -> int:
        return 0 if self._available is None else self._used_files() - self._available

    def _out_of_files(self) -> LimitReached:
        return LimitReached("open_files", self._open_files or 0, self._used_files())

    def _full(self) -> LimitReached | None:
        if self.connections > self.max_connections:
            return self._reached("max_connections", self.max_connections, self.connections)
        if self._missing_files() > 0 or self._sockets_left() < 0:
            return self._out_of_files()
        return None

    def _sockets_left(self) -> int:
        """Return how many sockets may be opened before those that are evicted are closed."""
        if self._available is None:
            return 1
        return self._available + SPARE_FILES // 2 - self._open

    def login(
        self, connection: Connection, user: str
    ) -> tuple[Sequence[Eviction], LimitReached | None]:
        """Count `connection` as one of `user`.

        Returns:
            the connections that must be reset for it, and the limit if the login must be refused.
        """
        if connection.evicted:
            return (), LimitReached("max_preauth_per_address", self._max_per_address, 0)
        held = self._users.get(user, 0)
        reached = self._refuse_user(held)
        if reached is None and self.remote is not None:
            reached = self._refuse_for_others(user)
        if reached is not None:
            return (), reached
        self._strangers.remove(connection)
        self._users[user] = held + 1
        if self.user_news is not None:
            self.user_news.changed(user, held + 1)
        address = connection.address
        self._addresses[address] = self._addresses.get(address, 0) + 1
        self.logins += 1
        connection.logged_in, connection.user = True, user
        evictions = list(self._free_files(None))
        if self._missing_files() > 0:
            reached = self._out_of_files()
            return [*evictions, *self.logout(connection)], reached
        return evictions, None

    def _refuse_user(self, held: int) -> LimitReached | None:
        """Return why a user with `held` connections may not have one more, or None."""
        configured = self._limits.max_connections_per_user
        limit, most = "max_connections_per_user", held + self.max_connections - self.logins
        shares = [(configured, ""), (most // 2, "max_connections")]
        if self._available is not None:
            per_login, of_accounts = 1 + self._per_login, len(self._users) * self._per_account
            files = self._available - self.logins * per_login - of_accounts
            shares.append(((held * per_login + files) // 2 // per_login, "open_files"))
        value, binding = min(shares)
        return (
            LimitReached(limit, value, held + 1, binding=binding) if held >= max(1, value) else None
        )

    def _refuse_for_others(self, user: str) -> LimitReached | None:
        """Return the limit if a user has so many connections in all processes that one more is refused, or None."""
        most, total = self._limits.max_connections_per_user, self.held_by(user)
        if total < max(1, most):
            return None
        return LimitReached("max_connections_per_user", most, total + 1)

    def logout(self, connection: Connection) -> Sequence[Eviction]:
        """Count `connection` as one without a login again, and as the newest of its address.

        Returns:
            the connections that must be reset for it.
        """
        if not connection.logged_in:
            return ()
        self._forget_user(connection)
        self._strangers.add(connection)
        return list(self._make_room(connection))

    def _forget_user(self, connection: Connection) -> None:
        address, user = connection.address, connection.user
        for counts, key in ((self._addresses, address), (self._users, user)):
            left = counts.pop(key) - 1
            if left:
                counts[key] = left
        if self.user_news is not None:
            self.user_news.changed(user, left)
        self.logins -= 1
        connection.logged_in = False

    def close(self, connection: Connection) -> None:
        """Count `connection` no more, because its socket is closed."""
        if connection.logged_in:
            self._forget_user(connection)
        elif not connection.evicted:
            self._strangers.remove(connection)
        self._open -= 1

    def strangers_of(self, network: Network) -> Sequence[Connection]:
        """Return the connections without a login from `network`, the oldest first."""
        return self._strangers.inside(network)

    def largest_address(self) -> str:
        """Return the address with most connections that have a login; "" if there are none. It looks at all of them."""
        return max(self._addresses, key=self._addresses.__getitem__, default="")
