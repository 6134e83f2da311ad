"""A test case with a Maildir whose owner is hostile, and with files outside it that he must neither see nor change."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import partial

from imapshield.errors import StoreError
from imapshield.mailbox.values import NewMessage
from imapshield.maildir import files
from imapshield.testing.store_contract import BUDGET, DELETED, MAIL, SEEN, WHOLE
from imapshield.wire.commands.base import MemoryLiteral
from imapshield.wire.commands.search import TextKey
from tests.maildir.disk import DiskTestCase

SECRET = b"Subject: secret\r\n\r\nthe password is tangerine\r\n"
OWNER = 12345
IS_ROOT = os.geteuid() == 0
MESSAGE = NewMessage((SEEN, b"$Work"), None, MemoryLiteral(MAIL))


class HostileOwnerTestCase(DiskTestCase):
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
        other.append("INBOX", [NewMessage((), None, MemoryLiteral(SECRET))] * 9)
        other.index_text(other.mailbox_key("INBOX"))
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
            self.store.index_text(key),
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
