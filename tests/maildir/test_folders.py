"""Folders, subscriptions and permissions, with other programs that create and remove folders."""

from __future__ import annotations

import os
import shutil

from imapshield.errors import NoSuchMailbox
from imapshield.maildir.files import STALE_SECONDS
from imapshield.testing.store_contract import BUDGET, SEEN, WHOLE
from tests.maildir.disk import DiskTestCase


class FolderTests(DiskTestCase):
    def test_commands_on_a_removed_folder_raise_no_such_mailbox(self) -> None:
        """Every command on a mailbox fails with NoSuchMailbox after another program removes its folder."""
        self.store.create("a", ())
        self.append(name="a")
        key = self.store.mailbox_key("a")
        shutil.rmtree(self.path(".a"))
        self.assertRaises(NoSuchMailbox, self.store.fetch, key, [1], [WHOLE], BUDGET)
        self.assertRaises(NoSuchMailbox, self.store.changes, key, 0, False)
        self.assertRaises(NoSuchMailbox, self.store.store_flags, key, [1], b"+", [SEEN], None, 0)

    def test_folders_of_other_programs_are_mailboxes(self) -> None:
        """Folders that other programs make are mailboxes; other directories are ignored."""
        for name in (
            ".A",
            ".A.B&AC4-c",
            ".Entw&APw-rfe",
            "plain",
            ".",
            ".INBOX",
            ".inbox.x",
            ".A..B",
            ".b&d",
            ".Entwürfe",
        ):
            if name != ".":
                for part in ("cur", "new", "tmp"):
                    os.makedirs(self.path(name, part))
        with open(self.path(".file"), "wb"):
            pass
        names = [info.name for info in self.store.mailboxes()]
        self.assertEqual(names, ["A", "A/B.c", "Entwürfe", "INBOX"])
        self.deliver(folder=".A.B&AC4-c")
        self.assertEqual(self.flags("A/B.c"), {1: b""})

    def test_missing_directories_are_created(self) -> None:
        """Missing directories of a folder are created."""
        os.mkdir(self.path(".A"))
        self.assertEqual(self.flags("A"), {})
        shutil.rmtree(self.path("tmp"))
        self.assertEqual(self.append(), 1)
        shutil.rmtree(self.path("cur"))
        self.let_mtimes_age()
        self.assertEqual(self.flags(), {})
        self.assertEqual(self.append(), 2)

    def test_recreated_folder_has_a_new_uidvalidity(self) -> None:
        """A folder that another program removed is not a mailbox; if it is created again, it has a new UIDVALIDITY."""
        self.store.create("A", [])
        self.append(name="A")
        key, before = self.store.mailbox_key("A"), self.store.status("A")
        shutil.rmtree(self.path(".A"))
        for call in (
            lambda: self.store.mailbox_key("A"),
            lambda: self.store.open("A", True),
            lambda: self.store.changes(key, 0, True),
            lambda: self.append(name="A"),
            lambda: self.store.delete("A"),
            lambda: self.store.rename("A", "B"),
        ):
            self.assertRaises(NoSuchMailbox, call)
        self.store.create("A", [])
        after = self.store.status("A")
        self.assertGreater(after.uidvalidity, before.uidvalidity)
        self.assertEqual(after.messages, 0)

    def test_symbolic_link_is_a_mailbox(self) -> None:
        """A folder that is a symbolic link is a mailbox, and DELETE removes only the link."""
        elsewhere = os.path.abspath(self.mktemp())
        for part in ("cur", "new", "tmp"):
            os.makedirs(os.path.join(elsewhere, part))
        os.symlink(elsewhere, self.path(".Shared"))
        self.append(name="Shared")
        self.store.delete("Shared")
        self.assertEqual(len(os.listdir(os.path.join(elsewhere, "cur"))), 1)
        self.assertFalse(os.path.lexists(self.path(".Shared")))

    def test_other_users_cannot_read_files_of_the_store(self) -> None:
        """Other users cannot read any file or directory that the store creates."""
        self.store.create("A", [])
        self.append(b"$Work", name="A")
        self.store.set_subscribed("A", True)
        for folder, _, names in os.walk(self.root):
            self.assertEqual(os.stat(folder).st_mode & 0o777, 0o700, folder)
            for name in names:
                mode = os.stat(os.path.join(folder, name)).st_mode & 0o077
                self.assertEqual(mode, 0, name)

    def test_dovecot_subscriptions_are_read_and_written(self) -> None:
        """Both versions of Dovecot's file are read and written, and lines that are not mailbox names are kept."""
        for before, after in (
            (b"INBOX\nA.B&AC4-c\n\xff\n", b"INBOX\n\xff\nX.Y\n"),
            (b"V\t2\n\nINBOX\nA\tB&AC4-c\n\xff\n", b"V\t2\n\nINBOX\n\xff\nX\tY\n"),
        ):
            with open(self.path("subscriptions"), "wb") as file:
                file.write(before)
            self.assertEqual(self.store.subscriptions(), {"INBOX", "A/B.c"})
            self.store.set_subscribed("A/B.c", False)
            self.store.set_subscribed("X/Y", True)
            with open(self.path("subscriptions"), "rb") as file:
                self.assertEqual(file.read(), after)

    def test_stale_files_in_tmp_are_removed(self) -> None:
        """Files that a crash left in tmp/ are removed 36 hours later."""
        with open(self.path("tmp", "old"), "wb"):
            pass
        os.utime(self.path("tmp", "old"), (1, 1))  # the mtime does not matter
        os.makedirs(self.path("tmp", "deleted", "cur"))
        for seconds, remaining in ((60, ["deleted", "old"]), (STALE_SECONDS, [])):
            self.clock.offset += seconds
            self.open_store().mailboxes()
            self.assertEqual(self.tmp(), remaining)
