"""A literal while it arrives."""

import errno
import os
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from imapshield.edge import spool
from imapshield.edge.spool import Spool, SpooledFile
from imapshield.errors import Refused
from imapshield.wire.commands import Memory


class Spooling(SynchronousTestCase):
    def test_small(self) -> None:
        """What fits stays in memory."""
        sink = Spool(10)
        sink.write(b"12345")
        sink.write(b"67890")
        self.assertEqual(sink.finish(), Memory(b"1234567890"))

    def test_large(self) -> None:
        """What does not goes into a file without a name, in full, and goes with it."""
        folder = self.mktemp()
        os.mkdir(folder)
        sink = Spool(10, folder)
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
        sink = Spool(3)
        error = self.assertRaises(Refused, sink.write, b"12345")
        self.assertEqual(error.code, b"OVERQUOTA")
        sink.discard()
