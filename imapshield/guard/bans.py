"""`Bans`: the addresses from which no connection is accepted for some time.

Rules
-----
* A ban is for an IPv4 address or an IPv6 /64. Only an operator bans other networks.
* The first ban of a network takes `ban_seconds`, each further one twice as long as the one before, up to
  `max_ban_seconds`. A network that was not banned for `max_ban_seconds` after its last ban begins again.
* The time is that of a clock that never goes back, and a saved ban has the seconds that remain. So neither a restart
  nor a clock that jumps ends or extends a ban. The time between two runs of the server does not count.
* Full tables take at most 13 MB.
"""

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from math import inf
from typing import NamedTuple

from imapshield.guard.bounded_table import BoundedTable
from imapshield.guard.login_news import News
from imapshield.guard.networks import (
    Network,
    describe,
    enclosing,
    is_inside,
    networks_of,
    parse_network,
)
from imapshield.guard.rates import RecentItems
from imapshield.limits import Limits

MAX_BANS = 16384
"""Networks that are banned, or were not long ago. One more drops the one whose ban ends, or has ended, first."""

MAX_NEWS = 2 * MAX_BANS
"""Networks that wait to be sent to other processes. One more drops the oldest: those that are banned then are sent when
the others can be reached again."""

SAME_BAN_SECONDS = 1.0
"""Seconds by which the ends of one ban differ in several processes, at most: their clocks are nearly the same."""

VIOLATION_SECONDS = 3600
"""Seconds in which the violations of an address are counted."""

MAX_VIOLATORS = 16384
"""Addresses whose violations are counted. One more drops the one that has had the fewest for the longest time."""


@dataclass(frozen=True, slots=True)
class Ban:
    """One ban.

    Attributes:
        network: which addresses.
        reason: the limit that was reached, or a text.
        until: the time at which it ends.
        seconds: its whole duration.
        number: how many bans of the network this one is.
        strangers_only: connections are accepted, but only users known there may log in (`LoginFailures.may_try`).
    """

    network: Network
    reason: str
    until: float
    seconds: float
    number: int = 1
    strangers_only: bool = False


class SavedBan(NamedTuple):
    """A `Ban` for a file. `remaining` is the seconds until its end, negative if it has ended."""

    network: str
    reason: str
    remaining: float
    seconds: float
    number: int
    strangers_only: bool


class Bans:
    """All bans, including those that have ended and count for the duration of the next.

    Args:
        limits: has `ban_seconds`, `max_ban_seconds` and `max_limit_violations`.

    Attributes:
        changed: collects the networks for which `saved` returns something else than before. None collects nothing.
        news: each collects the networks whose ban was made or ended here, for other processes, and when an earlier ban
            was ended, or None.
        violation_news: collects the violations counted here, for other processes (`share_violations`). None collects
            nothing.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._bans: BoundedTable[Network, Ban] = BoundedTable(MAX_BANS, lambda ban: ban.until)
        # Those of networks that an operator has banned.
        self._other_prefixes: set[tuple[int, int]] = set()
        self._violations = RecentItems(
            VIOLATION_SECONDS, MAX_VIOLATORS, limits.max_limit_violations
        )
        self._violation_count = 0
        self.changed: set[Network] | None = None
        self.news: list[dict[Network, float | None]] = []
        self.violation_news: News[tuple[Network, bytes]] | None = None
        self._member = b""

    def set_limits(self, limits: Limits) -> None:
        """Apply other limits from now on. Violations are forgotten if their limit changes."""
        most = limits.max_limit_violations
        if most != self._limits.max_limit_violations:
            self._violations = RecentItems(VIOLATION_SECONDS, MAX_VIOLATORS, most)
        self._limits = limits

    def __len__(self) -> int:
        return len(self._bans)

    def banned(self, address: str, now: float) -> Ban | None:
        """Return the ban that applies to the address now. Called for every connection before anything else."""
        if not self._bans:
            return None
        networks = networks_of(address)
        if not networks:
            return None
        ban = self._bans.get(networks[0])
        if ban is not None and now < ban.until:
            return ban
        return self._banned_by_operator(address, now) if self._other_prefixes else None

    def _banned_by_operator(self, address: str, now: float) -> Ban | None:
        for network in enclosing(address, self._other_prefixes):
            ban = self._bans.get(network)
            if ban is not None and now < ban.until:
                return ban
        return None

    def violation(
        self, address: str, limit: str, now: float, *, strangers_only: bool = False
    ) -> Ban | None:
        """Count that a connection has exceeded a limit that correct clients do not reach.

        Args:
            address: the client's address.
            limit: the name of the limit.
            now: the time in seconds, of a clock that never goes back.
            strangers_only: as for `ban`.

        Returns:
            The new ban, if this was the violation number `max_limit_violations` within an hour; otherwise None.
        """
        if not self.count_violation(address, now):
            return None
        return self.ban(address, limit, now, strangers_only=strangers_only)

    def violations(self, address: str, now: float) -> int:
        """Return how many violations of the address count for `max_limit_violations`."""
        networks = networks_of(address)
        return self._violations.count(networks[0], now) if networks else 0

    def share_violations(self, member: bytes, news: News[tuple[Network, bytes]]) -> None:
        """Collect in `news` what is counted from now on. `member` is a name that no other process has or had."""
        self._member, self.violation_news = member, news

    def count_violation(self, address: str, now: float, kind: bytes = b"\0") -> bool:
        """Count a violation; return whether it is number `max_limit_violations`, and count from zero again if it is.

        `kind` is one byte, with which the violation is reported to other processes.
        """
        networks = networks_of(address)
        if not networks or self.banned(address, now):
            return False
        self._violation_count += 1
        number = b"%d %b" % (self._violation_count, self._member)
        violation = kind + blake2b(number, digest_size=7).digest()
        if self.violation_news is not None:
            self.violation_news.add((networks[0], violation), now)
        return self.add_violation(networks[0], violation, now)

    def add_violation(
        self, network: Network, violation: bytes, now: float, time: float | None = None
    ) -> bool:
        """Do what `count_violation` does for the address `network`, as another process has reported.

        `violation` is the number of the violation, and counts once; `time` is when it was committed.
        """
        count = self._violations.add(network, violation, now, time)
        if count < self._limits.max_limit_violations:
            return False
        self._violations.forget(network)
        return True

    def ban(
        self,
        network: str,
        reason: str,
        now: float,
        *,
        strangers_only: bool = False,
        seconds: float | None = None,
    ) -> Ban:
        """Ban an address (IPv6: its /64) or, for an operator, a network.

        Args:
            network: the address, or the network.
            reason: the limit that was reached, or a text.
            now: the time in seconds, of a clock that never goes back.
            strangers_only: `LoginFailures.is_shared` of the address.
            seconds: the duration; None for that of the limits.

        Returns:
            The new ban; or the present one, unchanged, if there is one and `seconds` is None.

        Raises:
            ValueError: the text is neither an address nor a network.
        """
        target = ban_target(network)
        last = self._bans.get(target)
        if last is not None and now < last.until and seconds is None:
            return last
        limits, number = self._limits, 1
        if last is not None and self._counts(last.until, now):
            number = last.number + 1
        if seconds is None:
            seconds = min(limits.ban_seconds * 2.0 ** min(number - 1, 64), limits.max_ban_seconds)
        ban = Ban(target, reason, now + seconds, seconds, number, strangers_only)
        self._put(ban)
        self._note_news(target, now if last is not None and ban.until < last.until else None)
        return ban

    def unban(self, network: str, now: float = inf) -> bool:
        """End the bans of an address (IPv6: of its /64), or all bans inside a network, and forget how many there were.

        Returns:
            Whether there was one, even if it had ended.

        Raises:
            ValueError: the text is neither an address nor a network.
        """
        target = ban_target(network)
        inside = [other for other in self._bans if is_inside(other, target)]
        for other in inside:
            self.forget(other, now)
        return bool(inside)

    def forget(self, network: Network, now: float = inf) -> None:
        """Forget the ban of exactly this network, how many there were, and the violations that have been counted.

        Other processes end the bans that were made until `now`; without it, until they are told.
        """
        self._bans.pop(network)
        self._note_change(network)
        self._note_news(network, now)
        self._violations.forget(network)

    def forget_ended(self, now: float) -> None:
        """Forget the bans that ended so long ago that they do not make the next one longer."""
        for ban in list(self._bans.values()):
            if not self._counts(ban.until, now):
                self._bans.pop(ban.network)
                self._note_change(ban.network)

    def _counts(self, until: float, now: float) -> bool:
        """Whether a ban that ends, or has ended, at `until` applies, or makes the next one longer."""
        return now < until + self._limits.max_ban_seconds

    def active(self, now: float) -> Iterator[Ban]:
        """Yield the bans that apply now."""
        return (ban for ban in self._bans.values() if now < ban.until)

    def __iter__(self) -> Iterator[Network]:
        return iter(self._bans)

    def saved(self, network: Network, now: float) -> SavedBan | None:
        """Return the ban of a network, for a file; None if there is none."""
        ban = self._bans.get(network)
        if ban is None:
            return None
        left = ban.until - now
        return SavedBan(
            describe(network), ban.reason, left, ban.seconds, ban.number, ban.strangers_only
        )

    def restore(self, saved: Iterable[SavedBan], now: float, *, are_known: bool = False) -> None:
        """Restore what `saved` returned in this or in an earlier run. What is malformed or forgotten is left out.

        Args:
            saved: the bans.
            now: the time from which they remain.
            are_known: whether the other processes know them already.
        """
        for network, reason, remaining, seconds, number, strangers_only in saved:
            try:
                target = ban_target(network)
            except ValueError:
                continue
            until = now + min(remaining, self._limits.max_ban_seconds)
            if self._counts(until, now):
                self._put(Ban(target, reason, until, seconds, number, strangers_only))
                if not are_known:
                    self._note_news(target)

    def add_remote(self, ban: Ban, now: float) -> bool:
        """Take over a ban of another process; of two bans of a network the one that ends last applies.

        The same ban is reported again now and then, and its end is `SAME_BAN_SECONDS` later at most: it stays as it is.

        Returns:
            whether it applies now and has changed something.
        """
        own = self._bans.get(ban.network)
        if not self._counts(ban.until, now) or (own is not None and own.until >= ban.until):
            return False
        if own is not None:
            ban = replace(ban, number=max(own.number, ban.number))
            is_same = replace(own, until=ban.until) == ban
            if is_same and ban.until <= own.until + SAME_BAN_SECONDS:
                return False
        self._put(ban)
        return now < ban.until

    def end_remote(self, network: Network) -> bool:
        """End a ban because another process has ended it; returns whether there was one."""
        self._violations.forget(network)
        if self._bans.pop(network) is None:
            return False
        self._note_change(network)
        return True

    def violation_rows(self) -> list[tuple[Hashable, bytes]]:
        """Return the violations of all addresses, for `merge_violations` of another process."""
        return self._violations.rows()

    def merge_violations(self, rows: Iterable[tuple[Hashable, bytes]]) -> None:
        """Count what another process has counted of all processes."""
        self._violations.merge(rows)

    def forget_violations(self, network: Network) -> None:
        """Forget the violations of an address that another process has banned for them."""
        self._violations.forget(network)

    def get(self, network: Network) -> Ban | None:
        """Return the ban of exactly this network, even if it has ended."""
        return self._bans.get(network)

    def _put(self, ban: Ban) -> None:
        dropped = self._bans.put(ban.network, ban)
        self._note_change(ban.network)
        if dropped is not None:
            self._note_change(dropped)
        if ban.network[:2] not in ((4, 32), (6, 64)):
            self._other_prefixes.add(ban.network[:2])

    def _note_news(self, network: Network, ended: float | None = None) -> None:
        for news in self.news:
            note_news(news, network, ended)

    def _note_change(self, network: Network) -> None:
        if self.changed is not None:
            self.changed.add(network)


def note_news(
    news: dict[Network, float | None], network: Network, ended: float | None = None
) -> None:
    """Note in one of `Bans.news` that the ban of a network was made, or when an earlier one was ended."""
    if network not in news and len(news) >= MAX_NEWS:
        del news[next(iter(news))]
    news[network] = news.get(network) if ended is None else ended


def ban_target(text: str) -> Network:
    """Return the network that a ban of `text` is for: an IPv6 address stands for its /64.

    Raises:
        ValueError: the text is neither an address nor a network.
    """
    networks = networks_of(text)
    version, prefix, number = networks[0] if networks else parse_network(text)
    if version == 6 and prefix > 64:
        return 6, 64, number >> (prefix - 64)
    return version, prefix, number
