"""`GuardRelay`: lets two groups of processes share one guard, through a process that is in both.

The groups are the workers of one server, and all servers that share a guard. The process between them has no
connections of its own. It passes on what the members of one group report to those of the other: bans, their ends,
logins, violations and rates as they are, and the sum of the group's connections, as if the group were one process.
"""

from collections import Counter
from collections.abc import Callable

from imapshield.guard.login_news import LoginNews, NewsOfTwo
from imapshield.guard.networks import Network
from imapshield.guard.remote_counts import MAX_COUNTS, CountNews
from imapshield.guard.shared_guard import SharedGuard


class GroupCounts:
    """The connections of one group, for those of the other.

    Args:
        sums: returns the connections of all addresses and users in the group.
    """

    def __init__(self, sums: Callable[[], tuple[Counter[Network], Counter[bytes]]]) -> None:
        # A group has more addresses than a process. If all were sent each time, few would find room.
        self._addresses, self._users = CountNews[Network](MAX_COUNTS), CountNews[bytes](MAX_COUNTS)
        self._sums = sums

    def changed(self, key: Network | bytes, count: int) -> None:
        """Note that an address or a user has `count` connections in the group now."""
        if isinstance(key, bytes):
            self._users.changed(key, count)
        else:
            self._addresses.changed(key, count)

    def tell_all_counts(self) -> None:
        """Have `take_counts` return all counts again."""
        addresses, users = self._sums()
        self._addresses.restart(addresses.items())
        self._users.restart(users.items())

    def take_counts(
        self, number: int
    ) -> tuple[list[tuple[Network, int]], list[tuple[bytes, int]], bool]:
        """Return at most `number` changed counts of addresses and of users, and whether these are all counts again."""
        if is_restarted := self._addresses.is_lost or self._users.is_lost:
            self.tell_all_counts()
        return self._addresses.take(number), self._users.take(number), is_restarted


class GuardRelay:
    """Tells each group what the other one counts, from now on.

    Args:
        inner: the group of the workers, which are few.
        outer: the group of the servers. Both have the same `guard`.
    """

    def __init__(self, inner: SharedGuard, outer: SharedGuard) -> None:
        remote = inner.guard.shares.remote
        assert remote is not None
        self._members, self._remote = inner.members, remote
        inner.other, outer.other = outer, inner
        self._report_own(inner, outer)
        self._of_inner = GroupCounts(lambda: remote.sums(inner.members.__contains__))
        self._of_outer = GroupCounts(lambda: remote.sums(lambda name: name not in inner.members))
        outer.counts, inner.counts = self._of_inner, self._of_outer
        remote.on_change = self._changed

    def _report_own(self, inner: SharedGuard, outer: SharedGuard) -> None:
        """Report to both groups what the process itself counts, such as failed logins to the status page."""
        guard, name = inner.guard, outer.name.encode()
        pairs, logins = NewsOfTwo(inner.pairs, outer.pairs), NewsOfTwo(inner.logins, outer.logins)
        guard.share_rates(NewsOfTwo(inner.rates, outer.rates))
        guesses = NewsOfTwo(inner.guesses, outer.guesses)
        guard.failures.share(name, guesses, LoginNews(pairs, logins))
        guard.bans.share_violations(name, NewsOfTwo(inner.violations, outer.violations))

    def _changed(self, member: str, key: Network | bytes) -> None:
        remote, in_inner = self._remote, self._remote.held(self._members, key)
        if member in self._members:
            self._of_inner.changed(key, in_inner)
        else:
            total = remote.users[key] if isinstance(key, bytes) else remote.networks[key]
            self._of_outer.changed(key, total - in_inner)
