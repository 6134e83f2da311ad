"""What a server counts has a bounded size, and charts keep every peak."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from imapshield import events
from imapshield.observe.chart_history import RANGES, ChartHistory
from imapshield.observe.counters import MAX_LABELS, MAX_LIMITS, OTHER, Counters
from imapshield.observe.reactor_delay import BOUNDS, CHECK_SECONDS, ReactorDelay


class CountersTests(SynchronousTestCase):
    def test_events_are_counted(self) -> None:
        """Each kind of event has a counter; limits by name and action."""
        counters = Counters()
        for event in (
            events.ConnectionOpened(1, "192.0.2.1"),
            events.LoggedIn(1, "192.0.2.1", "alice", "LOGIN", True),
            events.LoginFailed(1, "192.0.2.1", "alice", "LOGIN"),
            events.LoginRefused(1, "192.0.2.1", "alice", "LOGIN", "no-tls"),
            events.BadCommandReceived(1, "192.0.2.1", "x", "y"),
            events.TLSFailed(1, "192.0.2.1", "x"),
            events.ProxyHeaderRejected(1, "192.0.2.1", "x"),
            events.CommandFailed(1, "192.0.2.1", "ref", "NOOP", "traceback"),
            events.LimitTriggered(1, "192.0.2.1", "backlog", 100, 101, "reset"),
            events.LimitTriggered(1, "192.0.2.1", "backlog", 100, 101, "paused"),
            events.AddressBanned(0, "192.0.2.1", "192.0.2.1/32", "backlog", 1, 1, 60),
            events.ConnectionsRefused(0, "192.0.2.1/32", 7, 60),
            events.AddressUnbanned(0, "192.0.2.1/32"),
            events.UserBusy(1, "192.0.2.1", "alice", 1, 60, 3),
            events.ConnectionClosed(1, "192.0.2.1", "logged out"),
        ):
            counters(event)
        self.assertEqual((counters.opened, counters.refused, counters.unbans), (1, 7, 1))
        self.assertEqual(counters.logins, {"accepted": 1, "failed": 1, "refused": 1})
        self.assertEqual(counters.limits, {("backlog", "reset"): 1, ("backlog", "paused"): 1})
        self.assertEqual(counters.limits_by_action("reset"), 1)
        self.assertEqual((counters.bans, counters.closed), ({"backlog": 1}, {"logged out": 1}))
        kinds = ("bad_command", "internal_error", "tls", "proxy_header")
        self.assertEqual(counters.problems, dict.fromkeys(kinds, 1))

    def test_labels_are_bounded(self) -> None:
        """Names beyond the maximum are counted together."""
        counters = Counters()
        for number in range(MAX_LIMITS + 10):
            counters(events.LimitTriggered(1, "192.0.2.1", f"x{number}", 1, 1, "reset"))
            counters(events.ConnectionClosed(1, "192.0.2.1", f"x{number}"))
        self.assertEqual(len(counters.limits), MAX_LIMITS + 1)
        self.assertEqual(len(counters.closed), MAX_LABELS + 1)
        self.assertEqual(counters.limits[OTHER, "reset"], 10)


class ChartHistoryTests(SynchronousTestCase):
    def test_points_are_in_order(self) -> None:
        """The oldest point is first. A ring that is full forgets the oldest."""
        history = ChartHistory(["a"])
        self.assertEqual(history.points("hour")["series"], {"a": []})
        for number in range(362):
            history.add({"a": number}, 1000 + 10 * number)
        points = history.points("hour")
        self.assertEqual((points["time"], points["step"]), (4610, 10))
        self.assertEqual(points["series"]["a"], [float(n) for n in range(2, 362)])

    def test_a_peak_does_not_disappear(self) -> None:
        """A point of a minute is the maximum of its six samples."""
        history = ChartHistory(["a"])
        for value in (0, 0, 7, 0, 0, 0, 1):
            history.add({"a": value}, 0)
        self.assertEqual(history.points("day")["series"]["a"], [7])

    def test_size_is_bounded(self) -> None:
        """After two days a range has as many points as after one."""
        history = ChartHistory(["a"])
        for number in range(2 * 8640):
            history.add({"a": number}, number)
        for name, (_, length) in RANGES.items():
            self.assertEqual(len(history.points(name)["series"]["a"]), length)


class ReactorDelayTests(SynchronousTestCase):
    def test_delay_is_measured(self) -> None:
        """A call that is late by two seconds counts once; an idle reactor is not late."""
        clock = Clock()
        delay = ReactorDelay(clock)
        self.assertEqual(delay.take_highest(), 0)
        delay.start()
        for _ in range(10):
            clock.advance(CHECK_SECONDS)
        self.assertAlmostEqual(delay.take_highest(), 0)
        clock.advance(CHECK_SECONDS + 2.2)
        clock.advance(CHECK_SECONDS - 0.2)
        self.assertAlmostEqual(delay.take_highest(), 2.2)
        self.assertAlmostEqual(delay.take_highest(), 0)
        self.assertEqual(sum(delay.counts), 12)
        self.assertEqual(delay.counts[BOUNDS.index(2.5)], 1)
        self.assertAlmostEqual(delay.total, 2.2)
        delay.stop()
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_present_delay_counts(self) -> None:
        """A reactor that is late now is late before its next measurement, too."""
        clock = Clock()
        delay = ReactorDelay(clock)
        delay.start()
        clock.rightNow += 5
        self.assertAlmostEqual(delay.take_highest(), 5 - CHECK_SECONDS)
