"""Folders, subscriptions and permissions, with other programs that create and remove folders."""

from __future__ import annotations

import errno
import inspect
import os
import shutil
import sys
from itertools import product
from unittest import mock

from imapshield.errors import MailboxExists, NoSpace, NoSuchMailbox
from imapshield.maildir import fs_layout, sync
from imapshield.maildir.files import STALE_SECONDS
from imapshield.testing.store_contract import BUDGET, SEEN, WHOLE
from tests.maildir.disk import DiskTestCase, counting_calls, failing


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

    def test_folder_that_was_removed_and_made_again_is_a_new_mailbox(self) -> None:
        """A folder with other inodes and no known message is another mailbox; a restored one keeps its UIDs."""
        for name in ("A", "B"):
            self.store.create(name, [])
            self.append(name=name)
            self.store.set_metadata(name, {b"/private/comment": b"old"})
        before = {name: self.store.status(name) for name in ("A", "B")}
        for name in (".A", ".B"):
            os.rename(self.path(name), self.path(name[1:]))
            self.make_folders(name)
        os.rename(self.path("B", "cur", self.cur("B")[0]), self.path(".B", "cur", self.cur("B")[0]))
        self.assertGreater(self.store.status("A").uidvalidity, before["A"].uidvalidity)
        self.assertEqual(self.store.metadata("A"), {})
        self.assertEqual(self.store.status("B").uidvalidity, before["B"].uidvalidity)
        self.assertEqual(list(self.flags("B")), [1])
        self.assertEqual(self.store.metadata("B"), {b"/private/comment": b"old"})

    def make_folders(self, *names: str) -> None:
        """Make folders as other programs do."""
        for name in names:
            for part in ("cur", "new", "tmp"):
                os.makedirs(self.path(name, part))

    def names(self) -> list[str]:
        return [info.name for info in self.store.mailboxes()]

    def test_folders_of_other_programs_are_mailboxes(self) -> None:
        """Folders that other programs make are mailboxes; one of Dovecot's LAYOUT=fs is only logged, once."""
        self.make_folders(".A", ".A.B&AC4-c", ".Entw&APw-rfe", "plain")
        os.makedirs(self.path(".ssh", "keys"))
        with open(self.path(".file"), "wb"):
            pass
        for _ in range(2):
            self.assertEqual(self.names(), ["A", "A/B.c", "Entwürfe", "INBOX"])
        (warning,) = self.warnings
        self.assertIn("LAYOUT=fs", warning)
        self.deliver(folder=".A.B&AC4-c")
        self.assertEqual(self.flags("A/B.c"), {1: b""})

    def test_mailboxes_below_plain_directories_are_logged(self) -> None:
        """Of mailboxes of LAYOUT=fs whose parents are none, one is logged for each directory of the Maildir, once."""
        self.make_folders("Work/2025/May", "Work/2025/June")
        os.symlink(self.path("Work"), self.path("link"))
        with counting_calls("scandir") as calls:
            for _ in range(2):
                self.assertEqual(self.names(), ["INBOX"])
        (warning,) = self.warnings
        self.assertRegex(warning, "Work/2025/(May|June)' looks like .* LAYOUT=fs")
        self.assertEqual(len([path for path in calls if "/Work" in path]), 2)

    def test_search_for_other_layouts_is_limited(self) -> None:
        """Many directories in a Maildir cost little."""
        self.patch(fs_layout, "FS_ENTRIES", 3)
        for i, j, k in product(range(5), range(5), range(2)):
            os.makedirs(self.path("many", str(i), str(j), str(k)))
        with counting_calls("scandir") as calls:
            self.names()
        self.assertEqual(len([path for path in calls if "/many" in path]), 1 + 3)

    def test_irregular_folders_are_mailboxes(self) -> None:
        """Folders with irregular names are mailboxes in every respect, under names that no other folder has."""
        irregular = {
            ".b&d": "b&d",
            ".A..B": "A./B",
            ".A.": "A.",
            ".Jürgen": "Jürgen",
            ".tab\tx": "tab\u2409x",
            ".inbox.x": "INBOX/x",
        }
        self.make_folders(*irregular)
        self.assertEqual(set(self.names()), {"A.", "INBOX", *irregular.values()})
        for folder, name in irregular.items():
            self.deliver(folder=folder)
            self.assertEqual(self.flags(name), {1: b""})
            self.assertEqual(self.append(name=name), 2)
        self.assertRaises(MailboxExists, self.store.create, "b&d", [])
        self.store.create("b&d/below", [])
        self.store.rename("b&d", "c&d")
        self.assertTrue(os.path.isdir(self.path(".c&-d", "cur")))
        self.assertEqual(self.flags("c&d/below"), {})
        self.assertEqual(self.flags("c&d"), {1: b"", 2: b""})
        self.store.delete("Jürgen")
        self.assertNotIn("Jürgen", self.names())

    def test_folders_that_cannot_be_shown_are_logged_once(self) -> None:
        """A folder that would have the name of another folder, or none, is not shown, and is logged once."""
        self.make_folders(".Entwürfe", ".Entw&APw-rfe", ".INBOX", ".inbox", ".a_b", ".a&AC8-b")
        os.makedirs(os.fsencode(self.path()) + b"/.\xff/cur")
        for _ in range(3):
            self.assertEqual(self.names(), ["Entwürfe", "INBOX", "a&AC8-b", "a_b"])
        self.assertEqual(len(self.warnings), 4)
        self.store.close()
        self.store = self.open_store()
        self.names()
        self.assertEqual(len(self.warnings), 8)

    def test_directory_without_cur_is_no_mailbox(self) -> None:
        """A directory without cur/ is no mailbox, whatever its name; CREATE takes it only if it holds nothing else."""
        os.makedirs(self.path(".ssh", "keys"))
        os.mkdir(self.path(".empty"))
        self.assertEqual(self.names(), ["INBOX"])
        for name in ("ssh", "empty"):
            for call in (
                lambda name=name: self.store.open(name, True),
                lambda name=name: self.store.status(name),
                lambda name=name: self.append(name=name),
                lambda name=name: self.store.delete(name),
                lambda name=name: self.store.rename(name, "x"),
            ):
                self.assertRaises(NoSuchMailbox, call)
        self.assertRaises(MailboxExists, self.store.create, "ssh", [])
        self.assertEqual(os.listdir(self.path(".ssh")), ["keys"])
        self.store.create("empty", [])
        self.assertEqual(self.append(name="empty"), 1)
        os.mkdir(self.path(".ssh", "cur"))
        self.assertEqual(self.flags("ssh"), {})

    def test_large_mailbox_is_not_added_with_another_one(self) -> None:
        """A mailbox with many files is added to the index when a client uses it, and not when it uses another one."""
        for folder, count in ((".Large", 4), (".Small", 2), (".Used", 1)):
            for directory in ("cur", "new", "tmp"):
                os.makedirs(self.path(folder, directory))
            for _ in range(count):
                self.deliver(folder=folder, directory="cur")
        with mock.patch.object(sync, "MAX_FILES_ADDED_TOGETHER", 3):
            self.store.mailbox_key("Used")
            self.assertEqual(self.indexed(), {"INBOX", "Used"})
            self.store.mailbox_key("Small")
        self.assertEqual(self.indexed(), {"INBOX", "Used", "Small"})
        self.assertEqual(len(self.flags("Large")), 4)

    def indexed(self) -> set[str]:
        """Return the names of the mailboxes that the index has."""
        rows = self.store._account.index.db.execute("SELECT name FROM mailbox")
        return {name for (name,) in rows}

    def test_missing_directories_are_created(self) -> None:
        """Missing new/ and tmp/ of a folder are created. INBOX gets cur/ too."""
        os.makedirs(self.path(".A", "cur"))
        self.assertEqual(self.flags("A"), {})
        self.assertEqual(self.append(name="A"), 1)
        self.assertEqual((self.new(".A"), self.tmp(".A")), ([], []))
        shutil.rmtree(self.path("tmp"))
        self.assertEqual(self.append(), 1)
        shutil.rmtree(self.path("cur"))
        self.let_mtimes_age()
        self.assertEqual(self.flags(), {})
        self.assertEqual(self.append(), 2)

    def test_rename_replaces_what_an_interrupted_create_has_left(self) -> None:
        """RENAME takes a name whose folder has no cur/ and nothing in new/ and tmp/."""
        self.store.create("A/B", [])
        self.append(name="A/B")
        os.makedirs(self.path(".C.B", "tmp"))
        os.makedirs(self.path(".C.B", "new"))
        with open(self.path(".C.B", "maildirfolder"), "wb"):
            pass
        self.store.rename("A", "C")
        self.assertEqual([info.name for info in self.store.mailboxes()], ["C", "C/B", "INBOX"])
        self.assertEqual(self.flags("C/B"), {1: b""})

    def test_rename_and_create_replace_nothing_else(self) -> None:
        """A directory with other content, a folder without cur/ that has mail, a file and a link keep their names."""
        self.store.create("A", [])
        os.makedirs(self.path(".directory", "objects"))
        os.makedirs(self.path(".mail", "new"))
        for path in (self.path(".mail", "new", "1.x"), self.path(".file")):
            with open(path, "wb"):
                pass
        os.symlink(self.path(".directory"), self.path(".link"))
        for name in ("directory", "file", "link"):
            with self.subTest(name=name):
                self.assertRaises(MailboxExists, self.store.rename, "A", name)
                self.assertRaises(MailboxExists, self.store.create, name, [])
        self.assertRaises(MailboxExists, self.store.rename, "A", "mail")
        self.assertEqual(os.listdir(self.path(".directory")), ["objects"])
        self.assertEqual([info.name for info in self.store.mailboxes()], ["A", "INBOX"])
        self.store.create("mail", [])
        self.assertEqual(self.flags("mail"), {1: b""})

    def test_failing_create_removes_no_mail(self) -> None:
        """A CREATE that fails removes only directories that it has made."""
        os.makedirs(self.path(".A", "new"))
        with open(self.path(".A", "new", "1.x"), "wb"):
            pass
        with failing("fsync", OSError(errno.ENOSPC, "full")):
            self.assertRaises(NoSpace, self.store.create, "A", [])
        self.assertEqual(self.new(".A"), ["1.x"])

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

    def test_symbolic_link_is_a_mailbox_if_permitted(self) -> None:
        """With `follow_symlinks`, a folder that is a symbolic link is a mailbox, and DELETE removes only the link."""
        self.store = self.open_store(follow_symlinks=True)
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

    def test_new_folder_with_the_inodes_of_a_removed_one_is_a_new_mailbox(self) -> None:
        """A folder with the inodes that another one had is that mailbox only if it has one of its messages."""
        for flag, is_same in (("2,S", True), ("", False)):
            self.store.create("A", [b"\\Sent"])
            uid = self.append(name="A")
            before = self.store.open("A", True)
            self.store.set_metadata("A", {b"/private/comment": b"x"})
            os.rename(self.path(".A"), self.path(".B"))
            (name,) = self.cur(".B")
            new_name = f"{name.partition(':')[0]}:{flag}" if is_same else "1700000000.x:2,"
            os.rename(self.path(".B", "cur", name), self.path(".B", "cur", new_name))
            after = self.store.open("B", True)
            self.assertEqual(after.key == before.key, is_same)
            self.assertEqual(self.store.metadata("B") != {}, is_same)
            self.assertEqual(after.delta.rows[0].uid, uid)
            self.store.delete("B")

    def make_deep(self, path: str, levels: int = 200) -> None:
        """Make a directory with so many levels, each with a file in it."""
        os.mkdir(path)
        fd = os.open(path, os.O_RDONLY)
        for _ in range(levels):
            os.close(os.open("file", os.O_CREAT, dir_fd=fd))
            os.mkdir("d", dir_fd=fd)
            parent, fd = fd, os.open("d", os.O_RDONLY, dir_fd=fd)
            os.close(parent)
        os.close(fd)

    def test_watching_mailboxes_neither_opens_nor_indexes_them(self) -> None:
        """The directories of mailboxes are known without an index row; names of no mailbox have none."""
        self.store.create("a/b", ())
        self.store.create("c", ())
        rows = self.store._account.index.db.execute("SELECT count(*) FROM mailbox").fetchone()
        os.makedirs(self.root + "/.new/cur")
        found = self.store.mailbox_paths(["INBOX", "a/b", "new", "c\0"])
        self.assertEqual(
            dict(found),
            {
                "INBOX": (self.root + "/new", self.root + "/cur"),
                "a/b": (self.root + "/.a.b/new", self.root + "/.a.b/cur"),
                "new": (self.root + "/.new/new", self.root + "/.new/cur"),
            },
        )
        key = self.store.mailbox_key("a/b")
        self.assertEqual(self.store.watch_paths(key), found["a/b"])
        after = self.store._account.index.db.execute("SELECT count(*) FROM mailbox").fetchone()
        self.assertEqual(after, rows)

    def test_deep_directories_are_removed(self) -> None:
        """DELETE, and the removal of stale files, remove directories of any depth with few descriptors."""
        self.store.create("A", ())
        self.make_deep(self.path(".A", "deep"))
        self.make_deep(self.path("tmp", "deep"))
        open_files: list[int] = []
        real = os.rmdir

        def rmdir(name: bytes, dir_fd: int) -> None:
            open_files.append(len(os.listdir("/proc/self/fd")))
            real(name, dir_fd=dir_fd)

        before = len(os.listdir("/proc/self/fd"))
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(len(inspect.stack(0)) + 150)
        try:
            with mock.patch.object(os, "rmdir", rmdir):
                self.store.delete("A")
                self.assertEqual(self.tmp(), ["deep"])
                self.clock.offset += 2 * STALE_SECONDS
                self.store._account.reset()
                self.store.mailboxes()
        finally:
            sys.setrecursionlimit(limit)
        self.assertEqual(self.tmp(), [])
        self.assertLess(max(open_files), before + 20)

    def test_directory_that_cannot_be_removed_stays(self) -> None:
        """What cannot be removed stays, everything else is removed, and nothing is raised."""
        self.store.create("A", ())
        self.make_deep(self.path(".A", "deep"), 3)
        with failing("rmdir", PermissionError(1, "no"), times=10_000):
            self.store.delete("A")
        (trash,) = self.tmp()
        found = [names for _, _, names in os.walk(self.path("tmp", trash))]
        self.assertEqual(found, [[]] * 8)

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
