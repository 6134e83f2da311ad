"""The exact times and counts of failed logins, what counts as a guess, and what is restored."""

from __future__ import annotations

from imapshield.guard import login_failures
from imapshield.guard.guess_rates import Guess
from imapshield.guard.login_failures import FailedLogin
from imapshield.guard.networks import networks_of
from imapshield.guard.verdicts import LimitReached
from tests.guard.test_login_failures import HERE, THERE, FailuresCase, new_failures

DAY = 86400.0


class ExactTimeTests(FailuresCase):
    def repeated(self, secret: bytes | None, now: float, user: bytes = b"u") -> bool:
        """Fail to log in; return whether that repeats a pair."""
        return self.failures.failed(HERE, user, secret, now).repeated

    def test_a_pair_counts_for_a_day(self) -> None:
        """A pair is forgotten a day after it was last used, whether it counts or is free."""
        self.failures.succeeded(HERE, b"known", 0.0)
        for user in (b"u", b"known"):
            found = [self.repeated(b"p", now, user) for now in (0.0, DAY - 1, 2 * DAY - 1)]
            self.assertEqual(found, [False, True, False])

    def test_an_address_is_shared_for_a_month(self) -> None:
        """An address is shared for 30 days after the logins of its users."""
        for n in range(5):
            self.failures.succeeded(HERE, b"u%d" % n, 0.0)
        found = [self.failures.is_shared(HERE, now) for now in (30 * DAY - 1, 30 * DAY)]
        self.assertEqual(found, [True, False])

    def test_scram_in_the_long_run(self) -> None:
        """Ten failed SCRAM logins at once are one pair, and then one in 240 seconds; each further one is a new pair."""
        found = [self.repeated(None, 0.0) for _ in range(12)]
        self.assertEqual(found, [False] + [True] * 9 + [False] * 2)
        times = (239.0, 240.0, 241.0, 479.0, 480.0)
        self.assertEqual(
            [self.repeated(None, now) for now in times], [False, True, False, False, True]
        )

    def test_scram_of_a_known_user(self) -> None:
        """A known user has four times as many: forty at once, and then one in a minute."""
        self.failures.succeeded(HERE, b"u", 0.0)
        found = [self.repeated(None, now) for now in [0.0] * 41 + [59.0, 60.0]]
        self.assertEqual(found, [False] + [True] * 39 + [False] * 2 + [True])


class GuessTests(FailuresCase):
    def begin(self, address: str = HERE, user: bytes = b"u") -> Guess | LimitReached | None:
        return self.failures.begin_guess(address, user, 0.0)

    def test_who_guesses(self) -> None:
        """The password of a user who is not known at an address may be a guess; that of a known user is none."""
        self.failures.succeeded(HERE, b"known", 0.0)
        self.assertIsNone(self.begin(user=b"known"))
        self.assertIsNone(self.begin("local"))
        guess = self.begin(THERE, b"known")
        assert isinstance(guess, Guess)
        self.assertEqual((guess.networks, guess.is_clean), (networks_of(THERE)[1:], True))
        self.assertEqual(guess.user, next(self.failures.known_users()))

    def test_clean_networks(self) -> None:
        """A failed login makes its /26 unclean for a day, and not its /21."""
        self.guess(1, address="192.0.2.7")
        for address, is_clean in (("192.0.2.7", False), ("192.0.2.8", False), ("192.0.2.64", True)):
            guess = self.begin(address)
            assert isinstance(guess, Guess)
            self.assertIs(guess.is_clean, is_clean)

    def test_guesses_have_a_rate(self) -> None:
        """When the rate of a network is used up, a guess gets the limit, until one of them is no guess."""
        self.failures = new_failures(max_failed_pairs=1, max_login_checks=1)
        guesses = [self.begin(user=b"%d" % n) for n in range(4)]
        reached = LimitReached("network_logins_per_minute", 3, 4)
        self.assertEqual(self.begin(), reached)
        assert isinstance(guesses[0], Guess)
        self.failures.not_a_guess(guesses[0], 0.0)
        self.assertEqual([isinstance(self.begin(), Guess), self.begin()], [True, reached])

    def test_pairs_that_are_known_to_be_wrong(self) -> None:
        """A pair that has failed anywhere for its user is no guess any more; with SCRAM each failure is one."""
        found = [
            self.failures.failed(address, user, secret, 0.0).is_guess
            for address, user, secret in (
                (HERE, b"u", b"1"), (HERE, b"u", b"1"), (THERE, b"u", b"1"), (THERE, b"u", b"2"),
                (THERE, b"v", b"1"), (HERE, b"u", None), (HERE, b"u", None),
            )
        ]  # fmt: skip
        self.assertEqual(found, [True, False, False, True, True, True, True])

    def test_no_address(self) -> None:
        """A failure without an address repeats nothing, and may be a guess."""
        for _ in range(2):
            failed = self.failures.failed("local", b"u", b"p", 0.0)
            self.assertEqual((failed.repeated, failed.is_guess), (False, True))

    def test_values_are_small(self) -> None:
        """What follows from a failure is a value without a dictionary, and cannot be changed."""
        failed = FailedLogin(1.0)
        self.assertFalse(hasattr(failed, "__dict__"))
        self.assertRaises((AttributeError, TypeError), setattr, failed, "delay", 2.0)


class ExactTableTests(FailuresCase):
    def test_many_pairs(self) -> None:
        """A limit of hundreds of pairs bans at exactly that pair."""
        self.failures = new_failures(max_failed_pairs=300)
        banned = [result.banned_for for result in self.guess(300)]
        self.assertEqual(banned, [None] * 299 + [LimitReached("max_failed_pairs", 300, 300)])

    def test_many_known_users(self) -> None:
        """The table of known users holds as many as it should, also if these are hundreds."""
        self.patch(login_failures, "MAX_KNOWN_USERS", 300)
        for n in range(302):
            self.failures.succeeded(HERE, b"u%d" % n, 0.0)
        self.assertEqual(len(list(self.failures.known_users())), 300)

    def test_addresses_are_kept_once(self) -> None:
        """Each address of a user is kept once, as 8 bytes, the latest last."""
        expected = []
        for address in (HERE, THERE):
            only = new_failures()
            only.succeeded(address, b"u", 0.0)
            expected += [only.known_addresses(user) for user in only.known_users()]
        for address in (HERE, THERE, HERE, THERE, HERE, HERE):
            self.failures.succeeded(address, b"u", 0.0)
        (user,) = self.failures.known_users()
        self.assertEqual(self.failures.known_addresses(user), expected[1] + expected[0])
        self.assertEqual([len(user), len(expected[0])], [8, 8])

    def test_what_is_restored(self) -> None:
        """The latest 32 addresses are restored; a hash of a user that has not 8 bytes, or odd addresses, are not."""
        addresses = b"".join(b"%8d" % n for n in range(40))
        for user in (b"1234567", b"123456789", b"12345678"):
            self.failures.restore_known(user, addresses, 0.0)
        for malformed in (b"", b"odd", addresses[1:]):
            self.failures.restore_known(b"87654321", malformed, 0.0)
        self.assertEqual(list(self.failures.known_users()), [b"12345678"])
        self.assertEqual(self.failures.known_addresses(b"12345678"), addresses[-256:])

    def test_shared_addresses_that_are_restored(self) -> None:
        """Of each user the latest eight addresses count for `is_shared` after a restart."""
        addresses = [f"10.{n}.0.1" for n in range(10)]
        for n in range(5):
            for address in addresses:
                self.failures.succeeded(address, b"u%d" % n, 0.0)
        restored = new_failures()
        for user in self.failures.known_users():
            restored.restore_known(user, self.failures.known_addresses(user), 0.0)
        shared = [restored.is_shared(address, 0.0) for address in addresses]
        self.assertEqual(shared, [False] * 2 + [True] * 8)

    def test_restart(self) -> None:
        """After `restart` nothing is known of what was before, and the key is another."""
        self.failures.succeeded(HERE, b"u", 0.0)
        self.guess(9)
        before = self.failures.known_addresses(next(self.failures.known_users()))
        self.failures.restart(b"another key")
        self.assertFalse(self.failures.is_known(HERE, b"u"))
        self.assertEqual([result.banned_for for result in self.guess(9)], [None] * 9)
        self.failures.succeeded(HERE, b"u", 0.0)
        self.assertNotEqual(
            self.failures.known_addresses(next(self.failures.known_users())), before
        )
