"""Memory is given back to the system after a flood."""

from twisted.trial.unittest import SynchronousTestCase

from imapshield.free_memory import CALLS, ENDED_CONNECTIONS, FREED_BYTES, FreeMemory, trim


class FreeMemoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.load = 0, 0
        self.trims: list[None] = []
        self.collections: list[int] = []
        self.under_test = FreeMemory(
            lambda: self.load,
            lambda: self.trims.append(None),
            lambda: self.collections.append(len(self.trims)),
        )

    def check(self, connections: int, held: int) -> int:
        """Check with this load; return how often memory has been given back in all."""
        self.load = connections, held
        self.under_test.check()
        return len(self.trims)

    def test_memory_is_given_back_when_many_connections_have_ended(self) -> None:
        """Memory is given back several times after many connections have ended, and then no more."""
        self.assertEqual(self.check(1000, 0), 0)
        self.assertEqual(self.check(1000 - ENDED_CONNECTIONS, 0), 1)
        for _ in range(2 * CALLS):
            self.check(1000 - ENDED_CONNECTIONS, 0)
        self.assertEqual(len(self.trims), CALLS)
        self.assertEqual(self.collections, [CALLS - 1])

    def test_nothing_is_collected_while_the_flood_goes_on(self) -> None:
        """While connections keep coming and ending, no garbage collection delays the other clients."""
        for _ in range(5 * CALLS):
            self.check(1000, 0)
            self.check(0, 0)
        self.assertEqual(self.collections, [])

    def test_memory_is_given_back_when_connections_hold_less(self) -> None:
        """Memory is given back after the connections have released much, although none has ended."""
        self.assertEqual(self.check(10, FREED_BYTES), 0)
        self.assertEqual(self.check(10, 0), 1)

    def test_usual_traffic_gives_nothing_back(self) -> None:
        """Fewer connections that come and go do not matter."""
        for number in range(50):
            self.assertEqual(self.check(number % 2 * (ENDED_CONNECTIONS - 1), 0), 0)

    def test_trim_raises_nothing(self) -> None:
        """`trim` can be called on any system."""
        trim()
