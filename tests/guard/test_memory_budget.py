"""The budget of all bytes that are held for connections, tested without a reactor, a socket or a clock."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.guard.memory_budget import GRANULE, Holder, MemoryBudget
from imapshield.guard.verdicts import LimitReached
from imapshield.limits import Limits

KB = 1 << 10


def ignore(_: LimitReached) -> None:
    """Do nothing when a connection is to be reset."""


class BudgetCase(SynchronousTestCase):
    def budget(self, **limits: Any) -> MemoryBudget:
        self.under_test = MemoryBudget(Limits(**limits))
        return self.under_test

    def holder(self, memory: int = 0, user: str | None = None) -> Holder:
        holder = self.under_test.open(ignore)
        self.under_test.set_user(holder, user)
        self.under_test.hold(holder, memory)
        return holder


class MemoryBudgetTests(BudgetCase):
    def test_budget_adds_up_what_all_connections_hold(self) -> None:
        """The budget is the sum of what the open connections hold."""
        budget = self.budget()
        first, second = self.holder(5 * KB), self.holder(7 * KB, "alice")
        self.assertEqual(budget.memory, 12 * KB)
        budget.hold(first, 2 * KB)
        budget.close(second)
        budget.close(second)
        self.assertEqual(budget.memory, 2 * KB)

    def test_small_changes_are_not_recorded(self) -> None:
        """A change of less than a granule is not recorded, so that a NOOP costs nothing here."""
        budget = self.budget()
        holder = self.holder(GRANULE - 1)
        self.assertEqual(budget.memory, 0)
        budget.hold(holder, GRANULE)
        budget.hold(holder, 2 * GRANULE - 1)
        self.assertEqual(budget.memory, GRANULE)

    def test_one_stranger_has_a_limit(self) -> None:
        """A client that has not logged in and holds more than its limit is the victim itself."""
        budget = self.budget(preauth_held_bytes=40 * KB)
        self.holder(39 * KB)
        greedy = self.holder()
        self.assertFalse(budget.hold(greedy, 40 * KB))
        self.assertTrue(budget.hold(greedy, 42 * KB))
        reached = LimitReached("preauth_held_bytes", 40 * KB, 42 * KB)
        self.assertEqual(budget.excess(greedy), (reached, greedy))

    def test_largest_stranger_is_the_first_victim(self) -> None:
        """When all connections hold too much, the victim is the largest without a login, not the newcomer or a user."""
        budget = self.budget(max_memory_bytes=100 * KB)
        self.holder(50 * KB, "alice")
        self.holder(4 * KB)
        largest = self.holder(40 * KB)
        newcomer = self.holder()
        self.assertTrue(budget.hold(newcomer, 8 * KB))
        reached = LimitReached("max_memory_bytes", 100 * KB, 102 * KB)
        self.assertEqual(budget.excess(newcomer), (reached, largest))

    def test_largest_connection_of_the_largest_user_is_the_next_victim(self) -> None:
        """Without strangers, the victim is the largest connection of the user who holds most, not the largest of all."""
        budget = self.budget(max_memory_bytes=100 * KB)
        self.holder(30 * KB, "alice")
        of_bob = [self.holder(size * KB, "bob") for size in (5, 18, 7, 7, 7, 7, 7, 7)]
        newcomer = self.holder(6 * KB, "carol")
        found = budget.excess(newcomer)
        assert found is not None
        self.assertIs(found[1], of_bob[1])

    def test_user_who_holds_too_much_loses_the_largest_connection(self) -> None:
        """A user who holds too much over all connections is the victim, whatever all others hold."""
        budget = self.budget(max_user_bytes=50 * KB)
        self.holder(49 * KB, "alice")
        largest, other = self.holder(30 * KB, "bob"), self.holder(10 * KB, "bob")
        self.assertTrue(budget.hold(other, 21 * KB))
        reached = LimitReached("max_user_bytes", 50 * KB, 51 * KB)
        self.assertEqual(budget.excess(other), (reached, largest))

    def test_connection_that_holds_nothing_is_no_victim(self) -> None:
        """A connection that holds less than a granule is never the victim."""
        budget = self.budget(max_memory_bytes=10 * KB)
        for _ in range(3):
            self.holder(GRANULE - 1)
        user = self.holder(12 * KB, "alice")
        found = budget.excess(user)
        assert found is not None
        self.assertIs(found[1], user)

    def test_login_moves_what_a_connection_holds(self) -> None:
        """After the login, what the connection holds counts for the user; after the logout, for nobody."""
        budget = self.budget(max_user_bytes=50 * KB)
        self.holder(40 * KB, "alice")
        holder = self.holder(20 * KB)
        budget.set_user(holder, "alice")
        self.assertIsNotNone(budget.excess(holder))
        budget.set_user(holder, None)
        self.assertIsNone(budget.excess(holder))
        self.assertEqual(budget.memory, 60 * KB)

    def test_literal_that_does_not_fit_is_refused(self) -> None:
        """A literal is refused if the user would hold too much with it, on whatever connection."""
        budget = self.budget(max_user_bytes=50 * KB)
        self.holder(40 * KB, "alice")
        other, of_bob = self.holder(0, "alice"), self.holder(0, "bob")
        self.assertIsNone(budget.refusal(other, 10 * KB))
        reached = LimitReached("max_user_bytes", 50 * KB, 51 * KB)
        self.assertEqual(budget.refusal(other, 11 * KB), reached)
        self.assertIsNone(budget.refusal(of_bob, 11 * KB))


class FileBudgetTests(BudgetCase):
    def test_users_of_an_old_connection_and_a_new_one(self) -> None:
        """The user's connections are together, although an old one without files ends again after a new login."""
        budget = self.budget(max_user_bytes=40 * KB)
        old = self.holder(user="alice")
        budget.close(old)
        self.holder(30 * KB, "alice")
        budget.hold_file_bytes(old, 0)
        last = self.holder(user="alice")
        self.assertTrue(budget.hold(last, 20 * KB))
        reached, _ = budget.excess(last) or (None, None)
        self.assertEqual(reached, LimitReached("max_user_bytes", 40 * KB, 50 * KB))

    def test_unused_users_are_forgotten(self) -> None:
        """A user without connections and files is forgotten, also if the last file is removed after the connection."""
        budget = self.budget()
        holder = self.holder(user="alice")
        budget.hold_file_bytes(holder, 1)
        budget.close(holder)
        self.assertIn("alice", budget._users)
        budget.hold_file_bytes(holder, -1)
        self.assertNotIn("alice", budget._users)

    def test_one_user_may_use_half_of_the_disk_budget(self) -> None:
        """One user may hold as many bytes in files as stay free for the others: alone, half of the budget."""
        budget = self.budget(max_spool_bytes=100)
        first, second = self.holder(0, "alice"), self.holder(0, "alice")
        budget.hold_file_bytes(first, 30)
        self.assertIsNone(budget.file_refusal(second, 20))
        self.assertEqual(budget.file_refusal(second, 21), LimitReached("max_spool_bytes", 100, 51))

    def test_other_users_always_find_room(self) -> None:
        """Users who take all that they may leave room for another user."""
        budget = self.budget(max_spool_bytes=1000)
        for number in range(9):
            holder = self.holder(0, f"user{number}")
            while budget.file_refusal(holder, 1) is None:
                budget.hold_file_bytes(holder, 1)
        newcomer = self.holder(0, "alice")
        self.assertIsNone(budget.file_refusal(newcomer, 1))

    def test_files_of_a_closed_connection_count_until_they_are_closed(self) -> None:
        """The files of a command that still runs count after its connection has ended."""
        budget = self.budget(max_spool_bytes=100)
        holder = self.holder(0, "alice")
        budget.hold_file_bytes(holder, 40)
        budget.close(holder)
        self.assertIsNotNone(budget.file_refusal(self.holder(0, "alice"), 11))
        budget.hold_file_bytes(holder, -40)
        self.assertEqual(budget.file_bytes, 0)


USERS = st.sampled_from([None, "alice", "bob", "carol"])
AMOUNTS = st.integers(0, 300 * KB)


class VictimTests(BudgetCase):
    @given(st.lists(st.tuples(st.integers(0, 9), USERS, AMOUNTS), max_size=60))
    def test_victim_is_the_largest_to_a_factor_of_two(
        self, steps: list[tuple[int, str | None, int]]
    ) -> None:
        """After any changes, sums are exact, and no other candidate has twice what the victim has."""
        budget = self.budget(
            max_memory_bytes=500 * KB, max_user_bytes=1 << 30, preauth_held_bytes=1 << 30
        )
        holders = [self.holder() for _ in range(10)]
        for number, user, amount in steps:
            if holders[number].group.user != user:
                budget.set_user(holders[number], user)
            exceeded = budget.hold(holders[number], amount)
            self.assertLess(abs(holders[number].memory - amount), GRANULE)
            self.assertLessEqual(exceeded, budget.memory > 500 * KB)
            self.assertEqual(budget.memory, sum(holder.memory for holder in holders))
            found = budget.excess(holders[number])
            self.assertEqual(found is not None, budget.memory > 500 * KB)
            if found is not None:
                self.check_victim(found[1], holders)

    def check_victim(self, victim: Holder, holders: list[Holder]) -> None:
        sums: dict[str | None, int] = {}
        for holder in holders:
            user = holder.group.user
            sums[user] = sums.get(user, 0) + holder.memory
        user = victim.group.user
        if sums.get(None):
            self.assertIsNone(user)
        else:
            self.assertGreater(sums[user] * 2, max(sums.values()))
        rivals = [holder.memory for holder in holders if holder.group.user == user]
        self.assertGreater(victim.memory * 2, max(rivals))
