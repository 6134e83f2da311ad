"""`StoreContract` finds the faults of a store that breaks the contract."""

from __future__ import annotations

import unittest
from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from imapshield.mailbox.values import CopyResult, StoreResult
from imapshield.testing import NOW, MemoryStore, StoreContract


class ExpungesEverything(MemoryStore):
    """A store that expunges messages without \\Deleted."""

    def expunge(self, key: int, uids: Sequence[int] | None, since: int) -> StoreResult:
        """Remove all messages of `uids`."""
        mailbox = self._by_key(key)
        for message in list(mailbox.existing(sorted(mailbox.messages) if uids is None else uids)):
            mailbox.remove(message.uid)
        return StoreResult(mailbox.delta(since))


class MoveThatCopies(MemoryStore):
    """A store in which MOVE leaves the messages in the source."""

    def copy(
        self, key: int, uids: Sequence[int], target: str, move: bool, since: int
    ) -> CopyResult:
        """Copy, whether or not the command is MOVE."""
        return super().copy(key, uids, target, False, since)


def failures(store: type[MemoryStore]) -> set[str]:
    """Return the names of the contract's tests that `store` fails."""

    class Tests(StoreContract, SynchronousTestCase):
        def make_store(self) -> MemoryStore:
            return store(lambda: NOW)

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Tests).run(result)
    assert result.testsRun > 40
    return {test.id().rpartition(".")[2] for test, _ in result.failures + result.errors}


class StoreContractTests(SynchronousTestCase):
    def test_correct_store_passes(self) -> None:
        """A correct store fails no test."""
        self.assertEqual(failures(MemoryStore), set())

    def test_expunge_without_deleted_fails(self) -> None:
        """A store that expunges messages without \\Deleted fails the tests of EXPUNGE and of the remaining messages."""
        self.assertEqual(
            failures(ExpungesEverything),
            {
                "test_expunge_removes_only_deleted_messages",
                "test_changes_are_reported_once",
                "test_state_survives_restart",
            },
        )

    def test_move_that_copies_fails(self) -> None:
        """A store in which MOVE leaves the messages in the source fails the tests of MOVE and of RENAME INBOX."""
        self.assertEqual(
            failures(MoveThatCopies),
            {"test_move_removes_messages_from_the_source", "test_rename_inbox_moves_its_messages"},
        )

    def test_contract_is_not_a_test_case(self) -> None:
        """A test loader does not run the contract itself in a module that imports it."""
        self.assertFalse(issubclass(StoreContract, unittest.TestCase))
