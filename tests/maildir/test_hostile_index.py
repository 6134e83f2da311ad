"""What the owner of a Maildir writes into the index leads to nothing outside the Maildir, and harms only himself."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing

from imapshield.errors import StoreError
from imapshield.testing.store_contract import DELETED, SEEN
from tests.maildir.disk import crashed_copy
from tests.maildir.hostile_owner import MESSAGE, HostileOwnerTestCase


class CraftedIndexTests(HostileOwnerTestCase):
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
