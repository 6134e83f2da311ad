"""The rate of copied bytes has a burst and recovers with time."""

from twisted.trial.unittest import SynchronousTestCase

from imapshield.mailbox.copy_rate import CopyRate

BURST, PER_SECOND = 1000, 10


class CopyRateTests(SynchronousTestCase):
    def wait(self, rate: CopyRate, size: int, now: float) -> float:
        """Return how long a copy of `size` bytes must wait."""
        return rate.seconds_until_allowed(size, now, BURST, PER_SECOND)

    def test_a_burst_is_allowed_and_then_the_rate(self) -> None:
        """The burst may be copied at once; after that, each byte waits for its share of a second."""
        rate = CopyRate()
        for _ in range(10):
            self.assertEqual(self.wait(rate, 100, 50.0), 0)
            rate = rate.after(100, 50.0, PER_SECOND)
        self.assertEqual(self.wait(rate, 100, 50.0), 10)
        self.assertEqual(self.wait(rate, 100, 59.0), 1)
        self.assertEqual(self.wait(rate, 100, 60.0), 0)

    def test_unused_time_gives_no_more_than_the_burst(self) -> None:
        """A pause of any length allows one burst."""
        rate = CopyRate().after(BURST, 0.0, PER_SECOND)
        self.assertEqual(rate.unsettled(1e6, PER_SECOND), 0)
        rate = rate.after(BURST, 1e6, PER_SECOND)
        self.assertGreater(self.wait(rate, 1, 1e6), 0)

    def test_a_copy_above_the_burst_waits_for_all_earlier_ones(self) -> None:
        """A copy that is larger than the burst is allowed once nothing is unsettled, and delays the next one."""
        rate = CopyRate().after(10, 0.0, PER_SECOND)
        self.assertEqual(self.wait(rate, 3 * BURST, 0.0), 1)
        self.assertEqual(self.wait(rate, 3 * BURST, 1.0), 0)
        rate = rate.after(3 * BURST, 1.0, PER_SECOND)
        self.assertEqual(self.wait(rate, 10, 1.0), 201)
