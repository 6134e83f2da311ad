"""Storage for literals: the memory budget, and the file above it."""

import errno
import os
import tempfile
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from imapshield.edge.spool import Spool, SpooledFile
from imapshield.errors import CommandRefused
from imapshield.wire.commands.base import MemoryLiteral


class SpoolTests(SynchronousTestCase):
    def test_small_literal(self) -> None:
        """A literal within the memory budget stays in memory."""
        sink = Spool(10).new_sink()
        sink.write(b"12345")
        sink.write(b"67890")
        self.assertEqual(sink.finish(), MemoryLiteral(b"1234567890"))

    def test_large_literal(self) -> None:
        """A literal above the memory budget goes to an unnamed file, complete."""
        directory = self.mktemp()
        os.mkdir(directory)
        sink = Spool(10, directory).new_sink()
        for _ in range(5):
            sink.write(b"12345")
        content = sink.finish()
        assert isinstance(content, SpooledFile)
        self.assertEqual(
            (content.size, content.read(3, 7), content.read(23, 9)), (25, b"4512345", b"45")
        )
        self.assertEqual(os.listdir(directory), [])
        content.close()

    def test_full_disk(self) -> None:
        """A full disk is CommandRefused with OVERQUOTA."""

        class FullFile:
            def write(self, data: bytes) -> None:
                raise OSError(errno.ENOSPC, "no space")

            def close(self) -> None:
                pass

        def open_full(**_: Any) -> FullFile:
            return FullFile()

        self.patch(tempfile, "TemporaryFile", open_full)
        sink = Spool(3).new_sink()
        error = self.assertRaises(CommandRefused, sink.write, b"12345")
        self.assertEqual(error.code, b"OVERQUOTA")
        sink.discard()

    def test_many_literals(self) -> None:
        """The literals of one command share the memory budget and one file, which is closed with the last of them."""
        files: list[Any] = []
        open_temporary = tempfile.TemporaryFile

        def open_file(**more: Any) -> Any:
            files.append(open_temporary(**more))
            return files[-1]

        self.patch(tempfile, "TemporaryFile", open_file)
        shared = Spool(10)
        contents = []
        for i in range(100):
            sink = shared.new_sink()
            sink.write(b"%03d" % i)
            sink.write(b"-%03d" % i)
            contents.append(sink.finish())
        in_memory = [c for c in contents if isinstance(c, MemoryLiteral)]
        self.assertEqual((len(in_memory), len(files)), (1, 1))
        for i, content in enumerate(contents):
            self.assertEqual(content.read(0, 99), b"%03d-%03d" % (i, i))
            self.assertEqual(content.read(2, 3), (b"%03d-%03d" % (i, i))[2:5])
        unwanted = shared.new_sink()
        unwanted.write(b"12345678901")
        unwanted.discard()
        for content in contents:
            self.assertFalse(files[0].closed)
            content.close()
            content.close()
        self.assertTrue(files[0].closed)
