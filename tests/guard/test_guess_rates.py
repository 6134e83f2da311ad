"""The rates of guesses: how many passwords are looked at, at once and in the long run, for each network and user."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imapshield.guard.guess_rates import Guess, GuessRates
from imapshield.guard.networks import Network
from imapshield.guard.process_guard import ProcessGuard
from imapshield.guard.verdicts import LimitReached
from imapshield.limits import Limits
from imapshield.workers.division import divided_limits

SMALL, MIDDLE, LARGE = (6, 56, 1), (6, 48, 1), (6, 32, 1)
LIMITS = Limits(
    max_failed_pairs=5,
    max_login_checks=3,
    network_logins_per_minute=7.5,
    user_logins_per_minute=12,
)


class GuessRateTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.rates = GuessRates(LIMITS)
        self.users = 0

    def guess(self, *networks: Network) -> Guess:
        """Return a guess of another user than before."""
        self.users += 1
        return Guess(networks, b"%8d" % self.users, is_clean=True)

    def looked_at(self, *networks: Network, now: float) -> tuple[int, LimitReached]:
        """Return how many passwords of different users are looked at, and why the next one is not."""
        for count in range(1000):
            reached = self.rates.take(self.guess(*networks), now)
            if reached is not None:
                return count, reached
        raise AssertionError("no limit")

    def test_checks_of_many_workers(self) -> None:
        """The checks that run in all workers do not use up the burst of a network in one of them."""
        limits = Limits(max_login_checks=200)
        for count in (1, 8, 16):
            guard = ProcessGuard(divided_limits(limits, count), processes=count)
            guard.set_limits(divided_limits(limits, count))
            self.rates = guard.failures.guess_rates
            self.assertGreaterEqual(self.looked_at(SMALL, now=0.0)[0], 200 + 3 * 10)

    def test_guesses_of_a_network_at_once(self) -> None:
        """A network has as many at once as its share of `max_failed_pairs`, and one for each check that runs."""
        name = "network_logins_per_minute"
        for network, factor in ((SMALL, 3), (MIDDLE, 9), (LARGE, 27), ((4, 26, 1), 3)):
            value = 2.5 * factor
            self.assertEqual(
                self.looked_at(network, now=0.0),
                (factor * 5 + 3, LimitReached(name, value, value + 1)),
            )

    def test_guesses_of_a_network_in_the_long_run(self) -> None:
        """After that a /56 has `network_logins_per_minute`, a /48 three times as many, and a /32 nine times."""
        for network in (SMALL, MIDDLE, LARGE):
            self.looked_at(network, now=0.0)
        for network, per_minute in ((SMALL, 7.5), (MIDDLE, 22.5), (LARGE, 67.5)):
            self.assertEqual(self.looked_at(network, now=60 / per_minute - 0.01)[0], 0)
        for network, per_minute in ((SMALL, 7.5), (MIDDLE, 22.5), (LARGE, 67.5)):
            self.assertEqual(self.looked_at(network, now=60.0)[0], int(per_minute), network)

    def test_guesses_of_a_user(self) -> None:
        """A user has 18 times `max_failed_pairs` and the checks that run, then `user_logins_per_minute`; twice that,
        because clean networks have a rate of their own."""
        reached = LimitReached("user_logins_per_minute", 12, 13)
        for is_clean in (False, True):
            guess = Guess((), b"the user", is_clean)
            taken = [self.rates.take(guess, now) for now in [0.0] * 94 + [60.0] * 13]
            self.assertEqual(taken, [None] * 93 + [reached] + [None] * 12 + [reached])

    def test_a_refused_guess_counts_nowhere(self) -> None:
        """A guess that one rate refuses is not counted by the others."""
        user = Guess((), b"the user", is_clean=True)
        for _ in range(93):
            self.assertIsNone(self.rates.take(user, 0.0))
        for _ in range(100):
            self.assertIsNotNone(self.rates.take(user._replace(networks=(SMALL, MIDDLE)), 0.0))
        self.assertEqual(
            [self.looked_at(network, now=0.0)[0] for network in (SMALL, MIDDLE)], [18, 48]
        )

    def test_what_is_given_back_does_not_count(self) -> None:
        """A guess that is given back can be made again in all its networks and for its user."""
        guess = self.guess(SMALL, MIDDLE)
        self.assertIsNone(self.rates.take(guess, 0.0))
        for network in (SMALL, MIDDLE):
            self.looked_at(network, now=0.0)
        self.assertIsNotNone(self.rates.take(guess, 0.0))
        self.rates.give_back(guess, 0.0)
        self.assertIsNone(self.rates.take(guess, 0.0))
        self.assertIsNotNone(self.rates.take(guess, 0.0))
