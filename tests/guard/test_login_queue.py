"""Password checks are shared fairly between addresses and networks, and known users come first."""

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.guard.login_queue import KNOWN_IN_A_ROW, Holders, LoginQueue

FLOOD = "192.0.2.7"


class LoginQueueTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.queue = LoginQueue(8)

    def add(self, address: str, tickets: Iterable[object], *, known: bool = False) -> None:
        for ticket in tickets:
            self.queue.add(ticket, address, known)

    def start(self) -> list[object]:
        """Start all checks that may run, and return their tickets."""
        return list(iter(self.queue.next, None))

    def served(self, count: int) -> list[object]:
        """Run `count` checks, one after another, and return their tickets in this order."""
        tickets = []
        for _ in range(count):
            tickets.append(self.queue.next())
            self.queue.remove(tickets[-1])
        return tickets

    def test_one_address_runs_a_quarter(self) -> None:
        """One address has at most a quarter of the checks at once, also if nobody else waits."""
        self.add(FLOOD, range(40))
        self.assertEqual(self.start(), [0, 1])
        self.queue.remove(0)
        self.assertEqual(self.start(), [2])
        self.assertEqual(len(self.queue), 37)

    def test_one_check_at_once_is_possible(self) -> None:
        """With fewer than four checks at once, an address has one of them."""
        self.queue = LoginQueue(1)
        self.add(FLOOD, "ab")
        self.assertEqual(self.start(), ["a"])

    def test_newcomer_does_not_wait_for_a_flood(self) -> None:
        """The first attempt of another address starts at once, however many of one address wait."""
        self.add(FLOOD, range(1000))
        self.start()
        self.add("198.51.100.1", ["honest"])
        self.assertEqual(self.start(), ["honest"])

    def test_number_of_checks_is_limited(self) -> None:
        """No more checks run at once than the limit, whatever the number of addresses."""
        for number in range(100):
            self.add(f"198.51.{number}.1", [number])
        self.assertEqual(len(self.start()), 8)

    def test_addresses_take_turns(self) -> None:
        """While several addresses wait, each gets one check in turn."""
        self.add(FLOOD, ["f1", "f2", "f3"])
        self.add("198.51.100.1", ["a1", "a2"])
        self.add("203.0.113.1", ["b1"])
        self.assertEqual(self.served(6), ["f1", "a1", "b1", "f2", "a2", "f3"])

    def test_network_has_one_turn(self) -> None:
        """All addresses of one network together have as many turns as one client of another network."""
        for network in ("192.0.2.{}", "2001:db8:0:{:x}::1"):
            self.queue = LoginQueue(8)
            for number in range(100):
                self.add(network.format(number), [("flood", number)])
            self.add("198.51.100.1", ["honest"])
            self.assertEqual(self.served(2)[1], "honest")

    def test_rotating_addresses_of_a_64_are_one(self) -> None:
        """The addresses of one IPv6 /64 are one holder: together they run a quarter of the checks."""
        for number in range(100):
            self.add(f"2001:db8::{number:x}", [number])
        self.assertEqual(len(self.start()), 2)

    def test_known_users_come_first(self) -> None:
        """A user who has logged in from the address before is served before all others."""
        for number in range(100):
            self.add(f"198.51.{number}.1", [number])
        self.add("203.0.113.1", ["alice"], known=True)
        self.assertEqual(self.served(2), ["alice", 0])

    def test_known_users_do_not_stop_the_others(self) -> None:
        """Every fourth check is of an unknown user, because one account is enough to be known from many addresses."""
        for number in range(100):
            self.add(f"198.51.{number}.1", [number], known=True)
        self.add("203.0.113.1", ["new"])
        self.assertEqual(self.served(KNOWN_IN_A_ROW + 1)[-1], "new")

    def test_only_known_users(self) -> None:
        """If only known users wait, all of them are served."""
        self.add(FLOOD, range(9), known=True)
        self.assertEqual(self.served(9), list(range(9)))

    def test_removed_attempt_is_not_started(self) -> None:
        """An attempt that was removed while it waited never starts; a ticket that is unknown is ignored."""
        self.add(FLOOD, "abc")
        self.queue.remove("a")
        self.queue.remove("unknown")
        self.assertEqual(self.start(), ["b", "c"])

    def test_holder(self) -> None:
        """The holder is the address of which most attempts wait or run, not the newest one."""
        self.assertEqual(self.queue.holder(), "")
        self.add(FLOOD, range(5))
        self.start()
        self.add("198.51.100.1", "abc")
        self.assertEqual(self.queue.holder(), FLOOD)
        for ticket in range(3):
            self.queue.remove(ticket)
        self.assertEqual(self.queue.holder(), "198.51.100.1")

    @given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.booleans()), max_size=60))
    def test_sequences(self, steps: list[tuple[int, bool, bool]]) -> None:
        """Whatever the order of events: the limits hold, no place is lost, and everybody is served in the end."""
        queue, running, waiting = LoginQueue(8), {}, {}
        for ticket, (number, known, remove) in enumerate(steps):
            address = f"192.0.2.{number}"
            queue.add(ticket, address, known)
            waiting[ticket] = address
            while (started := queue.next()) is not None:
                assert isinstance(started, int)
                running[started] = waiting.pop(started)
            if remove:
                for tickets in (running, waiting):
                    if tickets:
                        queue.remove(tickets.popitem()[0])
            self.assertLessEqual(len(running), 8)
            for holder in set(running.values()):
                self.assertLessEqual(list(running.values()).count(holder), 2)
            self.assertEqual(len(queue), len(waiting))
        for ticket in running:
            queue.remove(ticket)
        for _ in range(len(waiting)):
            last = queue.next()
            self.assertIn(last, waiting)
            queue.remove(last)
        self.assertEqual((len(queue), queue.holder()), (0, ""))


class HoldersTests(SynchronousTestCase):
    @given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=60))
    def test_most_is_the_largest_count(self, steps: list[tuple[int, bool]]) -> None:
        """`most` names a unit whose count is the largest of all."""
        holders, counts = Holders(), dict.fromkeys(range(6), 0)
        for unit, add in steps:
            if add:
                holders.add(unit, str(unit))
                counts[unit] += 1
            elif counts[unit]:
                holders.remove(unit)
                counts[unit] -= 1
            most = max(counts.values())
            self.assertEqual(counts[int(holders.most())] if most else holders.most(), most or "")
