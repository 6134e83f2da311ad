"""Symbolic links of the owner of a Maildir lead the server to nothing that lies outside the Maildir."""

from __future__ import annotations

import os
import shutil
from unittest import mock

from imapshield.errors import StoreError
from imapshield.maildir import text_search
from imapshield.maildir.index_files import IndexFiles
from tests.maildir.hostile_owner import IS_ROOT, HostileOwnerTestCase


class SymbolicLinkTests(HostileOwnerTestCase):
    def check(self, target: str, *parts: str, works: str = "INBOX") -> None:
        self.plant(target, *parts)
        self.check_outside(parts, works)

    def test_directories(self) -> None:
        """Nothing is read, written, created or removed through a link in place of a folder, or of a part of it.

        The other mailboxes can be used.
        """
        for name in ("cur", "new", "tmp", ""):
            self.check("A/" + name if name else "A", ".A", name) if name else self.check("A", ".A")
            self.restart()

    def test_directories_of_inbox(self) -> None:
        """Nothing is reached through links in place of the directories of INBOX."""
        for name in ("cur", "new", "tmp"):
            self.check("A/" + name, name, works="")
            self.restart()

    def restart(self) -> None:
        """Begin again with a Maildir without links."""
        self.store.close()
        shutil.rmtree(self.root)
        os.mkdir(self.root)
        self.give(self.root)
        self.store = self.open_store()
        self.store.create("A", [])
        self.append(name="A")
        self.append()

    def test_messages(self) -> None:
        """A link in place of a message is not read, copied or moved with what it points to."""
        for folder in ("", ".A"):
            self.plant("secret", folder, "cur", self.cur(folder)[0])
            self.plant("secret", folder, "new", "1700000009.z")
            self.plant("A/cur/1700000000.x:2,S", folder, "cur", "1700000010.z:2,")
            self.plant("missing", folder, "tmp", "1700000011.z")
        self.check_outside("messages")

    def test_files_of_a_folder(self) -> None:
        """No file of a folder is read or written through a link; a link to nothing creates nothing."""
        names = (
            "subscriptions", "dovecot-keywords", "dovecot-uidlist", "courierimapuiddb", "maildirfolder",
            "imapshield.imported", "imapshield-uidvalidity", "imapshield.epoch-999999",
        )  # fmt: skip
        for target in ("secret", "missing"):
            for name in names:
                for folder in ("", ".A"):
                    if os.path.isdir(self.path(folder)):
                        self.plant(target, folder, name)
            self.check_outside(target)
            self.restart()

    def test_new_folder(self) -> None:
        """CREATE and RENAME do not use a link in place of the new folder."""
        for name in (".B", ".C", ".D"):
            self.plant("A", name)
        self.check_outside("new folders")
        for name in (".B", ".C", ".D"):
            self.plant("missing", name)
        self.check_outside("new folders")

    def test_index(self) -> None:
        """The index is not opened through a link."""
        for target in ("other/imapshield.sqlite", "secret", "missing"):
            self.store.close()
            self.plant(target, "imapshield.sqlite")
            self.store = self.open_store()
            self.check_outside(target, works="")

    def test_log_of_the_index(self) -> None:
        """SQLite opens its log with the rights of the owner, who cannot reach the files outside."""
        if not IS_ROOT:  # then the owner of the Maildir could write these files himself
            return
        for suffix in ("-wal", "-shm", "-journal"):
            for target in ("secret", "missing"):
                self.store.close()
                self.plant(target, "imapshield.sqlite" + suffix)
                self.store = self.open_store()
                self.check_outside(suffix, works="")
                os.unlink(self.path("imapshield.sqlite" + suffix))

    def test_text_index(self) -> None:
        """Neither the text index nor another file of SQLite is opened, written or removed through a link."""
        self.patch(text_search, "GROUP", 1)
        links = [("", "other/imapshield.search"), ("", "secret"), ("", "missing")]
        if IS_ROOT:  # otherwise the owner of the Maildir could write these files himself
            links += [("-wal", "secret"), ("-shm", "missing"), ("-journal", "secret")]
        for suffix, target in links:
            path = self.path("imapshield.search" + suffix)
            self.store.close()
            self.plant(target, "imapshield.search" + suffix)
            self.store = self.open_store()
            self.check_outside(suffix)
            if os.path.lexists(path):
                os.unlink(path)

    def test_text_index_is_no_file(self) -> None:
        """A FIFO or a directory in place of a file of the text index does not block a thread, and is not used."""
        self.patch(text_search, "GROUP", 1)
        for suffix, make in (("", os.mkfifo), ("", os.mkdir), ("-wal", os.mkfifo)):
            path = self.path("imapshield.search" + suffix)
            self.store.close()
            if os.path.lexists(path):
                os.unlink(path)
            make(path)
            self.store = self.open_store()
            self.check_outside(suffix)
            if os.path.lexists(path):
                (os.rmdir if os.path.isdir(path) else os.unlink)(path)

    def test_index_that_becomes_a_link_while_it_is_opened(self) -> None:
        """SQLite opens the index with the rights of the owner, so a link that was made at the last moment is no use."""
        if not IS_ROOT:  # then the owner of the Maildir could write these files himself
            return
        real = IndexFiles.last_epoch

        def plant_and_continue(index_files: IndexFiles) -> int:
            self.plant("other/imapshield.sqlite", "imapshield.sqlite")
            return real(index_files)

        self.store.close()
        self.store = self.open_store()
        with mock.patch.object(IndexFiles, "last_epoch", plant_and_continue):
            self.assertRaises(StoreError, self.store.mailboxes)
            self.check_outside("index", works="")

    def test_maildir_itself(self) -> None:
        """The Maildir is not opened through a link that its owner has made."""
        if not IS_ROOT:
            return
        self.store.close()
        os.rename(self.root, self.root + ".old")
        self.plant("A")
        self.store = self.open_store()
        self.assertRaises(StoreError, self.store.mailboxes)
        self.check_outside("Maildir", works="")

    def path(self, *parts: str) -> str:
        return super().path(*parts).rstrip("/")

    def test_temporary_names_cannot_be_guessed(self) -> None:
        """Files that are replaced are written under random names, which are created and not opened."""
        flags: list[tuple[str, int]] = []
        real = os.open

        def record(name: bytes, mode: int, *args: int, **kwargs: int) -> int:
            if mode & os.O_WRONLY:
                flags.append((os.fsdecode(name), mode))
            return real(name, mode, *args, **kwargs)

        with mock.patch.object(os, "open", record):
            for i in range(5):
                self.store.set_subscribed("B", not i % 2)
        self.assertEqual(len({name for name, _ in flags}), 5)
        for name, mode in flags:
            self.assertRegex(name, r"\Asubscriptions\.[0-9a-f]{16}\.tmp\Z")
            self.assertTrue(mode & os.O_EXCL and mode & os.O_NOFOLLOW)
