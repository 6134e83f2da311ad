"""The quota of an account counts all its mail, and commands that would exceed the quota are refused."""

from __future__ import annotations

from zope.interface.verify import verifyObject

from imapshield.errors import NoSpace
from imapshield.mailbox.storage import IQuotaStore
from imapshield.mailbox.values import NewMessage, Quota
from imapshield.testing.store_contract import BUDGET, MAIL, WHOLE
from imapshield.wire.commands.base import MemoryLiteral
from tests.maildir.disk import DiskTestCase


class AccountQuotaTests(DiskTestCase):
    def test_usage_counts_every_folder(self) -> None:
        """Bytes and messages are counted in every folder, whichever command adds or removes messages."""
        verifyObject(IQuotaStore, self.store)
        self.assertEqual(self.store.quota(), Quota(0, 0))
        self.append()
        self.append(b"\\Deleted")
        self.deliver()
        self.store.create("a", ())
        self.deliver(folder=".a")
        self.assertEqual(self.store.quota(), Quota(4 * len(MAIL), 4))
        key = self.store.mailbox_key("INBOX")
        self.store.copy(key, [1], "a", False, 0)
        self.store.copy(key, [1], "a", True, 0)
        self.assertEqual(self.store.quota(), Quota(5 * len(MAIL), 5))
        self.store.expunge(key, None, 0)
        self.store.delete("a")
        self.assertEqual(self.store.quota(), Quota(len(MAIL), 1))

    def test_changed_file(self) -> None:
        """A file that another program has made longer counts with its new size once it was read."""
        self.append()
        self.append(b"\\Deleted")
        key = self.store.mailbox_key("INBOX")
        with open(self.path("cur", self.cur()[0]), "ab") as file:
            file.write(b"more\r\n")
        for _ in range(2):
            self.store.fetch(key, [1, 2], [WHOLE], BUDGET)
            self.assertEqual(self.store.quota(), Quota(2 * len(MAIL) + 6, 2))
        self.store.store_flags(key, [1], b"+", [b"\\Deleted"], None, 0)
        self.store.expunge(key, None, 0)
        self.assertEqual(self.store.quota(), Quota(0, 0))

    def test_append_over_a_limit_is_refused(self) -> None:
        """An APPEND or COPY over a limit is refused and leaves no file; a MOVE is always possible."""
        for limits in ((2 * len(MAIL), None), (None, 2)):
            store = self.open_store(quota=limits)
            store.create("a", ())
            message = NewMessage((), None, MemoryLiteral(MAIL))
            store.append("INBOX", [message] * 2)
            names = self.cur()
            self.assertRaises(NoSpace, store.append, "INBOX", [message])
            key = store.mailbox_key("INBOX")
            uids = [row.uid for row in store.changes(key, 0, False).rows]
            self.assertRaises(NoSpace, store.copy, key, uids, "INBOX", False, 0)
            self.assertEqual(self.cur(), names)
            self.assertEqual(len(store.copy(key, uids, "a", True, 0).target_uids), 2)
            store.delete("a")
