"""`GuessRates`: how many wrong passwords are looked at for each wider network, and for each user over all addresses.

A delay does not slow a client that hangs up before the answer, and a guesser with many addresses stays below the ban of
each. So the passwords of users who are not known at their address have a rate, which is applied before a password is
looked at. What turns out not to be a guess is given back: a correct password, and a wrong one that is repeated.
"""

from collections.abc import Hashable, Iterator
from typing import NamedTuple

from imapshield.guard.login_news import News
from imapshield.guard.networks import Network, level_factor
from imapshield.guard.rates import RateTable
from imapshield.guard.verdicts import LimitReached
from imapshield.limits import Limits

NETWORK_FACTOR = 3
"""The `level_factor` of a network that may have `network_logins_per_minute`: a /26 or a /56."""

USER_FACTOR = 18
"""How many times `max_failed_pairs` one user may have at once: twice as many as a /21 or a /48."""

MAX_KEYS = 1024
"""Networks of one size, and users, whose rate is remembered. Those that have taken most are never forgotten first."""

LIMITS_OF_GUESSES = (
    *("network_logins_per_minute", "user_logins_per_minute"),
    *("max_failed_pairs", "max_login_checks"),
)
"""The limits of which the rates are made."""


class Guess(NamedTuple):
    """A password that is looked at, and may be wrong.

    Attributes:
        networks: the wider networks of the client.
        user: the hash of the user.
        is_clean: whether the smallest of the networks had no failed login in the last day. Guesses of clean networks
            have a rate of their own for each user. So a guesser must have thousands of networks to use up that of a
            user who travels.
    """

    networks: tuple[Network, ...]
    user: bytes
    is_clean: bool


class GuessRates:
    """The rates of all networks and users.

    Args:
        limits: has those of `LIMITS_OF_GUESSES`.
        news: collects what is taken here, for other processes; None collects nothing.

    Attributes:
        users: the rates of all users. A key is the hash of the user, and whether the network is clean.
    """

    def __init__(self, limits: Limits, news: News[Hashable] | None = None) -> None:
        self._limits, self._news = limits, news
        self._networks: dict[int, RateTable] = {}
        self.users = self._table(limits.user_logins_per_minute, USER_FACTOR)

    def _table(self, per_minute: float, factor: int) -> RateTable:
        # Checks that run may all turn out to be correct. They alone must not use the burst up.
        burst = factor * self._limits.max_failed_pairs + self._limits.max_login_checks
        return RateTable(per_minute / 60, burst, MAX_KEYS, self._news)

    def take(self, guess: Guess, now: float) -> LimitReached | None:
        """Take one from each rate, or nothing if one of them is used up; returns that one."""
        taken: list[tuple[RateTable, Hashable]] = []
        for table, key, limit, value in self._rates(guess):
            if table.take(key, now):
                for earlier, earlier_key in taken:
                    earlier.give_back(earlier_key, now)
                return LimitReached(limit, value, value + 1)
            taken.append((table, key))
        return None

    def give_back(self, guess: Guess, now: float) -> None:
        """Undo a `take`: the password was correct, or it is repeated."""
        for table, key, _, _ in self._rates(guess):
            table.give_back(key, now)

    def _rates(self, guess: Guess) -> Iterator[tuple[RateTable, Hashable, str, float]]:
        for network in guess.networks:
            factor = level_factor(network)
            value = self._limits.network_logins_per_minute * factor / NETWORK_FACTOR
            yield self.network_table(factor), network, "network_logins_per_minute", value
        value = self._limits.user_logins_per_minute
        yield self.users, (guess.user, guess.is_clean), "user_logins_per_minute", value

    def tables(self) -> list[RateTable]:
        """Return the rates of all networks and users."""
        return [*self._networks.values(), self.users]

    def network_table(self, factor: int) -> RateTable:
        """Return the rates of all networks with this `level_factor`."""
        if factor not in self._networks:
            value = self._limits.network_logins_per_minute * factor / NETWORK_FACTOR
            self._networks[factor] = self._table(value, factor)
        return self._networks[factor]
