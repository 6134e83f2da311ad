"""CREATE and RENAME of several folders that are interrupted: they are done as a whole, or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

from imapshield.errors import NoSuchMailbox, StoreError, StoreIOError
from imapshield.maildir import folder_log
from imapshield.maildir.files import UndoSteps
from imapshield.maildir.store import MaildirStore
from imapshield.testing.store_contract import FLAGGED, SEEN
from tests.maildir.disk import failing
from tests.maildir.folder_log_case import SENT, FolderLogTestCase, State, killed
from tests.maildir.test_move_log import Killed


class CrashTests(FolderLogTestCase):
    def interrupt_at_each_step(
        self, command: Callable[[MaildirStore], object], look: Callable[[MaildirStore], State]
    ) -> list[State]:
        """Kill a command after each system call; return what `look` finds in another process each time."""
        found: list[State] = []
        for after in range(100):
            with killed(store := self.open_store(), after) as calls:
                command(store)
            found.append(look(self.other))
            self.assertEqual(self.entries(), [])
            if -1 not in calls:
                return found
        raise AssertionError

    def look_again(self, _: MaildirStore) -> State:
        """Open the account in a new process, and look."""
        store = self.open_store()
        state = self.state(store)
        store.close()
        return state

    def test_rename_of_a_tree_is_done_or_undone(self) -> None:
        """A RENAME of three mailboxes below a missing parent: all have their new names, or none."""
        for look in (self.state, self.look_again):
            with self.subTest(look=look.__name__):
                self.setUp()
                found = self.interrupt_at_each_step(lambda s: s.rename("Old", "X/New"), look)
                after = self.renamed("Old", "X/New")
                self.assertGreater(len(found), 8)
                self.assertEqual([state for state in found[:-1] if state != self.before], [])
                uidvalidity = found[-1].pop("X")[0]
                self.assertGreater(uidvalidity, max(value[0] for value in after.values()))
                self.assertEqual(found[-1], after)

    def test_create_makes_all_folders_or_none(self) -> None:
        """A CREATE with missing parents and a special use: all mailboxes exist, with the special use, or none."""
        for name, uses in (("X/Y/Z", []), ("X/Y/Z", [SENT]), ("X", [SENT])):
            with self.subTest(name=name, uses=uses):
                self.setUp()
                create = partial(MaildirStore.create, name=name, special_use=uses)
                found = self.interrupt_at_each_step(create, self.state)
                self.assertEqual([state for state in found[:-1] if state != self.before], [])
                self.assertEqual(found[-1][name][2], (*uses, b""))

    def test_rename_of_inbox_is_done_or_undone(self) -> None:
        """A RENAME of INBOX: its messages are in the new mailbox, or that does not exist, nor its parent."""
        found = self.interrupt_at_each_step(lambda s: s.rename("INBOX", "X/New"), self.state)
        done = [state for state in found if state != self.before]
        self.assertLess(len(done), 8)  # the entry is removed last
        self.assertGreater(len(found) - len(done), 8)
        for state in done:
            self.assertEqual(state["X/New"][1:], self.before["INBOX"][1:])
            self.assertEqual((state["INBOX"][1], state["X"][1]), ({}, {}))

    def test_delete_removes_a_mailbox_or_nothing(self) -> None:
        """A DELETE of a mailbox with others below it: it exists with its message, or not at all."""
        after = {name: value for name, value in self.before.items() if name != "Old"}
        for number in range(100):
            with killed(store := self.open_store(), number):
                store.delete("Old")
            found = self.state(self.other)
            if found != self.before:
                break
        self.assertGreater(number, 0)
        self.assertEqual(found, after)


class OtherProcessTests(FolderLogTestCase):
    """A RENAME of Old to New is interrupted after two of its three folders."""

    def test_every_command_of_another_process_undoes_it_first(self) -> None:
        """Another process that runs finds each mailbox under its old name, whatever it asks first."""
        for name, operation in (
            ("list", self.other.mailboxes),
            ("select", lambda: self.other.open("Old/a", True)),
            ("status", lambda: self.other.status("Old/a")),
            ("append", lambda: self.append(name="Old", store=self.other)),
            ("append elsewhere", lambda: self.append(name="INBOX", store=self.other)),
            ("delete", lambda: self.other.delete("Old")),
            ("rename", lambda: self.other.rename("Old/a", "Old/c")),
        ):
            with self.subTest(name=name):
                self.setUp()
                self.interrupt_rename()
                operation()
                self.assertEqual([n for n in self.state(self.other) if n.startswith("New")], [])
                self.assertEqual(self.state(self.other)["Old/b"], self.before["Old/b"])
                self.assertEqual(self.entries(), [])

    def test_the_new_names_do_not_exist(self) -> None:
        """A client that uses a new name is told that there is no such mailbox."""
        for operation in (
            lambda: self.other.open("New", True),
            lambda: self.other.status("New/a"),
            lambda: self.append(name="New", store=self.other),
            lambda: self.other.delete("New"),
            lambda: self.other.rename("New", "Newer"),
        ):
            self.setUp()
            self.interrupt_rename()
            self.assertRaises(NoSuchMailbox, operation)
            self.assertEqual(self.state(self.other), self.before)

    def test_mailbox_that_is_selected_stays_selected(self) -> None:
        """A session of another process that has selected one of the mailboxes continues with it."""
        key = self.other.mailbox_key("Old/a")
        self.interrupt_rename()
        self.assertEqual(self.other.changes(key, 0, False).rows[0].flags, FLAGGED)
        self.other.store_flags(key, [1], b"+", [SEEN], None, 0)
        self.assertIn(SEEN, self.flags("Old/a", self.other)[1])

    def test_mailbox_without_a_row_is_renamed_back(self) -> None:
        """A folder of another program, which no client has used yet, is renamed back as well."""
        for part in ("cur", "new", "tmp"):
            os.makedirs(self.path(".Old.Jürgen", part))
        self.interrupt_rename(3)
        self.assertIn("Old/Jürgen", [info.name for info in self.other.mailboxes()])
        self.assertEqual(os.path.exists(self.path(".New.J&APw-rgen")), False)

    def test_folder_that_another_program_made_under_the_old_name_stays(self) -> None:
        """If a delivery agent has made Old again, both folders stay; the old messages keep their UIDs under New."""
        self.interrupt_rename()
        for part in ("cur", "new", "tmp"):
            os.makedirs(self.path(".Old", part))
        self.deliver(folder=".Old")
        state = self.state(self.other)
        self.assertEqual(sorted(state), ["INBOX", "New", "Old", "Old/a", "Old/b"])
        self.assertEqual(state["New"], self.before["Old"])
        self.assertEqual(state["Old"][1], {1: b""})
        self.assertGreater(state["Old"][0], self.before["Old"][0])

    def test_folder_that_another_program_made_under_the_new_name_stays(self) -> None:
        """A folder that is not the renamed one keeps its name: that one was removed or renamed."""
        self.interrupt_rename()
        os.rename(self.path(".New"), self.path(".Moved"))
        for part in ("cur", "new", "tmp"):
            os.makedirs(self.path(".New", part))
        self.deliver(folder=".New")
        self.state(self.other)  # LIST alone does not follow other programs
        state = self.state(self.other)
        self.assertEqual(sorted(state), ["INBOX", "Moved", "New", "Old/a", "Old/b"])
        self.assertEqual(state["Moved"], self.before["Old"])
        self.assertEqual(state["New"][1], {1: b""})

    def test_file_with_the_old_name_stays(self) -> None:
        """A file that has the name of a folder is not replaced."""
        self.interrupt_rename()
        with open(self.path(".Old"), "wb"):
            pass
        self.assertEqual(self.state(self.other)["New"], self.before["Old"])
        self.assertTrue(os.path.isfile(self.path(".Old")))

    def test_made_folder_with_mail_stays(self) -> None:
        """A parent to which a delivery agent has delivered stays; the RENAME is undone."""
        with killed(self.store, 2, ("rename",)):
            self.store.rename("Old", "X/New")
        self.deliver(folder=".X")
        state = self.state(self.other)
        self.assertEqual(state.pop("X")[1], {1: b""})
        self.assertEqual(state, self.before)

    def test_mail_that_arrives_during_the_removal_is_kept(self) -> None:
        """Mail that is delivered while the folder is removed stays, in a mailbox."""
        for directory in ("new", "cur"):
            with self.subTest(directory=directory):
                self.setUp()
                with killed(self.store, 2, ("rename",)):
                    self.store.rename("Old", "X/New")
                real = folder_log._has_mail

                def deliver(fd: int, directory: str = directory, real: Any = real) -> bool:
                    has_mail: bool = real(fd)
                    with open(self.path(".X", directory, "1700000000.x"), "wb"):
                        pass
                    return has_mail

                with mock.patch.object(folder_log, "_has_mail", deliver):
                    self.other.mailboxes()
                self.assertEqual(self.flags("X", self.other), {1: b""})
                self.assertEqual(self.append(name="X", store=self.other), 2)

    def test_folder_that_cannot_be_renamed_back_blocks_its_mailboxes(self) -> None:
        """While the RENAME cannot be undone, its mailboxes cannot be used; others can. After that it is undone."""
        for error in (errno.EACCES, errno.EIO, errno.ENOSPC):
            with self.subTest(error=error):
                self.setUp()
                self.interrupt_rename()
                with failing("rename", OSError(error, "error"), 0, 1000):
                    self.assertEqual(self.flags("INBOX", self.other), self.before["INBOX"][1])
                    self.other.mailboxes()
                    self.assertRaises(StoreIOError, self.other.open, "Old/b", True)
                    self.assertRaises(StoreError, self.other.open, "Old/a", True)
                    self.assertRaises(StoreIOError, self.other.delete, "Old/b")
                self.assertEqual(len(self.entries()), 1)
                self.assertEqual(
                    [w for w in self.warnings if "cannot undo a MOVE or RENAME" not in w], []
                )
                self.other.close()
                self.assertEqual(self.state(self.other), self.before)
                self.assertEqual(self.entries(), [])

    def test_undo_that_is_interrupted_is_repeated(self) -> None:
        """A crash while the RENAME is undone leaves the entry, and the next process undoes the rest."""
        self.interrupt_rename()
        for after in (0, 1):
            store = self.open_store()
            with mock.patch.object(UndoSteps, "undo", lambda _: None):
                error = failing("rename", Killed(), after, 100)  # type: ignore[arg-type]
                with error:
                    self.assertRaises(Killed, store.mailboxes)
            store._account.index.undo_moves = None
            store.close()
        self.assertEqual(self.state(self.other), self.before)

    def test_restored_backup_is_undone(self) -> None:
        """A backup that was made in the middle of a RENAME is a tree with the old names, although inodes differ."""
        self.interrupt_rename()
        self.other.close()
        os.makedirs(backup := self.mktemp())
        shutil.copytree(self.root, os.path.join(backup, "mail"), symlinks=True)
        state = self.state(self.open_store(os.path.abspath(os.path.join(backup, "mail"))))
        self.assertEqual(sorted(state), sorted(self.before))
        self.assertEqual(state["Old/a"][1:], self.before["Old/a"][1:])

    def test_lost_index_loses_no_mail(self) -> None:
        """If the index is lost too, the tree stays as the crash left it; each message exists once."""
        self.interrupt_rename()
        self.other.close()
        for name in os.listdir(self.root):
            if name.startswith("imapshield.sqlite"):
                os.unlink(self.path(name))
        state = self.state(self.open_store())
        self.assertEqual(sorted(state), ["INBOX", "New", "New/a", "Old/b"])
        self.assertEqual([len(value[1]) for value in state.values()], [1] * 4)

    def test_invalid_entries_are_dropped(self) -> None:
        """Whatever the owner of the mail writes into the table, nothing else is renamed or removed."""
        os.mkdir(self.path(".ssh"))
        with open(self.path(".ssh", "keys"), "wb"):
            pass
        inode = b"%d" % os.stat(self.path("cur")).st_ino
        before = self.names()
        for names in (
            b"", b"/", b"//", b"/../0", b"/./0", b".x/cur/" + inode, b"x/cur/" + inode, b"/cur/0", b"/.ssh/0",
            b"/imapshield.sqlite/0", b"/.Old.a/0", b".x/.Old.a/1", b".x/.Old.a/", b".x/.\0/0", b"/.missing/0",
            b"/" + b"." * 300 + b"/0", "text", 5,
        ):  # fmt: skip
            with self.subTest(names=names):
                db = self.other._account.index.db
                db.execute("INSERT INTO moving (source, target, names) VALUES (0, 0, ?)", (names,))
                self.append(name="Old/b", store=self.other)
                self.assertEqual(self.entries(), [])
        self.assertEqual(self.names(), before)
        self.assertEqual(os.listdir(self.path(".ssh")), ["keys"])
        self.assertEqual(self.state(self.other)["Old/a"], self.before["Old/a"])
