"""`SharedGuard`: lets the guards of several processes decide alone, and nearly as one guard would that sees everything.

Rules
-----
* A process decides with its own `ProcessGuard`, at once. It sends the others what happened (`take_report`), and what
  they send (`merge_report`) counts in its decisions from then on. It never asks before it decides.
* Reports may be late, repeated or lost. Of an older report than the newest of a process, the counts of connections are
  ignored. After a lost one they are not `Merged.is_complete`, until the process sends all of them again (`tell_all`).
* A ban applies in all processes. Of two, the one that ends last applies. An end by hand ends all bans made before it.
* How far a process may be from one guard for all, when all reports have arrived, is in docs/guard.rst.
* A process whose limits are others counts by its own. `max_connections`, `max_preauth_connections` and the files are
  those of one process, and so is the pace of an address on probation.
* All tables have a maximum size, whatever the other processes send.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple, Protocol

from imapshield.guard.bans import Ban, SavedBan, ban_target, note_news
from imapshield.guard.bounded_table import BoundedTable
from imapshield.guard.guard_report import (
    MAX_ENTRIES,
    GuardReport,
    RateTaken,
    network_from,
    rate_taken,
)
from imapshield.guard.login_news import LOGIN_SECONDS, EventNews, FailedPair, LoginNews
from imapshield.guard.networks import Network, address_of, describe, level_factor
from imapshield.guard.process_guard import ProcessGuard
from imapshield.guard.rates import RateNews, RateTable
from imapshield.guard.shares import Eviction
from imapshield.guard.verdicts import LimitReached

MAX_MEMBERS = 1024
"""Other processes. The reports of more are ignored. As many that are forgotten are known by name."""

MAX_ENDED = 16384
"""Bans that were ended by hand, so that an older report does not bring them back."""

_RECENT = 64
"""Reports before the newest of a process that are accepted when they are late."""

_ROUNDING = 1e-3  # seconds


class NewBan(NamedTuple):
    """A `ban` that this process makes because of what others report, and the limit that was `reached`."""

    ban: Ban
    reached: LimitReached


@dataclass(slots=True)
class Merged:
    """What must be done after a report.

    Attributes:
        bans: the bans of the other process that apply now.
        new_bans: bans of this process, because it knows more now.
        unbans: the networks, as text, whose ban was ended by hand.
        evictions: own connections that must be reset because the other process has more.
        is_complete: whether all counts of the other process are known. If not, ask it to `tell_all`.
        is_repeated: whether the report has arrived before, so that it counts no more.
    """

    bans: list[Ban] = field(default_factory=list)
    new_bans: list[NewBan] = field(default_factory=list)
    unbans: list[str] = field(default_factory=list)
    evictions: list[Eviction] = field(default_factory=list)
    is_complete: bool = True
    is_repeated: bool = False


@dataclass(slots=True)
class _Member:
    newest: int = 0
    seen: int = 0  # bit n: the report newest - n
    is_complete: bool = False


class Counts(Protocol):
    """The connections that are reported to other processes: `ConnectionShares`, or those of another group."""

    def tell_all_counts(self) -> None:
        """Have `take_counts` return all counts again."""

    def take_counts(
        self, number: int
    ) -> tuple[list[tuple[Network, int]], list[tuple[bytes, int]], bool]:
        """Return at most `number` changed counts of addresses and of users, and whether these are all counts again."""


class SharedGuard:
    """Shares the guard of this process with others.

    It forgets what `guard` knows of logins and rates, so make it before the first connection. All processes must have
    the same key for `LoginFailures`, because they exchange its hashes.

    Args:
        guard: the guard of this process.
        name: the name of this process, which no other has or had.

    Attributes:
        guard, name: as above.
        members: the names of the other processes.
        counts: the connections that are reported to the others.
        other: reports to another group of processes what members of this one count (`GuardRelay`).
        pairs, logins, violations, rates, guesses: what is reported to the others.
        clock_offset: the seconds by which the clock that all processes share is ahead of the times of the calls here.
    """

    def __init__(self, guard: ProcessGuard, name: str) -> None:
        self.guard, self.name = guard, name
        self.clock_offset = 0.0
        self.members: dict[str, _Member] = {}
        self.counts: Counts = guard.shares
        self.other: SharedGuard | None = None
        self._forgotten: dict[str, _Member] = {}
        self._number = 0
        self._is_first = True
        self.rates: RateNews[Hashable] = RateNews()
        self.guesses: RateNews[Hashable] = RateNews()
        self.violations: EventNews[tuple[Network, bytes]] = EventNews()
        self.pairs: EventNews[FailedPair] = EventNews()
        self.logins: EventNews[tuple[bytes, bytes]] = EventNews(LOGIN_SECONDS)
        # network → when its ban was ended by hand, by the clock of this process: the one that all share may be set
        self._ended: BoundedTable[Network, float] = BoundedTable(MAX_ENDED, float)
        guard.share_rates(self.rates)
        guard.failures.share(name.encode(), self.guesses, LoginNews(self.pairs, self.logins))
        guard.bans.share_violations(name.encode(), self.violations)
        self._count_news = guard.shares.share_counts(guard.failures.hash_account)
        self._bans: dict[Network, float | None] = dict.fromkeys(guard.bans)
        guard.bans.news.append(self._bans)

    def call_on_news(self, call: Callable[[], object]) -> None:
        """Call a function when a report has something to send. Bans are sent at once, and a relay does not call it."""
        news: Sequence[Any] = self.rates, self.guesses, self.violations, self.pairs, self.logins
        for each in (*news, *self._count_news):
            each.on_first = call

    def tell_all(self, logins_at: float | None = None) -> None:
        """Tell all bans and all counts of connections in the next reports; with the time, also the known users."""
        self._is_first = True
        self.counts.tell_all_counts()
        self.logins.send_again()
        for network in (*self.guard.bans, *self._ended):
            self._bans.setdefault(network)
        if logins_at is not None:
            self.guard.failures.tell_all(self.logins, logins_at)

    def forget_rate_news(self) -> None:
        """Tell nobody what was taken of rates since the last report. It counts in this process alone."""
        self.rates.amounts.clear()
        self.guesses.amounts.clear()

    def take_report(self, now: float, *, always: bool = True) -> GuardReport | None:
        """Return what has happened since the last report, or None if that is nothing, unless `always`.

        Call it every fraction of a second, and at once after a ban or the end of one.
        """
        connections, users, is_restarted = self.counts.take_counts(MAX_ENTRIES)
        bans, unbans = self._take_bans(now)
        report = GuardReport(
            self._number + 1,
            now + self.clock_offset,
            self._is_first or is_restarted,
            bans,
            unbans,
            tuple(self.pairs.take(MAX_ENTRIES, now)),
            tuple(self.logins.take(MAX_ENTRIES, now)),
            tuple(connections),
            tuple(users),
            tuple(self.violations.take(MAX_ENTRIES, now)),
            tuple(self._take_rates()),
        )
        if report.is_empty and not always:
            return None
        self._number, self._is_first = self._number + 1, False
        return report

    def _take_bans(self, now: float) -> tuple[tuple[SavedBan, ...], tuple[tuple[str, float], ...]]:
        bans = self.guard.bans
        found: list[SavedBan] = []
        ended: list[tuple[str, float]] = []
        for network in list(islice(self._bans, MAX_ENTRIES)):
            ended_at, ban = self._bans.pop(network), bans.saved(network, now)
            if ended_at is not None:
                made = now if ban is None else now + ban.remaining - ban.seconds
                self._note_end(network, min(ended_at, made))
            if network in self._ended:
                ended.append((describe(network), self._ended.get(network, 0.0) + self.clock_offset))
            if ban is not None:
                found.append(ban)
        return tuple(found), tuple(ended)

    def _take_rates(self) -> Iterator[RateTaken]:
        for kind, news in (("connections", self.rates), ("guesses", self.guesses)):
            for key, amount in news.take(MAX_ENTRIES):
                yield rate_taken(kind, key, amount)

    def rate_table(self, taken: RateTaken) -> tuple[RateTable, Hashable]:
        """Return the table that has the rate of which something was taken, and its key there."""
        failures, key = self.guard.failures, taken.key
        if taken.kind == "scram":
            return failures.scram_rate, key
        if taken.kind == "guesses of users":
            return failures.guess_rates.users, (key[:-1], bool(key[-1]))
        network = network_from(key)
        if taken.kind == "connections":
            return self.guard.rate_of(network), network
        return failures.guess_rates.network_table(level_factor(network)), network

    def rates_taken(self, number: int, now: float) -> Iterator[RateTaken]:
        """Yield how much all processes have taken of rates, as far as is known; of each table at most `number`."""
        for kind, table in self.guard.rate_tables():
            for key, amount in table.most_taken(number, now):
                yield rate_taken(kind, key, amount)

    def set_taken(self, taken: RateTaken, now: float) -> RateTaken:
        """Set how much all processes have taken of a rate; what they do not know of this one yet is added to it.

        Returns:
            the sum.
        """
        table, key = self.rate_table(taken)
        amount = taken.amount + self._rate_news(taken).amounts.get(key, 0.0)
        table.set_taken(key, amount, now)
        return taken._replace(amount=max(0.0, amount))

    def _rate_news(self, taken: RateTaken) -> RateNews[Hashable]:
        return self.rates if taken.kind == "connections" else self.guesses

    def merge_report(self, member: str, report: GuardReport, now: float) -> Merged:
        """Count what another process reports.

        Args:
            member: its name.
            report: its report.
            now: the time of this process.
        """
        merged = Merged()
        known = self.members.get(member)
        if known is None:
            if len(self.members) >= MAX_MEMBERS:
                return merged
            known = self._forgotten.get(member) or _Member()
        is_newest = _is_newest(known, report)
        merged.is_complete, merged.is_repeated = known.is_complete, is_newest is None
        if is_newest is None:
            return merged
        self.members[member] = known
        self._forgotten.pop(member, None)
        made_at = min(now, report.time - self.clock_offset)
        reached = self._merge_logins(report, made_at, now)
        self._merge_bans(report, merged, now)
        self._ban_all(reached, merged, now)
        for taken in report.rates:
            table, key = self.rate_table(taken)
            table.add_taken(key, taken.amount, now)
        if is_newest:
            self._merge_counts(member, report, merged, is_complete=known.is_complete)
        if self.other is not None:
            self.other.pass_on(report, made_at)
        return merged

    def pass_on(self, report: GuardReport, made_at: float) -> None:
        """Tell the others which logins, violations and rates another group has counted, and reported at `made_at`."""
        for login, age in report.logins:
            self.logins.add(login, made_at - age)
        for pair, age in report.failures:
            self.pairs.add(pair, made_at - age)
        for violation, age in report.violations:
            self.violations.add(violation, made_at - age)
        for taken in report.rates:
            self._rate_news(taken).add(self.rate_table(taken)[1], taken.amount)

    def pass_ban_on(self, network: Network, ended: float | None = None) -> None:
        """Tell the others of a ban in another group, or when it was ended by hand."""
        if ended is not None:
            self._note_end(network, ended)
        note_news(self._bans, network)

    def _note_end(self, network: Network, time: float) -> bool:
        """Note when a ban was ended by hand; return whether it is news."""
        before = self._ended.get(network)
        if before is None or time > before:
            self._ended.put(network, time)
        return before is None or time > before + _ROUNDING

    def _merge_bans(self, report: GuardReport, merged: Merged, now: float) -> None:
        bans, made_at = self.guard.bans, report.time - self.clock_offset
        # A clock that is set back must not make bans longer.
        elapsed = max(0.0, now - made_at)
        for text, shared_time in report.unbans:
            network, time = ban_target(text), shared_time - self.clock_offset
            if self._note_end(network, time) and self.other is not None:
                self.other.pass_ban_on(network, time)
            own = bans.get(network)
            if own is not None and own.until - own.seconds <= time + _ROUNDING:
                bans.end_remote(network)
                if now < own.until:
                    merged.unbans.append(describe(network))
        for saved in report.bans:
            network = ban_target(saved.network)
            made = made_at + saved.remaining - saved.seconds
            if made + _ROUNDING < self._ended.get(network, made) or self._ends(network, made):
                continue
            remaining = min(saved.remaining - elapsed, self.guard.limits.max_ban_seconds)
            ban, before = Ban(network, saved.reason, now + remaining, *saved[3:]), bans.get(network)
            applies = bans.add_remote(ban, now)
            if self.other is not None and bans.get(network) is not before:
                self.other.pass_ban_on(network)
            if applies:
                merged.bans.append(ban)
                if ban.reason == "max_failed_pairs":
                    self.guard.failures.forget_pairs(network)
                else:
                    bans.forget_violations(network)

    def _ends(self, network: Network, made: float) -> bool:
        """Return whether a ban that was `made` then was ended here by hand, which the next report says."""
        ended_at = self._bans.get(network)
        return ended_at is not None and made <= ended_at and self.guard.bans.get(network) is None

    def _merge_logins(
        self, report: GuardReport, made_at: float, now: float
    ) -> list[tuple[Network, LimitReached]]:
        """Count logins and violations; returns the addresses that have reached a limit for a ban.

        They may be among the bans of the report, so these come next.
        """
        guard, found = self.guard, list[tuple[Network, LimitReached]]()
        failures, most = guard.failures, guard.limits.max_limit_violations
        for (user, address), age in report.logins:
            failures.add_login(user, address, now, made_at - age)
        for pair, age in report.failures:
            reached = failures.add_pair(pair, now, made_at - age)
            if reached is not None:
                found.append((pair.network, reached))
        for (network, violation), age in report.violations:
            if guard.add_violation(network, violation, now, made_at - age):
                found.append((network, LimitReached("max_limit_violations", most, most)))
        return found

    def _ban_all(
        self, addresses: Iterable[tuple[Network, LimitReached]], merged: Merged, now: float
    ) -> None:
        guard = self.guard
        for network, reached in addresses:
            address = address_of(network)
            is_exempt = guard.limits.reports_only(reached.limit) or address in guard.trusted
            if not is_exempt and not guard.bans.banned(address, now):
                shared = guard.failures.is_shared(address, now)
                ban = guard.bans.ban(address, reached.limit, now, strangers_only=shared)
                merged.new_bans.append(NewBan(ban, reached))

    def _merge_counts(
        self, member: str, report: GuardReport, merged: Merged, *, is_complete: bool
    ) -> None:
        shares = self.guard.shares
        assert shares.remote is not None
        if report.is_first:
            shares.remote.begin_again(member)
        changed = shares.remote.set_addresses(member, report.connections)
        shares.remote.set_users(member, report.users)
        # A report with fewer entries than fit has all that there was to report.
        if is_complete and max(len(report.connections), len(report.users)) < MAX_ENTRIES:
            shares.remote.told_all(member)
        merged.evictions = shares.make_room(changed)

    def forget_member(self, member: str) -> None:
        """Forget the connections of a process that has ended, or is silent. What else it has reported stays."""
        assert self.guard.shares.remote is not None
        self.guard.shares.remote.forget(member)
        known = self.members.pop(member, None)
        if known is not None:
            # Its reports count once, also when somebody repeats them now.
            known.is_complete = False
            self._forgotten[member] = known
            if len(self._forgotten) > MAX_MEMBERS:
                del self._forgotten[next(iter(self._forgotten))]


def _is_newest(member: _Member, report: GuardReport) -> bool | None:
    """Note that a report has arrived. Returns whether it is the newest; None if it is repeated, or much too late."""
    ahead = report.number - member.newest
    if ahead > 0:
        member.is_complete = report.is_first or (member.is_complete and ahead == 1)
        member.seen = (member.seen << min(ahead, _RECENT) | 1) & ((1 << _RECENT) - 1)
        member.newest = report.number
        return True
    if -ahead >= _RECENT or member.seen >> -ahead & 1:
        return None
    member.seen |= 1 << -ahead
    return False
