"""Files and directories that the store makes belong to the owner of the Maildir, with the modes of the Maildir."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile

from imapshield.mailbox.values import NewMessage
from imapshield.testing.store_contract import DELETED, MAIL, SEEN
from imapshield.wire.commands.base import MemoryLiteral
from tests.maildir.disk import DiskTestCase

OWNER = 12345
IS_ROOT = os.geteuid() == 0


class OwnershipTests(DiskTestCase):
    """As root, the Maildir belongs to another user; otherwise to another group of this user, if there is one."""

    def setUp(self) -> None:
        super().setUp()
        self.base = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.base)
        os.chmod(self.base, 0o711)  # noqa: S103 - the owner must be able to reach the index
        self.root = os.path.join(self.base, "mail")
        groups = [group for group in os.getgroups() if group != os.getegid()]
        self.uid = OWNER if IS_ROOT else os.geteuid()
        self.gid = OWNER if IS_ROOT else (groups or [os.getegid()])[0]

    def make_maildir(self, mode: int) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        os.mkdir(self.root)
        os.chown(self.root, self.uid, self.gid)
        os.chmod(self.root, mode)

    def use_everything(self) -> None:
        """Make every kind of file."""
        self.store = self.open_store()
        self.store.create("A/B", [])
        self.store.create("Other", [])
        for name in ("INBOX", "A/B"):
            self.append(SEEN, b"$Work", name=name)
        message = NewMessage((DELETED,), None, MemoryLiteral(MAIL))
        self.store.append("A", [message] * 3)
        key = self.store.open("A", True).key
        self.store.copy(key, [1, 2], "INBOX", False, 0)
        self.store.copy(key, [2], "Other", True, 0)
        self.store.expunge(key, None, 0)
        self.store.set_subscribed("A", True)
        self.store.rename("Other", "C")
        self.store.set_metadata("C", {b"/private/comment": b"x"})

    def check(self, file_mode: int, directory_mode: int, uid: int, gid: int) -> None:
        found = set()
        for folder, _, names in os.walk(self.root):
            for path in (folder, *(os.path.join(folder, name) for name in names)):
                status = os.lstat(path)
                expected = directory_mode if stat.S_ISDIR(status.st_mode) else file_mode
                self.assertEqual(stat.S_IMODE(status.st_mode), expected, path)
                self.assertEqual((status.st_uid, status.st_gid), (uid, gid), path)
                found.add(os.path.basename(path))
        self.assertLessEqual(
            {
                "imapshield.sqlite", "imapshield.sqlite-wal",
                "imapshield-uidvalidity", "imapshield.epoch-1", "dovecot-keywords", "subscriptions",
                "maildirfolder", "cur", "new", "tmp", ".A.B", ".C",
            },
            found,
        )  # fmt: skip

    def test_files_belong_to_the_owner_of_the_maildir(self) -> None:
        """Files and directories, also those of the index, have the owner, group and permissions of the Maildir."""
        for mode in (0o700, 0o770, 0o750, 0o2770):
            self.make_maildir(mode)
            self.use_everything()
            directory_mode = mode
            set_group_id = os.stat(self.root).st_mode & stat.S_ISGID
            gid = self.gid if IS_ROOT or set_group_id else os.getegid()
            if not IS_ROOT and gid != self.gid:
                # Without the set-group-ID bit, a server that is not root makes files of its own group.
                os.chown(self.root, -1, gid)
            self.check(mode & 0o666, directory_mode, self.uid, gid)
            self.store.close()

    def test_index_of_root_is_given_to_the_owner(self) -> None:
        """Files of the index that root has made in the Maildir of another user are given to that user."""
        if not IS_ROOT:
            return
        self.make_maildir(0o700)
        self.use_everything()
        self.store.close()
        os.chown(self.path("imapshield.sqlite"), 0, 0)
        self.use_existing()
        self.assertEqual(os.stat(self.path("imapshield.sqlite")).st_uid, OWNER)

    def use_existing(self) -> None:
        self.store = self.open_store()
        self.assertEqual(len(self.flags()), 3)

    def test_new_maildir_belongs_to_the_owner_of_its_parent(self) -> None:
        """A Maildir that the store makes belongs to the owner of the directory above, and only he can read it."""
        if not IS_ROOT:
            self.gid = os.getegid()
        os.chown(self.base, self.uid, self.gid)
        self.use_everything()
        self.check(0o600, 0o700, self.uid, self.gid)

    def test_index_in_a_directory_of_its_own_belongs_to_the_server(self) -> None:
        """An index outside the Maildir belongs to the server, and only the server can read it."""
        self.make_maildir(0o770)
        index = os.path.join(self.base, "index", "alice")
        store = self.open_store(index_directory=index)
        store.append("INBOX", [NewMessage((), None, MemoryLiteral(MAIL))])
        for name in [".", *os.listdir(index)]:
            status = os.stat(os.path.join(index, name))
            self.assertEqual((status.st_uid, status.st_mode & 0o077), (os.geteuid(), 0), name)
        self.assertFalse([name for name in os.listdir(self.root) if "sqlite" in name])
