"""`Admission`: asks the `ProcessGuard` about connections and logins, and does what it decides.

All connections of a server share one `Admission`. It reads the clock, reports events, and resets the connections that
must make room or whose address is banned.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from imapshield import events
from imapshield.edge.event_reporter import Observers, publish
from imapshield.guard.bans import Ban, ban_target
from imapshield.guard.busy_users import BusyUser
from imapshield.guard.guard_report import GuardReport
from imapshield.guard.guess_rates import Guess
from imapshield.guard.login_failures import FailedLogin
from imapshield.guard.networks import Network, address_of, describe, is_inside, networks_of
from imapshield.guard.process_guard import BANNED, Arrival, ProcessGuard
from imapshield.guard.shared_guard import Merged, SharedGuard
from imapshield.guard.shares import Connection, Eviction
from imapshield.guard.verdicts import LimitReached

_OF_ALL = ("max_connections", "open_files")
"""Limits because of which a client is refused that holds nothing, so the log names the address that holds most."""


OPERATOR = "operator"
"""The reason of a ban that an operator has made, and the limit of a connection that an operator has ended."""


class ConnectionHolder(Protocol):
    """What the owner of a counted connection must be able to do."""

    def evict(self, reached: LimitReached, *, only_report: bool = False) -> None:
        """Report that `reached` ends this connection, and reset it unless `only_report`."""


class Admission:
    """The admission of connections and logins to one server.

    Args:
        guard: decides.
        observers: called with each `events.Event`.
        now: returns seconds of a monotonic clock.

    Attributes:
        on_ban: called with each new ban.
        on_unban: called with the text of each network whose ban an operator has ended.
    """

    def __init__(
        self,
        guard: ProcessGuard,
        observers: Iterable[events.EventObserver],
        now: Callable[[], float],
    ) -> None:
        self.guard = guard
        self.on_ban: Callable[[Ban], object] = lambda _: None
        self.on_unban: Callable[[str], object] = lambda _: None
        self._observers = Observers.of(observers)
        self._now = now
        self._holder, self._next_holder = "", 0.0

    def admit(self, address: str) -> Arrival:
        """Count a new connection, unless it is refused. The caller sets the `owner` of ``Arrival.connection``."""
        return self._arrived(address, self.guard.connect(address, self._now()))

    def pace(self, address: str) -> float:
        """Return the seconds that must pass between two connections of `address`; usually 0."""
        return self.guard.pace(address, self._now())

    def admit_proxy(self, address: str) -> Connection | None:
        """Count a connection of a proxy that has not sent its header; returns None if it is refused.

        The caller sets its `owner`, and calls `close` when the header has arrived or the connection has ended.
        """
        return self._arrived(address, self.guard.connect_proxy(address)).connection

    def _arrived(self, address: str, arrival: Arrival) -> Arrival:
        self._evict(arrival.evictions)
        if arrival.reached is not None and not arrival.silent:
            self.report(address, arrival.reached, "none" if arrival.connection else "refused")
        if arrival.violations is not None:
            last = arrival.reached.limit if arrival.reached else ""
            self._too_many_violations(address, arrival.violations, arrival.ban, last)
        return arrival

    def report(
        self, address: str, reached: LimitReached, action: events.Action, seconds: float = 0.0
    ) -> None:
        """Report a limit that a connection without a protocol, or an address, has reached.

        Args:
            address: the address.
            reached: the limit.
            action: what follows.
            seconds: the age of the connection, if there is one.
        """
        values = reached.limit, reached.value, reached.observed, action
        holder = self._largest_holder() if reached.limit in _OF_ALL else ""
        networks = networks_of(address)
        network = describe(networks[1]) if networks else ""
        event = events.LimitTriggered(
            *(0, address, *values),
            holder=holder,
            network=network,
            binding=reached.binding,
            seconds=seconds,
        )
        publish(event, self._observers)

    def report_busy(self, users: Iterable[BusyUser]) -> None:
        """Report users who keep the server busy."""
        for user, share, seconds, commands, peer, connection in users:
            event = events.UserBusy(connection, peer, user, share, seconds, commands)
            publish(event, self._observers)

    def _largest_holder(self) -> str:
        """Return the address with most connections. It is looked for once per second, among all addresses."""
        if self._now() >= self._next_holder:
            self._next_holder = self._now() + 1
            self._holder = self.guard.shares.largest_address()
        return self._holder

    def _evict(self, evictions: Sequence[Eviction]) -> None:
        for eviction in evictions:
            owner: ConnectionHolder | None = eviction.connection.owner
            if owner is not None:
                owner.evict(eviction.reached, only_report=eviction.only_reported)

    def _banned(
        self,
        ban: Ban,
        address: str,
        reached: LimitReached,
        last: str = "",
        spare: Connection | None = None,
        number: int = 0,
    ) -> None:
        values = reached.limit, reached.value, reached.observed, ban.seconds
        network, shared = describe(ban.network), ban.strangers_only
        event = events.AddressBanned(number, address, network, *values, last=last, shared=shared)
        publish(event, self._observers)
        self.on_ban(ban)
        if not ban.strangers_only:  # these may be of honest users of the same address
            self.end_strangers(ban.network, spare)

    def end_strangers(self, network: Network, spare: Connection | None = None) -> None:
        """Reset the connections without a login from a network that is banned, but not `spare`."""
        for connection in self.guard.strangers_of([network]):
            if connection.owner is not None and connection is not spare:
                connection.owner.evict(BANNED)

    def login(self, connection: Connection, user: str, given: bytes) -> LimitReached | None:
        """Count `connection` as one of `user`; returns the limit if the login must be refused.

        `given` is the name that the client gave, from which a checker may have made `user`.
        """
        evictions, reached = self.guard.login(connection, user, given, self._now())
        self._evict(evictions)
        return reached

    def refuse_login(self, connection: Connection, user: bytes) -> LimitReached | None:
        """Return why `user` may not even try to log in, or None."""
        return self.guard.refuse_login(connection, user, self._now())

    def begin_login(self, connection: Connection, user: bytes) -> Guess | LimitReached | None:
        """Count a password that is about to be looked at (see `ProcessGuard.begin_login`)."""
        return self.guard.begin_login(connection, user, self._now())

    def not_a_guess(self, guess: Guess) -> None:
        """Undo a `begin_login`."""
        self.guard.not_a_guess(guess, self._now())

    def logout(self, connection: Connection) -> None:
        """Count `connection` as one without a login again."""
        self._evict(self.guard.logout(connection))

    def close(self, connection: Connection) -> None:
        """Count `connection` no more."""
        self.guard.close(connection)

    def login_failed(
        self, connection: Connection, user: bytes, secret: bytes | None, number: int = 0
    ) -> tuple[FailedLogin, Ban | None]:
        """Count a failed login on connection number `number` (see `ProcessGuard.login_failed`).

        If it bans the address, all its other connections without a login are reset; `connection` is left to the
        caller. Those of an address that many users share are not: `refuse_login` refuses their logins.
        """
        failed, ban = self.guard.login_failed(connection, user, secret, self._now())
        if ban is not None and failed.banned_for is not None:
            reached, address = failed.banned_for, connection.address
            self._banned(ban, address, reached, spare=connection, number=number)
        return failed, ban

    def login_undecided(self, connection: Connection, user: bytes, secret: bytes | None) -> int:
        """Count a login that nobody could decide about (see `ProcessGuard.login_undecided`)."""
        return self.guard.login_undecided(connection, user, secret, self._now())

    def violation(self, connection: Connection, reached: LimitReached) -> None:
        """Note that `connection` has reached a limit that resets it, which may ban its address.

        In report-only mode it is called once for a connection.
        """
        violations, ban = self.guard.violation(connection, reached.limit, self._now())
        if violations is not None:
            address, last = connection.address, reached.limit
            self._too_many_violations(address, violations, ban, last, spare=connection)

    def _too_many_violations(
        self,
        address: str,
        reached: LimitReached,
        ban: Ban | None,
        last: str,
        spare: Connection | None = None,
    ) -> None:
        if ban is None:
            self.report(address, reached, "none")
        else:
            self._banned(ban, address, reached, last, spare)

    def ban_by_operator(self, network: str, seconds: float | None) -> Ban:
        """Ban an address (IPv6: its /64) or a network; `seconds` is None for the duration that the limits say.

        Raises:
            ValueError: the text is neither an address nor a network.
        """
        ban = self.guard.bans.ban(network, OPERATOR, self._now(), seconds=seconds)
        text = describe(ban.network)
        event = events.AddressBanned(0, text.removesuffix("/32"), text, OPERATOR, 0, 0, ban.seconds)
        publish(event, self._observers)
        self.on_ban(ban)
        return ban

    def unban_by_operator(self, network: str) -> list[str]:
        """End the bans of an address, or all inside a network, and return the networks that were banned.

        Raises:
            ValueError: the text is neither an address nor a network.
        """
        target = ban_target(network)
        active = self.guard.bans.active(self._now())
        ended = [describe(ban.network) for ban in active if is_inside(ban.network, target)]
        self.guard.bans.unban(network, self._now())
        for text in ended:
            self.unbanned(text)
        return ended

    def unbanned(self, network: str) -> None:
        """Report that an operator has ended the ban of `network`, here or in another process."""
        publish(events.AddressUnbanned(0, network), self._observers)
        self.on_unban(network)

    def merge_report(
        self, shared: SharedGuard, member: str, report: GuardReport, *, is_worker: bool = False
    ) -> Merged:
        """Count what another process tells, and reset the connections that must go.

        The bans of the other process are not reported, because it has done that, but `on_ban` is called.

        Args:
            shared: the guard.
            member: the name of the other process.
            report: what it tells.
            is_worker: whether another process of this server reports all bans, and asks this one to reset and count
                the connections that an operator has banned.
        """
        merged = shared.merge_report(member, report, self._now())
        self._evict(merged.evictions)
        for ban in merged.bans:
            self.on_ban(ban)
            if not (is_worker and ban.reason == OPERATOR):
                self._end_banned(ban)
        for ban, reached in merged.new_bans:
            if is_worker:
                self._end_banned(ban)
            else:
                self._banned(ban, address_of(ban.network), reached)
        for network in merged.unbans:
            self.on_unban(network)
        return merged

    def _end_banned(self, ban: Ban) -> None:
        if not ban.strangers_only and not self.guard.limits.report_only:
            self.end_strangers(ban.network)

    def report_refused(self) -> None:
        """Report how many connections bans have refused since the last call."""
        guard = self.guard
        for network, connections, remaining in guard.refused.take(guard.bans, self._now()):
            event = events.ConnectionsRefused(0, network, connections, remaining)
            publish(event, self._observers)
