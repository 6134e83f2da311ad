"""Special uses of mailboxes: those of a new account, and those that names give."""

from __future__ import annotations

import os
import sqlite3
from typing import Any
from unittest import mock

from imapshield.errors import NoSpace
from imapshield.mailbox.prefixed_store import PrefixedStore
from imapshield.mailbox.values import Namespace
from imapshield.maildir import new_account
from imapshield.maildir.folders import make_folder
from imapshield.maildir.store import MaildirStore
from tests.maildir.disk import DiskTestCase

NEW = {
    "Archive": b"\\Archive",
    "Drafts": b"\\Drafts",
    "Junk": b"\\Junk",
    "Sent": b"\\Sent",
    "Trash": b"\\Trash",
}


class SpecialUseCase(DiskTestCase):
    def folders(self, *names: str) -> str:
        """Make a Maildir as another program does, and return its path."""
        root: str = os.path.abspath(self.mktemp())
        for name in ("", *names):
            for part in ("cur", "new", "tmp"):
                os.makedirs(os.path.join(root, name, part))
        return root

    def account(self, *folders: str) -> MaildirStore:
        """Return the store of an account that another server has served."""
        root = self.folders(*folders)
        with open(os.path.join(root, "subscriptions"), "wb"):
            pass
        return self.open_store(root, has_special_folders=True)

    def uses(self, store: MaildirStore | PrefixedStore) -> dict[str, bytes]:
        return {info.name: b" ".join(info.special_use) for info in store.mailboxes()}

    def marked(self, store: MaildirStore | PrefixedStore) -> dict[str, bytes]:
        return {name: use for name, use in self.uses(store).items() if use}


class NewAccountTests(SpecialUseCase):
    def test_new_account(self) -> None:
        """A new account has mailboxes for the usual special uses, and is subscribed to them."""
        root = os.path.abspath(self.mktemp())
        store = self.open_store(root, has_special_folders=True)
        self.assertEqual(self.uses(store), {**NEW, "INBOX": b""})
        self.assertEqual(store.subscriptions(), {*NEW, "INBOX"})
        for name in NEW:
            self.assertTrue(os.path.exists(os.path.join(root, "." + name, "maildirfolder")))

    def test_mailboxes_that_the_user_deletes_stay_deleted(self) -> None:
        """A mailbox of a new account that is deleted is not made again, and a renamed one keeps its use."""
        root = os.path.abspath(self.mktemp())
        store = self.open_store(root, has_special_folders=True)
        store.delete("Trash")
        store.rename("Sent", "Gesendet")
        store.close()
        expected = {name: use for name, use in NEW.items() if name not in ("Trash", "Sent")}
        again = self.open_store(root, has_special_folders=True)
        self.assertEqual(self.marked(again), {**expected, "Gesendet": b"\\Sent"})

    def test_mail_that_was_delivered_before_the_first_login(self) -> None:
        """An account in which only a delivery agent has made folders is new, too."""
        root = self.folders(".Junk")
        store = self.open_store(root, has_special_folders=True)
        self.assertEqual(self.marked(store), NEW)

    def test_account_of_another_server_gets_no_mailbox(self) -> None:
        """An account with other mailboxes, subscriptions or lists of another server is left as it is."""
        for folders, file in (
            ((".Work",), None),
            ((), "subscriptions"),
            ((), "courierimapsubscribed"),
            ((), "dovecot-uidlist"),
        ):
            with self.subTest(folders=folders, file=file):
                root = self.folders(*folders)
                if file is not None:
                    with open(os.path.join(root, file), "wb"):
                        pass
                store = self.open_store(root, has_special_folders=True)
                store.status("INBOX")
                self.assertEqual(self.marked(store), {})
                self.assertNotIn(".Trash", os.listdir(root))
                self.assertEqual("subscriptions" in os.listdir(root), file == "subscriptions")

    def test_account_that_this_server_knows_gets_no_mailbox(self) -> None:
        """An account that was used without the option gets no mailbox later, and keeps its UIDVALIDITY."""
        before = self.store.status("INBOX")
        self.store.close()
        store = self.open_store(has_special_folders=True)
        self.assertEqual(self.uses(store), {"INBOX": b""})
        self.assertEqual(store.status("INBOX"), before)

    def test_without_the_option(self) -> None:
        """Without the option, a new account has only INBOX, and no name gives a use."""
        self.store.create("Sent", ())
        self.assertEqual(self.uses(self.store), {"INBOX": b"", "Sent": b""})

    def test_failure_leaves_a_new_account_usable(self) -> None:
        """If the mailboxes cannot be made, none is, the log says so once, and INBOX can be used."""
        root = os.path.abspath(self.mktemp())
        store = self.open_store(root, has_special_folders=True)
        made: list[str] = []

        def make_two(account: Any, name: str, *arguments: Any) -> None:
            if len(made) == 2:
                raise NoSpace
            made.append(name)
            make_folder(account, name, *arguments)

        with mock.patch.object(new_account, "make_folder", make_two):
            self.assertEqual(self.uses(store), {"INBOX": b""})
            self.assertEqual(store.status("INBOX").messages, 0)
        self.assertEqual(len(self.warnings), 1)
        self.assertIn("cannot create the mailboxes", self.warnings[0])

    def test_two_processes_open_a_new_account(self) -> None:
        """A process that finds the new account locked leaves the mailboxes to the other one, without a warning."""
        root = os.path.abspath(self.mktemp())
        store = self.open_store(root, has_special_folders=True)
        locked = sqlite3.OperationalError("database is locked")
        locked.sqlite_errorcode = sqlite3.SQLITE_BUSY
        with mock.patch.object(new_account, "make_folder", mock.Mock(side_effect=locked)):
            store.mailboxes()
        self.assertEqual(self.warnings, [])


class CreatedTests(SpecialUseCase):
    def test_creation_of_a_maildir_is_reported(self) -> None:
        """A Maildir that is created is reported, once; one that exists is not."""
        created: list[None] = []
        root = os.path.abspath(self.mktemp())
        for path in (root, root, self.folders()):
            store = self.open_store(path, on_created=lambda: created.append(None))
            store.mailboxes()
            store.status("INBOX")
            store.close()
        self.assertEqual(len(created), 1)

    def test_directory_without_cur_is_reported(self) -> None:
        """A directory that was no Maildir, such as a home directory, is reported when it becomes one."""
        created: list[None] = []
        root = os.path.abspath(self.mktemp())
        os.mkdir(root)
        self.open_store(root, on_created=lambda: created.append(None)).mailboxes()
        self.assertEqual(len(created), 1)


class NameTests(SpecialUseCase):
    def test_usual_names_have_special_uses(self) -> None:
        """In an existing account, the names that clients and servers use have special uses, in any case."""
        store = self.account(
            ".DRAFT", ".Sent Messages", ".spam", ".Deleted Items", ".Archives", ".Work.Trash"
        )
        expected = {
            "DRAFT": b"\\Drafts",
            "Sent Messages": b"\\Sent",
            "spam": b"\\Junk",
            "Deleted Items": b"\\Trash",
            "Archives": b"\\Archive",
        }
        self.assertEqual(self.marked(store), expected)
        store.create("Trash", ())
        store.delete("Deleted Items")
        self.assertEqual(self.marked(store)["Trash"], b"\\Trash")

    def test_one_mailbox_has_a_special_use(self) -> None:
        """Of several names for one use, the first of a fixed order has it."""
        for folders, expected in (
            ((".Sent Items", ".Sent", ".Sent Messages", ".SENT"), "Sent"),
            ((".Sent Mail", ".Sent Items"), "Sent Items"),
            ((".Deleted Messages", ".trash", ".TRASH"), "TRASH"),
            ((".Bulk Mail", ".Junk E-mail"), "Junk E-mail"),
        ):
            with self.subTest(folders=folders):
                self.assertEqual(list(self.marked(self.account(*folders))), [expected])

    def test_special_use_of_create_wins(self) -> None:
        """A use that CREATE has set is not given to another name, and its mailbox gets no other use."""
        store = self.account(".Sent", ".Trash")
        store.create("Gesendet", [b"\\Sent"])
        store.create("Archive", [b"\\Junk"])
        expected = {"Gesendet": b"\\Sent", "Trash": b"\\Trash", "Archive": b"\\Junk"}
        self.assertEqual(self.marked(store), expected)
        store.delete("Gesendet")
        self.assertEqual(self.marked(store)["Sent"], b"\\Sent")

    def test_names_with_a_prefix(self) -> None:
        """A prefix of the names that clients see changes no special use."""
        store = PrefixedStore(self.account(".Sent"), Namespace.as_shown("INBOX.", "."))
        self.assertEqual(self.marked(store), {"INBOX/Sent": b"\\Sent"})
