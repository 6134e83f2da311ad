"""How long clients wait that are not known to read."""

from twisted.trial.unittest import SynchronousTestCase

from imapshield.guard import unread_work
from imapshield.guard.unread_work import (
    BURST_SECONDS,
    MAX_DELAY,
    RECENT_SECONDS,
    SHARE,
    UnreadWork,
)


class UnreadWorkTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.work = UnreadWork()
        self.patch(unread_work, "FEW_CLIENTS", 0)

    def test_burst(self) -> None:
        """Nobody waits until the burst is used up; then a client waits as long as its work may take."""
        self.assertEqual(self.work.add("client", BURST_SECONDS / 2, 100.0), 0.0)
        self.assertAlmostEqual(self.work.add("client", BURST_SECONDS / 2, 100.0), 0.0)
        self.assertAlmostEqual(self.work.add("client", 0.001, 100.0), 0.001 / SHARE)

    def test_clients_that_wait(self) -> None:
        """Each client waits longer than the one before, so that they continue one after the other."""
        self.work.add("client", BURST_SECONDS, 100.0)
        delays = [self.work.add("client", 0.001, 100.0) for _ in range(3)]
        for number, delay in enumerate(delays, 1):
            self.assertAlmostEqual(delay, number * 0.001 / SHARE)

    def test_share(self) -> None:
        """A client that waits as long as it is told gets its share of the time."""
        now, worked = 100.0, 0.0
        self.work.add("client", BURST_SECONDS, now)
        while now < 200.0:
            worked += 0.005
            now += self.work.add("client", 0.005, now)
        self.assertLess(abs(worked - 100 * SHARE), 0.011)

    def test_pause(self) -> None:
        """After a pause the whole burst is free again, and no more."""
        self.work.add("client", BURST_SECONDS, 100.0)
        later = 100.0 + BURST_SECONDS / SHARE
        self.assertAlmostEqual(self.work.add("client", BURST_SECONDS, later), 0.0)
        much_later = 10 * later
        self.assertAlmostEqual(self.work.add("client", BURST_SECONDS, much_later), 0.0)
        self.assertAlmostEqual(self.work.add("client", 0.001, much_later), 0.001 / SHARE)

    def test_very_many_clients(self) -> None:
        """However many clients wait, none waits for longer than the maximum."""
        for _ in range(1000):
            delay = self.work.add("client", 1.0, 100.0)
        self.assertAlmostEqual(delay, MAX_DELAY)

    def test_few_clients_never_wait(self) -> None:
        """A few clients never wait, whatever they cost; one more waits until one of them has paused."""
        self.patch(unread_work, "FEW_CLIENTS", 3)
        for now in range(100, 110):
            for client in range(3):
                self.assertEqual(self.work.add(client, 1.0, now), 0.0)
        self.assertEqual(self.work.add(3, 1.0, 109.0), MAX_DELAY)
        self.assertEqual(self.work.add(3, 1.0, 109.5 + RECENT_SECONDS), 0.0)
