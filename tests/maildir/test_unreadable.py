"""A message that cannot be read or decoded fails alone, and one line of the log names its file."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

from imapshield.errors import StoreIOError
from imapshield.mailbox.values import Blob
from imapshield.maildir import unreadable
from imapshield.message import text
from imapshield.message.mime_tree import Part
from imapshield.testing.store_contract import BUDGET, ENVELOPE, MAIL, SEEN, WHOLE
from imapshield.wire.commands.fetch import (
    Attribute,
    Binary,
    BodySection,
    FetchItem,
    Preview,
    Section,
)
from imapshield.wire.commands.search import EnvelopeKey, HeaderKey, TextKey
from tests.maildir.disk import MAIL_LITERAL, DiskTestCase, failing

DENIED = OSError(errno.EACCES, "Permission denied")
READ_ERROR = OSError(errno.EIO, "Input/output error")


class UnreadableTestCase(DiskTestCase):
    """A test case with four messages in INBOX, of which the second has the file `bad`."""

    def setUp(self) -> None:
        super().setUp()
        for _ in range(4):
            self.append()
        self.key = self.store.open("INBOX", True).key
        self.bad = self.cur()[1]

    def fetch_all(self, *items: FetchItem) -> tuple[list[int], list[int]]:
        """Return the UIDs that repeated calls of FETCH return, and the unreadable ones."""
        uids = [1, 2, 3, 4]
        fetched_uids: list[int] = []
        failed: list[int] = []
        while uids:
            fetched = self.store.fetch(self.key, uids, items, BUDGET)
            fetched_uids += fetched.uids
            failed += fetched.unreadable
            uids = uids[fetched.count :]
        return fetched_uids, failed

    def fail_on_bad_file(self, function: str, error: OSError) -> None:
        """Make a function of `os` that takes a path or a descriptor raise `error` for the file `bad`."""
        real: Callable[..., Any] = getattr(os, function)

        def fail(file: Any, *args: Any, **kwargs: Any) -> Any:
            path = os.readlink(f"/proc/self/fd/{file}") if isinstance(file, int) else file
            if self.bad in os.fsdecode(path):
                error.filename = None
                raise error
            return real(file, *args, **kwargs)

        self.patch(os, function, fail)

    def check_others_work(self) -> None:
        """Check every operation that reads messages."""
        for items in ([WHOLE], [ENVELOPE], [Attribute(b"EMAILID"), Preview()], [Binary((1,))]):
            self.assertEqual(self.fetch_all(*items), ([1, 3, 4], [2]), items)
        for search_key in (EnvelopeKey(b"TO", "bob"), HeaderKey(b"Subject", "l"), TextKey("noon")):
            found = self.store.search(self.key, [1, 2, 3, 4], search_key)
            self.assertEqual(found[:2], ([1, 3, 4], [2]), search_key)
        self.assertEqual(self.store.status("INBOX").messages, 4)
        self.assertEqual(len(self.warnings), 1, self.warnings)
        self.assertIn(self.path("cur", self.bad), self.warnings[0])


class UnreadableTests(UnreadableTestCase):
    def test_denied_file_fails_alone(self) -> None:
        """A file that must not be opened fails alone, and the log advises to check permissions."""
        self.fail_on_bad_file("open", DENIED)
        self.check_others_work()
        self.assertIn("permissions", self.warnings[0])

    def test_damaged_file_fails_alone(self) -> None:
        """A file that the disk cannot read fails alone, and the log has the reason."""
        self.fail_on_bad_file("pread", READ_ERROR)
        self.check_others_work()
        self.assertIn("Input/output error", self.warnings[0])
        self.assertNotIn("permissions", self.warnings[0])

    def test_link_fails_alone(self) -> None:
        """A symbolic link is not followed, and fails alone."""
        os.rename(self.path("cur", self.bad), self.path("elsewhere"))
        os.symlink("../elsewhere", self.path("cur", self.bad))
        self.check_others_work()
        self.assertIn("symbolic link", self.warnings[0])

    def test_directory_fails_alone(self) -> None:
        """A directory in place of a message fails alone."""
        os.unlink(self.path("cur", self.bad))
        os.mkdir(self.path("cur", self.bad))
        self.check_others_work()

    def test_failing_decoder_fails_alone(self) -> None:
        """A message that makes a decoder raise fails alone. The log names the exception, and not its text."""
        real_preview, real_texts = text.preview, text.searchable_texts

        def preview(part: Part, data: bytes, limit: int = 200) -> str:
            if b"poison" in data:
                raise RuntimeError("secret text")
            return real_preview(part, data, limit)

        def searchable_texts(part: Part, data: bytes, headers: bool) -> Any:
            if b"poison" in data:
                raise LookupError("secret text")
            return real_texts(part, data, headers)

        self.patch(text, "preview", preview)
        self.patch(text, "searchable_texts", searchable_texts)
        self.append(content=b"Subject: poison\r\n\r\nnoon\r\n")
        name = self.cur()[4]
        fetched = self.store.fetch(self.key, [1, 5], [Preview()], BUDGET)
        self.assertEqual((list(fetched.uids), list(fetched.unreadable)), ([1], [5]))
        found = self.store.search(self.key, [1, 2, 5], TextKey("noon"))
        self.assertEqual(found[:2], ([1, 2], [5]))
        fetched = self.store.fetch(self.key, [5], [ENVELOPE, WHOLE], BUDGET)
        self.assertEqual(list(fetched.uids), [5])
        (warning,) = self.warnings
        self.assertIn(name, warning)
        self.assertIn("RuntimeError", warning)
        self.assertNotIn("secret", warning)

    def test_unmeasured_message_fails_alone(self) -> None:
        """A message whose size cannot be measured has none, and STATUS counts an upper bound for it."""
        self.deliver(MAIL.replace(b"\r\n", b"\n"))
        self.bad = self.deliver(MAIL.replace(b"\r\n", b"\n"))
        self.store.open("INBOX", False)
        self.fail_on_bad_file("pread", READ_ERROR)
        sizes = self.store.sizes(self.key, [4, 5, 6])
        self.assertEqual(sizes[:2], ([(4, len(MAIL)), (5, len(MAIL))], [6]))
        size = self.store.status("INBOX").size
        self.assertGreater(size, 6 * len(MAIL))
        self.assertLess(size, 7 * len(MAIL))
        self.assertEqual(len(self.warnings), 1)

    def test_repaired_message_is_read(self) -> None:
        """A file that was unreadable is read once it is repaired."""
        path = self.path("cur", self.bad)
        os.rename(path, self.path("elsewhere"))
        os.symlink("../elsewhere", path)
        self.assertEqual(self.fetch_all(WHOLE), ([1, 3, 4], [2]))
        os.replace(self.path("elsewhere"), path)
        fetched = self.store.fetch(self.key, [2], [WHOLE], BUDGET)
        self.assertEqual(fetched.columns, [[MAIL_LITERAL]])

    def test_failure_of_the_server_is_no_failure_of_a_message(self) -> None:
        """If the server has no descriptors left, the command fails, and no message is called unreadable."""
        for _ in range(2):
            with failing("open", OSError(errno.EMFILE, "Too many open files")):
                self.assertRaises(StoreIOError, self.store.fetch, self.key, [1, 2], [WHOLE], BUDGET)
        self.assertEqual(self.fetch_all(WHOLE), ([1, 2, 3, 4], []))

    def test_number_of_warnings_is_limited(self) -> None:
        """At most `MAX_LOGGED_FILES` files are logged."""
        self.patch(unreadable, "MAX_LOGGED_FILES", 2)
        for name in self.cur():
            os.unlink(self.path("cur", name))
            os.symlink("nowhere", self.path("cur", name))
        self.assertEqual(self.fetch_all(WHOLE), ([], [1, 2, 3, 4]))
        self.assertEqual(len(self.warnings), 2)


class LargeMessageTests(DiskTestCase):
    """Large strings, which are read after their size was sent."""

    def setUp(self) -> None:
        super().setUp()
        self.content = b"Subject: large\r\n\r\n" + b"0123456789abcdef" * 40_000
        self.append(SEEN, content=self.content)
        self.key = self.store.open("INBOX", True).key

    def test_damaged_large_message_is_found_before_it_is_sent(self) -> None:
        """A large message that cannot be read is unreadable already in FETCH."""
        for item in (WHOLE, BodySection(Section((), b"TEXT")), Binary((1,))):
            with failing("pread", READ_ERROR):
                fetched = self.store.fetch(self.key, [1], [item], BUDGET)
            self.assertEqual((list(fetched.uids), list(fetched.unreadable)), ([], [1]), item)
        self.assertEqual(len(self.warnings), 1)

    def test_truncated_large_message_is_measured_again(self) -> None:
        """A large message that another program has truncated is returned with its present size."""
        for size in (400_000, 1000):
            os.truncate(self.path("cur", self.cur()[0]), size)
            fetched = self.store.fetch(self.key, [1], [WHOLE], BUDGET)
            value = fetched.columns[0][0]
            if isinstance(value, Blob):
                self.assertEqual(value.size, size)
                value = self.store.read(self.key, 1, WHOLE, 0, size)
            self.assertTrue(value.endswith(self.content[:size]))
            self.assertEqual(self.store.sizes(self.key, [1]).sizes, [(1, size)])

    def test_failing_read_of_a_large_string_is_logged_once(self) -> None:
        """A large string that can no longer be read raises `StoreIOError`, and is logged once."""
        self.store.fetch(self.key, [1], [WHOLE], BUDGET)
        for _ in range(2):
            with failing("pread", READ_ERROR):
                self.assertRaises(StoreIOError, self.store.read, self.key, 1, WHOLE, 0, 100)
        self.assertEqual(len(self.warnings), 1)
        self.assertEqual(self.store.read(self.key, 1, WHOLE, 0, 7), b"Subject")

    def test_failing_decoder_of_a_large_string_is_no_internal_error(self) -> None:
        """A decoder that raises in `read` raises `StoreIOError`."""
        item = Binary((1,))
        self.store.fetch(self.key, [1], [item], BUDGET)

        def fail(*_: object) -> None:
            raise ValueError

        self.patch(Part, "transfer_encoding", fail)
        self.assertRaises(StoreIOError, self.store.read, self.key, 1, item, 0, 100)
