"""Large messages whose files change, and what is kept for the next piece: temporary files and layouts."""

from __future__ import annotations

import errno
import os
import tempfile
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import MessageExpunged
from imapshield.mailbox.message_items import MessageItems
from imapshield.maildir import large_messages
from imapshield.maildir.large_messages import LargeMessages, TemporaryFile
from imapshield.maildir.message_layout import FileState, Layout, LayoutKey, LineMap
from imapshield.wire.commands.fetch import Binary, BodySection, Section
from tests.maildir.disk import failing
from tests.maildir.large_message_case import (
    BUDGET,
    ENCODED,
    PIECE,
    RANDOM,
    PieceTestCase,
    big_message,
    on_wire,
)


class ChangedFileTests(PieceTestCase):
    """Message files are never changed, but another program can do it all the same."""

    def setUp(self) -> None:
        super().setUp()
        self.item = BodySection(Section((2,)), partial=PIECE)
        self.uid = self.add(big_message(b"line\n" * 100_000, b"7bit"))
        self.value(self.uid, self.item)
        self.file = self.path("cur", self.cur()[0])
        self.let_clock_tick()

    def expected(self, content: bytes) -> bytes | None:
        return MessageItems(on_wire(content)).content(self.item)

    def test_file_that_is_changed_in_place(self) -> None:
        """A change of the content shows, even if size and mtime stay the same."""
        content = big_message(b"\nenil" * 100_000, b"7bit")
        times = os.stat(self.file)
        with open(self.file, "r+b") as file:
            file.write(content)
        os.utime(self.file, ns=(times.st_atime_ns, times.st_mtime_ns))
        self.assertEqual(os.stat(self.file).st_size, times.st_size)
        self.assertEqual(self.value(self.uid, self.item), self.expected(content))

    def test_file_that_is_replaced(self) -> None:
        """A file that takes the place of another is returned as it is."""
        content = big_message(b"a\n\n\nb\n" * 100_000, b"7bit")
        with open(self.path("tmp", "x"), "wb") as file:
            file.write(content)
        os.rename(self.path("tmp", "x"), self.file)
        for _ in range(2):
            self.assertEqual(self.value(self.uid, self.item), self.expected(content))

    def test_file_that_is_truncated(self) -> None:
        """A file that has become shorter is returned as it is."""
        with open(self.file, "rb") as file:
            content = file.read(350_000)
        os.truncate(self.file, 350_000)
        for _ in range(2):
            self.assertEqual(self.value(self.uid, self.item), self.expected(content))

    def test_file_that_is_truncated_while_it_is_read(self) -> None:
        """A file that becomes shorter after its state was read is read again as a whole."""
        with open(self.file, "rb") as file:
            content = file.read(350_000)
        state = FileState.of

        def stale(fd: int) -> FileState:
            found = state(fd)
            os.truncate(self.file, 350_000)
            return found

        with mock.patch.object(FileState, "of", stale):
            self.assertEqual(self.value(self.uid, self.item), self.expected(content))

    def test_file_that_changes_while_it_is_measured(self) -> None:
        """A layout is not kept if the file was changed while it was read."""
        uid = self.add(big_message(ENCODED))
        file = self.path("cur", self.cur()[1])
        scan = LineMap.__init__

        def changing(line_map: LineMap, size: int) -> None:
            scan(line_map, size)
            self.let_clock_tick()
            os.utime(file)

        before = self.large.memory
        with mock.patch.object(LineMap, "__init__", changing):
            self.value(uid, self.item)
        self.assertEqual(self.large.memory, before)
        self.value(uid, self.item)
        self.assertGreater(self.large.memory, before)

    def test_message_that_is_expunged(self) -> None:
        """A message that is expunged is missing, although its layout is kept."""
        self.store.store_flags(self.key, [self.uid], b"+", [b"\\Deleted"], None, 0)
        self.store.expunge(self.key, None, 0)
        fetched = self.store.fetch(self.key, [self.uid], [self.item], BUDGET)
        self.assertEqual((list(fetched.uids), list(fetched.missing)), ([], [self.uid]))
        self.assertRaises(MessageExpunged, self.store.read, self.key, self.uid, self.item, 0, 10)

    def test_recent_change_is_not_trusted(self) -> None:
        """A file is measured again while a second change could leave the same ctime."""
        tick, second = 1_700_000_000_123_456_789, 1_700_000_000_000_000_000
        for ctime, age, trusted in (
            (tick, 0.04, False),
            (tick, 0.06, True),
            (tick, -300, True),
            (second, 0.9, False),
            (second, 1.1, True),
        ):
            state = FileState(1, 1, 1, 1, ctime)
            self.assertIs(state.shows_changes(ctime / 1e9 + age), trusted, (ctime, age))
        self.clock.base = lambda: os.stat(self.file).st_ctime
        self.clock.offset = 0
        before = self.large.memory
        os.utime(self.file)
        self.value(self.uid, self.item)
        self.assertEqual(self.large.memory, before)


class TemporaryFileTests(PieceTestCase):
    """Temporary files with the content of compressed messages and decoded parts."""

    def setUp(self) -> None:
        super().setUp()
        self.item = Binary((2,), partial=PIECE)
        self.expected = RANDOM[PIECE[0] : sum(PIECE)]
        self.account = self.store._account

    def count(self) -> int:
        return self.large.file_count(self.account)

    def test_number_of_temporary_files_is_limited(self) -> None:
        """An account keeps `MAX_TEMPORARY_FILES`, and none after it is closed."""
        for _ in range(4):
            self.assertEqual(self.value(self.add(big_message(ENCODED)), self.item), self.expected)
        self.assertEqual(self.count(), large_messages.MAX_TEMPORARY_FILES)
        self.store.close()
        self.assertEqual(self.count(), 0)

    def test_unused_temporary_file_is_closed(self) -> None:
        """A file that was not used for `UNUSED_SECONDS` is closed when another account makes one."""
        other = self.open_store(self.path("other"), large_messages=self.large)
        self.value(self.add(big_message(ENCODED)), self.item)
        key = other.open("INBOX", True).key
        content = big_message(ENCODED)
        for offset, left in ((59, 1), (120, 0)):
            uid = self.append(content=content, store=other)
            self.clock.offset += offset
            other.fetch(key, [uid], [self.item], BUDGET)
            self.assertEqual(self.count(), left)

    def test_file_that_was_read_to_the_end_is_closed(self) -> None:
        """The file of a whole part is closed with its last chunk; that of pieces is kept, for the next piece."""
        uid = self.add(big_message(ENCODED))
        self.assertEqual(self.value(uid, Binary((2,))), RANDOM)
        self.assertEqual(self.count(), 0)
        self.assertEqual(self.value(uid, Binary((2,), partial=(0, len(RANDOM)))), RANDOM)
        self.assertEqual(self.count(), 1)

    def test_full_disk(self) -> None:
        """Without space for a temporary file, the answers are the same."""
        uid = self.add(big_message(ENCODED))
        compressed = self.add(big_message(ENCODED), "compressed")
        wire = MessageItems(on_wire(big_message(ENCODED)))
        body = BodySection(Section((2,)))
        with mock.patch.object(tempfile, "TemporaryFile", side_effect=OSError(errno.ENOSPC, "")):
            for item in (self.item, Binary((2,)), body):
                self.assertEqual(self.value(uid, item), wire.content(item))
                self.assertEqual(self.value(compressed, item), wire.content(item))
        with failing("write", OSError(errno.ENOSPC, "No space left on device"), times=100):
            self.assertEqual(self.value(uid, self.item), self.expected)
        self.assertEqual(self.count(), 0)

    def test_closed_while_it_is_used(self) -> None:
        """A file that another thread drops stays open until it is no longer used."""
        file = TemporaryFile([b"con", b"tent"])
        self.large.add_file(self.account, "x", file, 0.0)
        used = self.large.file(self.account, "x", 0.0)
        del file
        self.large.close(self.account)
        assert used is not None
        self.assertEqual(used.read(1, 3), b"ont")


class LargeMessagesTests(SynchronousTestCase):
    def test_number_of_open_files_is_limited(self) -> None:
        """A file that another account uses is not closed; one that it has not used for a second is."""
        self.patch(large_messages, "MAX_OPEN_FILES", 2)
        large = LargeMessages()
        for now, (owner, kept) in enumerate((("a", "a"), ("b", "ab"), ("c", "bc"))):
            large.add_file(owner, "x", TemporaryFile([]), 10.0 * now)
            self.assertEqual([o for o in "abc" if large.file(o, "x", 10.0 * now)], list(kept))
        large.add_file("d", "x", TemporaryFile([]), 20.9)
        self.assertIsNone(large.file("d", "x", 20.9))
        self.assertEqual([large.file_count(owner) for owner in "abcd"], [0, 1, 1, 0])

    def test_memory_of_layouts_is_limited(self) -> None:
        """The least recently used layouts are dropped, and the memory of the others is counted."""
        self.patch(large_messages, "MAX_LAYOUT_BYTES", 2000)
        large = LargeMessages()
        keys = [LayoutKey(FileState(1, i, 1, 1, 1), 1, False) for i in range(3)]
        for key in keys[:2]:
            large.add_layout(key, Layout(1))
        large.layout(keys[0])
        large.add_layout(keys[2], Layout(1))
        self.assertEqual([large.layout(key) is not None for key in keys], [True, False, True])
        self.assertEqual(large.memory, 2 * Layout(1).memory)
        large.add_layout(keys[2], Layout(2))
        self.assertEqual(large.memory, 2 * Layout(1).memory)
        self.assertEqual(large.layout(keys[2]), Layout(2))
