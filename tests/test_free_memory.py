"""Memory is given back to the system after a flood."""

from twisted.trial.unittest import SynchronousTestCase

from imapshield.free_memory import (
    ABOVE_CALLS,
    CALLS,
    ENDED_CONNECTIONS,
    FREED_BYTES,
    POSTPONED_CALLS,
    QUIET_WORK,
    SOON_CALLS,
    UNCOUNTED_BYTES,
    FreeMemory,
    resident,
    trim,
)


class FreeMemoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.load = 0, 0
        self.resident: int | None = None
        self.work = self.work_each_second = 0
        self.trims: list[None] = []
        self.collections: list[int] = []
        self.under_test = FreeMemory(
            lambda: self.load,
            lambda: self.work,
            lambda: self.trims.append(None),
            lambda: self.collections.append(len(self.trims)),
            lambda: self.resident,
        )

    def check(self, connections: int, held: int) -> int:
        """Check with this load; return how often memory has been given back in all."""
        self.load = connections, held
        self.work += self.work_each_second
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

    def test_garbage_is_collected_soon_when_few_connections_are_left(self) -> None:
        """If more connections have ended than are left, memory is given back, with a collection, some seconds later."""
        self.check(1000, 0)
        for _ in range(CALLS):
            self.check(ENDED_CONNECTIONS, 0)
        self.assertEqual(len(self.trims), SOON_CALLS)
        self.assertEqual(self.collections, [SOON_CALLS - 1])

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

    def checks(self, count: int, taken: int, held: int = 0) -> int:
        """Check `count` times while the process takes `taken` bytes; return how often garbage was collected in all."""
        self.resident = taken
        for _ in range(count):
            self.check(1, held)
        return len(self.collections)

    def test_process_that_takes_much_more_than_is_counted(self) -> None:
        """Garbage is collected once when the process has grown by much that is not counted."""
        self.assertEqual(self.checks(CALLS, 50_000_000), 0)
        self.assertEqual(self.checks(ABOVE_CALLS - 1, 50_000_000 + UNCOUNTED_BYTES), 0)
        self.assertEqual(self.checks(1, 50_000_000 + UNCOUNTED_BYTES), 1)
        # It did not help, so this is what the process needs.
        self.assertEqual(self.checks(5 * CALLS, 50_000_000 + UNCOUNTED_BYTES), 1)
        self.assertEqual(len(self.trims), 1)

    def test_long_collection_waits_for_a_quiet_second(self) -> None:
        """While the server is busy, a collection that may be long waits, but not for ever."""
        self.checks(CALLS, 50_000_000)
        self.work_each_second = QUIET_WORK + 1
        self.assertEqual(self.checks(2 * CALLS, 50_000_000 + UNCOUNTED_BYTES), 0)
        self.work_each_second = QUIET_WORK
        self.assertEqual(self.checks(1, 50_000_000 + UNCOUNTED_BYTES), 1)

    def test_wait_begins_when_the_collection_is_due(self) -> None:
        """On a server that is always busy, every collection waits for ten minutes: from when it is due."""
        self.work_each_second = QUIET_WORK + 1
        self.checks(2 * POSTPONED_CALLS, 50_000_000)
        for number in (1, 2):
            taken = 50_000_000 + number * UNCOUNTED_BYTES
            self.checks(ABOVE_CALLS - 1, taken)
            self.assertEqual(self.checks(POSTPONED_CALLS, taken), number - 1)
            self.assertEqual(self.checks(1, taken), number)
            self.checks(CALLS, taken)

    def test_two_reasons_to_collect_wait_no_less(self) -> None:
        """A collection that is due for two reasons waits as long as one that is due for one, and is done once."""
        self.work_each_second = QUIET_WORK + 1
        self.resident = 50_000_000
        self.check(1000, 0)
        self.resident += UNCOUNTED_BYTES
        for _ in range(ABOVE_CALLS - 1 + POSTPONED_CALLS):
            self.check(1000 - ENDED_CONNECTIONS, 0)
        self.assertEqual(self.collections, [])
        self.check(1000 - ENDED_CONNECTIONS, 0)
        self.assertEqual(len(self.collections), 1)

    def test_collection_after_connections_have_ended_waits_if_more_are_left(self) -> None:
        """Garbage of connections is collected although the server is busy, if more have ended than are left."""
        self.work_each_second = QUIET_WORK + 1
        for _ in range(CALLS):
            self.check(1000, 0)
        for _ in range(SOON_CALLS):
            self.check(ENDED_CONNECTIONS, 0)
        self.assertEqual(len(self.collections), 1)
        self.check(1000, 0)
        for _ in range(2 * CALLS):
            self.check(1000 - ENDED_CONNECTIONS, 0)
        self.assertEqual(len(self.collections), 1)
        self.work_each_second = 0
        self.check(1000 - ENDED_CONNECTIONS, 0)
        self.assertEqual(len(self.collections), 2)

    def test_steady_growth_collects_once_a_minute(self) -> None:
        """However fast the process grows, garbage is collected once in `CALLS` calls."""
        for size in range(5 * CALLS):
            self.checks(1, size * UNCOUNTED_BYTES)
        self.assertLessEqual(len(self.collections), 5)
        self.assertGreaterEqual(len(self.collections), 3)

    def test_memory_that_is_counted_is_no_garbage(self) -> None:
        """A process that takes much because its connections hold much collects nothing."""
        self.checks(CALLS, 50_000_000)
        held = FREED_BYTES - 1
        self.assertEqual(self.checks(CALLS, 50_000_000 + UNCOUNTED_BYTES + held - 1, held), 0)

    def test_short_peaks_collect_nothing(self) -> None:
        """A call of the store that takes much memory for a moment does not matter."""
        for _ in range(CALLS):
            self.checks(1, 50_000_000)
            self.checks(1, 50_000_000 + UNCOUNTED_BYTES)
        self.assertEqual(self.collections, [])

    def test_system_that_does_not_say_what_the_process_takes(self) -> None:
        """Without the memory of the process, only what is counted decides; on Linux it is known."""
        for _ in range(2 * CALLS):
            self.check(1, 0)
        self.assertEqual(self.trims, [])
        taken = resident()
        self.assertTrue(taken is None or taken > 1_000_000)

    def test_trim_raises_nothing(self) -> None:
        """`trim` can be called on any system."""
        trim()
