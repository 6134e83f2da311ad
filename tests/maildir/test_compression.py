"""Message files that Dovecot compressed are read like others, and cost no more than the limits allow."""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import zlib
from collections.abc import Callable
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from imapshield.mailbox.values import Blob
from imapshield.maildir import compression
from imapshield.maildir.mailbox_status import MAX_MEASURED_BY_STATUS
from imapshield.maildir.message_fetch import MAX_STRING_SIZE
from imapshield.maildir.message_file import MessageFile, MessageFiles
from imapshield.maildir.open_folders import OpenFolders
from imapshield.message.chunks import CHUNK_SIZE
from imapshield.testing.store_contract import BUDGET, ENVELOPE, MAIL, STRUCTURE, WHOLE
from imapshield.wire import strings
from imapshield.wire.commands.fetch import BodySection, FetchItem, Section
from imapshield.wire.commands.search import TextKey
from tests.maildir.disk import DiskTestCase

STORED = MAIL.replace(b"\r\n", b"\n")
FORMATS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}
TEXT = BodySection(Section((), b"TEXT"))
ITEMS: tuple[FetchItem, ...] = (
    WHOLE,
    TEXT,
    BodySection(Section((), b"HEADER")),
    BodySection(Section((1,))),
    BodySection(Section(), partial=(5, 20)),
    ENVELOPE,
    STRUCTURE,
)


def marked(number: int, content: bytes, wire: int | None = None, flags: str = "S") -> str:
    """Return the name that Dovecot gives to the compressed file of `content`."""
    sizes = f"S={len(content)}" + ("" if wire is None else f",W={wire}")
    return f"17000000{number:02d}.M1P1.mx,{sizes}:2,{flags}"


class FormatTests(SynchronousTestCase):
    def refused(self, octets: bytes) -> str:
        """Return the text for the operator of a file that cannot be decompressed."""
        error = self.assertRaises(OSError, compression.decompress, octets)
        self.assertEqual(error.errno, errno.EBADMSG)
        text: str = error.strerror
        return text

    def test_every_format_is_decompressed(self) -> None:
        """Every format is decompressed: empty, small, large, and several streams in a file."""
        for name, compress in FORMATS.items():
            for content in (b"", STORED, os.urandom(100_000) + bytes(2_000_000)):
                octets = compress(content)
                self.assertTrue(octets.startswith(compression.MAGIC), name)
                self.assertTrue(compression.decompress(octets) == content, name)
                self.assertTrue(compression.decompress(octets + octets) == 2 * content, name)
                self.assertTrue(compression.decompress_head(octets, 9) == content[:9], name)

    def test_damaged_file_is_refused(self) -> None:
        """A file that ends early, that is damaged, or that has something else at its end is refused."""
        for name, compress in FORMATS.items():
            octets = compress(STORED)
            for end in (8, len(octets) // 2, len(octets) - 1):
                self.assertIn(f"its {name} data ends early", self.refused(octets[:end]))
            for damaged in (
                octets + b"junk, not a stream",
                octets[:30] + b"\xff\0\xff\0" + octets[34:],
            ):
                self.assertIn(f"its {name} data is damaged", self.refused(damaged))

    def test_head_of_an_incomplete_file_is_what_there_is(self) -> None:
        """The beginning of a file can be decompressed without its end."""
        content = b"".join(b"line %d\n" % i for i in range(50_000))
        for compress in FORMATS.values():
            octets = compress(content)
            self.assertTrue(content.startswith(compression.decompress_head(octets[:20_000], 9999)))
        octets = gzip.compress(content)
        self.assertEqual(compression.decompress_head(octets[:20_000], 9999), content[:9999])

    def test_size_and_ratio_are_limited(self) -> None:
        """Above ANY_RATIO_SIZE a ratio of more than MAX_RATIO is refused, and always more than the largest message."""
        bomb = gzip.compress(bytes(2_000_000))
        with mock.patch.object(compression, "ANY_RATIO_SIZE", 2_000_000):
            self.assertEqual(len(compression.decompress(bomb)), 2_000_000)
        for limit in ("ANY_RATIO_SIZE", "MAX_MESSAGE_SIZE"):
            with mock.patch.object(compression, limit, 1_999_999):
                self.assertIn("decompress to more than 1999999", self.refused(bomb))
                # The head does not need the rest.
                self.assertEqual(compression.decompress_head(bomb, 10), bytes(10))
        ordinary = gzip.compress(os.urandom(20_000))
        with mock.patch.object(compression, "ANY_RATIO_SIZE", 0):
            self.assertEqual(len(compression.decompress(ordinary)), 20_000)

    def test_bomb_is_decompressed_no_further_than_the_limit(self) -> None:
        """A bomb is decompressed up to the limit and one chunk more, whatever it contains."""
        total = 0

        class Counted(compression._Gzip):
            def decompress(self, data: bytes, max_length: int) -> bytes:
                nonlocal total
                octets = super().decompress(data, max_length)
                total += len(octets)
                return octets

        inflated = zlib.compressobj(9, wbits=31)
        bomb = b"".join(inflated.compress(bytes(1 << 20)) for _ in range(200)) + inflated.flush()
        formats = {b"\x1f\x8b": ("gzip", Counted)}
        with mock.patch.object(compression, "_FORMATS", formats):
            self.refused(bomb)
        self.assertLess(total, compression.ANY_RATIO_SIZE + CHUNK_SIZE + 1)

    def test_empty_streams_are_limited(self) -> None:
        """A file of very many streams is refused."""
        self.assertIn("damaged", self.refused(gzip.compress(b"") * 2000))

    def test_xz_memory_is_limited(self) -> None:
        """A file of xz -9 is read; one that demands more memory is refused."""
        self.assertEqual(compression.decompress(lzma.compress(STORED, preset=9)), STORED)
        with mock.patch.object(compression, "_MAX_XZ_MEMORY", 8 << 20):
            self.assertIn("damaged", self.refused(lzma.compress(STORED, preset=9)))

    def test_zstd_is_optional(self) -> None:
        """Files of zstd are decompressed; without its package the text says what to install. lz4 is not supported."""
        # A frame with one raw block.
        frame = b"\x28\xb5\x2f\xfd\x20%c" % len(STORED) + (len(STORED) << 3 | 1).to_bytes(
            3, "little"
        )
        self.assertEqual(compression.decompress(frame + STORED), STORED)
        self.assertIn("ends early", self.refused(frame + STORED[:-1]))
        self.assertIn("damaged", self.refused(frame[:6] + b"\xff" * 20))
        with mock.patch.object(compression, "_zstd", None):
            self.assertIn("pip install 'imapshield[zstd]'", self.refused(frame))
        self.assertIn("lz4, which is not supported", self.refused(b"Dovecot-LZ4\r*\x9b\xc5\0\0"))


class CompressedMailTests(DiskTestCase):
    def key(self) -> int:
        return self.store.open("INBOX", True).key

    def fetch(self, uid: int, items: tuple[FetchItem, ...] = ITEMS) -> list[bytes | Blob]:
        fetched = self.store.fetch(self.key(), [uid], items, BUDGET)
        return [column[0] for column in fetched.columns]

    def size(self, uid: int) -> int:
        return self.store.sizes(self.key(), [uid]).sizes[0][1]

    def read(self, blob: bytes | Blob) -> bytes:
        """Return the string of a blob, read in chunks."""
        assert isinstance(blob, Blob)
        offsets = range(0, blob.size, 100_000)
        return b"".join(
            self.store.read(self.key(), blob.uid, blob.item, at, 100_000) for at in offsets
        )

    def test_compressed_mail_is_read_like_other_mail(self) -> None:
        """All answers of a compressed message are those of the same message, with and without W= in its name."""
        self.append()
        for number, compress in enumerate(FORMATS.values()):
            for content, wire in ((STORED, None), (STORED, len(MAIL)), (MAIL, len(MAIL))):
                name = marked(10 * number, content, wire)
                self.deliver(compress(content), name=name, directory="cur")
                uid = self.store.open("INBOX", True).delta.rows[-1].uid
                self.assertEqual(self.fetch(uid), self.fetch(1), name)
                self.assertEqual(self.fetch(uid, (WHOLE,)), self.fetch(1, (WHOLE,)), name)
                self.assertEqual(self.size(uid), len(MAIL), name)
                os.unlink(self.path("cur", name))
                found = self.store.search(self.key(), [uid], TextKey("x", True))
                self.assertEqual(found.matching, [])

    def test_text_of_compressed_mail_is_searched(self) -> None:
        """SEARCH TEXT finds the text of compressed messages."""
        content = b"Subject: a\n\nneedle in the haystack\n"
        self.deliver(gzip.compress(content), name=marked(1, content), directory="cur")
        for words, found in (("needle in", [1]), ("other", [])):
            self.assertEqual(
                self.store.search(self.key(), [1], TextKey(words, False)).matching, found
            )

    def test_appended_message_stays_byte_for_byte(self) -> None:
        """A message that begins like a compressed one is returned as it was stored, also by a copy of it."""
        octets = gzip.compress(MAIL)
        self.append(content=octets)
        self.store.copy(self.key(), [1], "INBOX", False, 0)
        self.deliver(octets.replace(b"\n", b"\r"), name="1700000003.x", directory="cur")
        self.assertEqual(self.fetch(1, (WHOLE,)), [strings.literal(octets)])
        self.assertEqual(self.fetch(2), self.fetch(1))
        self.assertEqual(self.fetch(3, (WHOLE,))[0], strings.literal(octets.replace(b"\n", b"\r")))

    def test_message_that_is_only_named_like_a_compressed_one(self) -> None:
        """A message whose name has a wrong S= is returned as it is."""
        self.deliver(MAIL, name=f"1700000001.x,S=5,W={len(MAIL)}:2,S", directory="cur")
        self.key()
        self.append()
        self.assertEqual(self.fetch(1), self.fetch(2))
        head = b"Subject: a\nb\r\n\r\n"
        content = head + b"x" * 100_000
        self.deliver(content, name=f"1700000002.x,S=5,W={len(content)}:2,S", directory="cur")
        self.assertEqual(self.fetch(3, (ITEMS[2],)), [strings.literal(head)])

    def test_bare_line_feeds_stay(self) -> None:
        """A message that APPEND stored with bare LFs, and that a script has compressed since, is returned as before."""
        self.append(content=STORED)
        before = self.fetch(1), self.size(1)
        (name,) = self.cur()
        with open(self.path("cur", name), "wb") as file:
            file.write(gzip.compress(STORED))
        self.assertEqual((self.fetch(1), self.size(1)), before)
        self.assertEqual(self.store.quota().octets, len(gzip.compress(STORED)))
        self.store = self.open_store()
        self.assertEqual((self.fetch(1), self.size(1)), before)

    def test_letter_z_marks_a_compressed_file(self) -> None:
        """The letter Z of a script that compresses old mail is no flag, and stays when flags are stored."""
        octets = gzip.compress(STORED)
        name = f"1700000001.M1P1.mx,S={len(octets)}:2,FSZ"
        self.deliver(octets, name=name, directory="cur")
        self.key()
        self.append()
        self.assertEqual(self.fetch(1), self.fetch(2))
        self.assertEqual(self.flags()[1], b"\\Flagged \\Seen")
        self.store.store_flags(self.key(), [1], b"", [b"\\Deleted", b"word"], None, 0)
        self.assertIn(name.replace("FSZ", "TZa"), self.cur())
        self.assertEqual(self.flags()[1], b"\\Deleted word")

    def test_copies_stay_marked(self) -> None:
        """Copies and moved messages are named like compressed files too."""
        self.store.create("A", ())
        octets = gzip.compress(STORED)
        self.deliver(octets, name=marked(1, STORED, len(MAIL)), directory="cur")
        self.deliver(octets, name=f"1700000002.x,S={len(octets)}:2,Z", directory="cur")
        expected = self.fetch(1)
        self.store.copy(self.key(), [1, 2], "A", False, 0)
        self.store.copy(self.key(), [1, 2], "A", True, 0)
        key = self.store.open("A", True).key
        fetched = self.store.fetch(key, [1, 2, 3, 4], ITEMS, BUDGET)
        self.assertEqual(list(fetched.columns), [[value] * 4 for value in expected])
        self.assertEqual(self.store.sizes(key, [1, 3]).sizes, [(1, len(MAIL)), (3, len(MAIL))])

    def test_large_message_is_a_blob(self) -> None:
        """The content of a small file is a blob if it is large, and its header is read without the rest."""
        head = b"Subject: large\n\n"
        content = head + os.urandom(40_000).hex().encode() * 10 + b"\n"
        wire = content.replace(b"\n", b"\r\n")
        octets = gzip.compress(content)
        self.assertLess(len(octets), MAX_STRING_SIZE // 2 + len(content))
        small = bz2.compress(b"Subject: s\n\n" + bytes(600_000))
        self.deliver(small, name=marked(1, bytes(600_012)), directory="cur")
        self.assertEqual(self.read(self.fetch(1, (WHOLE,))[0])[-600_000:], bytes(600_000))
        self.deliver(octets, name=marked(2, content, len(wire)), directory="cur")
        self.assertTrue(self.read(self.fetch(2, (WHOLE,))[0]) == wire)
        self.assertTrue(self.read(self.fetch(2, (TEXT,))[0]) == wire[18:])
        with mock.patch.object(compression, "decompress", self.fail):
            self.assertEqual(self.fetch(2, (ITEMS[2],)), [strings.literal(wire[:18])])
            self.fetch(2, (ENVELOPE,))

    def test_size_of_many_compressed_messages_is_an_upper_bound(self) -> None:
        """STATUS SIZE of messages that were not measured is an upper bound of their sizes before compression."""
        content = b"Subject: s\n\n" + b"\n" * 9_000
        self.deliver(gzip.compress(content), name=marked(1, content, flags="T"), directory="cur")
        self.deliver(bytes(MAX_MEASURED_BY_STATUS), name="1700000002.x", directory="cur")
        status = self.store.status("INBOX")
        self.assertEqual(status.deleted_size, 2 * len(content))
        self.assertEqual(status.size, 2 * len(content) + 2 * MAX_MEASURED_BY_STATUS)

    def test_damaged_file_is_an_error_of_its_message(self) -> None:
        """Reading or measuring a damaged file raises an OSError, whichever part of it is asked for."""
        octets = gzip.compress(STORED)
        name = marked(1, STORED)
        self.deliver(octets[:-9], name=name, directory="cur")
        message = MessageFile(1, os.fsencode(name), 0, None, len(octets) - 9)
        folders = OpenFolders(os.fsencode(self.root), None, False, self.warnings.append)
        folders.ensure_open()
        self.addCleanup(folders.close)
        message_files = MessageFiles(folders.folder("INBOX"))
        fd = message_files.open(message)
        assert fd is not None
        self.addCleanup(os.close, fd)
        self.assertRaises(OSError, message_files.content, fd, message)
        error = self.assertRaises(OSError, message_files.measure, message)
        self.assertEqual(error.filename, os.fsencode(self.path("cur", name)))
