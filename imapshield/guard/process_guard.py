"""`ProcessGuard`: applies everything that concerns more than one connection: shares, rates, failed logins and bans.

Rules
-----
* The guard reads no clock and owns no socket: every method takes the time, in seconds of a monotonic clock.
* Trusted networks have shares like all others, but neither rates nor bans. That of CPU time is among the shares: the
  connections of an address that floods are begun at a pace, also when it is trusted.
* A login gives the connection back to the rate of its address. So a rate counts only connections that do not log in.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from imapshield.guard.bans import Ban, Bans
from imapshield.guard.bounded_table import BoundedTable
from imapshield.guard.guess_rates import Guess
from imapshield.guard.login_failures import FailedLogin, LoginFailures
from imapshield.guard.login_news import News
from imapshield.guard.networks import Network, NetworkSet, level_factor, networks_of
from imapshield.guard.rates import RateTable
from imapshield.guard.refused_connections import RefusedConnections
from imapshield.guard.shares import Connection, ConnectionShares, Eviction
from imapshield.guard.verdicts import LimitReached
from imapshield.limits import Limits

MAX_RATE_KEYS = 50_000
"""Networks of one size whose rate is remembered. Above it, those that have taken least are forgotten."""

RATE_VIOLATION_SECONDS = 6
"""Seconds between two violations that an address with too many connections commits. An office whose clients all
connect at once must not be banned for a burst."""

VIOLATIONS = frozenset({"backlog", "preauth_commands", "preauth_bytes", "preauth_literal_size"})
"""Limits of a connection without a login that correct clients never exceed. Those of time are not among them, because
a bad network exceeds them, and neither are invalid commands, which a client with wrong settings sends."""

VIOLATION_PACE = 0.02
"""Seconds between two connections of an address that has committed a violation, for `PROBATION_SECONDS`."""

RATE_PACE = 0.005
"""Seconds between two connections of a trusted address above the rate of its network, for `PROBATION_SECONDS`."""

PROBATION_SECONDS = 10.0
MAX_PROBATIONS = 10_000
"""Addresses on probation. One more ends the probation that would end first."""

# The first byte of a violation (`Bans.count_violation`).
_OTHER_KIND, _RATE_KIND = b"\0", b"\1"

NO_NETWORKS = NetworkSet()
BANNED = LimitReached("ban", 0, 0)


@dataclass(frozen=True, slots=True)
class Arrival:
    """What becomes of a new connection.

    Attributes:
        connection: the connection; None if it is refused.
        evictions: connections that must be reset to make room, whether the new one is refused or not.
        reached: the limit that it has reached, or None. Without `connection`, it is refused because of that limit;
            otherwise the limit is only reported.
        ban: the ban that refuses it, or a new one that it causes.
        violations: the limit ``max_limit_violations``, if this connection was one violation too many.
        silent: whether the refusal is neither answered nor reported, because that would cost more than the connection.
    """

    connection: Connection | None
    evictions: Sequence[Eviction] = ()
    reached: LimitReached | None = None
    ban: Ban | None = None
    silent: bool = False
    violations: LimitReached | None = None


class ProcessGuard:
    """Applies `limits` to all connections of a server together.

    Args:
        limits: the limits.
        trusted: the networks without rates and bans.
        key: a secret of up to 64 bytes for the hashes of `failures`.
        processes: how many processes have such `limits`, each for a part of the connections of one server, and share
            what they count.

    Attributes:
        shares: the open connections.
        bans: the banned addresses.
        failures: the failed logins, and the users who have logged in from each address.
        refused: the connections that bans have refused.
        limits: as above.
        rate_news: collects what addresses and networks take here of `connections_per_minute`, for other processes
            (`SharedGuard`); None collects nothing.
    """

    def __init__(
        self,
        limits: Limits,
        trusted: NetworkSet = NO_NETWORKS,
        key: bytes = b"",
        processes: int = 1,
    ) -> None:
        self.trusted = trusted
        self.shares = ConnectionShares(limits, processes=processes)
        self.bans = Bans(limits)
        self._processes = processes
        self.failures = LoginFailures(self._of_all(limits), key)
        self.limits = limits
        self._rates: dict[int, RateTable] = {}
        self.rate_news: News[Hashable] | None = None
        self.refused = RefusedConnections()
        # address → end of its probation, and the seconds between two of its connections
        self._probations: BoundedTable[Network, tuple[float, float]] = BoundedTable(
            MAX_PROBATIONS, lambda probation: probation[0]
        )
        self._last_violation: RateTable = RateTable(1 / RATE_VIOLATION_SECONDS, 1, MAX_RATE_KEYS)

    def set_limits(self, limits: Limits) -> None:
        """Apply other limits from now on. What was counted for a limit that changes is forgotten."""
        if limits.connections_per_minute != self.limits.connections_per_minute:
            self._rates.clear()
        self.limits = limits
        self.shares.set_limits(limits)
        self.bans.set_limits(limits)
        self.failures.set_limits(self._of_all(limits))

    def _of_all(self, limits: Limits) -> Limits:
        """Return the limits of guesses, which count in all processes: so must the checks that run."""
        return replace(limits, max_login_checks=limits.max_login_checks * self._processes)

    def connect(self, address: str, now: float) -> Arrival:
        """Decide about a new connection, whose client is at `address`."""
        is_trusted = address in self.trusted
        ban = self.ban_of(address, now)
        if ban is not None and not ban.strangers_only:
            self.refused.add(ban.network)
            return Arrival(None, reached=BANNED, ban=ban, silent=True)
        networks = networks_of(address)
        reported = self._take_rate(networks, now)
        took_rate = reported is None
        if reported is not None and not self.limits.reports_only(reported.limit):
            if not is_trusted:
                return self._over_rate(address, networks, reported, now)
            self._put_on_probation(networks, RATE_PACE, now)
        if is_trusted:
            reported = None
        violations = self._reported_violations(address, networks, reported, now)
        connection, evictions, full = self.shares.connect(address)
        if connection is not None:
            connection.took_rate = took_rate
        elif took_rate:
            self._give_back(networks, now)
        return Arrival(connection, evictions, full or reported, violations=violations)

    def rate_taken(self, address: str, now: float) -> float:
        """Return how many connections of an address count for `connections_per_minute`."""
        networks = networks_of(address)
        return self.rate_of(networks[0]).taken(networks[0], now) if networks else 0.0

    def ban_of(self, address: str, now: float) -> Ban | None:
        """Return the ban that applies to an address, or None."""
        # With report_only, bans are those of an earlier run without it.
        if address in self.trusted or self.limits.report_only:
            return None
        return self.bans.banned(address, now)

    def connect_proxy(self, address: str) -> Arrival:
        """Decide about a new connection of a proxy. Until its header has arrived, it has a share like a stranger."""
        return Arrival(*self.shares.connect(address))

    def pace(self, address: str, now: float) -> float:
        """Return the seconds between two connections of `address` that are begun; 0 if it is not on probation."""
        return self._pace(networks_of(address), now) if self._probations else 0.0

    def _pace(self, networks: Sequence[Network], now: float) -> float:
        probation = self._probations.get(networks[0]) if networks else None
        return probation[1] if probation and now < probation[0] else 0.0

    def _put_on_probation(self, networks: Sequence[Network], pace: float, now: float) -> None:
        if networks:
            slower = max(pace, self._pace(networks, now))
            self._probations.put(networks[0], (now + PROBATION_SECONDS, slower))

    def _take_rate(self, networks: Sequence[Network], now: float) -> LimitReached | None:
        for i, network in enumerate(networks):
            if self.rate_of(network).take(network, now):
                self._give_back(networks[:i], now)
                value = self.limits.connections_per_minute * level_factor(network)
                return LimitReached("connections_per_minute", value, value + 1)
        return None

    def _give_back(self, networks: Sequence[Network], now: float) -> None:
        for network in networks:
            self.rate_of(network).give_back(network, now)

    def share_rates(self, news: News[Hashable]) -> None:
        """Collect in `news` what is taken from now on. What was counted until now is forgotten."""
        self.rate_news = news
        self._rates.clear()

    def rate_of(self, network: Network) -> RateTable:
        """Return the rates of all networks that are as wide as `network`."""
        factor = level_factor(network)
        found = self._rates.get(factor)
        if found is None:
            per_minute = self.limits.connections_per_minute * factor
            found = self._rates[factor] = RateTable(
                per_minute / 60, per_minute, MAX_RATE_KEYS, self.rate_news
            )
        return found

    def rate_tables(self) -> Iterator[tuple[str, RateTable]]:
        """Yield all rates that processes share, with their kind (`guard_report.RATES`)."""
        for table in self._rates.values():
            yield "connections", table
        for table in self.failures.guess_rates.tables():
            yield "guesses", table
        yield "scram", self.failures.scram_rate

    def counted(self) -> dict[str, list[tuple[Hashable, bytes]]]:
        """Return the failed logins and violations of all processes, for `merge_counted` of one that starts."""
        tables = self.failures.pair_tables()
        rows = {name: table.rows() for name, table in tables.items()}
        return rows | {"violations": self.bans.violation_rows()}

    def merge_counted(self, counted: Mapping[str, Sequence[tuple[Hashable, bytes]]]) -> None:
        """Count what another process with the same clock and the same key for `failures` knows of all processes."""
        for name, table in self.failures.pair_tables().items():
            table.merge(counted.get(name, ()))
        self.bans.merge_violations(counted.get("violations", ()))

    def _over_rate(
        self, address: str, networks: Sequence[Network], reached: LimitReached, now: float
    ) -> Arrival:
        if self._last_violation.take(networks[0], now):
            return Arrival(None, (), reached, silent=True)
        violations, ban = self._violation(address, reached.limit, now)
        return Arrival(None, (), reached, ban, violations=violations)

    def _reported_violations(
        self, address: str, networks: Sequence[Network], reached: LimitReached | None, now: float
    ) -> LimitReached | None:
        """Return the limit that a connection above the rate would reach if nothing were report-only."""
        if reached is None or reached.limit in self.limits.report_only_limits:
            return None
        if self._last_violation.take(networks[0], now):
            return None
        return self._violation(address, reached.limit, now)[0]

    def login(
        self, connection: Connection, user: str, given: bytes, now: float
    ) -> tuple[Sequence[Eviction], LimitReached | None]:
        """Count `connection` as one of `user`, whose password was correct.

        `given` is the name that the client gave, which a checker may have changed. Failed logins are counted by it.

        Returns:
            the connections that must be reset for it, and the limit if the login must be refused.
        """
        evictions, reached = self.shares.login(connection, user)
        if reached is None:
            self.failures.succeeded(connection.address, given, now)
            if connection.took_rate:
                connection.took_rate = False  # A client may log out and in again (UNAUTHENTICATE).
                self._give_back(networks_of(connection.address), now)
        return evictions, reached

    def logout(self, connection: Connection) -> Sequence[Eviction]:
        """Count `connection` as one without a login again; returns the connections that must be reset for it."""
        return self.shares.logout(connection)

    def close(self, connection: Connection) -> None:
        """Count `connection` no more, because its socket is closed."""
        self.shares.close(connection)

    def login_failed(
        self, connection: Connection, user: bytes, secret: bytes | None, now: float
    ) -> tuple[FailedLogin, Ban | None]:
        """Count a failed login, and return the delay of its answer, and the ban that it causes, if any.

        It causes none if only the limit is reported, and then has `banned_for`.

        Args:
            connection: the connection.
            user: the name that the client gave.
            secret: a keyed digest of the password; None if the client proved its password without sending it.
            now: the time.
        """
        address = connection.address
        if address in self.trusted:
            repeated = self.failures.is_repeated(address, user, secret, now)
            return FailedLogin(0.0, repeated=repeated), None
        failed = self.failures.failed(address, user, secret, now)
        limits = self.limits
        if limits.reports_only("max_login_delay_seconds"):
            failed = replace(failed, delay=0.0)
        if failed.banned_for is None or limits.reports_only("max_failed_pairs"):
            return failed, None
        if self.bans.banned(address, now):  # for strangers only, and this user is none
            return replace(failed, banned_for=None), None
        shared = self.failures.is_shared(address, now)
        limit = failed.banned_for.limit
        return failed, self.bans.ban(address, limit, now, strangers_only=shared)

    def login_undecided(
        self, connection: Connection, user: bytes, secret: bytes | None, now: float
    ) -> int:
        """Count a password of which nobody knows whether it is wrong, as `LoginFailures.undecided` does."""
        if connection.address in self.trusted:
            return 0
        return self.failures.undecided(connection.address, user, secret, now)

    def refuse_login(self, connection: Connection, user: bytes, now: float) -> LimitReached | None:
        """Return why `user` may not even try to log in, or None: a ban, or a rate that is used up (`begin_login`)."""
        guess = self.begin_login(connection, user, now)
        if isinstance(guess, Guess):
            self.not_a_guess(guess, now)
            return None
        return guess

    def begin_login(
        self, connection: Connection, user: bytes, now: float
    ) -> Guess | LimitReached | None:
        """Count a password of `user` that is about to be looked at, or return why it must not be.

        None means that nothing is counted: the network is trusted, or the user is known at the address. A `Guess` must
        be passed to `not_a_guess`, unless the login fails with `FailedLogin.is_guess`.

        A ban of an address that many users share does not refuse connections, but logins of users who have never
        logged in from there, before their passwords are looked at.
        """
        address = connection.address
        ban = self.ban_of(address, now)
        if ban and not (ban.strangers_only and self.failures.may_try(address, user, now)):
            return BANNED
        return None if address in self.trusted else self.failures.begin_guess(address, user, now)

    def not_a_guess(self, guess: Guess, now: float) -> None:
        """Undo a `begin_login`."""
        self.failures.not_a_guess(guess, now)

    def violation(
        self, connection: Connection, limit: str, now: float
    ) -> tuple[LimitReached | None, Ban | None]:
        """Count that `connection` has exceeded `limit`, and is reset, or would be without ``--report-only``.

        Returns:
            the limit ``max_limit_violations`` if the address has reached it, and the ban, unless it is only reported.
        """
        limits = self.limits
        if limit not in VIOLATIONS or connection.logged_in or limit in limits.report_only_limits:
            return None, None
        if not limits.report_only:
            self._put_on_probation(networks_of(connection.address), VIOLATION_PACE, now)
        if connection.address in self.trusted:
            return None, None
        return self._violation(connection.address, limit, now)

    def _violation(
        self, address: str, limit: str, now: float
    ) -> tuple[LimitReached | None, Ban | None]:
        kind = _RATE_KIND if limit == "connections_per_minute" else _OTHER_KIND
        if not self.bans.count_violation(address, now, kind):
            return None, None
        most = self.limits.max_limit_violations
        reached = LimitReached("max_limit_violations", most, most)
        if self.limits.reports_only(reached.limit):
            return reached, None
        shared = self.failures.is_shared(address, now)
        return reached, self.bans.ban(address, limit, now, strangers_only=shared)

    def add_violation(self, network: Network, violation: bytes, now: float, time: float) -> bool:
        """Count a violation of an address that another process has reported, as `Bans.add_violation` does.

        Of connections above the rate, one violation counts in `RATE_VIOLATION_SECONDS`, whatever the number of
        processes that refuse some: an office must not be banned because a burst of it meets many.
        """
        if violation[:1] == _RATE_KIND and self._last_violation.take(network, now):
            return False
        return self.bans.add_violation(network, violation, now, time)

    def strangers_of(self, networks: Iterable[Network]) -> Sequence[Connection]:
        """Return the connections without a login from `networks`, which end when these are banned."""
        return [c for network in networks for c in self.shares.strangers_of(network)]
