"""Quota and metadata of an account on disk."""

from zope.interface.verify import verifyObject

from imapshield.errors import NoSpace, NoSuchMailbox, TooMuchMetadata
from imapshield.mailbox.storage import IMetadataStore, IQuotaStore
from imapshield.mailbox.values import MAX_METADATA_ENTRIES, NewMessage, Quota
from imapshield.maildir.store import MaildirStore
from imapshield.testing.store_contract import MAIL
from imapshield.wire.commands.base import MemoryLiteral
from tests.maildir.disk import DiskTestCase


class QuotaTests(DiskTestCase):
    def limited(self, octets: int | None, messages: int | None) -> MaildirStore:
        store = MaildirStore(
            self.root, now=self.clock, note=self.notes.append, quota=(octets, messages)
        )
        self.addCleanup(store.close)
        return store

    def test_counts(self) -> None:
        """Octets and messages are counted as they come and go, by whatever way, in every folder."""
        verifyObject(IQuotaStore, self.store)
        self.assertEqual(self.store.quota(), Quota(0, 0))
        self.put()
        self.put(b"\\Deleted")
        self.deliver()
        self.store.create("a", ())
        self.deliver(folder=".a")
        self.assertEqual(self.store.quota(), Quota(4 * len(MAIL), 4))
        key = self.store.key("INBOX")
        self.store.copy(key, [1], "a", False, 0)
        self.store.copy(key, [1], "a", True, 0)
        self.assertEqual(self.store.quota(), Quota(5 * len(MAIL), 5))
        self.store.expunge(key, None, 0)
        self.store.delete("a")
        self.assertEqual(self.store.quota(), Quota(len(MAIL), 1))

    def test_limits(self) -> None:
        """What goes over is refused and leaves nothing behind; a move is always possible."""
        for store in (self.limited(2 * len(MAIL), None), self.limited(None, 2)):
            store.create("a", ())
            message = NewMessage((), None, MemoryLiteral(MAIL))
            store.append("INBOX", [message] * 2)
            files = self.cur()
            self.assertRaises(NoSpace, store.append, "INBOX", [message])
            key = store.key("INBOX")
            uids = [row.uid for row in store.changes(key, 0, False).rows]
            self.assertRaises(NoSpace, store.copy, key, uids, "INBOX", False, 0)
            self.assertEqual(self.cur(), files)
            self.assertEqual(len(store.copy(key, uids, "a", True, 0).target_uids), 2)
            store.delete("a")


class MetadataTests(DiskTestCase):
    def test_kept(self) -> None:
        """Entries are kept over a restart, go with a rename, and are gone with their mailbox."""
        verifyObject(IMetadataStore, self.store)
        self.store.create("a", ())
        self.store.set_metadata("a", {b"/private/comment": b"mine", b"/shared/comment": b"ours"})
        self.store.set_metadata("", {b"/private/comment": b"\0\xff"})
        self.store.set_metadata("a", {b"/shared/comment": None})
        self.store.rename("a", "b")
        self.store.close()
        self.store = self.open_store()
        self.assertEqual(self.store.metadata("b"), {b"/private/comment": b"mine"})
        self.assertEqual(self.store.metadata(""), {b"/private/comment": b"\0\xff"})
        self.assertRaises(NoSuchMailbox, self.store.metadata, "a")
        self.store.delete("b")
        self.store.create("b", ())
        self.assertEqual(self.store.metadata("b"), {})

    def test_too_many(self) -> None:
        """Too many entries are refused as one."""
        entries = {b"/private/%d" % i: b"x" for i in range(MAX_METADATA_ENTRIES + 1)}
        self.assertRaises(TooMuchMetadata, self.store.set_metadata, "INBOX", entries)
        self.assertEqual(self.store.metadata("INBOX"), {})

    def test_rename_inbox(self) -> None:
        """RENAME INBOX copies what is said of it."""
        self.store.set_metadata("INBOX", {b"/private/comment": b"x"})
        self.store.rename("INBOX", "a")
        self.assertEqual(self.store.metadata("a"), self.store.metadata("INBOX"))
        self.assertEqual(self.store.metadata("a"), {b"/private/comment": b"x"})

    def test_modseq(self) -> None:
        """What changes raises the mailbox's HIGHESTMODSEQ, what does not leaves it (RFC 7162 section 3.2)."""
        for value, raises in ((b"x", True), (b"x", False), (None, True), (None, False)):
            before = self.store.status("INBOX").highestmodseq
            self.store.set_metadata("INBOX", {b"/private/comment": value})
            self.assertEqual(self.store.status("INBOX").highestmodseq > before, raises)
        self.store.set_metadata("", {b"/private/comment": b"x"})
        self.assertEqual(self.store.changes(self.store.key("INBOX"), before, False).rows, [])
