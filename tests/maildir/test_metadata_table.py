"""Metadata is stored with its mailbox (RFC 5464)."""

from __future__ import annotations

from zope.interface.verify import verifyObject

from imapshield.errors import NoSuchMailbox, TooMuchMetadata
from imapshield.mailbox.storage import IMetadataStore
from imapshield.mailbox.values import MAX_METADATA_ENTRIES
from tests.maildir.disk import DiskTestCase


class MetadataTableTests(DiskTestCase):
    def test_entries_live_as_long_as_their_mailbox(self) -> None:
        """Entries survive a restart, follow a RENAME, and are removed with their mailbox."""
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

    def test_too_many_entries_set_none(self) -> None:
        """If there are too many entries, none of them is set."""
        entries = {b"/private/%d" % i: b"x" for i in range(MAX_METADATA_ENTRIES + 1)}
        self.assertRaises(TooMuchMetadata, self.store.set_metadata, "INBOX", entries)
        self.assertEqual(self.store.metadata("INBOX"), {})

    def test_rename_of_inbox_copies_its_metadata(self) -> None:
        """RENAME of INBOX copies its metadata to the new mailbox."""
        self.store.set_metadata("INBOX", {b"/private/comment": b"x"})
        self.store.rename("INBOX", "a")
        self.assertEqual(self.store.metadata("a"), self.store.metadata("INBOX"))
        self.assertEqual(self.store.metadata("a"), {b"/private/comment": b"x"})

    def test_change_of_metadata_raises_highestmodseq(self) -> None:
        """A change of metadata raises HIGHESTMODSEQ; setting the same value does not (RFC 7162 section 3.2)."""
        for value, is_raised in ((b"x", True), (b"x", False), (None, True), (None, False)):
            before = self.store.status("INBOX").highestmodseq
            self.store.set_metadata("INBOX", {b"/private/comment": value})
            self.assertEqual(self.store.status("INBOX").highestmodseq > before, is_raised)
        self.store.set_metadata("", {b"/private/comment": b"x"})
        self.assertEqual(
            self.store.changes(self.store.mailbox_key("INBOX"), before, False).rows, []
        )
