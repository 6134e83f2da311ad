"""The exact order of password checks, and how many of them one address may run."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imapshield.guard.login_queue import LoginQueue


class ExactQueueTests(SynchronousTestCase):
    def served(self, queue: LoginQueue, count: int) -> list[object]:
        """Run `count` checks, one after another, and return their tickets in this order."""
        tickets = []
        for _ in range(count):
            tickets.append(queue.next())
            queue.remove(tickets[-1])
        return tickets

    def test_quarter_is_rounded_down(self) -> None:
        """An address runs a quarter of the checks, rounded down, but one at least."""
        for most, share in ((1, 1), (3, 1), (4, 1), (6, 1), (7, 1), (8, 2), (15, 3), (16, 4)):
            queue = LoginQueue(most)
            for ticket in range(20):
                queue.add(ticket, "192.0.2.7", known=False)
            self.assertEqual(len(list(iter(queue.next, None))), share, most)

    def test_every_fourth_check_is_of_a_stranger(self) -> None:
        """While strangers wait, three checks of known users are followed by one of theirs."""
        queue = LoginQueue(8)
        for n in range(20):
            queue.add(("known", n), f"10.{n}.0.1", known=True)
            queue.add(("stranger", n), f"10.{n}.0.2", known=False)
        kinds = [ticket[0] for ticket in self.served(queue, 12) if isinstance(ticket, tuple)]
        self.assertEqual(kinds, [*["known"] * 3, "stranger"] * 3)

    def test_stranger_is_next_after_many_known_users(self) -> None:
        """After any number of checks of known users, a stranger who comes then is the next one."""
        for before in (3, 4, 5, 9):
            queue = LoginQueue(8)
            for n in range(before + 1):
                queue.add(n, f"10.{n}.0.1", known=True)
            self.served(queue, before)
            queue.add("stranger", "192.0.2.1", known=False)
            self.assertEqual(queue.next(), "stranger", before)

    def test_nothing_is_left(self) -> None:
        """Addresses whose attempts have ended take no memory."""
        queue = LoginQueue(8)
        for n in range(20):
            queue.add(n, f"10.0.{n % 7}.1", known=n % 2 == 0)
        self.served(queue, 20)
        self.assertEqual((len(queue), queue.holder()), (0, ""))
        self.assertEqual((queue._holders._names, queue._holders._units), ({}, {}))
        self.assertEqual((queue._running, queue._running_of), ({}, {}))

    def test_each_level_of_networks_takes_turns(self) -> None:
        """In a /21 the /26 take turns, and in each of them its addresses, however many one of them has."""
        queue = LoginQueue(8)
        for n in range(10):
            queue.add(n, f"192.0.2.{n}", known=False)
        queue.add("other /26", "192.0.2.64", known=False)
        queue.add("other /21", "198.51.100.1", known=False)
        first, second, third = self.served(queue, 3)
        self.assertEqual((first, second, third), (0, "other /21", "other /26"))
