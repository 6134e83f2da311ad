"""How a store changes flags and expunges messages."""

from imapshield.errors import (
    MessageExpunged,
)
from imapshield.testing.store_contract.fixture import (
    BUDGET,
    DELETED,
    ENVELOPE,
    FLAGGED,
    SEEN,
    WHOLE,
    StoreFixture,
)


class FlagContract(StoreFixture):
    """How a store changes flags and expunges messages."""

    def test_flags_have_one_order(self) -> None:
        """Flags are returned in one order: system flags in a fixed order, then keywords sorted."""
        self.append(
            b"zeta", b"$Forwarded", b"\\Draft", SEEN, DELETED, FLAGGED, b"\\Answered", b"Alpha"
        )
        (row,) = self.store.open("INBOX", False).delta.rows
        self.assertEqual(
            row.flags, b"\\Answered \\Flagged \\Deleted \\Seen \\Draft $Forwarded Alpha zeta"
        )

    def test_unchanged_flags_keep_their_modseq(self) -> None:
        """STORE adds, removes and replaces flags. A message whose flags do not change keeps its MODSEQ."""
        for _ in range(3):
            self.append()
        key, since = self.key(), self.modseq()
        delta, modified, _ = self.store.store_flags(
            key, [1, 2, 9], b"+", [SEEN, b"$Work"], None, since
        )
        self.assertEqual(
            [(row.uid, row.flags) for row in delta.rows],
            [(1, b"\\Seen $Work"), (2, b"\\Seen $Work")],
        )
        self.assertEqual(list(modified), [])
        self.assertTrue(all(row.modseq > since for row in delta.rows))
        since = delta.highestmodseq
        delta, *_ = self.store.store_flags(key, [1, 2, 3], b"+", [SEEN], None, since)
        self.assertEqual([row.uid for row in delta.rows], [3])
        since = delta.highestmodseq
        delta, *_ = self.store.store_flags(key, [1], b"-", [b"$WORK"], None, since)
        self.assertEqual([(row.uid, row.flags) for row in delta.rows], [(1, b"\\Seen")])
        self.store.store_flags(key, [2], b"", [FLAGGED], None, since)
        self.store.store_flags(key, [3], b"", [], None, since)
        self.assertEqual(self.flags_by_uid(), {1: {SEEN}, 2: {FLAGGED}, 3: set()})

    def test_keywords_ignore_case(self) -> None:
        """A keyword in another letter case is the same keyword."""
        self.append(b"$Work")
        self.store.store_flags(self.key(), [1], b"+", [b"$WORK"], None, 0)
        self.assertEqual(self.flags_by_uid(), {1: {b"$Work"}})
        self.store.store_flags(self.key(), [1], b"-", [b"$work"], None, 0)
        self.assertEqual(self.flags_by_uid(), {1: set()})

    def test_mailbox_can_have_forty_keywords(self) -> None:
        """A mailbox can have 40 keywords: more than the 26 letters of a Maildir file name."""
        keywords = {b"keyword%d" % i for i in range(40)}
        self.append(*keywords)
        self.store.store_flags(self.key(), [1], b"-", [b"keyword7", b"keyword39"], None, 0)
        self.store = self.reopen()
        self.assertEqual(self.flags_by_uid(), {1: keywords - {b"keyword7", b"keyword39"}})

    def test_later_changes_are_left_unchanged(self) -> None:
        """With UNCHANGEDSINCE, messages that changed later are left unchanged and returned."""
        self.append()
        self.append()
        key, seen = self.key(), self.modseq()
        self.store.store_flags(key, [2], b"+", [FLAGGED], None, seen)
        delta, modified, _ = self.store.store_flags(key, [1, 2], b"+", [SEEN], seen, seen)
        self.assertEqual(list(modified), [2])
        self.assertEqual(self.flags_by_uid(), {1: {SEEN}, 2: {FLAGGED}})
        self.assertEqual([row.uid for row in delta.rows], [1, 2])

    def test_expunge_removes_only_deleted_messages(self) -> None:
        r"""EXPUNGE removes messages with \Deleted, only among the UIDs given if there are any, and reports them as
        vanished."""
        for flag in (DELETED, SEEN, DELETED, DELETED):
            self.append(flag)
        key, since = self.key(), self.modseq()
        delta = self.store.expunge(key, [2, 3], since).delta
        self.assertEqual([*delta.vanished], [3])
        self.assertGreater(delta.highestmodseq, since)
        delta = self.store.expunge(key, None, delta.highestmodseq).delta
        self.assertEqual([*delta.vanished], [1, 4])
        self.assertEqual([*self.store.expunge(key, None, delta.highestmodseq).delta.vanished], [])
        self.assertEqual([*self.store.changes(key, since, False).vanished], [1, 3, 4])
        self.assertEqual(self.flags_by_uid(), {2: {SEEN}})
        fetched = self.store.fetch(key, [1, 2, 3], [ENVELOPE], BUDGET)
        self.assertEqual((list(fetched.uids), list(fetched.missing)), ([2], [1, 3]))
        self.assertRaises(MessageExpunged, self.store.read, key, 1, WHOLE, 0, 10)
