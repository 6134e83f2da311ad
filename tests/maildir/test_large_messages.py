"""Pieces of large messages: what FETCH returns, how much of the file it reads, and what is kept for the next piece."""

from __future__ import annotations

import base64
import errno
import gzip
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import CommandRefused, MessageExpunged
from imapshield.mailbox.message_items import MessageItems
from imapshield.mailbox.values import Blob
from imapshield.maildir import large_messages, message_fetch, message_layout, message_strings
from imapshield.maildir.large_messages import LargeMessages, TemporaryFile
from imapshield.maildir.message_layout import FileState, Layout, LayoutKey, LineMap
from imapshield.wire import strings
from imapshield.wire.commands.fetch import Attribute, Binary, BodySection, Section
from tests.maildir.disk import DiskTestCase, failing

BUDGET = 1 << 24
Item = BodySection | Binary

TOKENS = (
    b"\n",
    b"\r\n",
    b"\r",
    b"=\n",
    b"=\r\n",
    b"=3D",
    b"=4",
    b"=",
    b"==",
    b"A",
    b"QUJD",
    b" ",
    b"\t",
    b"\0",
    b"-",
)
BODIES = st.lists(st.sampled_from(TOKENS) | st.binary(max_size=20), max_size=60).map(b"".join)
ENCODINGS = st.sampled_from((b"7bit", b"base64", b"quoted-printable", b"x-other"))
LINE_ENDS = st.sampled_from((b"\n", b"\r\n"))
SECTIONS = (
    Section(),
    *(Section((), text) for text in (b"TEXT", b"HEADER")),
    Section((), b"HEADER.FIELDS", (b"Subject",)),
    *(Section(path, text) for path in ((1,), (2,), (3,)) for text in (b"", b"MIME")),
    *(Section((3,), text) for text in (b"TEXT", b"HEADER")),
    *(Section(path) for path in ((3, 1), (4,), (1, 1))),
    Section((3,), b"HEADER.FIELDS.NOT", (b"Subject",)),
)
PATHS = ((), (1,), (2,), (3,), (3, 1), (4,))


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A multipart with two encoded parts and a message. Its lines end with LF, CRLF, or either."""

    def end() -> bytes:
        return draw(LINE_ENDS)

    def part() -> bytes:
        header = b"Content-Transfer-Encoding: " + draw(ENCODINGS)
        return b"--b" + end() + header + end() * 2 + draw(BODIES) + end()

    head = b"Subject: x" + end() + b"MIME-Version: 1.0" + end()
    head += b"Content-Type: multipart/mixed; boundary=b" + end() + end()
    inner = b"--b" + end() + b"Content-Type: message/rfc822" + end() * 2
    inner += b"Subject: y" + end() * 2 + draw(BODIES) + end()
    return head + part() + part() + inner + b"--b--" + end()


@st.composite
def items(draw: st.DrawFn) -> Item:
    partial = draw(st.none() | st.tuples(st.integers(0, 400), st.integers(1, 200)))
    if draw(st.booleans()):
        return Binary(draw(st.sampled_from(PATHS)), partial=partial)
    return BodySection(draw(st.sampled_from(SECTIONS)), partial=partial)


def on_wire(content: bytes) -> bytes:
    return re.sub(rb"(?<!\r)\n", b"\r\n", content)


def big_message(body: bytes, encoding: bytes = b"base64") -> bytes:
    """A multipart of which part 2 is large."""
    head = b"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nhi\n--b\n"
    return head + b"Content-Transfer-Encoding: " + encoding + b"\n\n" + body + b"\n--b--\n"


RANDOM = bytes(range(256)) * 2000
ENCODED = base64.encodebytes(RANDOM)
PIECE = (300_000, 16384)


class PieceTestCase(DiskTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.let_mtimes_age()
        self.key = self.store.open("INBOX", True).key
        self.large = self.store._account.large_messages

    def add(self, content: bytes, kind: str = "delivered") -> int:
        """Store a message; return its UID."""
        if kind == "appended":
            return self.append(content=content)
        if kind == "compressed":
            name = f"17000001{next(self._numbers):02d}.x,S={len(content)}:2,S"
            self.deliver(gzip.compress(content), name=name, directory="cur")
        else:
            self.deliver(content)
        return self.store.open("INBOX", True).delta.rows[-1].uid

    def value(self, uid: int, item: Item) -> bytes | None:
        """Return the string of an item; a blob is read in chunks."""
        fetched = self.store.fetch(self.key, [uid], [item], BUDGET)
        self.assertEqual((list(fetched.uids), list(fetched.unreadable)), ([uid], []), item)
        value = fetched.columns[0][0]
        if isinstance(value, Blob):
            octets = b"".join(
                self.store.read(self.key, uid, item, at, 70_001)
                for at in range(0, value.size, 70_001)
            )
            self.assertEqual(len(octets), value.size)
            return octets
        return None if value == strings.NIL else value.partition(b"\r\n")[2]


class BudgetTests(PieceTestCase):
    def test_small_budget(self) -> None:
        """With a small budget, a message of 100 KB is streamed, and one of 60 KB is not; with a large one, neither."""
        uids = [
            self.add(b"Subject: x\r\n\r\n" + b"x" * size, "appended") for size in (60_000, 100_000)
        ]
        kinds = []
        for budget in (32 << 10, BUDGET):
            for uid in uids:
                found = self.store.fetch(
                    self.key, [uid], [BodySection(Section(), peek=True)], budget
                )
                kinds.append(type(found.columns[0][0]))
        self.assertEqual(kinds, [bytes, Blob, bytes, bytes])


class RandomPieceTests(PieceTestCase):
    def setUp(self) -> None:
        super().setUp()
        # With such small steps, a short message has everything at the edge of a step.
        self.patch(message_layout, "STEP", 16)
        self.patch(message_strings, "LARGE_SIZE", 40)

    def check(self, content: bytes, kind: str, wanted: list[Item], blob_size: int) -> None:
        wire = content if kind == "appended" else on_wire(content)
        uid = self.add(content, kind)
        with mock.patch.object(message_fetch, "MAX_STRING_SIZE", blob_size):
            for item in [*wanted, *wanted]:
                try:
                    expected = MessageItems(wire).content(item)
                except CommandRefused:
                    self.assertRaises(CommandRefused, self.value, uid, item)
                    continue
                shown = expected
                if shown is not None and not isinstance(item, Binary) and len(shown) <= blob_size:
                    shown = strings.literal(shown).partition(b"\r\n")[2]
                self.assertEqual(self.value(uid, item), shown, item)

    @settings(max_examples=150, deadline=None)
    @given(
        messages(),
        st.sampled_from(("delivered", "appended", "compressed")),
        st.lists(items(), min_size=1, max_size=8),
        st.sampled_from((30, 1000)),
    )
    def test_piece_is_that_of_the_whole_message(
        self, content: bytes, kind: str, wanted: list[Item], blob_size: int
    ) -> None:
        """Every piece of every section is that piece of the whole message, the first time and when a layout is kept."""
        self.check(content, kind, wanted, blob_size)

    @settings(max_examples=300, deadline=None)
    @given(BODIES, st.integers(0, 400), st.integers(0, 400))
    def test_line_map(self, content: bytes, start: int, size: int) -> None:
        """A `LineMap` has the size of the message on the wire, and reads any range of it."""
        with tempfile.TemporaryFile(buffering=0) as file:
            file.write(content)
            fd, line_map, wire = file.fileno(), LineMap(len(content)), on_wire(content)
            for _ in range(2):
                self.assertEqual(line_map.read(fd, start, size), wire[start : start + size])
                self.assertEqual(line_map.measure(fd), len(wire))
            self.assertLessEqual(len(content), line_map.octets_read)


class CostTests(PieceTestCase):
    """How much of the file a piece reads."""

    @contextmanager
    def counted(self) -> Iterator[list[int]]:
        sizes: list[int] = []
        pread = os.pread

        def count(*args: Any) -> bytes:
            octets = pread(*args)
            sizes.append(len(octets))
            return octets

        with mock.patch.object(os, "pread", count):
            yield sizes

    def check(self, uid: int, item: Item, expected: bytes) -> None:
        """Check that the third of equal pieces reads little more than the piece.

        The first one parses the message. The second one finds the line ends up to the piece.
        """
        for _ in range(2):
            self.assertEqual(self.value(uid, item), expected)
        with self.counted() as sizes:
            self.assertEqual(self.value(uid, item), expected)
        self.assertLess(sum(sizes), len(expected) + 2 * message_layout.STEP + 2, (uid, item))

    def test_piece_costs_a_piece(self) -> None:
        """A piece of an attachment, of the message and of its text reads only the piece, whatever the line ends are."""
        message = big_message(ENCODED)
        start, size = PIECE
        for kind in ("delivered", "appended", "compressed"):
            content = on_wire(message) if kind == "appended" else message
            uid, wire = self.add(content, kind), on_wire(message)
            for section in (Section(), Section((), b"TEXT"), Section((2,))):
                item = BodySection(section, partial=PIECE)
                whole = MessageItems(wire).content(BodySection(section))
                assert whole is not None
                self.check(uid, item, whole[start : start + size])

    def test_piece_of_a_decoded_part_costs_a_piece(self) -> None:
        """A piece of BINARY reads only the piece: of base64, quoted-printable, and a part that is not encoded."""
        start, size = PIECE
        for encoding, body, decoded in (
            (b"base64", ENCODED, RANDOM),
            (b"quoted-printable", b"a=3D=\n" * 200_000, b"a=" * 200_000),
            (b"7bit", b"line\n" * 100_000, b"line\r\n" * 100_000),
        ):
            for kind in ("delivered", "compressed"):
                uid = self.add(big_message(body, encoding), kind)
                self.store.sizes(self.key, [uid])
                self.check(uid, Binary((2,), partial=PIECE), decoded[start : start + size])

    def test_large_string_is_not_read_again_for_each_chunk(self) -> None:
        """To read a large string in chunks costs about as much as to read the file once more."""
        message = big_message(ENCODED)
        for kind in ("delivered", "compressed"):
            uid = self.add(message, kind)
            for item in (BodySection(Section((2,))), Binary((2,))):
                self.store.fetch(self.key, [uid], [item], BUDGET)
                with self.counted() as sizes:
                    for at in range(0, 400_000, 4000):
                        self.store.read(self.key, uid, item, at, 4000)
                # Each chunk of a file with LF line ends reads up to two steps too much.
                self.assertLess(sum(sizes), 3 * len(message) + 100 * 2 * message_layout.STEP)

    def test_first_piece_of_the_message_costs_a_piece(self) -> None:
        """The first piece of BODY[] reads the file only up to the end of the piece, whatever the line ends are."""
        message = big_message(ENCODED)
        for kind in ("delivered", "appended"):
            content = on_wire(message) if kind == "appended" else message
            uid = self.add(content, kind)
            item = BodySection(Section(), partial=(10_000, 1000))
            with self.counted() as sizes:
                self.assertEqual(self.value(uid, item), on_wire(message)[10_000:11_000])
            block = message_layout._BLOCK_STEPS * message_layout.STEP
            self.assertLess(sum(sizes), block + 2 * message_layout.STEP + 2)

    def test_whole_message_needs_no_copy_of_it(self) -> None:
        """BODY[] of a file with LF line ends never has the whole file in memory."""
        message = big_message(ENCODED)
        uid = self.add(message)
        with self.counted() as sizes:
            self.assertEqual(self.value(uid, BodySection(Section())), on_wire(message))
        self.assertLess(max(sizes), len(message) // 2)

    def test_first_piece_after_bodystructure_costs_a_piece(self) -> None:
        """After BODYSTRUCTURE, the first piece of a part reads the file only up to the end of the piece."""
        message = big_message(ENCODED)
        for kind in ("delivered", "appended"):
            content = on_wire(message) if kind == "appended" else message
            uid = self.add(content, kind)
            self.store.fetch(self.key, [uid], [Attribute(b"BODYSTRUCTURE")], BUDGET)
            with self.counted() as sizes:
                self.value(uid, BodySection(Section((2,)), partial=(10_000, 1000)))
            block = message_layout._BLOCK_STEPS * message_layout.STEP
            self.assertLess(sum(sizes), block + 2 * message_layout.STEP + 2)

    def test_unmeasured_message_is_measured(self) -> None:
        """A piece of a message whose size is not known adds the size to the index."""
        message = big_message(ENCODED)
        uid = self.add(message)
        self.value(uid, BodySection(Section((2,)), partial=PIECE))
        with self.counted() as sizes:
            self.assertEqual(
                self.store.sizes(self.key, [uid]).sizes, [(uid, len(on_wire(message)))]
            )
        self.assertEqual(sizes, [])


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
