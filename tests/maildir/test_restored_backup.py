"""After a backup was restored, no UID of a mailbox stands for two messages, and all mail is there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import imapshield
from imapshield.errors import NoSuchMailbox, StoreError
from imapshield.mailbox.values import NewMessage
from imapshield.testing.store_contract import BUDGET, DELETED, FLAGGED, MAIL, SEEN, WHOLE
from imapshield.wire.commands.base import MemoryLiteral
from tests.maildir.disk import DiskTestCase, crashed_copy


def restore_like_tar(backup: str, root: str) -> None:
    """Replace every file of the backup by a new file; files that the backup lacks stay."""
    for folder, _, names in os.walk(backup):
        target = os.path.join(root, os.path.relpath(folder, backup))
        os.makedirs(target, exist_ok=True)
        for name in names:
            shutil.copy2(os.path.join(folder, name), os.path.join(target, name + "~"))
            os.replace(os.path.join(target, name + "~"), os.path.join(target, name))


def restore_like_cp(backup: str, root: str) -> None:
    """Overwrite every file of the backup in place, and set its mtime back; files that the backup lacks stay."""
    shutil.copytree(backup, root, dirs_exist_ok=True)


def restore_like_rsync(backup: str, root: str) -> None:
    """Replace every file of the backup by a new file, and remove all others."""
    for folder, _, names in os.walk(root):
        original = os.path.join(backup, os.path.relpath(folder, root))
        for name in names:
            if not os.path.exists(os.path.join(original, name)):
                os.unlink(os.path.join(folder, name))
    restore_like_tar(backup, root)


def restore_by_swapping(backup: str, root: str) -> None:
    """Put the backup in the place of the whole Maildir."""
    os.rename(root, root + ".old")
    shutil.copytree(backup, root)


def restore_index_alone(backup: str, root: str) -> None:
    """Replace the index by an older one, and leave the mail as it is."""
    for suffix in ("", "-wal", "-shm"):
        name = "imapshield.sqlite" + suffix
        if os.path.exists(os.path.join(backup, name)):
            shutil.copy2(os.path.join(backup, name), os.path.join(root, name + "~"))
            os.replace(os.path.join(root, name + "~"), os.path.join(root, name))
        elif os.path.exists(os.path.join(root, name)):
            os.unlink(os.path.join(root, name))


RESTORES = (
    restore_like_tar,
    restore_like_cp,
    restore_like_rsync,
    restore_by_swapping,
    restore_index_alone,
)


class BackupTestCase(DiskTestCase):
    """INBOX and Work with messages that are all different, and what was seen in them."""

    def setUp(self) -> None:
        super().setUp()
        # (mailbox, UIDVALIDITY, UID) → the message that clients have seen there.
        self.seen: dict[tuple[str, int, int], bytes] = {}
        self.count = 0
        self.fill()

    def fill(self) -> None:
        self.store.create("Work", [b"\\Archive"])
        self.store.set_metadata("Work", {b"/private/comment": b"mine"})
        for name in ("INBOX", "Work"):
            for _ in range(3):
                self.append_new(name, SEEN, b"$Later")
        self.append_new("Work", *(b"k%d" % i for i in range(30)))
        self.look()

    def new_message(self) -> bytes:
        self.count += 1
        return MAIL + b"message %d\r\n" % self.count

    def append_new(self, name: str, *flags: bytes) -> bytes:
        content = self.new_message()
        self.store.append(name, [NewMessage(flags, None, MemoryLiteral(content))])
        return content

    def deliver_new(self, folder: str = "") -> bytes:
        content = self.new_message()
        self.deliver(content, folder)
        return content

    def look(self) -> dict[str, set[bytes]]:
        """Return all messages of all mailboxes, after checking that each UID is that of the same message as ever."""
        found: dict[str, set[bytes]] = {}
        for info in self.store.mailboxes():
            opened = self.store.open(info.name, False)
            uids = [row.uid for row in opened.delta.rows]
            self.assertLess(max(uids, default=0), opened.delta.uidnext)
            fetched = self.store.fetch(opened.key, uids, [WHOLE], BUDGET)
            self.assertEqual(list(fetched.uids), uids)
            found[info.name] = set()
            for uid, content in zip(uids, fetched.columns[0], strict=True):
                assert isinstance(content, bytes)
                key = (info.name, opened.uidvalidity, uid)
                self.assertEqual(self.seen.setdefault(key, content), content, key)
                found[info.name].add(content.partition(b"\r\n")[2])
        return found

    def use(self) -> None:
        """Change mail so that UIDs and MODSEQs advance."""
        for name, folder in (("INBOX", ""), ("Work", ".Work")):
            self.append_new(name)
            self.deliver_new(folder)
            key = self.store.open(name, True).key
            self.store.store_flags(key, [1], b"+", [DELETED, FLAGGED], None, 0)
            self.store.expunge(key, None, 0)
        self.look()

    def backup(self, running: bool) -> str:
        """Copy the Maildir, as a backup program does."""
        if not running:
            self.restart()
        target = os.path.abspath(self.mktemp())
        shutil.copytree(self.root, target, symlinks=True)
        return str(target)

    def restart(self) -> None:
        self.store.close()
        self.store = self.open_store()

    def check_kept(self) -> None:
        """Check that what only the index has was not lost."""
        info = {info.name: info for info in self.store.mailboxes()}["Work"]
        self.assertEqual(info.special_use, (b"\\Archive",))
        self.assertEqual(self.store.metadata("Work"), {b"/private/comment": b"mine"})
        flag_lists = self.flags("Work").values()
        self.assertIn(30, [len(flags.split()) for flags in flag_lists])


class RestoredBackupTests(BackupTestCase):
    def check(
        self, restore: Callable[[str, str], None], running_backup: bool, running: bool
    ) -> None:
        name = f"{restore.__name__}, {running_backup}, {running}"
        self.use()
        backup = self.backup(running_backup)
        key = self.store.mailbox_key("INBOX")
        for _ in range(2):
            self.use()
            # Otherwise the database may be unchanged since the backup, and only its log newer.
            self.store._account.index.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.use()
        del self.warnings[:]
        if running:
            restore(backup, self.root)
        else:
            self.store.close()
            restore(backup, self.root)
            self.store = self.open_store()
        delivered = {self.deliver_new(), self.deliver_new()}
        self.assertRaises(NoSuchMailbox, self.store.changes, key, 0, True)
        appended = self.append_new("INBOX")
        self.assertLessEqual({appended, *delivered}, self.look()["INBOX"], name)
        on_disk = {
            self.read(os.path.join(folder, file))
            for folder in (self.path("cur"), self.path("new"))
            for file in os.listdir(folder)
        }
        self.assertEqual(self.look()["INBOX"], on_disk, name)
        self.check_kept()
        self.assertEqual(len(self.warnings), 1, (name, self.warnings))
        del self.warnings[:]
        self.use()
        self.restart()
        self.use()
        self.assertEqual(self.warnings, [], name)

    def read(self, path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    def test_log_that_was_set_back_in_place(self) -> None:
        """If cp overwrites the index of a running store, and only its log is older, that is noticed too."""
        backup = self.backup(True)
        self.use()
        restore_like_cp(backup, self.root)
        self.deliver_new()
        self.look()
        self.check_kept()
        self.assertEqual(len(self.warnings), 1)
        self.use()

    def test_backup_on_another_machine(self) -> None:
        """A backup that is restored in another directory gets new UIDVALIDITYs there, and shows all its mail."""
        for running in (True, False):
            backup = self.backup(running)
            expected = self.look()
            self.use()
            store, root, seen = self.store, self.root, self.seen
            self.root, self.seen = backup, dict(seen)
            self.store = self.open_store()
            self.assertEqual(self.look(), expected)
            self.use()
            self.check_kept()
            self.assertEqual(len(self.warnings), 1)
            self.restart()
            self.use()
            self.assertEqual(len(self.warnings), 1)
            del self.warnings[:]
            self.store.close()
            self.store, self.root, self.seen = store, root, seen
            self.use()

    def test_mail_without_an_index(self) -> None:
        """If the backup has no index, all mail is there with new UIDVALIDITYs, whether the store runs or not."""
        for running in (True, False):
            expected = self.look()
            key = self.store.mailbox_key("INBOX")
            if not running:
                self.store.close()
            for name in os.listdir(self.root):
                if name.startswith("imapshield.sqlite"):
                    os.unlink(self.path(name))
            if not running:
                self.store = self.open_store()
            self.assertRaises(StoreError, self.store.changes, key, 0, True)
            self.assertEqual(self.look(), expected)
            self.use()

    def test_mail_without_any_file_of_the_store(self) -> None:
        """If a backup of the mail alone is restored in an empty directory, its UIDVALIDITYs are new."""
        expected = self.look()
        self.store.close()
        backup = os.path.abspath(self.mktemp())
        shutil.copytree(self.root, backup, ignore=shutil.ignore_patterns("imapshield*"))
        shutil.rmtree(self.root)
        shutil.copytree(backup, self.root)
        self.store = self.open_store()
        self.assertEqual(self.look(), expected)
        self.use()

    def test_index_without_mail(self) -> None:
        """If only the index was restored, the mailboxes are empty, and later mail gets no UID of the lost mail."""
        self.store.close()
        for folder in (self.path(), self.path(".Work")):
            for name in os.listdir(os.path.join(folder, "cur")):
                os.unlink(os.path.join(folder, "cur", name))
        backup = os.path.abspath(self.mktemp())
        restore_like_tar(self.root, backup)
        shutil.rmtree(self.root)
        os.rename(backup, self.root)
        self.store = self.open_store()
        self.assertEqual(self.look(), {"INBOX": set(), "Work": set()})
        self.use()
        self.assertEqual(len(self.warnings), 1)


class UnchangedIndexTests(BackupTestCase):
    """What is not a restored backup: UIDVALIDITYs and UIDs stay, and nothing is logged."""

    def check_unchanged(self, change: Callable[[], object], running: bool) -> None:
        self.use()
        before = self.store.status("INBOX")
        key = self.store.mailbox_key("INBOX")
        if not running:
            self.store.close()
        change()
        if not running:
            self.store = self.open_store()
        self.assertEqual(self.store.status("INBOX"), before)
        self.store.changes(key, 0, True)
        self.use()
        self.restart()
        self.use()
        self.assertEqual(self.store.status("INBOX").uidvalidity, before.uidvalidity)
        self.assertEqual(self.warnings, [])

    def test_owner_and_mode_may_be_changed(self) -> None:
        """A change of owners or modes changes nothing, whether the store runs or not."""
        for running in (True, False):
            for command in (
                ["chmod", "-R", "u+rwX,g-rwx"],
                ["chown", "-R", f"{os.getuid()}:{os.getgid()}"],
            ):
                run = partial(subprocess.run, [*command, self.root], check=True)
                self.check_unchanged(run, running)

    def test_maildir_may_be_moved(self) -> None:
        """A Maildir that was moved in its file system keeps its UIDs."""

        def move() -> None:
            os.rename(self.root, self.root + ".moved")
            self.root += ".moved"

        self.check_unchanged(move, running=False)

    def test_backup_may_be_made_at_any_time(self) -> None:
        """To make a backup changes nothing."""
        self.check_unchanged(lambda: self.backup(True), running=True)
        self.check_unchanged(lambda: self.backup(True), running=False)

    def test_server_may_be_killed(self) -> None:
        """After kill -9 the index is the same."""
        self.use()
        before = self.store.status("INBOX")
        target = os.path.abspath(self.mktemp())
        crashed_copy(self.root, target)
        self.root, self.store = target, self.open_store(target)
        self.assertEqual(self.store.status("INBOX"), before)
        self.use()
        self.assertEqual(self.warnings, [])

    def test_two_processes_may_open_and_close_the_index(self) -> None:
        """Processes that serve the account at the same time, and end at different times, do not disturb each other."""
        before = self.store.status("INBOX").uidvalidity
        for _ in range(3):
            other = self.open_store()
            for store in (other, self.store):
                store.append("INBOX", [NewMessage((), None, MemoryLiteral(self.new_message()))])
            first = self.store
            first.close()
            self.store = other
            self.use()
        self.assertEqual(self.store.status("INBOX").uidvalidity, before)
        self.assertEqual(self.warnings, [])

    def test_other_programs_may_read_the_index(self) -> None:
        """While the store is open, a program that reads the index, or check-mail, leaves its log and all UIDs in place."""
        self.use()
        before = self.store.status("INBOX")
        key = self.store.mailbox_key("INBOX")
        log = self.path("imapshield.sqlite-wal")
        inode = os.stat(log).st_ino
        read = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); print(*db.execute('SELECT count(*) FROM message')); db.close()"
        checkout = os.path.dirname(os.path.dirname(os.path.abspath(imapshield.__file__)))
        for arguments in (
            ["-c", read, self.path("imapshield.sqlite")],
            ["-m", "imapshield", "check-mail", self.root],
        ):
            command = [sys.executable, *arguments]
            subprocess.run(command, check=True, capture_output=True, cwd=checkout)
            self.assertEqual(os.stat(log).st_ino, inode, arguments)
            self.assertEqual(self.store.status("INBOX"), before)
            self.store.changes(key, 0, True)
            self.use()
            before = self.store.status("INBOX")
        self.assertEqual(self.warnings, [])


def _add_tests() -> None:
    """Add a test for each way of making and restoring a backup."""
    for restore in RESTORES:
        for backup_name, running_backup in (("running", True), ("stopped", False)):
            for restore_name, running in (("running", True), ("stopped", False)):

                def test(
                    self: RestoredBackupTests,
                    restore: Callable[[str, str], None] = restore,
                    running_backup: bool = running_backup,
                    running: bool = running,
                ) -> None:
                    self.check(restore, running_backup, running)

                name = f"test_backup_of_{backup_name}_store_{restore.__name__}_{restore_name}"
                setattr(RestoredBackupTests, name, test)


_add_tests()
