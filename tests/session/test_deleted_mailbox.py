"""A client whose selected mailbox is deleted gets BYE, whoever deletes it; a rename changes nothing."""

from __future__ import annotations

import os
import shutil
import time
from typing import Any

from imapshield.maildir.store import MaildirStore
from imapshield.maildir.watch import POLL_SECONDS, DirectoryWatcher
from imapshield.testing import Client, MemoryRealm, Server
from tests.session.session_case import SessionTestCase, lines, session_of, without_text

BYE = b"* BYE Selected mailbox was deleted or restored; log in again\r\n"


class DeletedMailboxTests(SessionTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.client(b"a CREATE x")
        self.client.append(mailbox=b"x")
        self.client(b"b SELECT x")

    def delete(self) -> None:
        """Delete the mailbox without the account's knowledge, as another program does."""
        self.server.realm.account()._store.delete("x")

    def assert_closed(self, client: Client) -> None:
        self.assertTrue(client.transport.disconnecting)
        self.assertIsNone(session_of(client)._mailbox)

    def test_session_of_the_same_account_is_disconnected_at_once(self) -> None:
        """When another session deletes the mailbox, a client gets BYE at once, between commands and in IDLE."""
        idle = self.server.login()
        idle(b"a SELECT x")
        idle(b"b IDLE")
        other = self.server.login()
        self.assertIn(b"c OK", other(b"c DELETE x"))
        for client in (self.client, idle):
            self.assertEqual(client.read(), BYE)
            self.assert_closed(client)

    def test_client_with_notify_is_disconnected_at_once(self) -> None:
        """NOTIFY changes nothing about the BYE, whether it covers the selected mailbox or others."""
        self.client(b"c NOTIFY SET (selected (MessageNew MessageExpunge)) (personal (MailboxName))")
        self.server.login()(b"d DELETE x")
        self.assertTrue(self.client.read().endswith(BYE))
        self.assert_closed(self.client)

    def test_session_that_deletes_its_own_mailbox_stays(self) -> None:
        """A client that deletes its selected mailbox leaves it, and its other sessions are disconnected."""
        other = self.server.login()
        other(b"a EXAMINE x")
        response = self.client.send(b"c DELETE x\r\nd NOOP\r\ne SELECT INBOX\r\n")
        self.assertEqual(lines(without_text(response))[:3], [b"* OK [CLOSED]", b"c OK", b"d OK"])
        self.assertIn(b"e OK", response)
        self.assertEqual(other.read(), BYE)

    def test_command_gets_bye_instead_of_no(self) -> None:
        """When another program has deleted the mailbox, the next command that needs it gets BYE instead of NO."""
        for command in (
            b"NOOP", b"CHECK", b"IDLE", b"FETCH 1 BODY[]", b"STORE 1 +FLAGS (\\Seen)", b"EXPUNGE", b"COPY 1 INBOX",
            b"MOVE 1 INBOX", b"SEARCH SUBJECT lunch", b"REPLACE 1 INBOX {1+}\r\nx", b"SORT (SUBJECT) UTF-8 ALL",
        ):  # fmt: skip
            with self.subTest(command=command):
                self.setUp()
                self.delete()
                self.assertEqual(self.client(b"c " + command), BYE)
                self.assert_closed(self.client)

    def test_command_that_leaves_the_mailbox_succeeds(self) -> None:
        """CLOSE, UNSELECT, SELECT, LOGOUT and UNAUTHENTICATE succeed although the mailbox was deleted."""
        for command in (b"CLOSE", b"UNSELECT", b"SELECT INBOX", b"LOGOUT", b"UNAUTHENTICATE"):
            with self.subTest(command=command):
                self.setUp()
                self.delete()
                response = self.client(b"c " + command)
                self.assertIn(b"c OK", response)
                self.assertNotIn(b"deleted", response)

    def test_copy_to_a_missing_mailbox_is_trycreate(self) -> None:
        """COPY, MOVE and REPLACE to a mailbox that does not exist are NO [TRYCREATE], and the session goes on."""
        for command in (b"COPY 1 y", b"MOVE 1 y", b"REPLACE 1 y {1+}\r\nx"):
            self.assertIn(b"c NO [TRYCREATE]", self.client(b"c " + command))
        self.assertIn(b"d OK", self.client(b"d NOOP"))

    def test_new_mailbox_of_the_same_name(self) -> None:
        """A mailbox that was deleted and created again is another one: the old sessions get BYE, new ones see it."""
        other = self.server.login()
        other(b"c DELETE x")
        other(b"d CREATE x")
        self.assertEqual(self.client.read(), BYE)
        self.assertIn(b"* 0 EXISTS", other(b"e SELECT x"))

    def test_renamed_mailbox_stays_selected(self) -> None:
        """A renamed mailbox stays selected, and its former name can be deleted."""
        other = self.server.login()
        other(b"c RENAME x y")
        other(b"d CREATE x")
        other(b"e DELETE x")
        other.append(mailbox=b"y")
        self.assertIn(b"* 2 EXISTS", self.client(b"f NOOP"))


class DeletedFolderTests(SessionTestCase):
    """The same with a Maildir, whose folders another program removes or renames."""

    def setUp(self) -> None:
        self.root = os.path.abspath(self.mktemp())
        warnings: list[str] = []
        realm = MemoryRealm(
            open_store=lambda: MaildirStore(self.root, now=time.time, log_warning=warnings.append)
        )
        self.server = Server(realm=realm)
        watcher = DirectoryWatcher(self.server.clock, make_inotify=lambda *_: None)
        self.addCleanup(watcher.stop)
        account: Any = realm.account()
        account.change_notifier = watcher
        self.client = self.server.login()
        self.client(b"a CREATE x")
        self.client(b"b SELECT x")
        self.addCleanup(account._store.close)

    def wait(self) -> bytes:
        """Let the watcher poll, and return what the client is sent."""
        for _ in range(4):
            self.server.clock.advance(POLL_SECONDS / 2)
        return self.client.read()

    def test_folder_that_disappears_during_idle(self) -> None:
        """A client in IDLE gets BYE soon after another program removes the folder, and nothing is logged."""
        self.client(b"c IDLE")
        self.assertEqual(self.wait(), b"")
        shutil.rmtree(os.path.join(self.root, ".x"))
        self.assertEqual(self.wait(), BYE)

    def test_folder_that_disappears_before_a_command(self) -> None:
        """Without IDLE the client gets BYE at its next command."""
        shutil.rmtree(os.path.join(self.root, ".x"))
        self.assertEqual(self.client(b"c NOOP"), BYE)

    def test_mail_for_a_renamed_mailbox_is_reported_during_idle(self) -> None:
        """After a rename, a client in IDLE is sent mail that is delivered to the new folder."""
        self.client(b"c IDLE")
        self.server.login()(b"d RENAME x y")
        self.assertEqual(self.wait(), b"")
        with open(os.path.join(self.root, ".y", "new", "1700000000.M1P1.mx"), "wb") as file:
            file.write(b"Subject: x\n\nx\n")
        self.assertIn(b"* 1 EXISTS", self.wait())
