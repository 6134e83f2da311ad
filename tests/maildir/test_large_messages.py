"""Pieces of large messages: what FETCH returns, and how much of the file it reads."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from imapshield.errors import CommandRefused
from imapshield.mailbox.message_items import MessageItems
from imapshield.mailbox.values import Blob
from imapshield.maildir import message_fetch, message_layout, message_strings
from imapshield.maildir.message_layout import LineMap
from imapshield.wire import strings
from imapshield.wire.commands.fetch import Attribute, Binary, BodySection, Section
from tests.maildir.large_message_case import (
    BUDGET,
    ENCODED,
    PIECE,
    RANDOM,
    Item,
    PieceTestCase,
    big_message,
    on_wire,
)

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
