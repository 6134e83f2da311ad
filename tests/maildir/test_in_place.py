"""Calls of the Maildir store in the reactor's thread do not wait, write or read much, and otherwise give the same results."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeVar

from twisted.trial.unittest import SkipTest

from imapshield.mailbox.in_place import (
    OCTETS_IN_PLACE,
    WouldBlock,
    call_in_place,
    is_in_place,
    is_late,
    may_block,
)
from imapshield.maildir import files, index_database, local_disk, sqlite_file
from imapshield.maildir.index_files import INDEX_FILE
from imapshield.maildir.store import MaildirStore
from imapshield.message.pauses import call_with_pauses, pause_point
from imapshield.wire.commands.fetch import Attribute, BodySection, Section
from tests.maildir import test_store
from tests.maildir.disk import DiskTestCase

T = TypeVar("T")

WRITING = ("fsync", "rename", "link", "unlink", "mkdir", "rmdir", "write", "utime")
LISTING = ("listdir", "scandir")
BODY = BodySection(Section())


def in_place(function: Callable[..., T], *args: object) -> T:
    return call_in_place(lambda: function(*args), lambda: None)


class Guard:
    """Notes the system calls in place that change something, or read a directory that `may_list` has not looked at.

    Attributes:
        forbidden: the names of these calls.
    """

    def __init__(self, patch: Callable[..., Any]) -> None:
        self.forbidden: list[str] = []
        self._may_be_listed: list[object] = []
        for name in (*WRITING, *LISTING):
            patch(os, name, self._guarded(getattr(os, name), name))
        patch(files, "may_list", self._may_list)

    def _may_list(self, directory: int) -> None:
        local_disk.may_list(directory)
        self._may_be_listed = [directory]

    def _guarded(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def guarded(*args: Any, **options: Any) -> Any:
            may_list, self._may_be_listed = self._may_be_listed, []
            if is_in_place() and not (name in LISTING and may_list == list(args)):
                self.forbidden.append(name)
            return function(*args, **options)

        return guarded


class InPlaceFirst:
    """A store whose calls are tried in place first; `ended` is how many have ended there."""

    def __init__(self, store: MaildirStore) -> None:
        self.store = store
        self.ended = 0

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.store, name)
        if not callable(attribute) or name == "close":
            return attribute

        def call(*args: Any, **options: Any) -> Any:
            try:
                result = call_in_place(lambda: attribute(*args, **options), lambda: None)
            except WouldBlock:
                return attribute(*args, **options)
            self.ended += 1
            return result

        return call


class ContractTests(test_store.ContractTests):
    """The contract of all stores, with every call tried in place first."""

    def setUp(self) -> None:
        guard = Guard(self.patch)
        self.addCleanup(lambda: self.assertEqual(guard.forbidden, []))
        super().setUp()

    def reopen(self) -> Any:
        return InPlaceFirst(super().reopen())

    def test_calls_end_in_place(self) -> None:
        """Of the calls of a FETCH that is repeated, the second ends in place; a call that writes does not."""
        store: Any = self.store
        key, uid = self.key(), self.append()
        ended = []
        for _ in range(2):
            before = store.ended
            store.fetch(key, [uid], [Attribute(b"ENVELOPE")], 1 << 20)
            store.store_flags(key, [uid], b"+", [b"\\Seen"], None, 0)
            ended.append(store.ended - before)
        self.assertEqual(ended, [0, 1])

    def test_directory_is_listed_in_place(self) -> None:
        """A small directory is listed in place, on file systems where its size says something."""
        self.patch(local_disk, "_type_of", lambda fd: 0xEF53)
        self.patch(local_disk, "MAX_DIRECTORY_SIZE", 1 << 20)
        store: Any = self.store
        key = self.key()
        store.changes(key, 0, True)
        before = store.ended
        since = store.status("INBOX").highestmodseq
        store.changes(key, since, True)
        self.assertEqual(store.ended, before + 2)


class InPlaceTests(DiskTestCase):
    def setUp(self) -> None:
        super().setUp()
        if not self.store.volumes or not hasattr(os, "RWF_NOWAIT"):
            raise SkipTest("not on a local file system of Linux")
        self.append(content=b"Subject: a\r\n\r\nb\r\n")
        self.key = self.store.open("INBOX", True).key
        self.let_mtimes_age()
        self.since = self.store.changes(self.key, 0, True).highestmodseq

    def changes(self) -> object:
        return self.store.changes(self.key, self.since, True)

    def test_nothing_has_changed(self) -> None:
        """A NOOP, a STATUS and the second FETCH of a message run in place."""
        self.assertEqual(in_place(self.changes), self.changes())
        self.assertEqual(in_place(self.store.status, "INBOX"), self.store.status("INBOX"))
        for item in (Attribute(b"ENVELOPE"), BODY):
            expected = self.store.fetch(self.key, [1], [item], 1 << 20)
            self.assertEqual(in_place(self.store.fetch, self.key, [1], [item], 1 << 20), expected)

    def test_a_long_query_is_interrupted(self) -> None:
        """A query in place that takes long is given up; in a thread it has its answer, and the index is intact."""
        self.patch(sqlite_file, "PROGRESS_STEPS", 10)
        self.patch(index_database, "is_late", is_in_place)
        self.store.close()
        self.store = self.open_store()
        self.key = self.store.open("INBOX", True).key
        self.changes()
        self.assertRaises(WouldBlock, in_place, self.store.status, "INBOX")
        self.assertEqual(self.store.status("INBOX").messages, 1)

    def test_only_a_call_in_place_is_late(self) -> None:
        """A call is late in place if its pause says so, and never in a thread."""

        def give_up() -> None:
            raise WouldBlock

        self.assertTrue(call_in_place(is_late, give_up))
        self.assertFalse(call_in_place(is_late, lambda: None))
        self.assertFalse(call_with_pauses(is_late, give_up))

    def test_new_mail_is_added_in_a_thread(self) -> None:
        """A call in place that finds a change gives up, and finds it again in a thread."""
        self.deliver()
        self.assertRaises(WouldBlock, in_place, self.changes)
        delta = self.store.changes(self.key, self.since, True)
        self.assertEqual(len(delta.rows), 1)

    def test_what_has_changed_is_read_in_a_thread(self) -> None:
        """A call in place does not read the rows of what has changed, which can be all: another process wrote them."""
        other = self.open_store()
        other.store_flags(other.mailbox_key("INBOX"), [1], b"+", [b"\\Seen"], None, 0)
        self.changes()
        self.let_mtimes_age()
        self.changes()
        in_place(self.store.changes, self.key, self.since + 1, True)
        self.given_up(self.changes)
        self.given_up(self.store.changes, self.key, 0, True)

    def test_first_answer_is_computed_in_a_thread(self) -> None:
        """An ENVELOPE that is not cached is not computed in place."""
        self.assertRaises(
            WouldBlock,
            in_place,
            self.store.fetch,
            self.key,
            [1],
            [Attribute(b"ENVELOPE")],
            1000,
        )

    def test_large_message(self) -> None:
        """Messages of more bytes than a call may read are read in a thread."""
        self.append_large()
        items = [BODY, Attribute(b"EMAILID")]
        for uids, run in (([2, 3], in_place), ([2, 3, 4], self.given_up)):
            run(self.store.fetch, self.key, uids, items, 1 << 20)

    def test_whole_messages(self) -> None:
        """Whole messages are read in place as far as a call may read, and the next call reads the others."""
        self.append_large()
        fetch = self.store.fetch
        self.assertEqual(in_place(fetch, self.key, [2, 3, 4], [BODY], 1 << 20).uids, [2, 3])
        self.assertEqual(in_place(fetch, self.key, [4], [BODY], 1 << 20).uids, [4])

    def append_large(self) -> None:
        for _ in range(3):
            self.append(content=b"\r\n" + b"x" * (OCTETS_IN_PLACE * 2 // 5))
        self.store.open("INBOX", True)

    def given_up(self, *call: Any) -> None:
        self.assertRaises(WouldBlock, in_place, *call)

    def test_message_that_is_not_in_memory(self) -> None:
        """A message whose bytes are not in memory, or only the first of them, is read in a thread, and not logged."""

        def preadv(fd: int, buffers: list[bytearray], offset: int, flags: int) -> int:
            self.assertEqual(flags, os.RWF_NOWAIT)
            if offset >= limit:
                raise BlockingIOError(errno.EAGAIN, "not in memory")
            return min(limit - offset, original(fd, buffers, offset, flags))

        original = os.preadv
        self.patch(os, "preadv", preadv)
        self.append(content=(b"\r\n" + b"x" * 8192))
        fetch = self.store.fetch, self.key, [2], [BODY], 1 << 20
        for limit in (0, 4096, 8192):  # noqa: B007
            self.assertRaises(WouldBlock, in_place, *fetch)
        limit = 1 << 20
        self.assertEqual(in_place(*fetch).uids, [2])

    def test_locked_index(self) -> None:
        """A call in place does not wait for the lock of the index, and a later call in a thread does."""
        path = os.fsencode(self.root) + b"/" + INDEX_FILE
        seconds = []
        connect = sqlite3.connect(path, isolation_level=None)
        self.addCleanup(connect.close)
        for run in (in_place, lambda function: function()):
            run(self.changes)
            db = self.store._account.index.db
            seconds.append(db.execute("PRAGMA busy_timeout").fetchone()[0])
        self.assertEqual(seconds[0], 0)
        self.assertGreater(seconds[1], 0)

    def test_error_is_repeated_in_a_thread(self) -> None:
        """An error of the disk in place is neither logged nor handled there."""
        os.rename(self.root + "/cur", self.root + "/tmp/cur")
        self.assertRaises(WouldBlock, in_place, self.changes)
        os.rename(self.root + "/tmp/cur", self.root + "/cur")
        self.changes()

    def test_store_that_is_not_open(self) -> None:
        """A store is not opened in place."""
        store = self.open_store()
        self.assertRaises(WouldBlock, in_place, store.status, "INBOX")
        store.status("INBOX")
        in_place(store.status, "INBOX")

    def test_large_directory(self) -> None:
        """A directory that is, or was, larger than an empty one is listed in a thread."""
        folder = f"{self.root}/many"
        os.mkdir(folder)
        fd = os.open(folder, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        in_place(local_disk.may_list, fd)
        for number in range(500):
            os.symlink("x", f"{folder}/{number:060}")
        self.assertRaises(WouldBlock, in_place, local_disk.may_list, fd)
        local_disk.may_list(fd)

    def test_directory_whose_size_says_nothing(self) -> None:
        """On a file system that reports no sizes of directories in bytes, none is listed in place."""
        fd = os.open(self.root, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        in_place(local_disk.may_list, fd)
        self.patch(local_disk, "_type_of", lambda fd: 0x2FC12FC1)
        self.assertRaises(WouldBlock, in_place, local_disk.may_list, fd)

    def test_links_are_followed(self) -> None:
        """If links to folders on any file system are followed, no call runs in place."""
        store = self.open_store(follow_symlinks=True)
        store.mailboxes()
        self.assertEqual(store.volumes, frozenset())

    def test_mount_point(self) -> None:
        """A folder on another file system than its Maildir is not looked at in place; then no call is."""
        original = os.stat

        def stat(path: Any, **options: Any) -> Any:
            status = original(path, **options)
            if not os.fsdecode(path).endswith("cur"):
                return status
            return SimpleNamespace(
                **{name: getattr(status, name) for name in dir(status) if name[:3] == "st_"}
                | {"st_dev": status.st_dev + 1}
            )

        self.patch(os, "stat", stat)
        self.assertRaises(WouldBlock, in_place, self.changes)
        self.assertEqual(self.store.volumes, frozenset())
        self.changes()

    def test_unknown_file_system(self) -> None:
        """Only file systems that are known to be local count."""
        with open("/proc/self/status", "rb") as file, open(__file__, "rb") as other:
            self.assertEqual(local_disk.volumes([file.fileno()]), frozenset())
            self.assertEqual(local_disk.volumes([other.fileno(), file.fileno()]), frozenset())

    def test_call_that_takes_long(self) -> None:
        """A call in place is given up where it may pause; outside, code goes on."""

        def pause() -> None:
            raise WouldBlock

        self.assertRaises(WouldBlock, call_in_place, pause_point, pause)
        pause_point()
        self.assertRaises(WouldBlock, in_place, may_block)
        may_block()
