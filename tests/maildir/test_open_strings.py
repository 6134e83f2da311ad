"""A large message that is being read in chunks is read to the end, whatever becomes of its file."""

from __future__ import annotations

import os
from collections.abc import Callable

from imapshield.mailbox.values import Blob
from imapshield.maildir import open_strings
from imapshield.wire.commands.fetch import Binary, BodySection, Section
from tests.maildir.large_message_case import BUDGET, ENCODED, PieceTestCase, big_message, on_wire

CHUNK = 70_001
WHOLE = BodySection(Section())
LINES = b"Subject: x\n\n" + b"0123456789\n" * 40_000


class OpenStringTests(PieceTestCase):
    def file(self) -> str:
        """The path of the only message."""
        paths = [
            os.path.join(folder, name)
            for folder in (self.path("cur"), self.path("new"))
            for name in os.listdir(folder)
        ]
        self.assertEqual(len(paths), 1)
        return paths[0]

    def read_while(self, uid: int, item: BodySection | Binary, change: Callable[[], None]) -> bytes:
        """Read a string in chunks, with a change after the first one."""
        blob = self.store.fetch(self.key, [uid], [item], BUDGET).columns[0][0]
        assert isinstance(blob, Blob)
        octets = self.store.read(self.key, uid, item, 0, CHUNK)
        change()
        for start in range(CHUNK, blob.size, CHUNK):
            octets += self.store.read(self.key, uid, item, start, CHUNK)
        self.assertEqual(len(octets), blob.size)
        return octets

    def expunge(self, uid: int) -> None:
        since = self.store.open("INBOX", True).delta.highestmodseq
        self.store.store_flags(self.key, [uid], b"+FLAGS", [b"\\Deleted"], None, since)
        self.store.expunge(self.key, None, since)

    def test_message_that_another_client_expunges(self) -> None:
        """The rest of an expunged message is sent: unchanged, converted or decompressed."""
        for kind in ("appended", "delivered", "compressed"):
            content = on_wire(LINES) if kind == "appended" else LINES
            uid = self.add(content, kind)
            octets = self.read_while(uid, WHOLE, lambda uid=uid: self.expunge(uid))  # type: ignore[misc]
            self.assertEqual(octets, on_wire(LINES), kind)
            self.assertEqual(len(self.large.strings), 0)

    def test_decoded_part_of_an_expunged_message(self) -> None:
        """So is the rest of a part that is decoded for BINARY."""
        uid = self.add(big_message(ENCODED))
        item = Binary((2,))
        expected = self.value(uid, item)
        self.assertEqual(self.read_while(uid, item, lambda: self.expunge(uid)), expected)

    def test_file_that_another_program_changes(self) -> None:
        """A file may be removed, renamed, or replaced by another one."""

        def remove() -> None:
            os.remove(self.file())

        def rename() -> None:
            os.rename(self.file(), self.path("cur", "1.other:2,FS"))

        def replace() -> None:
            with open(self.path("tmp", "x"), "wb") as file:
                file.write(b"Subject: other\n\n")
            os.replace(self.path("tmp", "x"), self.file())

        for change in (remove, rename, replace):
            uid = self.add(LINES)
            self.assertEqual(self.read_while(uid, WHOLE, change), on_wire(LINES))
            for folder in ("cur", "new"):
                for name in os.listdir(self.path(folder)):
                    os.remove(self.path(folder, name))
            self.store.open("INBOX", True)

    def test_number_of_open_strings(self) -> None:
        """It is limited for each account and for all; strings that are not read, or of a closed account, are closed."""
        self.patch(open_strings, "MAX_OWN_STRINGS", 2)
        self.patch(open_strings, "MAX_OPEN_STRINGS", 3)
        uids, now = [self.add(LINES) for _ in range(4)], self.store._account.now()

        def open_all() -> None:
            for uid in uids:
                self.store.fetch(self.key, [uid], [WHOLE], BUDGET)
                self.store.read(self.key, uid, WHOLE, 0, CHUNK)

        before = len(os.listdir("/dev/fd"))
        open_all()
        self.assertEqual(len(self.large.strings), 2)
        self.assertEqual(len(os.listdir("/dev/fd")), before + 2)
        string = self.large.strings.get(
            self.store._account, (id(None), self.key, uids[-1], WHOLE), 0
        )
        assert string is not None
        for owner in ("a", "b", "c"):
            self.large.strings.add(owner, 1, string.string, 0, b"", now)
        self.assertEqual(len(self.large.strings), 3)
        self.large.strings.add("d", 1, string.string, 0, b"", now + 100)
        self.assertEqual(len(self.large.strings), 1)
        self.large.close("d")
        self.assertEqual(len(self.large.strings), 0)
        open_all()
        del string
        self.large.close(self.store._account)
        self.assertEqual(len(os.listdir("/dev/fd")), before)
