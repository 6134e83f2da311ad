"""FETCH of whole messages alone has the same answers as together with another item, and needs less."""

from __future__ import annotations

import errno
import gzip
import os
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

from imapshield.mailbox.in_place import OCTETS_IN_PLACE, call_in_place
from imapshield.mailbox.values import Blob
from imapshield.maildir import message_fetch, whole_messages
from imapshield.maildir.whole_messages import OVERHEAD, STEP
from imapshield.testing.store_contract import BUDGET, MAIL, WHOLE
from imapshield.wire.commands.fetch import Attribute, FetchItem
from tests.maildir.disk import MAIL_LITERAL, DiskTestCase

LF = MAIL.replace(b"\r\n", b"\n")
LARGE = b"Subject: large\n\n" + b"line\n" * 40_000
"""A file with fewer bytes than the largest string that is not a `Blob`, and with CRs more."""

Result = tuple[list[int], list[bytes | Blob], list[int], list[int]]


class WholeMessagesTests(DiskTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.key = self.store.open("INBOX", True).key

    def fetch_all(self, *items: FetchItem) -> Result:
        """Return the UIDs, the values of the first item, and the missing and unreadable messages of all calls."""
        rest: Sequence[int] = range(1, self.store.status("INBOX").uidnext)
        result: Result = [], [], [], []
        while rest:
            fetched = self.store.fetch(self.key, rest, items, BUDGET)
            result[0].extend(fetched.uids)
            result[1].extend(fetched.columns[0])
            result[2].extend(fetched.missing)
            result[3].extend(fetched.unreadable)
            rest = rest[fetched.count :]
        return result

    def check_answers(self) -> Result:
        """Check that whole messages are the same, whatever reads them; return them."""
        expected = self.fetch_all(WHOLE, Attribute(b"EMAILID"))
        self.assertEqual(self.fetch_all(WHOLE), expected)
        return expected

    def test_contents(self) -> None:
        """Line ends, NUL, compression and sizes do not matter."""
        contents = [MAIL, LF, b"a\r\nb\nc\rd\n\0", b"", LARGE, 2 * LARGE, MAIL]
        for content in contents:
            self.deliver(content)
        self.deliver(gzip.compress(LF), name=f"1700000099.P1.mx,S={len(LF)}")
        self.deliver(gzip.compress(LF), name="1700000100.P1.mx")
        self.store.open("INBOX", True)
        uids, values, *failed = self.check_answers()
        self.assertEqual((uids, failed), (list(range(1, 10)), [[], []]))
        self.assertEqual([values[i] for i in (0, 1, 6, 7)], [MAIL_LITERAL] * 4)
        self.assertEqual(values[2], b"{12}\r\na\r\nb\r\nc\rd\r\n\x80")
        self.assertIsInstance(values[5], Blob)

    def test_size_that_is_not_known_is_stored(self) -> None:
        """The size of a message that was not measured is in the index after its content was read."""
        self.deliver(LF)
        self.store.open("INBOX", True)
        self.fetch_all(WHOLE)
        (row,) = self.store.open("INBOX", True).delta.rows
        self.assertEqual(row.size, len(MAIL))

    def test_files_that_other_programs_have_changed(self) -> None:
        """A message is read as its file is now: longer, shorter, renamed, moved, replaced by a link, or removed."""
        for _ in range(8):
            self.deliver(LF)
        self.store.open("INBOX", True)
        changed = [self.path("cur", name) for name in self.cur()]
        if not changed:
            changed = [self.path("new", name) for name in self.new()]
        with open(changed[0], "ab") as file:
            file.write(b"more\n")
        os.truncate(changed[1], 20)
        os.rename(changed[2], changed[2].partition(":")[0] + ":2,FS")
        os.unlink(changed[4])
        os.unlink(changed[5])
        os.symlink("elsewhere", changed[5])
        uids, values, missing, unreadable = self.check_answers()
        self.assertEqual((uids, missing, unreadable), ([1, 2, 3, 4, 7, 8], [5], [6]))
        self.assertEqual(values[0], b"{%d}\r\n%bmore\r\n" % (len(MAIL) + 6, MAIL))

    def test_budget(self) -> None:
        """The message that uses up the budget is the last one, also at the end of a query."""
        for _ in range(STEP + 2):
            self.append()
        uids = range(1, STEP + 3)
        for count in (1, 3, STEP - 1, STEP, STEP + 1):
            budget = count * (len(MAIL) + OVERHEAD)
            for less in (0, 1):
                fetched = self.store.fetch(self.key, uids, [WHOLE], budget - less)
                self.assertEqual(fetched.uids, uids[:count])

    def test_three_system_calls_for_a_message(self) -> None:
        """A message is opened, read once and closed."""
        for _ in range(5):
            self.append()
        calls: list[str] = []

        def counting(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **options: Any) -> Any:
                calls.append(name)
                return real(*args, **options)

            return call

        def count(uids: Sequence[int]) -> int:
            calls.clear()
            self.assertEqual(self.store.fetch(self.key, uids, [WHOLE], BUDGET).uids, uids)
            return len(calls)

        for name in ("open", "pread", "close", "fstat", "stat"):
            self.patch(os, name, counting(name, getattr(os, name)))
        self.assertEqual(count([1, 2, 3, 4, 5]) - count([1]), 4 * 3)

    def test_usual_messages_need_no_reader(self) -> None:
        """A message that needs more is read with all checks, and those behind it again without them."""
        for _ in range(20):
            self.append()
        os.unlink(self.path("cur", self.cur()[2]))
        with mock.patch.object(message_fetch, "MessageReader", side_effect=AssertionError):
            self.assertEqual(self.store.fetch(self.key, [1, 2, 3, 4], [WHOLE], BUDGET).uids, [1, 2])
        self.assertEqual(self.fetch_all(WHOLE)[0], [1, 2, *range(4, 21)])
        with mock.patch.object(message_fetch, "MessageReader", side_effect=AssertionError):
            uids = range(12, 21)
            self.assertEqual(self.store.fetch(self.key, uids, [WHOLE], BUDGET).uids, uids)

    def test_message_that_is_not_in_memory_ends_a_call_in_place(self) -> None:
        """Messages in memory are returned without the one behind them that is not: only that needs a thread."""
        for _ in range(3):
            self.append()
        path = self.path("cur", self.cur()[1])
        preadv = os.preadv

        def fail(fd: int, *args: Any) -> int:
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                raise BlockingIOError(errno.EAGAIN, "not in memory")
            return preadv(fd, *args)

        self.patch(os, "preadv", fail)
        fetched = call_in_place(
            lambda: self.store.fetch(self.key, [1, 2, 3], [WHOLE], BUDGET), lambda: None
        )
        self.assertEqual((fetched.uids, fetched.columns), ([1], [[MAIL_LITERAL]]))

    def test_client_that_has_left(self) -> None:
        """It is looked again and again whether the client waits for the messages."""
        for _ in range(24):
            self.append()
        with mock.patch.object(whole_messages, "check_wanted") as check_wanted:
            self.fetch_all(WHOLE)
        self.assertGreaterEqual(check_wanted.call_count, 3)

    def test_large_reads_in_place_have_a_buffer_of_their_own(self) -> None:
        """A message is returned as it is, whether it fits into the buffer that is used again or not."""
        contents = [b"a" * 100, b"b" * 70_000, b"c" * 200]
        for content in contents:
            self.append(content=content)
        self.assertLess(sum(map(len, contents)), OCTETS_IN_PLACE)
        fetched = call_in_place(
            lambda: self.store.fetch(self.key, [1, 2, 3], [WHOLE], BUDGET), lambda: None
        )
        expected: list[bytes | Blob] = [b"{%d}\r\n%b" % (len(each), each) for each in contents]
        self.assertEqual(fetched.columns, [expected])
