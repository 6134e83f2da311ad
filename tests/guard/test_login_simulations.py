"""Days of honest clients and of attackers in simulated time: who is banned, and who is not."""

import random
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from hypothesis import HealthCheck, given, settings, strategies
from twisted.trial.unittest import SynchronousTestCase

from imapshield.guard.bans import Bans
from imapshield.guard.guess_rates import Guess
from imapshield.guard.login_failures import LoginFailures
from imapshield.guard.rates import RecentItems
from imapshield.guard.verdicts import LimitReached
from imapshield.limits import Limits

OFFICE = "192.0.2.7"
DAY = 86400.0
POLLS = 96  # a day: every 15 minutes

Attempt = tuple[float, str, bytes, bytes | None]
"""A failed login: time, address, user, digest of the password (None: SCRAM)."""


def size(value: object) -> int:
    """Return the bytes of an object and of everything that it refers to, each object once."""
    seen: dict[int, Any] = {}
    todo = [value]
    while todo:
        item = todo.pop()
        if id(item) in seen or isinstance(item, type) or callable(item):
            continue
        seen[id(item)] = item
        if isinstance(item, dict):
            todo += [*item, *item.values()]
        elif isinstance(item, (list, tuple, set)):
            todo += item
        todo += getattr(item, "__dict__", {}).values()
        todo += [getattr(item, name) for name in getattr(type(item), "__slots__", ())]
    return sum(map(sys.getsizeof, seen.values()))


def polls(
    days: float, devices: Iterable[tuple[str, bytes, bytes | None]], seed: int = 0
) -> Iterator[Attempt]:
    """Yield the failed logins of devices (address, user, digest) that poll with an old password, with some jitter."""
    rng = random.Random(seed)
    attempts = [
        (n * DAY / POLLS + rng.uniform(0, 60), *device)
        for device in devices
        for n in range(int(days * POLLS))
    ]
    return iter(sorted(attempts, key=lambda attempt: attempt[0]))


class World:
    """The failed logins and bans of a server, and what happened to the clients."""

    def __init__(self, limits: Limits | None = None) -> None:
        limits = limits or Limits()
        self.failures, self.bans = LoginFailures(limits, b"key"), Bans(limits)
        self.checked: Counter[str] = Counter()  # passwords that were compared, by address
        self.longest_delay = 0.0
        self.bans_made = 0
        self.refused: Counter[tuple[str, bytes]] = Counter()  # by address and user

    def attempt(self, now: float, address: str, user: bytes, digest: bytes | None) -> None:
        """Fail to log in, if the server would look at the password at all. The client does not wait for the answer."""
        ban = self.bans.banned(address, now)
        if ban and not (ban.strangers_only and self.failures.may_try(address, user, now)):
            return
        guess = self.failures.begin_guess(address, user, now)
        if isinstance(guess, LimitReached):
            self.refused[address, user] += 1
            return
        self.checked[address] += 1
        result = self.failures.failed(address, user, digest, now)
        if guess and not result.is_guess:
            self.failures.not_a_guess(guess, now)
        self.longest_delay = max(self.longest_delay, result.delay)
        if result.banned_for:
            shared = self.failures.is_shared(address, now)
            self.bans.ban(address, result.banned_for.limit, now, strangers_only=shared)
            self.bans_made += 1

    def run(self, attempts: Iterable[Attempt]) -> "World":
        for attempt in attempts:
            self.attempt(*attempt)
        return self

    def log_in(self, address: str, users: Iterable[bytes]) -> "World":
        for user in users:
            self.failures.succeeded(address, user, 0.0)
        return self


USERS = [b"user%d" % n for n in range(30)]


class HonestTests(SynchronousTestCase):
    def assert_unharmed(self, world: World) -> None:
        self.assertEqual((world.bans_made, world.longest_delay, world.refused), (0, 0.0, {}))

    def test_three_devices_of_one_user(self) -> None:
        """Three devices that poll for a week with the same old password are neither banned nor delayed."""
        for known in (False, True):
            world = World().log_in(OFFICE, [b"bob"] * known)
            self.assert_unharmed(world.run(polls(7, [(OFFICE, b"bob", b"old")] * 3)))

    def test_three_devices_with_scram(self) -> None:
        """Neither are they with SCRAM, even if the user has never logged in from there."""
        for known in (False, True):
            world = World().log_in(OFFICE, [b"bob"] * known)
            self.assert_unharmed(world.run(polls(7, [(OFFICE, b"bob", None)] * 3)))

    def test_three_devices_with_three_passwords(self) -> None:
        """Three devices of a known user, each with another old password, wait at most a second and are not banned."""
        world = World().log_in(OFFICE, [b"bob"])
        world.run(polls(7, [(OFFICE, b"bob", b"old%d" % n) for n in range(3)]))
        self.assertEqual((world.bans_made, world.longest_delay), (0, 1.0))

    def test_thirty_users_behind_one_address(self) -> None:
        """Thirty users of one address who have logged in before, each with an old password, are not even delayed."""
        world = World().log_in(OFFICE, USERS)
        self.assert_unharmed(world.run(polls(7, [(OFFICE, user, b"old") for user in USERS])))

    def test_thirty_users_with_scram(self) -> None:
        """Neither are they with SCRAM."""
        world = World().log_in(OFFICE, USERS)
        self.assert_unharmed(world.run(polls(7, [(OFFICE, user, None) for user in USERS])))

    def test_phone_with_a_new_address_for_each_poll(self) -> None:
        """A phone with an old password and a new address of its provider for each poll is not banned or delayed."""
        world, rng = World(), random.Random(1)
        for now, _, user, digest in polls(7, [("", b"bob", b"old")]):
            address = f"10.9.{rng.randrange(8)}.{rng.randrange(256)}"
            world.attempt(now, address, user, digest)
        self.assert_unharmed(world)

    def test_user_who_mistypes(self) -> None:
        """A new user who mistypes five different passwords waits 7 seconds in all, and is not banned."""
        world, delays = World(), []
        for n in range(5):
            world.longest_delay = 0.0
            world.attempt(n * 10.0, OFFICE, b"new", b"typo%d" % n)
            delays.append(world.longest_delay)
        self.assertEqual((delays, world.bans_made), ([0, 0, 1, 2, 4], 0))

    @settings(
        max_examples=30,
        derandomize=True,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],  # a busy machine generates input slowly
    )
    @given(strategies.data())
    def test_no_honest_ban(self, data: strategies.DataObject) -> None:
        """However often known users repeat up to three wrong passwords each, none of them is banned."""
        world, now = World().log_in(OFFICE, USERS), 0.0
        for _ in range(data.draw(strategies.integers(0, 60))):
            now += data.draw(strategies.sampled_from((0.0, 1.0, 900.0, DAY / 2)))
            user = data.draw(strategies.sampled_from(USERS))
            digest = data.draw(strategies.sampled_from((b"a", b"b", b"c")))
            world.attempt(now, OFFICE, user, digest)
        self.assertEqual((world.bans_made, world.refused), (0, {}))
        self.assertLessEqual(world.longest_delay, 1.0)

    def test_all_users_after_a_restart(self) -> None:
        """A thousand users of one address, unknown after a restart, log in at once, eight checks at a time."""
        failures = LoginFailures(Limits(), b"key")
        for batch in range(125):
            users = [b"user%d" % (8 * batch + n) for n in range(8)]
            guesses = [failures.begin_guess(OFFICE, user, 0.0) for user in users]
            for user, guess in zip(users, guesses, strict=True):
                assert isinstance(guess, Guess)
                failures.succeeded(OFFICE, user, 0.0)
                failures.not_a_guess(guess, 0.0)

    def test_known_users_in_the_network_of_a_guesser(self) -> None:
        """While a /26 guesses, known users of the same /26 and of the guessed name are refused nothing."""
        world = World().log_in(OFFICE, USERS)
        guesses: list[Attempt] = [
            (n * 5.0, f"192.0.2.{n % 64}", USERS[n % 2], b"guess%d" % n)
            for n in range(int(DAY / 5))
            if n % 64 != 7
        ]
        devices = list(polls(1, [(OFFICE, user, b"old") for user in USERS]))
        world.run(sorted(devices + guesses, key=lambda attempt: attempt[0]))
        self.assertGreater(sum(world.refused.values()), 0)
        self.assertEqual([(OFFICE, user) for user in USERS if (OFFICE, user) in world.refused], [])
        self.assertEqual(world.checked[OFFICE], len(devices))


class AttackerTests(SynchronousTestCase):
    def test_day_of_one_guesser(self) -> None:
        """A guesser who never stops has 90 passwords looked at in the first two days, and 10 on each further day."""
        world = World()
        for n in range(48 * 3600 // 10):
            world.attempt(n * 10.0, OFFICE, b"bob", b"%d" % n)
        self.assertEqual((world.checked[OFFICE], world.bans_made), (90, 9))

    def test_guesser_in_an_office(self) -> None:
        """A guesser behind the address of thirty users stops neither their polls nor their logins.

        The guesser has ten passwords looked at before each ban, and three a day for each of the thirty users.
        """
        world = World().log_in(OFFICE, USERS)
        devices = list(polls(1, [(OFFICE, user, b"old") for user in USERS[:20]]))
        guesses: list[Attempt] = [
            (n * 10.0, OFFICE, USERS[n % 30] if n % 2 else b"root", b"guess%d" % n)
            for n in range(int(DAY / 10))
        ]
        world.run(sorted(devices + guesses, key=lambda attempt: attempt[0]))
        self.assertGreater(world.bans_made, 5)
        self.assertTrue(world.bans.banned(OFFICE, DAY))
        for user in USERS[::2]:  # those whose passwords are not guessed
            self.assertTrue(world.failures.may_try(OFFICE, user, DAY), user)
        guessed = world.checked[OFFICE] - len(devices)
        self.assertLess(guessed, 10 * world.bans_made + 3 * 30)

    def test_one_guesser_with_a_64(self) -> None:
        """A guesser who uses each address of a /64 once has ten passwords looked at before the ban."""
        world = World()
        for n in range(1000):
            world.attempt(0.0, f"2001:db8::{n:x}", b"bob", b"%d" % n)
        self.assertEqual((sum(world.checked.values()), world.bans_made), (10, 1))

    def test_one_guesser_with_a_48(self) -> None:
        """A guesser with a /48 waits 15 seconds for each answer after the first 63 guesses, also for other users."""
        world = World()
        delays = [
            world.failures.failed(f"2001:db8:0:{n:x}::1", b"u%d" % (n % 500), b"%d" % n, n / 10).delay
            for n in range(5000)
        ]  # fmt: skip
        self.assertEqual(delays[63:], [15.0] * (5000 - 63))

    def guesses(
        self, addresses: Sequence[str], per_second: int, user: bytes | None, seconds: int = 3600
    ) -> int:
        """Return how many different passwords are looked at that `addresses` try in turn, for one user or for many."""
        world = World()
        for n in range(seconds * per_second):
            name = user or b"u%d" % (n % 5000)
            address = addresses[n % len(addresses)]
            world.attempt(n / per_second, address, name, b"%d" % n)
        return sum(world.checked.values())

    def test_hour_of_a_26(self) -> None:
        """The guessers of a /26 who hang up have 38 passwords looked at at once, and 180 an hour, for all users."""
        addresses = [f"192.0.2.{n}" for n in range(64)]
        self.assertEqual(self.guesses(addresses, 10, None), 38 + 179)
        self.assertEqual(self.guesses(addresses, 10, b"bob"), 38 + 179)

    def test_hour_of_a_48(self) -> None:
        """Those with a /48 have 98 passwords looked at at once, and 540 an hour."""
        addresses = [f"2001:db8:0:{n:x}::1" for n in range(0, 65536, 7)]
        self.assertEqual(self.guesses(addresses, 10, None), 98 + 539)

    def test_hour_of_ten_thousand_addresses(self) -> None:
        """Ten thousand addresses that guess the password of one user have 376 looked at at once, and 2160 an hour."""
        addresses = [f"{n % 200 + 1}.{n // 200}.0.1" for n in range(10_000)]
        self.assertLessEqual(self.guesses(addresses, 10, b"bob"), 2 * (188 + 1080))
        self.assertLessEqual(self.guesses(addresses[:1000], 10, b"bob"), 1000 + 188 + 1080)

    def test_networks_do_not_keep_a_user_out(self) -> None:
        """While a /48, or five /21, guess the password of a user, the user can log in from a new address elsewhere."""
        for addresses in (
            [f"2001:db8:0:{n:x}::1" for n in range(0, 65536, 7)],
            [f"10.0.{n >> 8}.{n & 255}" for n in range(5 * 2048)],
        ):
            world, refused = World(), 0
            for n in range(10_000):
                world.attempt(n / 5, addresses[n % len(addresses)], b"bob", b"%d" % n)
                guess = world.failures.begin_guess(OFFICE, b"bob", n / 5)
                if isinstance(guess, Guess):
                    world.failures.not_a_guess(guess, n / 5)
                else:
                    refused += 1
            self.assertEqual(refused, 0)

    def test_ten_thousand_guessers(self) -> None:
        """Of ten thousand addresses that guess in turn, each is banned by the last guess that it has. They take 8 MB."""
        world = World(Limits(max_failed_pairs=3))
        addresses = [f"{n % 200 + 1}.{n // 200}.0.1" for n in range(10_000)]
        for n in range(4):
            for address in addresses:
                world.attempt(n * 100.0, address, address.encode(), b"%d" % n)
        self.assertEqual(world.bans_made, 10_000)
        self.assertEqual(set(world.checked.values()), {3})
        self.assertEqual(len(world.bans), 10_000)
        self.assertLess(size([world.failures, world.bans]), 8e6)


class MemoryTests(SynchronousTestCase):
    def test_a_hundred_thousand_addresses(self) -> None:
        """A hundred thousand addresses that are banned, and as many that violate limits, take at most 13 MB."""
        bans = Bans(Limits())
        for n in range(100_000):
            rest = f"{n >> 16}.{n >> 8 & 255}.{n & 255}"
            bans.violation(f"11.{rest}", "backlog", n / 1000)
            bans.ban(f"10.{rest}", "max_failed_pairs", n / 1000)
        self.assertEqual(len(bans), 16384)
        self.assertLess(size(bans), 13e6)

    def test_full_tables(self) -> None:
        """When every table is full, and every entry is as long as it can be, the failed logins take at most 32 MB."""
        failures = LoginFailures(Limits(), b"key")
        tables = [value for value in vars(failures).values() if isinstance(value, RecentItems)]
        self.assertEqual(len(tables), 6)
        for table in tables:
            for n in range(20_000):
                key = (6, 48, n) if table is failures._networks else b"%16d" % n
                table._table.put(key, bytes(table._max_bytes))
            self.assertLessEqual(len(table), 16384)
        for n in range(20_000):
            failures.scram_rate.take(b"%16d" % n, float(n))
            for networks in ([(6, 56, n)], [(6, 48, n)], [(6, 32, n)]):
                failures.guess_rates.take(
                    Guess(tuple(networks), b"%8d" % n, is_clean=False), 20 * float(n)
                )
            failures.restore_known(b"%8d" % n, b"12345678" * 32, 0.0)
        self.assertLess(size(failures), 32e6)
