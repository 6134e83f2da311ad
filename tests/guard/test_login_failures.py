"""Failed logins: which of them count, the delay that they cause, and when they ban."""

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from imapshield.guard import login_failures
from imapshield.guard.login_failures import FailedLogin, LoginFailures
from imapshield.guard.verdicts import LimitReached
from imapshield.limits import Limits

HERE, THERE = "192.0.2.7", "198.51.100.7"
BAN = LimitReached("max_failed_pairs", 10, 10)


def new_failures(**limits: float) -> LoginFailures:
    return LoginFailures(Limits(**limits), b"a key")  # type: ignore[arg-type]


class FailuresCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.failures = new_failures()
        self.changed = self.failures.changed_users = set()

    def guess(
        self, count: int, user: str = "u", address: str = HERE, now: float = 0.0, first: int = 0
    ) -> list[FailedLogin]:
        """Try `count` different passwords."""
        return [
            self.failures.failed(address, user.encode(), b"p%d" % n, now)
            for n in range(first, first + count)
        ]


class FailureTests(FailuresCase):
    def test_digest_depends_on_the_key_only(self) -> None:
        """Another process with the same key has the same digest of a password; with another key it has another one."""
        program = (
            "from imapshield.guard.login_failures import LoginFailures as F; from imapshield.limits import Limits;"
            "print(F(Limits(), b'a key').digest(b'secret').hex())"
        )
        found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
        self.assertEqual(found.stdout.decode().strip(), self.failures.digest(b"secret").hex())
        other = LoginFailures(Limits(), b"another key")
        self.assertNotEqual(other.digest(b"secret"), self.failures.digest(b"secret"))

    def test_guesses_do_not_displace_hashes_of_users(self) -> None:
        """After hundreds of guesses for one user, with SCRAM too, an honest login needs no new hash."""
        self.failures.succeeded(THERE, b"alice", 0.0)
        self.guess(2 * login_failures.MAX_HASHES)
        for _ in range(2 * login_failures.MAX_HASHES):
            self.failures.failed(HERE, b"u", None, 0.0)
        self.patch(login_failures, "blake2b", None)
        self.assertTrue(self.failures.is_known(THERE, b"alice"))
        self.failures.succeeded(THERE, b"alice", 0.0)

    def test_tenth_pair_bans(self) -> None:
        """The tenth different password for one user bans the address; the delay doubles from the third on."""
        results = self.guess(10)
        self.assertEqual([r.delay for r in results], [0, 0, 1, 2, 4, 8, 15, 15, 15, 15])
        self.assertEqual([r.banned_for for r in results], [None] * 9 + [BAN])

    def test_spraying_bans(self) -> None:
        """One password for ten users bans the address, too."""
        results = [self.failures.failed(HERE, b"u%d" % n, b"p", 0.0) for n in range(10)]
        self.assertEqual([r.banned_for for r in results], [None] * 9 + [BAN])

    def test_ban_begins_a_new_count(self) -> None:
        """After a ban the count of the address begins again, but the delay stays, because the network has a count."""
        self.guess(10)
        results = self.guess(10, first=10)
        self.assertEqual([r.banned_for for r in results], [None] * 9 + [BAN])
        self.assertGreater(results[0].delay, 1)

    def test_the_same_pair_counts_once(self) -> None:
        """The same pair counts once, however often it is repeated."""
        for now in range(0, 10 * 86400, 60):
            self.assertEqual(self.failures.failed(HERE, b"u", b"old", float(now)), FailedLogin(0.0))

    def test_pairs_are_forgotten_after_a_day(self) -> None:
        """A pair that is not repeated for a day does not count any more."""
        self.guess(9)
        self.assertEqual(self.guess(1, first=9, now=86401.0), [FailedLogin(0.0)])

    def test_success_resets_nothing(self) -> None:
        """A guesser who logs in to an own account between two guesses is banned by the tenth guess."""
        for n in range(10):
            self.failures.succeeded(HERE, b"mine", 0.0)
            result = self.guess(1, first=n)[0]
        self.assertEqual(result.banned_for, BAN)

    def test_setting(self) -> None:
        """`max_failed_pairs` and `max_login_delay_seconds` are respected."""
        self.failures = new_failures(max_failed_pairs=3, max_login_delay_seconds=0.5)
        results = self.guess(3)
        self.assertEqual([r.delay for r in results], [0, 0, 0.5])
        self.assertEqual(results[2].banned_for, LimitReached("max_failed_pairs", 3, 3))

    def test_not_an_address(self) -> None:
        """Failures from a UNIX socket neither delay nor ban, and nobody is known there."""
        for n in range(100):
            self.assertEqual(self.failures.failed("local", b"u", b"%d" % n, 0.0), FailedLogin(0.0))
        self.failures.succeeded("local", b"u", 0.0)
        self.assertFalse(self.failures.is_known("local", b"u"))


class NetworkTests(FailuresCase):
    def test_one_64_is_one_address(self) -> None:
        """Ten guesses from ten addresses of one IPv6 /64 ban it."""
        results = [
            self.guess(1, address=f"2001:db8::{n:x}", first=n)[0].banned_for for n in range(10)
        ]
        self.assertEqual(results, [None] * 9 + [BAN])

    def test_a_48_is_slowed(self) -> None:
        """One guess from each /64 of a /48 is never banned; the delay grows to its maximum."""
        results = [self.guess(1, f"u{n}", f"2001:db8:0:{n * 256:x}::1")[0] for n in range(100)]
        self.assertEqual({r.banned_for for r in results}, {None})
        delays = [r.delay for r in results]
        self.assertEqual((delays[:18], delays[62:]), ([0.0] * 18, [15.0] * 38))
        self.assertAlmostEqual(delays[18], 2 ** (1 / 9) / 2)
        self.assertEqual(delays, sorted(delays))

    def test_a_32_is_slowed(self) -> None:
        """Guesses from different /48 of a /32 are delayed like those from one /48."""
        results = [self.guess(1, f"u{n}", f"2001:db8:{n:x}::1")[0] for n in range(19)]
        self.assertEqual([r.delay for r in results[:18]], [0.0] * 18)
        self.assertAlmostEqual(results[18].delay, 2 ** (1 / 9) / 2)

    def test_a_26_is_slowed(self) -> None:
        """One guess from each address of an IPv4 /26 is delayed after a few, but nowhere else."""
        results = [self.guess(1, f"u{n}", f"192.0.2.{n}")[0] for n in range(64)]
        self.assertEqual((results[5].delay, results[20].delay), (0.0, 15.0))
        self.assertEqual(self.guess(1, "other", THERE), [FailedLogin(0.0)])

    def test_a_21_is_slowed(self) -> None:
        """Guesses from different /26 of an IPv4 /21 are delayed after eighteen."""
        results = [self.guess(1, f"u{n}", f"192.0.{n // 4}.{n % 4 * 64}")[0] for n in range(19)]
        self.assertEqual([r.delay for r in results[:18]], [0.0] * 18)
        self.assertAlmostEqual(results[18].delay, 2 ** (1 / 9) / 2)

    def test_a_user_is_slowed(self) -> None:
        """Guesses for one user from many networks are delayed by 2 seconds, but not those for another user."""
        delays = [self.guess(1, "bob", f"{n}.0.2.1", first=n)[0].delay for n in range(1, 51)]
        self.assertEqual((delays[:6], delays[20:]), ([0.0] * 6, [2.0] * 30))
        self.assertAlmostEqual(delays[6], 2 ** (1 / 3) / 2)
        self.assertEqual(self.guess(1, "carol", "77.0.2.1"), [FailedLogin(0.0)])

    def test_typing_error_of_a_user_who_is_guessed_elsewhere(self) -> None:
        """However often others guess, two typing errors at a clean address are answered within 2 seconds, no third."""
        for n in range(1, 100):
            self.guess(1, "bob", f"{n}.0.2.1", first=n)
        delays = [result.delay for result in self.guess(3, "bob", HERE, first=200)]
        self.assertEqual(delays, [2.0, 2.0, 15.0])


class KnownUserTests(FailuresCase):
    def test_known_after_a_login(self) -> None:
        """A user who has logged in is known at that address, and at no other."""
        self.assertFalse(self.failures.is_known(HERE, b"u"))
        self.failures.succeeded(HERE, b"u", 0.0)
        self.assertTrue(self.failures.is_known(HERE, b"u"))
        self.assertFalse(self.failures.is_known(THERE, b"u"))
        self.assertFalse(self.failures.is_known(HERE, b"v"))
        self.failures.succeeded("2001:db8::1", b"u", 0.0)
        self.assertTrue(self.failures.is_known("2001:db8::ffff:1", b"u"))

    def test_three_pairs_of_a_known_user_are_free(self) -> None:
        """Three wrong passwords of a known user do not count for the address; the further ones do, and ban it."""
        self.failures.succeeded(HERE, b"u", 0.0)
        results = self.guess(13)
        self.assertEqual([r.banned_for for r in results], [None] * 12 + [BAN])
        self.assertEqual([r.delay for r in results[:3]], [0.0, 0.0, 1.0])

    def test_known_user_is_not_delayed_for_others(self) -> None:
        """Neither guesses of others behind the same address, nor for the same user elsewhere, delay a known user."""
        self.failures.succeeded(HERE, b"honest", 0.0)
        self.guess(9, "other")
        for n in range(100):
            self.guess(1, "honest", f"{n}.0.2.1", first=n)
        self.assertEqual(self.guess(2, "honest", first=200), [FailedLogin(0.0)] * 2)

    def test_known_users_are_bounded(self) -> None:
        """A full table forgets the user who has not logged in for longest."""
        self.patch(login_failures, "MAX_KNOWN_USERS", 3)
        for user in (b"a", b"b", b"c", b"a", b"d"):
            self.failures.succeeded(HERE, user, 0.0)
        known = [user for user in (b"a", b"b", b"c", b"d") if self.failures.is_known(HERE, user)]
        self.assertEqual(known, [b"a", b"c", b"d"])

    def test_addresses_of_a_user_are_bounded(self) -> None:
        """A user is known at the 32 latest addresses, and takes no place of another user."""
        self.failures.succeeded(HERE, b"other", 0.0)
        for n in range(20_000):  # more than `MAX_KNOWN_USERS`
            self.failures.succeeded(f"10.0.{n >> 8}.{n & 255}", b"u", 0.0)
        last = [f"10.0.{77 + n // 256}.{n % 256}" for n in range(256 + 32)]
        known = [address for address in last if self.failures.is_known(address, b"u")]
        self.assertEqual(known, last[-32:])
        self.assertTrue(self.failures.is_known(HERE, b"other"))

    def test_known_users_can_be_restored(self) -> None:
        """Known users can be saved one by one when they change, and restored with the same key."""
        for address in (HERE, THERE, HERE):
            self.failures.succeeded(address, b"u", 0.0)
        self.failures.succeeded(HERE, b"v", 0.0)
        self.assertEqual(len(self.changed), 2)
        saved = [(user, self.failures.known_addresses(user)) for user in self.changed]
        restored, other_key = new_failures(), LoginFailures(Limits(), b"another key")
        for user, addresses in [*saved, (b"short", b"12345678"), (b"12345678", b"odd"), (b"87654321", b"")]:  # fmt: skip
            restored.restore_known(user, addresses, 0.0)
            other_key.restore_known(user, addresses, 0.0)
        self.assertTrue(restored.is_known(THERE, b"u") and restored.is_known(HERE, b"v"))
        self.assertFalse(restored.is_known(THERE, b"v"))
        self.assertFalse(other_key.is_known(HERE, b"v"))
        self.assertEqual(list(restored.known_users()), [user for user, _ in saved])

    def test_only_changes_are_saved(self) -> None:
        """A login that changes nothing leaves nothing to save; a user who was dropped is empty."""
        self.patch(login_failures, "MAX_KNOWN_USERS", 1)
        self.failures.succeeded(HERE, b"u", 0.0)
        (user,) = self.changed
        self.changed.clear()
        self.failures.succeeded(HERE, b"u", 0.0)
        self.assertEqual(self.changed, set())
        self.failures.succeeded(HERE, b"v", 0.0)
        self.assertIn(user, self.changed)
        self.assertEqual(self.failures.known_addresses(user), b"")


class SharedAddressTests(FailuresCase):
    def test_five_users_share_an_address(self) -> None:
        """An address is shared if five different users have logged in from it in the last 30 days."""
        for user in (b"a", b"b", b"c", b"d", b"d", b"d"):
            self.failures.succeeded(HERE, user, 0.0)
        self.assertFalse(self.failures.is_shared(HERE, 0.0))
        self.failures.succeeded(HERE, b"e", 1000.0)
        self.assertTrue(self.failures.is_shared(HERE, 1000.0))
        self.assertFalse(self.failures.is_shared(THERE, 1000.0))
        self.assertFalse(self.failures.is_shared(HERE, 30 * 86400 + 500.0))

    def test_shared_addresses_are_restored(self) -> None:
        """An address is shared after a restart, too."""
        for user in (b"a", b"b", b"c", b"d", b"e"):
            self.failures.succeeded(HERE, user, 0.0)
        restored = new_failures()
        for user_hash in self.changed:
            restored.restore_known(user_hash, self.failures.known_addresses(user_hash), 5.0)
        self.assertTrue(restored.is_shared(HERE, 5.0))

    def test_repetitions_that_do_not_count(self) -> None:
        """`is_repeated` knows the last four passwords of each user and address for a day, and counts for nothing."""

        def repeated(
            user: bytes, secret: bytes | None, address: str = HERE, now: float = 0.0
        ) -> bool:
            return self.failures.is_repeated(address, user, secret, now)

        secrets = (b"1", b"2", b"3", None)
        for expected in (False, True):
            self.assertEqual([repeated(b"bob", secret) for secret in secrets], [expected] * 4)
        self.assertEqual([repeated(b"alice", b"1"), repeated(b"bob", b"1", THERE)], [False] * 2)
        self.assertEqual([repeated(b"bob", b"4"), repeated(b"bob", b"1")], [False] * 2)
        self.assertFalse(repeated(b"bob", b"4", now=86400.0))
        for n in range(50):
            repeated(b"u%d" % n, b"x")
        failed = self.failures.failed(HERE, b"bob", b"1", 0.0)
        self.assertEqual((failed.delay, failed.repeated), (0.0, False))
        self.assertFalse(self.failures.is_shared(HERE, 0.0) or self.failures.is_known(HERE, b"bob"))

    def test_known_users_may_try(self) -> None:
        """During a ban for strangers only, users known there may try, until three of their passwords were wrong."""
        self.failures.succeeded(HERE, b"u", 0.0)
        self.assertTrue(self.failures.may_try(HERE, b"u", 0.0))
        self.assertFalse(self.failures.may_try(HERE, b"other", 0.0))
        self.assertFalse(self.failures.may_try(THERE, b"u", 0.0))
        self.assertFalse(self.failures.may_try("local", b"u", 0.0))
        self.guess(3)
        self.assertFalse(self.failures.may_try(HERE, b"u", 0.0))
        self.assertTrue(self.failures.may_try(HERE, b"u", 86401.0))


class ScramTests(FailuresCase):
    def scram(self, count: int, user: bytes = b"u", now: float = 0.0) -> list[FailedLogin]:
        return [self.failures.failed(HERE, user, None, now) for _ in range(count)]

    def test_quick_guesser_is_banned(self) -> None:
        """Ten failures of one user are one pair; each further one is another, so the 19th at once bans."""
        results = self.scram(19)
        self.assertEqual([r.banned_for for r in results], [None] * 18 + [BAN])

    def test_guesser_of_many_users_is_banned(self) -> None:
        """A failure of each of ten users bans."""
        results = [self.scram(1, b"u%d" % n)[0].banned_for for n in range(10)]
        self.assertEqual(results, [None] * 9 + [BAN])

    def test_known_user_may_fail_more_often(self) -> None:
        """A known user may fail every minute for a week, without a delay."""
        self.failures.succeeded(HERE, b"u", 0.0)
        for now in range(0, 7 * 86400, 60):
            self.assertEqual(self.scram(1, now=now), [FailedLogin(0.0)])

    def test_guesses_from_many_addresses_are_slowed(self) -> None:
        """One SCRAM guess for the same user from each /64 of a /48 is delayed."""
        results = [
            self.failures.failed(f"2001:db8:0:{n:x}::1", b"u", None, 0.0) for n in range(100)
        ]
        self.assertEqual(results[99], FailedLogin(15.0))
