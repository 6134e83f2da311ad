"""Every kind of damage is found, says what is wrong, and is repaired where that is safe."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing

from imapshield.maildir.index_check import accept_moved, check_index, indexed_names
from imapshield.maildir.mail_check import Finding, check_maildir
from imapshield.testing.store_contract import SEEN
from tests.maildir.disk import DiskTestCase, failing


class CheckTests(DiskTestCase):
    def setUp(self) -> None:
        super().setUp()
        for directory in ("cur", "new", "tmp"):
            os.makedirs(self.path(".A", directory))

    def findings(self) -> list[Finding]:
        root, now = os.fsencode(self.root), time.time()
        index = list(check_index(root, now))
        return index + list(check_maildir(root, now, indexed_names(root), lambda: None))

    def assert_found(self, path: str, text: str, repairable: bool) -> None:
        """There is one finding, about `path`; after its repair there is none."""
        (finding,) = self.findings()
        self.assertEqual(os.fsdecode(finding.path), self.path(path))
        self.assertIn(text, finding.problem)
        self.assertEqual(finding.repair is not None, repairable)
        if finding.repair:
            finding.repair()
            self.assertEqual(self.findings(), [])

    def put(
        self, name: str, content: bytes = b"Subject: x\r\n\r\nhi\r\n", folder: str = ".A/cur"
    ) -> str:
        with open(self.path(folder, name), "wb") as file:
            file.write(content)
        return self.path(folder, name)

    def execute(self, statement: str) -> None:
        self.store.close()
        db = sqlite3.connect(self.path("imapshield.sqlite"), isolation_level=None)
        db.execute(statement)
        db.close()

    def test_healthy_maildir_has_no_findings(self) -> None:
        """There are no findings in a Maildir that imapshield, Dovecot and a delivery agent use."""
        self.append()
        self.deliver(folder=".A")
        self.put("1.x,S=18:2,FS")
        self.put("dovecot-uidlist", b"3 V5 N9 Gabc\n3 :1.x,S=18\n", ".A")
        self.store.open("A", True)
        self.deliver(folder=".A")
        self.assertEqual(self.findings(), [])

    def test_missing_directory_is_created(self) -> None:
        """A missing cur, new or tmp is created."""
        os.rmdir(self.path(".A", "new"))
        self.assert_found(".A/new", "does not exist", True)

    def test_directories_that_are_no_mailboxes_are_found(self) -> None:
        """Directories without cur, with a name that cannot be shown, symbolic links, and LAYOUT=fs are found."""
        os.mkdir(self.path(".git"))
        self.assert_found(".git", "no mailbox", False)
        os.rename(self.path(".git"), self.path(".A..B"))
        os.mkdir(self.path(".A..B", "cur"))
        (finding,) = [f for f in self.findings() if f.repair is None]
        self.assertIn("cannot be shown", finding.problem)
        os.rename(self.path(".A..B"), self.path("Work"))
        self.assert_found("Work", "LAYOUT=fs", False)
        os.makedirs(self.path("Old", "2025"))
        os.rename(self.path("Work"), self.path("Old", "2025", "May"))
        self.assert_found("Old/2025/May", "LAYOUT=fs", False)
        os.rename(self.path("Old"), self.path("tmp", "Old"))
        os.symlink("/", self.path(".link"))
        self.assert_found(".link", "symbolic link", False)

    def test_unreadable_directory_is_found(self) -> None:
        """A directory that cannot be listed is found, and the others are checked."""
        self.put("1.x:2,:2,S")
        error = PermissionError(13, "Permission denied", os.fsencode(self.path("tmp")))
        with failing("listdir", error):
            found = self.findings()
        self.assertEqual(
            [f.path for f in found],
            [os.fsencode(self.path(p)) for p in ("tmp", ".A/cur/1.x:2,:2,S")],
        )

    def test_symbolic_link_to_a_message_is_found(self) -> None:
        """A symbolic link in place of a message is found."""
        os.symlink("/etc/passwd", self.path(".A", "cur", "1.x:2,"))
        self.assert_found(".A/cur/1.x:2,", "not a regular file", False)

    def test_unreadable_message_becomes_readable(self) -> None:
        """A message whose owner cannot read it gets the mode that it needs."""
        os.chmod(self.put("1.x:2,"), 0o040)
        self.assert_found(".A/cur/1.x:2,", "mode 0040", True)
        self.assertEqual(os.stat(self.path(".A", "cur", "1.x:2,")).st_mode & 0o777, 0o640)

    def test_mode_of_a_target_of_a_link_is_not_changed(self) -> None:
        """If a symbolic link is put in place of a file before its repair, the target keeps its mode."""
        path = self.put("1.x:2,")
        os.chmod(path, 0o400)
        (finding,) = self.findings()
        target = os.path.join(self.root, "target")
        os.rename(path, target)
        os.symlink(target, path)
        assert finding.repair
        self.assertRaises(OSError, finding.repair)
        self.assertEqual(os.stat(target).st_mode & 0o777, 0o400)

    def test_directories_and_files_of_servers_are_checked_too(self) -> None:
        """A directory, and a file of a mail server, that the owner cannot use get the mode that they need."""
        os.chmod(self.path(".A", "cur"), 0o500)
        self.assert_found(".A/cur", "mode 0500", True)
        os.chmod(self.put("dovecot-uidlist", b"3 V5 N9 Gabc\n", ".A"), 0o400)
        self.assert_found(".A/dovecot-uidlist", "mode 0400", True)

    def test_message_of_another_user_is_found(self) -> None:
        """A message that belongs to another user than the Maildir is found."""
        path = self.put("1.x:2,")
        owner = os.stat(self.root).st_uid
        if os.geteuid() == 0:
            os.chown(path, owner + 1, -1)
            self.assert_found(".A/cur/1.x:2,", f"user {owner + 1}", False)

    def test_name_without_room_for_flags_is_found(self) -> None:
        """A name that leaves no room for flags is found."""
        self.put("1" * 250)
        self.assert_found(".A/cur/" + "1" * 250, "250 bytes", False)

    def test_flags_after_a_second_colon_are_repaired(self) -> None:
        """A name with a second colon is renamed; the flags are those after the last one."""
        self.put("1.x:2,:2,S")
        self.assert_found(".A/cur/1.x:2,:2,S", "second colon", True)
        self.assertEqual(self.cur(".A"), ["1.x:2,S"])

    def test_duplicate_base_name_gets_another_name(self) -> None:
        """Of two files with one base name, that which the index does not have gets another name."""
        self.put("1.x:2,S")
        self.store.open("A", True)
        self.put("1.x:2,", b"other")
        self.assert_found(".A/cur/1.x:2,", "same base name", True)
        self.assertEqual(self.cur(".A"), ["1.x.copy:2,", "1.x:2,S"])
        self.assertEqual(len(self.flags("A")), 2)

    def test_wrong_size_in_a_name_is_found_unless_compressed(self) -> None:
        """A size in a name that is not the file's is found, unless Dovecot has compressed the file."""
        for magic in (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"):
            self.put("1.x,S=999:2,", magic + b"compressed")
            self.assertEqual(self.findings(), [])
        self.put("1.x,S=999:2,")
        self.assert_found(".A/cur/1.x,S=999:2,", "999 bytes", False)

    def test_stale_file_in_tmp_is_moved_aside(self) -> None:
        """A file that a failed delivery left is moved aside."""
        self.put("1.x", folder=".A/tmp")
        self.assertEqual(self.findings(), [])
        now = time.time() + 40 * 3600
        (finding,) = check_maildir(os.fsencode(self.root), now, set(), lambda: None)
        assert finding.repair
        finding.repair()
        self.assertEqual(os.listdir(self.path("imapshield.aside")), ["1.x"])

    def test_message_that_a_power_failure_has_returned_to_tmp_stays(self) -> None:
        """A message in tmp that the index has is not moved aside, whatever flags its name had; the server puts it back."""
        self.append(SEEN)
        (name,) = self.cur()
        os.rename(self.path("cur", name), self.path("tmp", name.partition(":")[0]))
        self.put("1.x", folder=".A/tmp")
        root, now = os.fsencode(self.root), time.time() + 40 * 3600
        found = list(check_maildir(root, now, indexed_names(root), lambda: None))
        self.assertEqual([finding.path for finding in found], [root + b"/.A/tmp/1.x"])

    def test_stale_file_in_tmp_stays_if_the_index_cannot_be_read(self) -> None:
        """Without an index, or with one that cannot be read, no file in tmp is moved: it may be a message."""
        self.put("1.x", folder=".A/tmp")
        self.store.close()
        root, now = os.fsencode(self.root), time.time() + 40 * 3600
        for content in (b"not a database at all", None):
            os.unlink(self.path("imapshield.sqlite"))
            if content:
                self.put("imapshield.sqlite", content, "")
            (finding,) = check_maildir(root, now, indexed_names(root), lambda: None)
            self.assertIsNone(finding.repair)

    def test_unreadable_subscription_is_found(self) -> None:
        """A line of the subscriptions that is no mailbox name is found."""
        self.put("subscriptions", b"A\nA..B\n", "")
        self.assert_found("subscriptions", "'A..B'", False)

    def test_wrong_counters_are_repaired(self) -> None:
        """Counters that disagree with the rows are counted again, and rows of no mailbox are removed."""
        self.append()
        for statement in (
            "UPDATE account SET octets = octets + 1",
            "UPDATE mailbox SET logged = 7",
            "UPDATE mailbox SET uidnext = 1",
            "INSERT INTO metadata VALUES (99, x'61', x'62')",
            "UPDATE message SET mailbox = 99",
        ):
            self.execute(statement)
            (finding,) = self.findings()
            assert finding.repair
            finding.repair()
            self.assertEqual(self.findings(), [], statement)

    def test_corrupt_index_is_moved_aside(self) -> None:
        """A corrupt index is moved aside; the next start builds a new one."""
        self.append()
        self.store.close()
        for name in os.listdir(self.root):
            if name.endswith(("-wal", "-shm")):
                os.unlink(self.path(name))
        with open(self.path("imapshield.sqlite"), "r+b") as file:
            file.write(b"not a database at all")
        self.assert_found("imapshield.sqlite", "corrupt", True)
        self.assertEqual(len(self.flags(store=self.open_store())), 1)

    def test_index_of_a_newer_version_is_found(self) -> None:
        """An index that a newer version wrote is found and left alone."""
        self.execute("PRAGMA user_version = 99")
        self.assert_found("imapshield.sqlite", "newer version", False)

    def test_values_that_imapshield_does_not_write_are_found(self) -> None:
        """A mailbox name that no folder can have, and values of wrong types, are found, and all other mailboxes are checked."""
        self.append()
        self.store.open("A", True)
        self.execute("UPDATE mailbox SET uidnext = 4294967200 WHERE name = 'INBOX'")
        for statement in (
            "UPDATE mailbox SET name = 'a//b' WHERE name = 'A'",
            "UPDATE mailbox SET name = x'ff' WHERE name <> 'INBOX'",
            "UPDATE mailbox SET name = 'A', uidnext = 'x' WHERE name <> 'INBOX'",
        ):
            self.execute(statement)
            problems = [finding.problem for finding in self.findings()]
            self.assertEqual(len(problems), 2, statement)
            self.assertTrue(any("that imapshield does not write" in text for text in problems))
            self.assertTrue(any("has used UIDs" in text for text in problems))
        self.execute("DELETE FROM account")
        self.assertTrue(any("imapshield does not write" in f.problem for f in self.findings()))

    def test_epoch_files_with_other_names_are_ignored(self) -> None:
        """A file like that of an epoch, with a number that no epoch has, does not hinder --moved."""
        self.append()
        self.store.close()
        self.put("imapshield.epoch-" + "9" * 20, b"", "")
        self.put("imapshield.epoch-7", b"", "")
        accept_moved(os.fsencode(self.root))
        with closing(sqlite3.connect(self.path("imapshield.sqlite"))) as db:
            self.assertEqual(db.execute("SELECT inode, epoch FROM account").fetchall(), [(0, 7)])

    def test_index_that_misses_files_reads_the_folder_again(self) -> None:
        """If the index disagrees with a folder that has not changed, the next SELECT reads the folder."""
        self.put("1.x:2,")
        self.store.open("A", True)
        os.utime(self.path(".A", "cur"), (1, 1))
        self.let_mtimes_age()
        self.store.open("A", True)
        self.put("2.x:2,")
        os.utime(self.path(".A", "cur"), (1, 1))
        self.assertEqual(len(self.flags("A")), 1)
        (finding,) = self.findings()
        self.assertIn("1 messages that the index lacks", finding.problem)
        assert finding.repair
        finding.repair()
        self.assertEqual(len(self.flags("A")), 2)

    def test_uids_that_are_nearly_used_up_are_found(self) -> None:
        """A mailbox whose UIDs are nearly used up, and a list of UIDs in which they are, are found."""
        self.store.open("A", True)
        self.execute("UPDATE mailbox SET uidnext = 4294967200 WHERE name = 'A'")
        self.assert_found(".A", "4294967200", False)

    def test_lists_that_contradict_the_index_are_found(self) -> None:
        """A list that gives one UID to another message, and a list that cannot be read, are found."""
        self.put("1.x:2,")
        self.put("2.x:2,")
        uidvalidity = self.store.open("A", True).uidvalidity
        self.put("dovecot-uidlist", b"3 V%d N3 Gabc\n1 :2.x\n2 :1.x\n" % uidvalidity, ".A")
        self.assert_found(".A/dovecot-uidlist", "other messages", False)
        self.put("dovecot-uidlist", b"nonsense", ".A")
        self.assert_found(".A/dovecot-uidlist", "cannot be read", False)
        self.put("dovecot-uidlist", b"3 V5 N4294967293 Gabc\n", ".A")
        self.assert_found(".A/dovecot-uidlist", "4294967293", False)
