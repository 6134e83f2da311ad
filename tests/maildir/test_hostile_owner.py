"""The owner of a Maildir reaches nothing through the server that lies outside the Maildir, and harms only himself."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from unittest import mock

from imapshield.errors import StoreError
from imapshield.mailbox.values import NewMessage
from imapshield.maildir import files
from imapshield.maildir.index_files import IndexFiles
from imapshield.testing.store_contract import BUDGET, DELETED, MAIL, SEEN, WHOLE
from imapshield.wire.commands.base import MemoryLiteral
from imapshield.wire.commands.search import TextKey
from tests.maildir.disk import DiskTestCase, crashed_copy

SECRET = b"Subject: secret\r\n\r\nthe password is tangerine\r\n"
OWNER = 12345
IS_ROOT = os.geteuid() == 0
MESSAGE = NewMessage((SEEN, b"$Work"), None, MemoryLiteral(MAIL))


class HostileTestCase(DiskTestCase):
    """A Maildir of another user, if the tests run as root, and files of the server outside it."""

    def setUp(self) -> None:
        super().setUp()
        self.store.close()
        # SQLite opens the index with the rights of the owner, who must be able to reach it.
        base = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, base)
        os.chmod(base, 0o711)  # noqa: S103
        self.root = os.path.join(base, "mail")
        self.outside = os.path.join(base, "outside")
        for name in ("A", "other"):
            for directory in ("cur", "new", "tmp"):
                os.makedirs(os.path.join(self.outside, name, directory))
        for name in ("A/cur/1700000000.x:2,S", "A/new/1700000001.x", "A/tmp/1.y", "secret"):
            with open(os.path.join(self.outside, name), "wb") as file:
                file.write(SECRET)
            os.utime(os.path.join(self.outside, name), (1, 1))
        other = self.open_store(os.path.join(self.outside, "other"))
        other.append("INBOX", [NewMessage((), None, MemoryLiteral(SECRET))])
        other.close()
        os.chmod(self.outside, 0o700)
        os.mkdir(self.root)
        self.give(self.root)
        self.store = self.open_store()
        self.store.create("A", [])
        for name in ("INBOX", "A"):
            self.append(SEEN, name=name)
        self.store.set_subscribed("A", True)
        self.before = self.look_outside()

    def give(self, path: str) -> None:
        if IS_ROOT:
            os.chown(path, OWNER, OWNER, follow_symlinks=False)

    def look_outside(self) -> dict[str, object]:
        """Return all that can be seen of the files outside."""
        found: dict[str, object] = {}
        for folder, directories, names in os.walk(self.outside):
            for name in [*directories, *names, "."]:
                path = os.path.join(folder, name)
                status = os.lstat(path)
                content = b""
                if os.path.isfile(path):
                    with open(path, "rb") as file:
                        content = file.read()
                found[path] = (*status[:7], status.st_mtime_ns, status.st_ctime_ns, content)
        return found

    def plant(self, target: str, *parts: str) -> None:
        """Put a symbolic link to `target`, outside, in the place of a file or directory."""
        path = self.path(*parts)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.unlink(path)
        os.symlink(os.path.join(self.outside, target), path)
        self.give(path)

    def use_everything(self, rounds: int = 2) -> bytes:
        """Use all operations, whether they succeed or not; return what clients were sent."""
        sent: list[object] = []

        def attempt(call: Callable[[], object]) -> None:
            with contextlib.suppress(StoreError):
                sent.append(call())

        for _ in range(rounds):
            for name in ("INBOX", "A", "B"):
                for command in (
                    self.store.status, self.read_all, self.append_one, self.append_two, self.change,
                    self.read_all,
                ):  # fmt: skip
                    attempt(partial(command, name))
            for call in self.folder_commands():
                attempt(call)
            self.store.close()
            self.clock.offset += 2 * files.STALE_SECONDS
            self.store = self.open_store()
        return repr(sent).encode()

    def folder_commands(self) -> Sequence[Callable[[], object]]:
        store = self.store
        return (
            store.mailboxes,
            partial(store.create, "B", []),
            partial(store.rename, "B", "C"),
            partial(store.set_subscribed, "B", True),
            store.subscriptions,
            partial(store.set_subscribed, "A", False),
            partial(store.set_metadata, "A", {b"/private/comment": b"x"}),
            partial(store.rename, "A", "D"),
            partial(store.delete, "D"),
            partial(store.delete, "C"),
            partial(store.delete, "A"),
        )

    def append_one(self, name: str) -> object:
        return self.store.append(name, [MESSAGE])

    def append_two(self, name: str) -> object:
        return self.store.append(name, [MESSAGE] * 2)

    def read_all(self, name: str) -> object:
        key = self.store.mailbox_key(name)
        uids = [row.uid for row in self.store.open(name, True).delta.rows]
        return (
            self.store.fetch(key, uids, [WHOLE], BUDGET),
            self.store.search(key, uids, TextKey("tangerine")),
            self.store.sizes(key, uids),
        )

    def change(self, name: str) -> object:
        key = self.store.mailbox_key(name)
        uids = [row.uid for row in self.store.open(name, False).delta.rows]
        store = self.store
        return (
            store.store_flags(key, uids, b"+", [b"$New", b"\\Flagged"], None, 0),
            store.copy(key, uids[:2], "INBOX", False, 0),
            store.copy(key, uids[:1], "INBOX", True, 0),
            store.store_flags(key, uids, b"+", [DELETED], None, 0),
            store.expunge(key, None, 0),
        )

    def check_outside(self, place: object, works: str = "INBOX") -> None:
        """Use all operations: nothing outside is seen or changed.

        Afterwards the mailbox `works` can be used; it is "" if the owner has made the whole account unusable.
        """
        sent = self.use_everything()
        if works:
            uid = self.append(SEEN, name=works)
            self.assertEqual(self.flags(works)[uid], SEEN)
        self.assertNotIn(b"tangerine", sent, place)
        self.assertEqual(self.look_outside(), self.before, place)
        for warning in self.warnings:
            self.assertNotIn("Traceback", warning)


class SymbolicLinkTests(HostileTestCase):
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


class CraftedIndexTests(HostileTestCase):
    """The owner writes into the index."""

    def execute(self, *statements: tuple[str, tuple[object, ...]]) -> None:
        self.store.close()
        with closing(sqlite3.connect(self.path("imapshield.sqlite"))) as db, db:
            for sql, parameters in statements:
                db.execute(sql, parameters)
        self.store = self.open_store()

    def test_file_names_in_the_index(self) -> None:
        """File names with slashes, "..", NUL or too many bytes reach no other file, and the mailbox works."""
        outside = os.path.relpath(os.path.join(self.outside, "secret"), self.path("cur"))
        names = [
            os.fsencode(outside), os.fsencode(os.path.join(self.outside, "secret")), b"..", b".", b"",
            b"../new/x", b"a\0b", b"x" * 5000, b"/", b"../../.A/cur/x",
        ]  # fmt: skip
        for place in (0, 1, 2):
            rows = [
                (
                    (
                        "INSERT INTO message SELECT id, ?, ?, ?, x'', 2, 45, 45, 1, 1, x'4d' FROM mailbox"
                        " WHERE name = 'INBOX'"
                    ),
                    (100 + 20 * place + i, name, place),
                )
                for i, name in enumerate(names)
            ]
            self.execute(
                *rows,
                (
                    "UPDATE mailbox SET uidnext = ?, synced_modseq = 0, hot = 4, highestmodseq = 9",
                    (200 + 10 * place,),
                ),
            )
            self.read_all("INBOX")
            uid = self.append()
            self.assertIn(uid, self.flags())
            self.store.store_flags(self.store.mailbox_key("INBOX"), [uid], b"+", [SEEN], None, 0)
            self.assertEqual(self.flags()[uid], SEEN)
            self.execute(("UPDATE mailbox SET synced_modseq = 0", ()))
            self.assertEqual(self.flags()[uid], SEEN)
        self.check_outside("names")

    def test_removed_names_in_the_index(self) -> None:
        """Names of removed files in the index reach no other file."""
        outside = os.fsencode(
            os.path.relpath(os.path.join(self.outside, "secret"), self.path("cur"))
        )
        self.execute(
            (
                "INSERT INTO removed SELECT id, 5, 1 << 62, ?, 0 FROM mailbox",
                (outside + b"/../..//a\0b",),
            ),
            ("UPDATE mailbox SET synced_modseq = 0, highestmodseq = 9", ()),
        )
        self.append()
        self.check_outside("removed")

    def test_mailbox_names_in_the_index(self) -> None:
        """Mailbox names that lead outside, or are no names, are ignored; the other mailboxes work."""
        names = (
            "../outside/A",
            "",
            "..",
            ".",
            "/",
            "a//b",
            "x\0y",
            "x" * 5000,
            "inbox",
            "\ud7ff",
            "A/../../outside",
        )
        rows = [
            (
                (
                    "INSERT INTO mailbox (name, uidvalidity, mailbox_id, special_use, hot, highestmodseq)"
                    " VALUES (?, 1, x'46', x'5c53656e74', 4, 9)"
                ),
                (name,),
            )
            for name in names
        ]
        self.execute(*rows)
        self.assertEqual([info.name for info in self.store.mailboxes()], ["A", "INBOX"])
        self.append()
        self.assertEqual(len(self.flags()), 2)
        for name in names:
            if name != "inbox":
                self.assertRaises(StoreError, self.store.open, name, True)
                self.assertRaises(StoreError, self.store.append, name, [MESSAGE])
                self.assertRaises(StoreError, self.store.delete, name)
        self.check_outside("mailboxes")

    def test_mailbox_without_uids_is_renewed(self) -> None:
        """A mailbox whose UIDs are used up is renewed when it is opened, and can be used again."""
        before = self.store.status("INBOX")
        for uidnext in (2**32 - 1, 2**32 - 1000, 2**32, 2**40, 2**62):
            self.execute(("UPDATE mailbox SET uidnext = ? WHERE name = 'INBOX'", (uidnext,)))
            opened = self.store.open("INBOX", True)
            self.assertGreater(opened.uidvalidity, before.uidvalidity)
            self.assertEqual(len(opened.delta.rows), 1)
            uid = self.append()
            self.assertLess(uid, 100)
            self.store.store_flags(opened.key, [uid], b"+", [DELETED], None, 0)
            self.store.expunge(opened.key, None, 0)
            self.assertEqual(len(self.warnings), 1)
            del self.warnings[:]

    def test_values_of_wrong_types(self) -> None:
        """Values of wrong types or sizes make commands of this account fail, and nothing else."""
        columns = {
            "mailbox": (
                "name", "uidvalidity", "uidnext", "highestmodseq", "recentuid", "mailbox_id", "special_use",
                "keywords", "floor", "logged", "cur_mtime", "hot", "scanned", "synced_modseq", "changed_at",
                "cur_files",
            ),
            "message": (
                "uid", "name", "place", "flags", "modseq", "size", "physical", "internaldate", "saved",
                "email_id",
            ),
            "account": ("uidvalidity", "octets", "messages", "inode", "epoch"),
        }  # fmt: skip
        self.store.close()
        original = self.root
        errors: set[type[Exception]] = set()
        for table, names in columns.items():
            for column in names:
                for value in ("text", b"\xff\x00", 2**63 - 1):
                    self.root = original + ".copy"
                    crashed_copy(original, self.root)
                    try:
                        self.execute((f"UPDATE {table} SET {column} = ?", (value,)))  # noqa: S608
                    except sqlite3.IntegrityError:  # two mailboxes cannot have one name
                        pass
                    else:
                        try:
                            self.use_everything(rounds=1)
                        except Exception as error:
                            errors.add(type(error))
                    self.store.close()
                    shutil.rmtree(self.root)
        self.root = original
        self.assertEqual(errors, set())
        self.assertEqual(self.look_outside(), self.before)

    def test_index_with_other_triggers_or_views_is_set_aside(self) -> None:
        """An index with a trigger or a view of its owner is moved away, and a new one is built."""
        path = os.path.join(self.outside, "created")
        for number, statement in enumerate(
            (
                (
                    "CREATE TRIGGER evil AFTER INSERT ON message BEGIN"
                    f" SELECT writefile('{path}', 'x'), load_extension('{path}'), edit('{path}'); END"
                ),
                f"CREATE VIEW evil AS SELECT 1 AS mailbox, readfile('{path}') AS value",
            ),
            1,
        ):
            self.execute((statement, ()))
            self.check_outside(statement, works="")
            broken = [name for name in os.listdir(self.root) if name.endswith(tuple("0123456789"))]
            self.assertEqual(len([name for name in broken if ".broken-" in name]), number)
            self.clock.offset += 1
