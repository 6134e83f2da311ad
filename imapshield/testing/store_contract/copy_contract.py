"""How a store copies, moves and replaces messages."""

from imapshield.errors import (
    MessageExpunged,
    NoSuchMailbox,
)
from imapshield.mailbox.values import NewMessage
from imapshield.testing.in_process import MAIL
from imapshield.testing.store_contract.fixture import (
    DELETED,
    EMAILID,
    ENVELOPE,
    FLAGGED,
    SECOND_MAIL,
    SEEN,
    STRUCTURE,
    WHOLE,
    StoreFixture,
)
from imapshield.wire.commands.base import MemoryLiteral


class CopyContract(StoreFixture):
    """How a store copies, moves and replaces messages."""

    def test_copy_keeps_everything_and_leaves_the_source(self) -> None:
        """COPY keeps flags, INTERNALDATE, content and EMAILID, and leaves the source unchanged."""
        self.store.create("A", [])
        self.append(b"Other", name="A")
        self.append(SEEN, b"$Work", internaldate=1_000_000_000)
        self.append(content=SECOND_MAIL)
        key, since = self.key(), self.modseq()
        self.assertRaises(MessageExpunged, self.store.copy, key, [1, 2, 7], "A", False, since)
        copied = self.store.copy(key, [1, 2], "A", False, since)
        self.assertEqual(copied[:3], (self.store.status("A").uidvalidity, [1, 2], [2, 3]))
        self.assertEqual((copied.delta.rows, [*copied.delta.vanished]), ([], []))
        self.assertEqual(self.flags_by_uid("A"), {1: {b"Other"}, 2: {SEEN, b"$Work"}, 3: set()})
        row = self.store.open("A", False).delta.rows[1]
        self.assertEqual(
            (row.internaldate, self.store.sizes(self.key("A"), [2]).sizes),
            (1_000_000_000, [(2, len(MAIL))]),
        )
        for item in (EMAILID, ENVELOPE, STRUCTURE, WHOLE):
            self.assertEqual(self.fetch_item(3, item, "A"), self.fetch_item(2, item))
        self.assertEqual(self.flags_by_uid(), {1: {SEEN, b"$Work"}, 2: set()})

    def test_mailbox_can_be_copied_into_itself(self) -> None:
        """A mailbox can be copied into itself. The delta contains the copies."""
        self.append(SEEN)
        copied = self.store.copy(self.key(), [1], "INBOX", False, self.modseq())
        self.assertEqual([row.uid for row in copied.delta.rows], [2])
        self.assertEqual(self.flags_by_uid(), {1: {SEEN}, 2: {SEEN}})

    def test_copy_to_a_missing_mailbox_fails(self) -> None:
        """COPY to a mailbox that does not exist fails."""
        self.append()
        self.assertRaises(NoSuchMailbox, self.store.copy, self.key(), [1], "A", False, 0)

    def test_move_removes_messages_from_the_source(self) -> None:
        r"""MOVE copies messages and removes them from the source, with or without \Deleted."""
        self.store.create("A", [])
        for flag in (SEEN, DELETED, FLAGGED):
            self.append(flag)
        known = self.fetch_item(3, EMAILID)
        moved = self.store.copy(self.key(), [1, 3, 7], "A", True, self.modseq())
        self.assertEqual((moved.source_uids, moved.target_uids), ([1, 3], [1, 2]))
        self.assertEqual([*moved.delta.vanished], [1, 3])
        self.assertEqual(self.flags_by_uid(), {2: {DELETED}})
        self.assertEqual(self.flags_by_uid("A"), {1: {SEEN}, 2: {FLAGGED}})
        self.assertEqual(self.fetch_item(2, EMAILID, "A"), known)

    def test_replace_is_one_step(self) -> None:
        r"""REPLACE stores the new message and removes the old one in one step, with or without \Deleted."""
        self.store.create("A", [])
        for _ in range(3):
            self.append(SEEN)
        key, since = self.key(), self.modseq()
        new = NewMessage((FLAGGED,), 1_000_000_000, MemoryLiteral(SECOND_MAIL))
        replaced = self.store.replace(key, 2, "INBOX", new, since)
        self.assertEqual(replaced.appended, (self.store.status("INBOX").uidvalidity, [4]))
        self.assertEqual([row.uid for row in replaced.delta.rows], [4])
        self.assertEqual([*replaced.delta.vanished], [2])
        self.assertEqual(self.flags_by_uid(), {1: {SEEN}, 3: {SEEN}, 4: {FLAGGED}})
        replaced = self.store.replace(key, 3, "A", new, replaced.delta.highestmodseq)
        self.assertEqual((replaced.appended.uids, [*replaced.delta.vanished]), ([1], [3]))
        self.assertEqual(
            (self.flags_by_uid(), self.flags_by_uid("A")),
            ({1: {SEEN}, 4: {FLAGGED}}, {1: {FLAGGED}}),
        )
        self.assertEqual(self.fetch_item(1, WHOLE, "A"), self.fetch_item(4, WHOLE))

    def test_refused_replace_changes_nothing(self) -> None:
        """REPLACE of an expunged message, or into a missing mailbox, changes nothing."""
        self.append()
        new = NewMessage((), None, MemoryLiteral(SECOND_MAIL))
        self.assertRaises(MessageExpunged, self.store.replace, self.key(), 7, "INBOX", new, 0)
        self.assertRaises(NoSuchMailbox, self.store.replace, self.key(), 1, "A", new, 0)
        self.assertEqual(self.flags_by_uid(), {1: set()})
