"""A literal while it arrives."""

import errno
import os
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from imapshield.edge import spool
from imapshield.edge.spool import Spool, SpooledFile
from imapshield.errors import CommandRefused
from imapshield.wire.commands.base import MemoryLiteral


class Spooling(SynchronousTestCase):
    def test_small(self) -> None:
        """What fits stays in memory."""
        sink = Spool(10).new_sink()
        sink.write(b"12345")
        sink.write(b"67890")
        self.assertEqual(sink.finish(), MemoryLiteral(b"1234567890"))

    def test_large(self) -> None:
        """What does not goes into a file without a name, in full, and goes with it."""
        folder = self.mktemp()
        os.mkdir(folder)
        sink = Spool(10, folder).new_sink()
        for _ in range(5):
            sink.write(b"12345")
        content = sink.finish()
        assert isinstance(content, SpooledFile)
        self.assertEqual(
            (content.size, content.read(3, 7), content.read(23, 9)), (25, b"4512345", b"45")
        )
        self.assertEqual(os.listdir(folder), [])
        content.close()

    def test_full_disk(self) -> None:
        """A full disk is a refusal."""

        class Full:
            def write(self, data: bytes) -> None:
                raise OSError(errno.ENOSPC, "no space")

            def close(self) -> None:
                pass

        def full(**_: Any) -> Full:
            return Full()

        self.patch(spool.tempfile, "TemporaryFile", full)
        sink = Spool(3).new_sink()
        error = self.assertRaises(CommandRefused, sink.write, b"12345")
        self.assertEqual(error.code, b"OVERQUOTA")
        sink.discard()

    def test_many(self) -> None:
        """The literals of one command share its memory and one file, which goes with the last of them."""
        files: list[Any] = []
        make = spool.tempfile.TemporaryFile

        def one(**more: Any) -> Any:
            files.append(make(**more))
            return files[-1]

        self.patch(spool.tempfile, "TemporaryFile", one)
        shared = Spool(10)
        contents = []
        for i in range(100):
            sink = shared.new_sink()
            sink.write(b"%03d" % i)
            sink.write(b"-%03d" % i)
            contents.append(sink.finish())
        kept = [one for one in contents if isinstance(one, MemoryLiteral)]
        self.assertEqual((len(kept), len(files)), (1, 1))
        for i, content in enumerate(contents):
            self.assertEqual(content.read(0, 99), b"%03d-%03d" % (i, i))
            self.assertEqual(content.read(2, 3), (b"%03d-%03d" % (i, i))[2:5])
        lost = shared.new_sink()
        lost.write(b"12345678901")
        lost.discard()
        for content in contents:
            self.assertFalse(files[0].closed)
            content.close()
            content.close()
        self.assertTrue(files[0].closed)
