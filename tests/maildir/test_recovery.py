"""After a power failure, every message is there once, with the UID, flags and MODSEQ that clients were told."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

from imapshield.errors import StoreIOError
from imapshield.mailbox.values import NewMessage
from imapshield.maildir import directory_state
from imapshield.maildir.files import UndoSteps
from imapshield.maildir.index_database import IndexDatabase
from imapshield.maildir.store import MaildirStore
from imapshield.testing.store_contract import BUDGET, DELETED, FLAGGED, MAIL, SEEN, WHOLE
from imapshield.wire.commands.base import MemoryLiteral
from tests.maildir.disk import MAIL_LITERAL, DiskTestCase, counting_calls, failing, path_of
from tests.maildir.power_failure import RecordedDisk, Step

FULL = 2  # PRAGMA synchronous
DISK_ERROR = OSError(5, "Input/output error", b"x")
MESSAGE = NewMessage((SEEN, b"$Work"), 10**9, MemoryLiteral(MAIL))


class PowerFailureTestCase(DiskTestCase):
    """INBOX with three messages, and an empty mailbox A, on a disk that records all steps."""

    def setUp(self) -> None:
        super().setUp()
        self.store.create("A", [])
        for _ in range(3):
            self.append(SEEN, b"$Work")
        self.append(b"$Work", DELETED, name="A")
        self.store.expunge(self.store.mailbox_key("A"), None, 0)
        self.key = self.store.open("INBOX", True).key
        self.store.open("A", True)
        self.disk = RecordedDisk(self.root)
        self.exits = ExitStack()
        self.addCleanup(self.exits.close)
        self.exits.enter_context(self.disk.recording())
        self.exits.enter_context(self.disk.with_old_ctimes())

    def state(self, store: MaildirStore) -> dict[str, object]:
        """Return what clients see, after checking that every message is complete."""
        state: dict[str, object] = {"subscriptions": store.subscriptions()}
        for info in store.mailboxes():
            opened = store.open(info.name, False)
            rows = opened.delta.rows
            fetched = store.fetch(opened.key, [row.uid for row in rows], [WHOLE], BUDGET)
            self.assertEqual(len(fetched.uids), len(rows))
            self.assertEqual(fetched.columns[0], [MAIL_LITERAL] * len(rows))
            status = store.status(info.name)
            state[info.name] = (
                info, rows, status.uidvalidity, status.uidnext, status.highestmodseq,
                store.metadata(info.name),
            )  # fmt: skip
        return state

    def power_failure(
        self, is_lost: Callable[[Step], bool] = lambda _: True, keep_index: bool = False
    ) -> MaildirStore:
        """Return a new store on the disk as it is after a power failure."""
        self.root = os.path.abspath(self.mktemp())
        self.disk.fail(self.root, is_lost, keep_index)
        self.let_mtimes_age()
        return self.open_store()

    def leftovers(self) -> list[str]:
        """Return the files in the new/ and tmp/ of all folders, apart from the contents of deleted folders."""
        return [
            os.path.join(folder, name)
            for folder, _, names in os.walk(self.root)
            for name in names
            if os.path.basename(folder) in ("new", "tmp")
            and "/tmp/" not in folder[len(self.root) :]
        ]


class PowerFailureTests(PowerFailureTestCase):
    def check(self, name: str, operation: Callable[[], object]) -> None:
        """Check that nothing of an operation is lost, whatever the directories have lost."""
        operation()
        expected = self.state(self.store)
        root = self.root
        for keep_index in (True, False):
            for lost in (
                lambda step: True,
                lambda step: False,
                lambda step: step.call == "rename",
                lambda step: step.call == "unlink",
            ):
                store = self.power_failure(lost, keep_index)
                for _ in range(2):
                    self.assertEqual(self.state(store), expected, name)
                    store.close()
                    self.let_mtimes_age()
                    store = self.open_store()
                self.assertEqual(self.leftovers(), [], name)
                self.root = root
        self.assertEqual(self.warnings, [], name)

    def test_nothing_that_a_client_was_told_is_lost(self) -> None:
        """Every operation that has returned is complete after a power failure, and no file is left over."""
        store, key = self.store, self.key
        for name, operation in (
            ("append", lambda: store.append("A", [MESSAGE])),
            ("multiappend", lambda: store.append("A", [MESSAGE] * 3)),
            ("copy one", lambda: store.copy(key, [1], "A", False, 0)),
            ("copy", lambda: store.copy(key, [1, 2, 3], "A", False, 0)),
            ("store", lambda: store.store_flags(key, [1, 3], b"+", [FLAGGED], None, 0)),
            ("store again", lambda: store.store_flags(key, [1, 2], b"", [DELETED], None, 0)),
            ("move", lambda: store.copy(key, [3], "A", True, 0)),
            ("expunge", lambda: store.expunge(key, None, 0)),
            ("replace", lambda: store.replace(store.mailbox_key("A"), 2, "INBOX", MESSAGE, 0)),
            ("create", lambda: store.create("B/c", [b"\\Sent"])),
            ("append to a new mailbox", lambda: store.append("B/c", [MESSAGE])),
            ("rename", lambda: store.rename("B", "C")),
            ("append to a renamed mailbox", lambda: store.append("C/c", [MESSAGE])),
            ("subscribe", lambda: store.set_subscribed("C/c", True)),
            ("unsubscribe", lambda: store.set_subscribed("C/c", False)),
            ("metadata", lambda: store.set_metadata("A", {b"/private/comment": b"x"})),
            ("delete", lambda: store.delete("C/c")),
            ("rename INBOX", lambda: store.rename("INBOX", "Old")),
        ):  # fmt: skip
            self.check(name, operation)

    def test_later_rename_by_another_program_wins(self) -> None:
        """Flags that another program has set after imapshield, and a file that it has moved, are kept."""
        self.store.store_flags(self.key, [1, 2, 3], b"+", [FLAGGED], None, 0)
        self.append(FLAGGED)
        store = self.power_failure()
        self.let_clock_tick()
        first, second, third = self.cur()
        self.assertEqual([name.partition(":")[2] for name in (first, second, third)], ["2,Sa"] * 3)
        os.rename(self.path("cur", first), self.path("cur", first + "T"))
        os.rename(self.path("cur", second), self.path("new", second.partition(":")[0]))
        flags = self.flags(store=store)
        self.assertEqual(flags[1], b"\\Deleted \\Seen $Work")
        self.assertEqual(flags[2], b"")
        self.assertEqual(flags[3], b"\\Flagged \\Seen $Work")
        self.assertEqual(flags[4], FLAGGED)

    def test_mail_that_another_program_moved_to_cur_keeps_its_flags(self) -> None:
        """A message in new/ that another program has moved to cur/ with flags keeps them when the server starts."""
        name = self.deliver()
        self.store.status("INBOX")
        os.rename(self.path("new", name), self.path("cur", name + ":2,S"))
        self.append()
        self.store.close()
        self.assertEqual(self.flags(store=self.open_store())[4], SEEN)

    def test_restored_file_is_not_removed(self) -> None:
        """A file that was restored after its message was expunged is a new message, also after the next start."""
        content = {}
        for name in self.cur():
            with open(self.path("cur", name), "rb") as file:
                content[name] = file.read()
        self.store.store_flags(self.key, [1, 2, 3], b"+", [DELETED], None, 0)
        self.store.expunge(self.key, None, 0)
        self.let_clock_tick()
        for name, octets in content.items():
            with open(self.path("cur", name), "wb") as file:
                file.write(octets)
        self.append()
        self.store.close()
        self.assertEqual(sorted(self.flags(store=self.open_store())), [4, 5, 6, 7])

    def test_directories_are_synced_once(self) -> None:
        """The process that opens an account syncs the directories of changed mailboxes; the next one has none to sync."""
        self.append()
        self.append(name="A")
        for expected in (["/.A/cur", "/.A/new", "/cur", "/new"], []):
            self.store.close()
            self.store = self.open_store()
            with counting_calls("fsync") as calls:
                self.store.mailboxes()
            synced = [path[len(self.root) :] for path in calls]
            self.assertEqual(
                sorted(path for path in synced if path[-3:] in ("cur", "new")), expected
            )

    def test_unsynced_changes_are_limited(self) -> None:
        """The directories are synced after a number of changes, so a start looks at few files."""
        self.patch(directory_state, "MAX_UNSYNCED", 10)
        with counting_calls("fsync") as calls:
            for i in range(40):
                flags = [FLAGGED] if i % 2 else []
                self.store.store_flags(self.key, [1], b"", flags, None, 0)
        synced = [path for path in calls if path.endswith(("/cur", "/new"))]
        # HIGHESTMODSEQ is 4 before the first change and 43 before the last one, and nothing was synced before. Both
        # directories are synced at 11, 22 and 33, which are more than 10 after the last sync.
        self.assertEqual(len(synced), 6)
        self.store.store_flags(self.key, [1, 2], b"", [SEEN], None, 0)
        expected = self.state(self.store)
        self.assertEqual(self.state(self.power_failure()), expected)

    def test_staged_messages_that_are_published_late_are_not_lost(self) -> None:
        """Staged messages that could be published only after a restart survive a power failure after that."""
        with failing("rename", DISK_ERROR):
            self.store.copy(self.key, [1, 2, 3], "A", False, 0)
        self.store.close()
        with failing("rename", DISK_ERROR):
            self.store.mailboxes()
        self.assertEqual(len(self.tmp(".A")), 3)
        self.append(name="A")
        self.assertEqual(self.tmp(".A"), [])
        expected = self.state(self.store)
        self.assertEqual(self.state(self.power_failure()), expected)

    def test_power_failure_in_recovery_is_harmless(self) -> None:
        """A power failure at any step of the recovery is recovered by the next start."""
        self.store.append("A", [MESSAGE] * 2)
        self.store.store_flags(self.key, [1], b"+", [FLAGGED, DELETED], None, 0)
        self.store.store_flags(self.key, [2], b"+", [FLAGGED], None, 0)
        self.store.expunge(self.key, [1], 0)
        expected = self.state(self.store)
        store = self.power_failure()
        disk = RecordedDisk(self.root)
        copies: list[str] = []

        def fail() -> None:
            for is_lost in (lambda _: True, lambda _: False):
                copies.append(os.path.abspath(self.mktemp()))
                disk.fail(copies[-1], is_lost)

        disk.before_step = fail
        with disk.recording():
            store.mailboxes()
        self.assertGreater(len(copies), 8)
        with disk.with_old_ctimes():
            for copy in copies:
                self.assertEqual(self.state(self.open_store(copy)), expected)

    def test_failing_recovery_expunges_nothing(self) -> None:
        """If files cannot be renamed again, or directories not be synced, no message is regarded as expunged."""
        self.store.append("A", [MESSAGE])
        self.store.store_flags(self.key, [1, 2], b"+", [FLAGGED], None, 0)
        expected = self.state(self.store)
        store = self.power_failure()
        for name in ("rename", "fsync", "listdir", "rename"):
            with failing(name, DISK_ERROR):
                self.assertRaises(StoreIOError, store.open, "INBOX", True)
        self.assertEqual(self.state(store), expected)


class DurableCommitTests(PowerFailureTestCase):
    """What is on stable storage when a commit that a client learns of is made."""

    def events(self, operation: Callable[[], object]) -> list[str]:
        """Return the syncs and commits of an operation, in order."""
        events: list[str] = []
        real, fsync = IndexDatabase.write, os.fsync

        @contextmanager
        def write(
            index: IndexDatabase, durable: bool = True, undo: UndoSteps | None = None
        ) -> Iterator[sqlite3.Connection]:
            with real(index, durable, undo) as db:
                yield db
                (synchronous,) = db.execute("PRAGMA synchronous").fetchone()
                events.append(f"commit {'' if synchronous >= FULL else 'not '}synced")

        def record(fd: int) -> None:
            path = os.path.relpath(path_of(fd), self.root)
            events.append(f"sync {path if os.path.isdir(path_of(fd)) else 'file'}")
            fsync(fd)

        with (
            mock.patch.object(os, "fsync", record),
            mock.patch.object(IndexDatabase, "write", write),
        ):
            operation()
        return events

    def test_append_and_copy_do_not_sync_cur(self) -> None:
        """APPEND syncs the files, and COPY tmp/; then they commit. They do not wait for cur/."""
        for operation in (
            lambda: self.store.append("A", [MESSAGE]),
            lambda: self.store.append("A", [MESSAGE] * 2),
        ):
            events = self.events(operation)
            committed = events.index("commit synced")
            self.assertIn("sync file", events[:committed])
            self.assertNotIn("sync .A/cur", events)
        events = self.events(lambda: self.store.copy(self.key, [1, 2], "A", False, 0))
        self.assertEqual(events[:2], ["sync .A/tmp", "commit synced"])

    def test_move_syncs_both_directories_between_two_commits(self) -> None:
        """MOVE announces what it does in one commit, syncs the directories of both mailboxes, and commits again."""
        events = self.events(lambda: self.store.copy(self.key, [1, 2], "A", True, 0))
        self.assertEqual((events[0], events[-1]), ("commit synced", "commit synced"))
        self.assertLessEqual({"sync .A/cur", "sync cur", "sync new"}, set(events[1:-1]))

    def test_all_commits_that_clients_learn_of_are_synced(self) -> None:
        """The first commit of STORE, EXPUNGE, REPLACE and the commands on mailboxes waits for the disk."""
        store, key = self.store, self.key
        for operation in (
            lambda: store.store_flags(key, [1], b"+", [DELETED], None, 0),
            lambda: store.expunge(key, None, 0),
            lambda: store.replace(key, 2, "A", MESSAGE, 0),
            lambda: store.create("B", []),
            lambda: store.rename("B", "C"),
            lambda: store.delete("C"),
            lambda: store.set_subscribed("A", True),
            lambda: store.set_metadata("A", {b"/private/comment": b"x"}),
            lambda: (self.deliver(), store.open("INBOX", True)),
        ):
            commits = [event for event in self.events(operation) if event.startswith("commit")]
            self.assertEqual(commits[0], "commit synced")


class FoundFolderTests(DiskTestCase):
    def test_folders_without_changes_by_imapshield_are_not_recovered(self) -> None:
        """The next opening syncs no folder that was only found, listed or created, however many there are."""
        for i in range(20):
            for name in ("cur", "new", "tmp"):
                os.makedirs(self.path(f".F{i:02d}", name))
            self.deliver(folder=f".F{i:02d}", directory="cur")
        self.store.create("Created", [])
        for info in self.store.mailboxes():
            self.store.status(info.name)
        self.append(name="F07")
        self.store.close()
        with counting_calls("fsync") as calls:
            self.open_store().mailboxes()
        folders = [os.path.relpath(path, self.root) for path in calls if path.endswith("/cur")]
        self.assertEqual(folders, [".F07/cur"])
