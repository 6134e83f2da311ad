"""How a store adds messages, reports changes and counts."""

from imapshield.mailbox.values import NewMessage
from imapshield.testing.in_process import MAIL
from imapshield.testing.store_contract.fixture import (
    DELETED,
    EMAILID,
    SECOND_MAIL,
    SEEN,
    WHOLE,
    StoreFixture,
    literal,
)
from imapshield.wire.commands.base import MemoryLiteral


class AppendContract(StoreFixture):
    """How a store adds messages, reports changes and counts."""

    def test_append_keeps_flags_date_and_content(self) -> None:
        """APPEND assigns increasing UIDs, returns UIDVALIDITY, and keeps flags, INTERNALDATE and content."""
        appended = self.store.append(
            "INBOX",
            [
                NewMessage((SEEN, b"$Junk"), 1_000_000_000, MemoryLiteral(MAIL)),
                NewMessage((), None, MemoryLiteral(SECOND_MAIL)),
            ],
        )
        status = self.store.status("INBOX")
        self.assertEqual(appended, (status.uidvalidity, [1, 2]))
        self.assertEqual((status.messages, status.unseen, status.uidnext), (2, 1, 3))
        self.assertEqual(status.size, len(MAIL) + len(SECOND_MAIL))
        rows = self.store.open("INBOX", False).delta.rows
        self.assertEqual([row.flags for row in rows], [b"\\Seen $Junk", b""])
        self.assertEqual(rows[0].internaldate, 1_000_000_000)
        self.assertEqual(
            self.store.sizes(self.key(), [1, 2, 3]).sizes, [(1, len(MAIL)), (2, len(SECOND_MAIL))]
        )

    def test_content_is_unchanged(self) -> None:
        """Content comes back unchanged: bare LF, bare CR, binary data, no line end, no content at all."""
        for content in (
            b"",
            b"\n",
            b"a\nb\r\nc",
            b"a: b\n\nbare\n",
            b"x: y\r\n\r\nno end",
            b"\r\r\n\n\r",
            b"\xff\xfe: \x80\r\n\r\n",
        ):
            uid = self.append(content=content)
            self.assertEqual(self.fetch_item(uid, WHOLE), literal(content))
            self.assertEqual(self.store.sizes(self.key(), [uid]).sizes, [(uid, len(content))])

    def test_uids_are_never_reused(self) -> None:
        """The UID of an expunged message is never assigned again, even after a restart."""
        self.append(DELETED)
        self.append(DELETED)
        self.store.expunge(self.key(), None, 0)
        self.store = self.reopen()
        self.assertEqual(self.store.status("INBOX").uidnext, 3)
        self.assertEqual(self.append(), 3)

    def test_changes_are_reported_once(self) -> None:
        """`changes` reports each change once, to a caller that passes the MODSEQ it has seen."""
        key = self.key()
        self.append()
        self.append()
        first = self.store.changes(key, 0, False)
        self.assertEqual([row.uid for row in first.rows], [1, 2])
        again = self.store.changes(key, first.highestmodseq, False)
        self.assertEqual((again.rows, [*again.vanished], again.uidnext), ([], [], 3))
        self.store.store_flags(key, [2], b"+", [DELETED], None, 0)
        self.deliver("INBOX", SECOND_MAIL)
        delta = self.store.changes(key, first.highestmodseq, False)
        self.assertEqual([row.uid for row in delta.rows], [2, 3])
        self.store.expunge(key, None, 0)
        delta = self.store.changes(key, delta.highestmodseq, False)
        self.assertEqual((delta.rows, [*delta.vanished]), ([], [2]))

    def test_recent_is_claimed_once(self) -> None:
        r"""A new message is \Recent for the first session that claims it. A session that does not claim leaves it
        unclaimed."""
        self.deliver("INBOX", MAIL)
        self.store.open("INBOX", False)
        self.assertEqual(self.store.status("INBOX").recent, 1)
        self.assertEqual(self.store.open("INBOX", False).delta.recent, [1])
        opened = self.store.open("INBOX", True)
        self.assertEqual(opened.delta.recent, [1])
        self.deliver("INBOX", MAIL)
        self.assertEqual(
            self.store.changes(opened.key, opened.delta.highestmodseq, True).recent, [2]
        )
        self.store = self.reopen()
        self.assertEqual(self.store.open("INBOX", True).delta.recent, [])
        self.assertEqual(self.store.status("INBOX").recent, 0)

    def test_status_agrees_with_open(self) -> None:
        """STATUS returns counts and sizes that agree with what `open` returns."""
        self.append(SEEN)
        self.append(DELETED)
        self.deliver("INBOX", MAIL)
        status = self.store.status("INBOX")
        self.assertEqual(status[:5], (3, 3, 2, 1, 4))
        self.assertEqual((status.size, status.deleted_size), (3 * len(MAIL), len(MAIL)))
        opened = self.store.open("INBOX", False)
        self.assertEqual(
            (status.uidvalidity, status.highestmodseq, status.mailbox_id),
            (opened.uidvalidity, opened.delta.highestmodseq, opened.mailbox_id),
        )

    def test_state_survives_restart(self) -> None:
        """Everything that a client may cache is the same after a restart."""
        self.store.create("A", [b"\\Archive"])
        self.append(SEEN, b"$Work", name="A")
        self.append(DELETED, name="A")
        self.store.expunge(self.key("A"), None, 0)
        known = self.fetch_item(1, EMAILID, "A")
        before, status = self.store.open("A", True), self.store.status("A")
        self.store = self.reopen()
        after = self.store.open("A", True)
        self.assertEqual(after[1:4], before[1:4])
        self.assertEqual(after.delta.rows, before.delta.rows)
        self.assertEqual(self.store.status("A"), status)
        self.assertEqual(self.fetch_item(1, EMAILID, "A"), known)
