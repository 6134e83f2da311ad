"""An index of an older version is changed to the current one; clients notice nothing."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from importlib import resources
from unittest import mock

from imapshield.errors import IndexTooNew, StoreIOError
from imapshield.maildir import index_schema
from imapshield.maildir.store import MaildirStore
from imapshield.testing.store_contract import BUDGET, WHOLE
from imapshield.wire import strings
from tests.maildir.disk import DiskTestCase

FOLDERS = {"INBOX": "", "Lists": ".Lists", "Lists/Café": ".Lists.Caf&AOk-", "Sent": ".Sent"}
UIDVALIDITIES = {
    "INBOX": 1_700_000_003,
    "Lists": 1_700_000_013,
    "Lists/Café": 1_700_000_014,
    "Sent": 1_700_000_015,
}
WORK = b"\\Seen $Work"
KEYWORDS = b"\\Seen " + b" ".join(b"k%02d" % i for i in range(30))
FLAGS = {
    "INBOX": {1: WORK, 2: WORK, 3: WORK},
    "Lists": {},
    "Lists/Café": {2: b"\\Flagged", 4: b"\\Flagged", 5: WORK, 6: WORK},
    "Sent": {1: KEYWORDS},
}


class MigrationTests(DiskTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.store.close()
        for name in os.listdir(self.root):
            if name.startswith("imapshield"):
                os.unlink(self.path(name))
        script = resources.files("tests.maildir").joinpath("index_version_1.sql")
        with closing(sqlite3.connect(self.path("imapshield.sqlite"))) as db:
            db.executescript(script.read_text("utf-8"))
            rows = db.execute(
                "SELECT mailbox.name, message.name, place FROM message JOIN mailbox ON mailbox = id"
            ).fetchall()
        for folder in FOLDERS.values():
            for directory in ("cur", "new", "tmp"):
                os.makedirs(self.path(folder, directory), exist_ok=True)
            with open(self.path(folder, "dovecot-keywords"), "wb") as file:
                words = [b"k%02d" % i for i in range(26)] if folder == ".Sent" else [b"$Work"]
                file.write(b"".join(b"%d %b\n" % pair for pair in enumerate(words)))
        for mailbox, name, place in rows:
            directory = ("cur", "new", "tmp")[place]
            with open(self.path(FOLDERS[mailbox], directory, name.decode()), "wb") as file:
                file.write(b"Subject: 0\r\n\r\n")

    def check(self, store: MaildirStore) -> None:
        for name, flags in FLAGS.items():
            opened = store.open(name, False)
            self.assertEqual(self.flags(name, store), flags)
            self.assertEqual(opened.uidvalidity, UIDVALIDITIES[name])
            uids = list(flags)
            fetched = store.fetch(opened.key, uids, [WHOLE], BUDGET)
            self.assertEqual(list(fetched.uids), uids)
            self.assertEqual(
                set(fetched.columns[0]), {strings.literal(b"Subject: 0\r\n\r\n")} if uids else set()
            )
        infos = {info.name: info.special_use for info in store.mailboxes()}
        self.assertEqual(infos["Sent"], (b"\\Sent",))
        self.assertEqual(store.metadata("Sent"), {b"/private/comment": b"mine"})
        self.assertEqual(store.metadata(""), {b"/private/comment": b"account"})
        usage = store.quota()
        metadata = 2 * len(b"/private/comment") + len(b"mine") + len(b"account")
        self.assertEqual((usage.messages, usage.octets), (8, 8 * 14 + metadata))

    def test_index_of_version_1_is_kept(self) -> None:
        """An index of version 1 keeps UIDVALIDITYs, UIDs, flags, metadata and staged messages."""
        for _ in range(2):
            store = self.open_store()
            self.check(store)
            store.close()
        self.assertEqual(self.warnings, [])
        self.assertEqual(self.tmp(".Lists.Caf&AOk-"), [])

    def test_numbers_that_version_1_may_have_lost_are_not_used(self) -> None:
        """Version 1 did not sync: UIDs and MODSEQs that clients may know continue after a gap, and VANISHED is complete."""
        self.store = self.open_store()
        status = self.store.status("Lists/Café")
        self.assertEqual((status.uidnext, status.highestmodseq), (1007, 1005))
        vanished = self.store.changes(self.store.mailbox_key("Lists/Café"), 2, False).vanished
        self.assertLessEqual({1, 3}, set(vanished))
        self.assertTrue({2, 4, 5, 6}.isdisjoint(vanished))
        self.assertEqual(self.append(name="Lists/Café"), 1007)

    def test_index_of_version_2_counts_each_message_once(self) -> None:
        """An index of version 2, whose triggers counted messages, is kept and counts new and expunged ones once."""
        with closing(sqlite3.connect(self.path("imapshield.sqlite"), isolation_level=None)) as db:
            index_schema._execute_all(db, index_schema._TO_VERSION_2)
            db.execute("PRAGMA user_version = 2")
        store = self.open_store()
        self.check(store)
        before = store.quota()
        uid = self.append(b"\\Deleted", content=b"12345", store=store)
        usage = store.quota()
        self.assertEqual(usage, before._replace(messages=9, octets=before.octets + 5))
        store.expunge(store.mailbox_key("INBOX"), [uid], 0)
        self.assertEqual(store.quota(), before)

    def test_migrated_index_has_the_current_schema(self) -> None:
        """A migrated index has the same tables, columns, indexes and triggers as a new one."""
        self.open_store().mailboxes()
        other = os.path.abspath(self.mktemp())
        self.open_store(other).mailboxes()
        self.assertEqual(self.schema(self.root), self.schema(other))

    def schema(self, root: str) -> dict[str, set[object]]:
        with closing(sqlite3.connect(os.path.join(root, "imapshield.sqlite"))) as db:
            statements = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index'")
            schema: dict[str, set[object]] = {
                f"index {name}": {(sql or "").replace("\n", "").strip()}
                for name, sql in statements.fetchall()
            }
            others = db.execute("SELECT type, name FROM sqlite_master WHERE type <> 'index'")
            for kind, name in others.fetchall():
                columns = db.execute(f"PRAGMA table_info({name})").fetchall()
                schema[f"{kind} {name}"] = {column[1:] for column in columns}
            version = db.execute("PRAGMA user_version").fetchone()
            return schema | {"version": set(version)}

    def test_interrupted_migration_is_repeated(self) -> None:
        """A migration that fails changes nothing; the next start repeats it."""
        script = index_schema._TO_VERSION_2
        with mock.patch.object(index_schema, "_TO_VERSION_2", script + "SELECT nonsense;"):
            self.assertRaises(StoreIOError, self.open_store().mailboxes)
        self.check(self.open_store())

    def test_index_of_a_newer_version_is_refused(self) -> None:
        """An index of a newer version, with other tables, is left alone; each attempt fails, and the log has one line."""
        with closing(sqlite3.connect(self.path("imapshield.sqlite"))) as db:
            db.execute("CREATE TABLE of_version_99 (x)")
            db.execute("PRAGMA user_version = 99")
        before = sorted(os.listdir(self.root))
        store = self.open_store()
        self.assertRaises(IndexTooNew, store.mailboxes)
        self.assertEqual(len(self.warnings), 1)
        self.assertIn("newer version", self.warnings[0])
        for _ in range(3):
            self.assertRaises(IndexTooNew, store.open, "INBOX", True)
        self.assertEqual(len(self.warnings), 1)
        names = [name for name in os.listdir(self.root) if not name.endswith(("-wal", "-shm"))]
        self.assertEqual(sorted(names), before)
