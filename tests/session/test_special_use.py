"""LIST and GETMETADATA with the special uses that names give, on a Maildir."""

from __future__ import annotations

import os
import time

from imapshield.maildir.store import MaildirStore
from imapshield.testing import MemoryRealm, Server
from tests.session.session_case import SessionTestCase


class SpecialUseTests(SessionTestCase):
    def setUp(self) -> None:
        self.root = os.path.abspath(self.mktemp())
        for name in (".Sent Messages", ".SPAM", ".Work"):
            os.makedirs(os.path.join(self.root, name, "cur"))
        self.stores: list[MaildirStore] = []
        self.client = Server(realm=MemoryRealm(open_store=self.open_store)).login()

    def open_store(self) -> MaildirStore:
        store = MaildirStore(
            self.root, now=time.time, log_warning=self.fail, has_special_folders=True
        )
        self.addCleanup(store.close)
        return store

    def test_list_and_metadata_agree(self) -> None:
        """LIST, its option SPECIAL-USE and the metadata entry name the same uses."""
        for command in (b'a LIST "" *', b'b LIST "" * RETURN (SPECIAL-USE)'):
            listed = self.client(command)
            self.assertIn(b'\\Sent) "/" "Sent Messages"', listed)
            self.assertIn(b'\\Junk) "/" SPAM', listed)
            self.assertIn(b'(\\HasNoChildren) "/" Work', listed)
        listed = self.client(b'c LIST (SPECIAL-USE) "" *')
        self.assertEqual(listed.count(b"* LIST"), 2)
        entry = self.client(b'd GETMETADATA "Sent Messages" /private/specialuse')
        self.assertIn(b'(/private/specialuse "\\\\Sent")', entry)

    def test_special_use_of_create_wins(self) -> None:
        """A use that a client sets with CREATE is no longer that of a name."""
        self.client(b"a CREATE Out (USE (\\Sent))")
        listed = self.client(b'b LIST (SPECIAL-USE) "" *')
        self.assertIn(b'\\Sent) "/" Out', listed)
        self.assertNotIn(b"Sent Messages", listed)
