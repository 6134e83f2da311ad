"""Bans: how long they last, which addresses they concern, and that they survive a restart."""

from hypothesis import given, strategies
from twisted.trial.unittest import SynchronousTestCase

from imapshield.guard import bans as bans_module
from imapshield.guard.bans import Bans, SavedBan, ban_target
from imapshield.guard.networks import describe
from imapshield.limits import Limits

HERE = "192.0.2.7"


def export(bans: Bans, now: float) -> list[SavedBan]:
    return [saved for network in bans if (saved := bans.saved(network, now))]


class BanTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.bans = Bans(Limits())

    def test_nobody_is_banned_at_first(self) -> None:
        """Nobody is banned at first, and what is no address is never banned."""
        self.assertIsNone(self.bans.banned(HERE, 0.0))
        self.bans.ban(HERE, "x", 0.0)
        self.assertIsNone(self.bans.banned("local", 0.0))
        self.assertIsNone(self.bans.banned("192.0.2.8", 0.0))
        self.assertRaises(ValueError, self.bans.ban, "local", "x", 0.0)

    def test_ban_ends(self) -> None:
        """A ban lasts `ban_seconds`."""
        ban = self.bans.ban(HERE, "max_failed_pairs", 1000.0)
        self.assertEqual((ban.seconds, ban.reason, ban.number), (600, "max_failed_pairs", 1))
        self.assertEqual(self.bans.banned(HERE, 1599.9), ban)
        self.assertEqual(self.bans.banned("::ffff:192.0.2.7", 1599.9), ban)
        self.assertIsNone(self.bans.banned(HERE, 1600.0))
        self.assertEqual(list(self.bans.active(1599.9)), [ban])
        self.assertEqual(list(self.bans.active(1600.0)), [])

    def test_violations_are_counted_for_each_address(self) -> None:
        """Violations of two addresses in one network do not add up, and a ban for them concerns everybody there."""
        most = Limits().max_limit_violations
        for n in range(most - 1):
            for address in (HERE, "192.0.2.8"):
                self.assertIsNone(self.bans.violation(address, "backlog", float(n)))
        ban = self.bans.violation(HERE, "backlog", 100.0)
        assert ban is not None
        self.assertEqual((ban.reason, ban.number, ban.strangers_only), ("backlog", 1, False))
        self.assertIsNone(self.bans.banned("192.0.2.8", 100.0))

    def test_violations_are_counted_again_after_a_ban(self) -> None:
        """A ban uses its violations up: after its end it takes as many as before."""
        most = Limits().max_limit_violations
        found = [self.bans.violation(HERE, "backlog", 0.0) for _ in range(most)]
        self.assertEqual([ban is not None for ban in found], [False] * (most - 1) + [True])
        found = [self.bans.violation(HERE, "backlog", 700.0) for _ in range(most)]
        self.assertEqual([ban is not None for ban in found], [False] * (most - 1) + [True])

    def test_ended_ban_of_an_operator(self) -> None:
        """The ban of a network, too, ends."""
        self.bans.ban("10.0.0.0/8", "x", 0.0)
        for now, banned in ((599.0, True), (600.0, False), (601.0, False)):
            self.assertEqual(self.bans.banned("10.1.1.1", now) is not None, banned)

    def test_narrow_networks_are_their_64(self) -> None:
        """A network inside an IPv6 /64 stands for the /64, and a wider one for itself."""
        for text, target in (
            ("2001:db8::/65", "2001:db8::/64"),
            ("2001:db8::/64", "2001:db8::/64"),
            ("2001:db8::/63", "2001:db8::/63"),
            ("2001:db8::8/128", "2001:db8::/64"),
            ("192.0.2.0/31", "192.0.2.0/31"),
        ):
            self.assertEqual(describe(bans_module.ban_target(text)), target)

    def test_forgotten_bans_are_not_restored(self) -> None:
        """A ban that has ended longer ago than the longest ban lasts is not restored."""
        for remaining, count in ((-86399.0, 1), (-86400.0, 0), (-1e6, 0)):
            bans = Bans(Limits())
            bans.restore([SavedBan("192.0.2.7/32", "x", remaining, 600, 1, False)], 0.0)
            self.assertEqual(len(list(bans)), count, remaining)

    def test_long_quiet_time(self) -> None:
        """After a long time, too, bans begin with the shortest."""
        self.bans.ban(HERE, "x", 0.0)
        self.assertEqual(self.bans.ban(HERE, "x", 86400.0).seconds, 1200)
        self.assertEqual(self.bans.ban(HERE, "x", 1e6).seconds, 600)

    def test_a_ban_is_a_small_value(self) -> None:
        """A `Ban` has no dictionary and cannot be changed: there may be thousands of them."""
        ban = self.bans.ban(HERE, "x", 0.0)
        self.assertFalse(hasattr(ban, "__dict__"))
        self.assertRaises((AttributeError, TypeError), setattr, ban, "number", 2)

    def test_ended_bans_are_not_active(self) -> None:
        """A ban is active until its end, and not after it."""
        ban = self.bans.ban(HERE, "x", 0.0)
        for now, active in ((0.0, [ban]), (599.0, [ban]), (600.0, []), (601.0, [])):
            self.assertEqual(list(self.bans.active(now)), active)

    def test_a_ban_is_the_first_for_everybody_by_default(self) -> None:
        """A `Ban` is by default the first of its network, and for everybody."""
        ban = bans_module.Ban((4, 32, 1), "x", 1.0, 1.0)
        self.assertEqual((ban.number, ban.strangers_only), (1, False))

    def test_ban_of_ipv6(self) -> None:
        """The ban of an IPv6 address is for its /64."""
        self.assertEqual(describe(self.bans.ban("2001:db8::1", "x", 0.0).network), "2001:db8::/64")
        self.assertIsNotNone(self.bans.banned("2001:db8::2:1", 0.0))
        self.assertIsNone(self.bans.banned("2001:db8:0:1::1", 0.0))

    def test_repeated_bans_double(self) -> None:
        """Each ban is twice as long as the one before, up to the maximum; a quiet time begins again."""
        now, durations = 0.0, []
        for _ in range(10):
            ban = self.bans.ban(HERE, "x", now)
            durations.append(ban.seconds)
            now = ban.until + 86399
        self.assertEqual(durations, [600 * 2**n for n in range(8)] + [86400, 86400])
        self.assertEqual(self.bans.ban(HERE, "x", now + 1).seconds, 600)

    def test_ban_during_a_ban_changes_nothing(self) -> None:
        """A connection from before the ban neither extends the ban nor makes the next one longer."""
        ban = self.bans.ban(HERE, "x", 0.0)
        self.assertIs(self.bans.ban(HERE, "y", 599.0), ban)
        for _ in range(100):
            self.assertIsNone(self.bans.violation(HERE, "backlog", 599.0))
        self.assertIsNone(self.bans.violation(HERE, "backlog", 600.0))

    def test_tenth_violation_within_an_hour_bans(self) -> None:
        """The tenth violation within an hour bans, and the next ban needs ten more."""
        for repetition in (1, 2):
            now = repetition * 10_000.0
            results = [self.bans.violation(HERE, "backlog", now + n * 399) for n in range(10)]
            self.assertEqual(results[:9], [None] * 9)
            ban = results[9]
            assert ban is not None
            self.assertEqual((ban.number, ban.reason), (repetition, "backlog"))

    def test_nine_violations_an_hour_do_not_ban(self) -> None:
        """Nine violations in each hour never ban, nor do violations without an address."""
        for n in range(9 * 24):
            self.assertIsNone(self.bans.violation(HERE, "backlog", n * 401.0))
        for _ in range(20):
            self.assertIsNone(self.bans.violation("local", "backlog", 0.0))

    def test_unban(self) -> None:
        """`unban` ends a ban and forgets how many there were; a network ends all bans inside it."""
        addresses = ("192.0.2.7", "192.0.2.8", "198.51.100.1", "2001:db8::1")
        for address in addresses:
            self.bans.ban(address, "x", 0.0)
        self.assertFalse(self.bans.unban("192.0.2.9"))
        self.assertTrue(self.bans.unban("192.0.2.0/24"))
        self.assertTrue(self.bans.unban("2001:db8::5"))
        self.assertRaises(ValueError, self.bans.unban, "example.com")
        self.assertEqual([bool(self.bans.banned(a, 0.0)) for a in addresses], [0, 0, 1, 0])
        self.assertEqual(self.bans.ban("192.0.2.7", "x", 601.0).number, 1)

    def test_operator_bans_a_network(self) -> None:
        """The ban of a network concerns all its addresses, and ends like others."""
        self.bans.ban("203.0.113.0/24", "by hand", 0.0)
        self.bans.ban("2001:db8::/32", "by hand", 0.0)
        for address, expected in (("203.0.113.9", True), ("203.0.114.9", False), ("2001:db8:9::1", True), (HERE, False)):  # fmt: skip
            self.assertEqual(self.bans.banned(address, 599.0) is not None, expected)
            self.assertIsNone(self.bans.banned(address, 600.0))
        self.assertFalse(self.bans.unban("203.0.113.9"))
        self.assertTrue(self.bans.unban("203.0.113.0/24"))
        self.assertIsNone(self.bans.banned("203.0.113.9", 0.0))

    def test_ban_of_one_ipv6_address_is_of_its_64(self) -> None:
        """A prefix longer than /64 is its /64."""
        ban = self.bans.ban("2001:db8::1/128", "x", 0.0)
        self.assertIs(self.bans.banned("2001:db8::2", 0.0), ban)


class RestartTests(SynchronousTestCase):
    def test_bans_survive_a_restart(self) -> None:
        """A ban goes on for the remaining seconds, whatever the clock of the new run shows."""
        old, new = Bans(Limits()), Bans(Limits())
        old.ban(HERE, "max_failed_pairs", 10_000.0)
        old.ban("203.0.113.0/24", "by hand", 10_000.0, strangers_only=True)
        saved = export(old, 10_200.0)
        self.assertEqual(
            saved[0], SavedBan("192.0.2.7/32", "max_failed_pairs", 400.0, 600, 1, False)
        )
        new.restore(saved, 5.0)
        self.assertIsNotNone(new.banned(HERE, 404.9))
        self.assertIsNone(new.banned(HERE, 405.0))
        ban = new.banned("203.0.113.1", 404.9)
        self.assertTrue(ban is not None and ban.strangers_only)
        self.assertEqual(new.ban(HERE, "x", 405.0).number, 2)

    def test_ended_bans_are_remembered_for_the_quiet_time(self) -> None:
        """A ban that has ended is saved as long as it makes the next one longer."""
        old, new = Bans(Limits()), Bans(Limits())
        old.ban(HERE, "x", 0.0)
        new.restore(export(old, 600.0 + 86400), 0.0)
        self.assertEqual(len(new), 0)
        new.restore(export(old, 86999.0), 0.0)
        self.assertEqual(new.ban(HERE, "x", 0.5).number, 2)

    def test_damaged_entries_are_left_out(self) -> None:
        """A saved network that is none is left out, and no ban is longer than the maximum."""
        bans = Bans(Limits())
        bans.restore(
            [
                SavedBan("x", "", 1.0, 1.0, 1, False),
                SavedBan("192.0.2.7/32", "", 1e9, 1.0, 1, False),
            ],
            0,
        )
        self.assertIsNone(bans.banned(HERE, 86400.0))
        self.assertEqual(len(bans), 1)


class ChangeTests(SynchronousTestCase):
    def test_changes_are_known(self) -> None:
        """A new ban, an ended one and a dropped one are changes; what has been saved is not."""
        self.patch(bans_module, "MAX_BANS", 2)
        bans = Bans(Limits())
        bans.ban("10.0.0.1", "x", 0.0)
        bans.changed = set()
        for n in (1, 2, 3):
            bans.ban(f"10.0.0.{n}", "x", float(n))
        bans.unban("10.0.0.3")
        saved = {describe(network): bans.saved(network, 10.0) for network in bans.changed}
        self.assertEqual(
            saved.pop("10.0.0.2/32"), SavedBan("10.0.0.2/32", "x", 592.0, 600, 1, False)
        )
        self.assertEqual(saved, {"10.0.0.1/32": None, "10.0.0.3/32": None})

    def test_ended_bans_are_forgotten(self) -> None:
        """A ban is forgotten when it no longer makes the next one longer; the violations of the address stay."""
        limits = Limits(max_limit_violations=2)
        bans = Bans(limits)
        bans.ban("10.0.0.1", "x", 0.0)
        bans.ban("10.0.0.2", "x", 1.0)
        end = limits.ban_seconds + limits.max_ban_seconds
        bans.violation("10.0.0.1", "y", end - 1.0)
        bans.changed = set()
        bans.forget_ended(end - 0.5)
        self.assertEqual((len(bans), bans.changed), (2, set()))
        bans.forget_ended(end)
        self.assertEqual([describe(network) for network in bans], ["10.0.0.2/32"])
        self.assertEqual([describe(network) for network in bans.changed], ["10.0.0.1/32"])
        self.assertIsNotNone(bans.violation("10.0.0.1", "y", end))

    def test_one_network_is_forgotten(self) -> None:
        """`forget` is for one network exactly, not for those inside it, and forgets the violations."""
        bans = Bans(Limits(max_limit_violations=2))
        bans.violation("10.0.0.2", "y", 0.0)
        for network in ("10.0.0.0/24", "10.0.0.1", "10.0.0.2"):
            bans.ban(network, "x", 0.0)
        bans.changed = set()
        for network in ("10.0.0.0/24", "10.0.0.2"):
            bans.forget(ban_target(network))
        self.assertEqual([describe(network) for network in bans], ["10.0.0.1/32"])
        self.assertEqual(len(bans.changed), 2)
        self.assertIsNone(bans.violation("10.0.0.2", "y", 1.0))


class BoundTests(SynchronousTestCase):
    @given(
        strategies.lists(
            strategies.tuples(
                strategies.integers(0, 5), strategies.integers(0, 200_000), strategies.booleans()
            ),
            max_size=50,
        )
    )
    def test_no_ban_exceeds_the_maximum(self, steps: list[tuple[int, int, bool]]) -> None:
        """Whatever happens, no address is banned at a time more than `max_ban_seconds` after the last event."""
        bans, now = Bans(Limits()), 0.0
        for host, pause, is_violation in steps:
            now += pause
            address = f"192.0.2.{host}"
            if is_violation:
                for _ in range(10):
                    bans.violation(address, "backlog", now)
            else:
                bans.ban(address, "x", now)
            self.assertIsNotNone(bans.banned(address, now))
            if pause % 7 == 0:  # a restart
                saved, bans, now = export(bans, now), Bans(Limits()), float(pause)
                bans.restore(saved, now)
            for other in range(6):
                self.assertIsNone(bans.banned(f"192.0.2.{other}", now + 86400))

    def test_a_full_table_drops_the_ban_that_ends_first(self) -> None:
        """A full table drops the ban that ends, or has ended, first: that of the smallest offender."""
        self.patch(bans_module, "MAX_BANS", 100)
        bans = Bans(Limits())
        for now in (0.0, 600.0, 1800.0):
            bans.ban(HERE, "x", now)
        for n in range(10_000):
            bans.ban(f"10.0.{n >> 8}.{n & 255}", "x", 1800.0)
        self.assertEqual(len(bans), 100)
        self.assertIsNotNone(bans.banned(HERE, 1800.0))
        self.assertIsNotNone(bans.banned("10.0.39.15", 1800.0))
