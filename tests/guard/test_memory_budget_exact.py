"""The exact numbers of the budget of bytes, and that nothing is left of users who have gone."""

from __future__ import annotations

from imapshield.guard.memory_budget import GRANULE, bytes_per_stranger, stranger_cost
from imapshield.guard.verdicts import LimitReached
from imapshield.limits import Limits
from tests.guard.test_memory_budget import KB, BudgetCase


class ExactBudgetTests(BudgetCase):
    def test_cost_of_a_stranger(self) -> None:
        """B is the sum of what was measured and of `preauth_held_bytes`."""
        limits = Limits()
        cost = stranger_cost(limits)
        self.assertEqual(
            cost,
            {
                "the connection": 10 * KB,
                "TLS": 22 * KB,
                "a TLS record": 17 * KB,
                "preauth_held_bytes": limits.preauth_held_bytes,
                "rounding": KB,
            },
        )
        self.assertEqual(bytes_per_stranger(limits), sum(cost.values()))

    def test_users_are_forgotten_with_their_last_connection(self) -> None:
        """Users take memory while they have a connection, or files of a command that still runs."""
        budget = self.budget()
        first, second = self.holder(5 * KB, "alice"), self.holder(7 * KB, "alice")
        other = self.holder(3 * KB, "bob")
        self.assertEqual(sorted(budget._users), ["alice", "bob"])
        self.assertEqual(budget._users["alice"].connections, 2)
        budget.close(first)
        self.assertEqual(sorted(budget._users), ["alice", "bob"])
        budget.hold_file_bytes(other, 100)
        budget.close(other)
        self.assertEqual(sorted(budget._users), ["alice", "bob"])
        budget.hold_file_bytes(other, -100)
        budget.set_user(second, None)
        self.assertEqual((budget._users, budget._strangers.connections), ({}, 1))
        budget.close(second)
        self.assertEqual((budget._strangers.connections, budget.memory), (0, 0))

    def test_files_move_with_the_connection(self) -> None:
        """The files of a connection count for its user, and for the strangers after it has logged out."""
        budget = self.budget()
        holder = self.holder(5 * KB)
        budget.hold_file_bytes(holder, 100)
        budget.set_user(holder, "alice")
        found = budget.file_bytes, budget._users["alice"].file_bytes, budget._strangers.file_bytes
        self.assertEqual(found, (100, 100, 0))
        budget.set_user(holder, None)
        found = budget.file_bytes, holder.file_bytes, budget._strangers.file_bytes
        self.assertEqual(found, (100, 100, 100))

    def test_closed_connections_record_nothing(self) -> None:
        """What a connection holds after its end is not recorded, so it cannot stay counted for ever."""
        budget = self.budget()
        holder = self.holder(5 * KB)
        budget.close(holder)
        self.assertFalse(budget.hold(holder, 50 * KB))
        budget.set_user(holder, "alice")
        self.assertEqual((budget.memory, budget._users), (0, {}))

    def test_a_change_of_a_granule_is_recorded(self) -> None:
        """A change of 1,024 bytes is recorded in both directions, and one of 1,023 is not."""
        budget = self.budget()
        holder = self.holder(4 * KB)
        for memory, recorded in ((5119, 4096), (5120, 5120), (4097, 5120), (4096, 4096)):
            budget.hold(holder, memory)
            self.assertEqual(budget.memory, recorded)

    def test_limits_are_exceeded_by_the_next_granule(self) -> None:
        """Exactly as many bytes as a limit permits are permitted, for a stranger, a user and all; a granule more is not."""
        limits = {"preauth_held_bytes": 40, "max_user_bytes": 50, "max_memory_bytes": 120}
        budget = self.budget(**{name: size * KB for name, size in limits.items()})
        stranger, user = self.holder(), self.holder(0, "alice")
        for holder, size in ((stranger, 40), (user, 50), (self.holder(0, "bob"), 30)):
            self.assertFalse(budget.hold(holder, size * KB))
            self.assertTrue(budget.hold(holder, size * KB + GRANULE))
            self.assertFalse(budget.hold(holder, size * KB))

    def test_who_holds_less_resets_nobody(self) -> None:
        """A connection that holds less than before is no reason for a reset, though a limit is still exceeded."""
        budget = self.budget(max_memory_bytes=100 * KB)
        holder = self.holder(90 * KB, "alice")
        self.assertTrue(budget.hold(self.holder(0, "bob"), 20 * KB))
        self.assertFalse(budget.hold(holder, 85 * KB))

    def test_files_leave_as_much_free_as_a_user_takes(self) -> None:
        """One user may use as many bytes in files as stay free; the refusal reports the sum of all."""
        budget = self.budget(max_spool_bytes=100)
        alice, bob = self.holder(0, "alice"), self.holder(0, "bob")
        budget.hold_file_bytes(alice, 6)
        budget.hold_file_bytes(bob, 3)
        self.assertIsNone(budget.file_refusal(alice, 42))
        self.assertEqual(budget.file_refusal(alice, 43), LimitReached("max_spool_bytes", 100, 52))
