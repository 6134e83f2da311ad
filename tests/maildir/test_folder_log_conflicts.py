"""CREATE and RENAME of several folders leave alone what others make meanwhile, and change nothing if they fail."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from imapshield.errors import MailboxExists, StoreBusy, StoreError, StoreIOError
from imapshield.maildir import append_copy, folder_log, folders, move_log
from imapshield.maildir.store import MaildirStore
from tests.maildir.disk import failing
from tests.maildir.folder_log_case import SENT, FolderLogTestCase, killed
from tests.maildir.test_move_log import Killed


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
