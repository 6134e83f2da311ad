"""CREATE and RENAME of several folders that are interrupted: they are done as a whole, or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

from imapshield.errors import MailboxExists, NoSuchMailbox, StoreBusy, StoreError, StoreIOError
from imapshield.maildir import append_copy, folder_log, folders, move_log
from imapshield.maildir.files import UndoSteps
from imapshield.maildir.store import MaildirStore
from imapshield.testing.store_contract import FLAGGED, SEEN
from tests.maildir.disk import DiskTestCase, failing
from tests.maildir.test_move_log import Killed

STEPS = ("rename", "mkdir", "rmdir", "unlink", "fsync")
SENT = b"\\Sent"

State = dict[str, tuple[int, dict[int, bytes], tuple[bytes, ...]]]


@contextmanager
def killed(store: MaildirStore, after: int, names: tuple[str, ...] = STEPS) -> Iterator[list[int]]:
    """Kill the process of a store after so many system calls; yield a list that gets an element for each.

    At that moment nothing is undone, and the transaction is not committed. The block must close the store.
    """
    calls: list[int] = []

    def counted(name: str) -> Any:
        real = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if len(calls) >= after:
                raise Killed
            calls.append(1)
            return real(*args, **kwargs)

        return mock.patch.object(os, name, call)

    patches = [counted(name) for name in names]
    patches.append(mock.patch.object(UndoSteps, "undo", lambda _: None))
    patches.append(mock.patch.object(store._account.index, "undo_moves", None))
    for patch in patches:
        patch.start()
    try:
        yield calls
    except Killed:
        calls.append(-1)
    finally:
        for patch in patches:
            patch.stop()
        store._account.index.undo_moves = None
        store.close()


class FolderLogTestCase(DiskTestCase):
    """The mailboxes INBOX, Old, Old/a and Old/b with one message each, and another process that has them open."""

    def setUp(self) -> None:
        super().setUp()
        self.store.create("Old", [SENT])
        self.store.create("Old/a", [])
        self.store.create("Old/b", [])
        for name, flag in (("INBOX", SEEN), ("Old", SEEN), ("Old/a", FLAGGED), ("Old/b", b"$Mine")):
            self.append(flag, name=name)
            self.store.set_metadata(name, {b"/private/comment": name.encode()})
        self.let_mtimes_age()
        self.before = self.state(self.store)
        self.other = self.open_store()
        self.state(self.other)

    def state(self, store: MaildirStore) -> State:
        """Return UIDVALIDITY, flags by UID, and special uses of all mailboxes."""
        state: State = {}
        for info in store.mailboxes():
            if not info.selectable:
                continue
            opened = store.open(info.name, False)
            rows = {row.uid: row.flags for row in opened.delta.rows}
            comment = store.metadata(info.name).get(b"/private/comment", b"")
            state[info.name] = opened.uidvalidity, rows, (*info.special_use, comment)
        return state

    def renamed(self, old: str, new: str) -> State:
        return {
            new + name[len(old) :] if name.startswith(old) else name: value
            for name, value in self.before.items()
        }

    def names(self) -> list[str]:
        """Return the names in the Maildir, without those of the index."""
        return sorted(n for n in os.listdir(self.root) if not n.startswith("imapshield"))

    def entries(self) -> list[object]:
        return self.other._account.index.db.execute("SELECT * FROM moving").fetchall()

    def make_folder(self, folder: str, *file_names: str) -> None:
        """Make a folder as another program does, with files beside its directories."""
        for part in ("cur", "new", "tmp"):
            os.makedirs(self.path(folder, part))
        self.make_files(folder, *file_names)

    def make_files(self, folder: str, *file_names: str) -> None:
        os.makedirs(self.path(folder), exist_ok=True)
        for name in file_names:
            with open(self.path(folder, name), "wb"):
                pass

    def interrupt_rename(self, after: int = 2, old: str = "Old", new: str = "New") -> None:
        """Kill a RENAME after it has renamed so many folders."""
        with killed(self.store, after, ("rename",)):
            self.store.rename(old, new)
        self.assertTrue(os.path.exists(self.path("." + new)))
        self.assertTrue(os.path.exists(self.path(f".{old}.b")))


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


class OtherFoldersTests(FolderLogTestCase):
    """Folders of other programs have announced names."""

    def commands(self) -> Iterator[Callable[[], object]]:
        """Yield commands that make Shared; the account is new for each."""
        for command in (
            lambda: self.store.create("Shared/x", []),
            lambda: self.store.create("Shared", [SENT]),
            lambda: self.store.rename("Old", "Shared/x"),
            lambda: self.store.rename("INBOX", "Shared/x"),
        ):
            self.setUp()
            yield command

    def test_directory_of_another_program_stays(self) -> None:
        """CREATE and RENAME below a directory that is no mailbox are refused; the directory stays as it is."""
        for command in self.commands():
            self.make_files(".Shared", "dovecot-acl")
            self.assertRaises(MailboxExists, command)
            self.assertEqual(os.listdir(self.path(".Shared")), ["dovecot-acl"])
            self.assertEqual((self.state(self.store), self.entries()), (self.before, []))
            self.assertEqual(os.listdir(self.path("tmp")), [])

    def test_mailbox_that_another_server_makes_meanwhile_stays(self) -> None:
        """Another server makes a mailbox after its name was announced: the command is refused, the mailbox stays."""
        for command in self.commands():

            def kept(*arguments: Any, real: Any = move_log.kept) -> Any:
                self.make_folder(".Shared", "maildirfolder")
                return real(*arguments)

            with mock.patch.object(move_log, "kept", kept):
                self.assertRaises(MailboxExists, command)
            self.assertEqual(len(os.listdir(self.path(".Shared"))), 4)
            state = self.state(self.store)
            self.assertEqual((state.pop("Shared")[1], state), ({}, self.before))
            self.assertEqual(os.listdir(self.path("tmp")), [])

    def test_mailbox_that_another_server_makes_after_a_crash_stays(self) -> None:
        """The names were announced, then the server crashed: a mailbox that gets one of them later is not removed."""
        for file_names in ((), ("dovecot-uidlist", "dovecot-acl")):
            for command in self.commands():
                with (
                    killed(self.store, 1000),
                    mock.patch.object(folders, "_take", mock.Mock(side_effect=Killed)),
                ):
                    command()
                self.assertEqual(len(self.entries()), 1)
                self.make_folder(".Shared", *file_names)
                state = self.state(self.other)
                self.assertEqual((state.pop("Shared")[1], state), ({}, self.before))
                self.assertEqual(self.entries(), [])
                self.assertLessEqual({*file_names}, {*os.listdir(self.path(".Shared"))})

    def test_made_folder_that_another_server_uses_stays(self) -> None:
        """A folder that an interrupted command has made stays if another server has put its files into it."""
        for name in ("dovecot-acl", "dovecot-uidlist", "courierimapacl", "dovecot.index.log"):
            self.setUp()
            with killed(self.store, 2, ("rename",)):
                self.store.rename("Old", "X/New")
            self.make_files(".X", name)
            self.assertEqual(sorted(self.state(self.other)), sorted({*self.before, "X"}))
            self.assertIn(name, os.listdir(self.path(".X")))

    def test_folder_with_the_inode_of_a_renamed_one_stays(self) -> None:
        """Another program has removed a renamed folder and made one of its name, which has got the same inode."""
        for part in ("cur", "new"):
            self.setUp()
            self.interrupt_rename()
            os.rename(self.path(".New", part), self.path("." + part))
            os.mkdir(self.path(".New", part))
            shutil.rmtree(self.path("." + part))
            state = self.state(self.other)
            self.assertEqual(sorted(state), ["INBOX", "New", "Old/a", "Old/b"])
            self.assertEqual(state["Old/a"], self.before["Old/a"])

    def restored(self) -> MaildirStore:
        """Return a store of a copy of the Maildir, which has other inodes."""
        self.other.close()
        backup = os.path.abspath(os.path.join(self.mktemp(), "mail"))
        shutil.copytree(self.root, backup, symlinks=True)
        return self.open_store(backup)

    def test_restored_folders_with_both_names_stay(self) -> None:
        """In a restored backup, a mailbox that has its old name keeps its row; the other one is a new mailbox."""
        self.interrupt_rename()
        shutil.copytree(self.path(".New"), self.path(".Old"))
        state = self.state(self.restored())
        self.assertEqual(sorted(state), ["INBOX", "New", "Old", "Old/a", "Old/b"])
        self.assertEqual((state["Old"][2], state["New"][2]), ((SENT, b"Old"), (b"",)))

    def test_restored_folder_without_a_row_stays(self) -> None:
        """In a restored backup, a folder is not renamed to a name that the index does not have."""
        self.make_folder(".Old.A")
        self.interrupt_rename()
        state = self.state(self.restored())
        self.assertEqual(sorted(state), sorted({*self.before, "New/A"}))

    def test_restored_folder_that_was_made_stays(self) -> None:
        """In a restored backup nothing says who has made a folder."""
        with killed(self.store, 2, ("rename",)):
            self.store.rename("Old", "X/New")
        self.assertEqual(sorted(self.state(self.restored())), sorted({*self.before, "X"}))


class ConcurrentTests(FolderLogTestCase):
    """Another process writes between the announcement and the steps, and so undoes what has not begun."""

    def write_after_announcing(self, times: int) -> Any:
        real, calls = folder_log.encode, []

        def encode(*arguments: Any) -> bytes:
            calls.append(1)
            return real(*arguments)

        def kept(account: Any, entry: int, real: Any = move_log.kept) -> Any:
            if len(calls) <= times:
                self.append(name="INBOX", store=self.other)
            return real(account, entry)

        return (
            calls,
            mock.patch.object(folder_log, "encode", encode),
            mock.patch.object(move_log, "kept", kept),
        )

    def test_command_that_another_process_undid_is_announced_again(self) -> None:
        """A RENAME and a CREATE succeed nevertheless; if that goes on, they are refused and change nothing."""
        for times, command in (
            (2, lambda: self.store.rename("Old", "New")),
            (2, lambda: self.store.create("X/Y", [SENT])),
            (2, lambda: self.store.rename("INBOX", "X/Z")),
        ):
            self.setUp()
            calls, *patches = self.write_after_announcing(times)
            with patches[0], patches[1]:
                command()
            self.assertEqual(len(calls), times + 1)
            self.assertNotEqual(sorted(self.state(self.other)), sorted(self.before))
        self.setUp()
        _, *patches = self.write_after_announcing(100)
        with patches[0], patches[1]:
            self.assertRaises(StoreBusy, self.store.rename, "Old", "New")
        self.assertEqual(sorted(self.state(self.other)), sorted(self.before))

    def test_rename_of_inbox_survives_a_write_before_its_move(self) -> None:
        """RENAME of INBOX, or of an empty one, makes its mailbox again if another process has removed it."""
        for is_empty in (False, True):
            self.setUp()
            if is_empty:
                self.store.copy(self.store.mailbox_key("INBOX"), [1], "Old", True, 0)
            real, calls = append_copy.copy, list[int]()

            def copy(
                *arguments: Any, real: Any = real, calls: list[int] = calls, last: bool = is_empty
            ) -> Any:
                calls.append(1)
                write = lambda: self.append(name="Old", store=self.other)  # noqa: E731
                if len(calls) == 1 and not last:
                    write()
                result = real(*arguments)
                if len(calls) == 1 and last:
                    write()
                return result

            with mock.patch.object(folders, "copy", copy):
                self.store.rename("INBOX", "X/New")
            self.assertEqual(len(calls), 2)
            state = self.state(self.other)
            self.assertEqual(len(state["X/New"][1]), 0 if is_empty else 1)
            self.assertEqual(state["X/New"][2][-1], b"INBOX")

    def test_entries_never_have_the_id_of_a_removed_one(self) -> None:
        """A process that has lost its entry does not take another one for it."""
        index = self.store._account.index
        found = set()
        for _ in range(3):
            with index.write():
                entry = move_log.insert(self.store._account, 0, 0, b"")
                found.add(entry)
                self.assertTrue(move_log.end(self.store._account, entry))
        self.assertEqual(len(found), 3)


class FailureTests(FolderLogTestCase):
    def test_command_that_fails_changes_nothing(self) -> None:
        """After NO there is no new mailbox, no parent of one, and no entry."""
        for name, error in (
            ("fsync", OSError(errno.EIO, "error")),
            ("rename", OSError(28, "full")),
        ):
            for command in (
                lambda: self.store.rename("Old", "X/New"),
                lambda: self.store.create("X/Y", [SENT]),
                lambda: self.store.rename("INBOX", "X/New"),
            ):
                for after in range(6):
                    with failing(name, error, after):
                        try:
                            command()
                        except StoreError:
                            self.assertEqual(self.state(self.store), self.before)
                            self.assertEqual(self.entries(), [])
                            continue
                    self.setUp()
                    break

    def test_folders_are_made_if_tmp_is_on_another_file_system(self) -> None:
        """A folder that cannot be renamed from tmp/ is made in place."""
        with failing("rename", OSError(errno.EXDEV, "other file system"), 0, 2):
            self.store.create("X/Y", [SENT])
        self.assertEqual(self.state(self.other)["X/Y"][1:], ({}, (SENT, b"")))
        self.assertEqual(os.listdir(self.path("tmp")), [])

    def test_made_folder_with_mail_stays_after_a_failure(self) -> None:
        """The command fails after mail was delivered into a folder that it has made: the mail stays."""

        def fail(*_: object) -> None:
            self.deliver(folder=".X")
            raise OSError(errno.EIO, "error")

        with mock.patch.object(folders, "_rename_folder", fail):
            self.assertRaises(StoreIOError, self.store.rename, "Old", "X/New")
        state = self.state(self.store)
        self.assertEqual((state.pop("X")[1], state), ({1: b""}, self.before))

    def test_refused_command_is_not_announced(self) -> None:
        """A name that is taken is refused before anything is announced."""
        os.makedirs(self.path(".New.a", "other"))
        self.assertRaises(MailboxExists, self.store.rename, "Old", "New")
        self.assertRaises(MailboxExists, self.store.create, "New/a", [SENT])
        self.assertEqual((self.state(self.store), self.entries()), (self.before, []))
