"""The queue of bans for ``--ban-command``: order, coalescing and bound."""

from twisted.trial.unittest import SynchronousTestCase

from imapshield.guard import ban_queue
from imapshield.guard.ban_queue import BanQueue


class BanQueueTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.queue = BanQueue()

    def rest(self, now: float = 0.0) -> list[tuple[str, ...]]:
        found = []
        while (arguments := self.queue.next(now)) is not None:
            found.append(arguments)
        return found

    def test_order(self) -> None:
        """Bans and pardons are passed on in order, with the seconds that are left at that time."""
        self.queue.ban("a", 600.0)
        self.queue.unban("b")
        self.queue.ban("c", 600.4)
        self.assertEqual(
            self.rest(now=100.0), [("ban", "a", "500"), ("unban", "b"), ("ban", "c", "500")]
        )

    def test_the_latest_counts(self) -> None:
        """Of several changes of one network only the latest is passed on."""
        self.queue.ban("a", 600.0)
        self.queue.ban("b", 600.0)
        self.queue.unban("a")
        self.queue.ban("b", 1200.0)
        self.assertEqual(self.rest(), [("unban", "a"), ("ban", "b", "1200")])

    def test_ended_bans_are_left_out(self) -> None:
        """A ban that ends within a second is not passed on."""
        self.queue.ban("a", 600.0)
        self.assertEqual(self.rest(now=599.1), [])

    def test_bound(self) -> None:
        """A full queue drops the oldest bans, and pardons only if there is nothing else."""
        self.patch(ban_queue, "MAX_WAITING", 3)
        self.queue.unban("x")
        for n in range(100_000):
            self.queue.ban(str(n), 600.0)
        self.assertEqual((len(self.queue), self.queue.dropped), (3, 99_998))
        self.assertEqual(
            self.rest(), [("unban", "x"), ("ban", "99998", "600"), ("ban", "99999", "600")]
        )
        for n in range(5):
            self.queue.unban(str(n))
        self.assertEqual(self.rest(), [("unban", "2"), ("unban", "3"), ("unban", "4")])

    def test_clear(self) -> None:
        """A cleared queue is empty."""
        self.queue.ban("a", 600.0)
        self.queue.clear()
        self.assertEqual(self.rest(), [])

    def test_a_ban_of_one_second_is_passed_on(self) -> None:
        """A ban that lasts at least a second is passed on, with its seconds rounded; a shorter one is left out."""
        for left, expected in ((0.99, None), (1.0, "1"), (1.4, "1"), (1.6, "2")):
            queue = BanQueue()
            queue.ban("192.0.2.1/32", 100.0 + left)
            entry = queue.next(100.0)
            self.assertEqual(None if entry is None else entry[2], expected)
