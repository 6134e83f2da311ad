"""After a power failure, every message is there once, with the UID, flags and MODSEQ that clients were told."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack

from imapshield.mailbox.values import NewMessage
from imapshield.maildir import directory_state
from imapshield.maildir.store import MaildirStore
from imapshield.testing.store_contract import BUDGET, DELETED, FLAGGED, MAIL, SEEN, WHOLE
from imapshield.wire.commands.base import MemoryLiteral
from tests.maildir.disk import MAIL_LITERAL, DiskTestCase, failing
from tests.maildir.power_failure import RecordedDisk, Step

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
            if os.path.basename(folder) in ("new", "tmp") and "/tmp/" not in folder[len(self.root) :]
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
