"""The spool stores literals in memory up to a budget, and in a file above it."""

import errno
import os
import tempfile
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from imapshield.edge.memory_share import MemoryShare
from imapshield.edge.spool import FILE_BUFFER_SIZE, Spool
from imapshield.errors import CommandRefused
from imapshield.testing.in_process import Server


def share(**limits: Any) -> MemoryShare:
    """Return the memory share of a connection that has logged in."""
    return Server(**limits).login().protocol.memory


class SpoolTests(SynchronousTestCase):
    def test_small_literal_stays_in_memory(self) -> None:
        """A literal within the memory budget stays in memory."""
        self.patch(tempfile, "TemporaryFile", None)
        literal = Spool(10, share()).new_literal()
        literal.write(b"12345")
        literal.write(b"67890")
        content = literal.finish()
        self.assertEqual((content.size, content.read(0, 99)), (10, b"1234567890"))
        content.close()

    def test_large_literal_goes_to_an_unnamed_file(self) -> None:
        """A literal above the memory budget goes completely to an unnamed file."""
        directory = self.mktemp()
        os.mkdir(directory)
        files = self.record_files()
        literal = Spool(10, share(), directory).new_literal()
        for _ in range(5):
            literal.write(b"12345")
        content = literal.finish()
        self.assertEqual(
            (content.size, content.read(3, 7), content.read(23, 9)), (25, b"4512345", b"45")
        )
        self.assertEqual((len(files), os.listdir(directory)), (1, []))
        content.close()

    def test_empty_literal_uses_no_storage(self) -> None:
        """An empty literal uses no storage."""
        content = Spool(10, share()).new_literal().finish()
        self.assertEqual((content.size, content.read(0, 99)), (0, b""))
        content.close()

    def test_zero_memory_budget_uses_the_file(self) -> None:
        """A memory budget of 0 puts literals of more than one byte in the file."""
        files = self.record_files()
        literal = Spool(0, share()).new_literal()
        literal.write(b"12345")
        self.assertEqual((len(files), literal.finish().read(0, 99)), (1, b"12345"))
        literal.discard()

    def record_files(self) -> list[Any]:
        """Return a list to which each temporary file is added when it is created."""
        files: list[Any] = []
        open_temporary = tempfile.TemporaryFile

        def open_file(**options: Any) -> Any:
            files.append(open_temporary(**options))
            return files[-1]

        self.patch(tempfile, "TemporaryFile", open_file)
        return files

    def test_full_disk_is_refused_with_overquota(self) -> None:
        """A write to a full disk raises CommandRefused with OVERQUOTA."""

        class FullFile:
            closed = False

            def write(self, data: bytes) -> None:
                raise OSError(errno.ENOSPC, "no space")

            def close(self) -> None:
                pass

        def open_full(**_: Any) -> FullFile:
            return FullFile()

        self.patch(tempfile, "TemporaryFile", open_full)
        literal = Spool(3, share()).new_literal()
        error = self.assertRaises(CommandRefused, literal.write, b"12345")
        self.assertEqual(error.code, b"OVERQUOTA")
        literal.discard()

    def test_spool_counts_what_it_holds(self) -> None:
        """A spool counts its bytes as memory until they are in a file, then as bytes of disk, and releases both."""
        server = Server()
        memory, budget = server.login().protocol.memory, server.factory.shared.memory_budget
        literal = Spool(10, memory).new_literal()
        literal.write(b"12345")
        self.assertEqual((memory.spooled, budget.file_bytes), (5, 0))
        literal.write(b"67890a")
        self.assertEqual((memory.spooled, budget.file_bytes), (FILE_BUFFER_SIZE, 11))
        literal.write(b"bc")
        self.assertEqual((memory.spooled, budget.file_bytes), (FILE_BUFFER_SIZE, 13))
        literal.close()
        self.assertEqual((memory.spooled, budget.file_bytes), (0, 0))

    def test_full_budget_of_files_is_refused(self) -> None:
        """A write beyond the budget of all temporary files raises CommandRefused with LIMIT, and writes nothing."""
        memory = share(max_spool_bytes=30)
        literal = Spool(4, memory).new_literal()
        literal.write(b"1" * 15)
        error = self.assertRaises(CommandRefused, literal.write, b"1")
        self.assertEqual(error.code, b"LIMIT")
        literal.discard()
        Spool(4, memory).new_literal().write(b"1" * 15)

    def test_literals_of_a_command_share_budget_and_file(self) -> None:
        """The literals of one command share the memory budget and one file, which is closed with the last literal."""
        files = self.record_files()
        spool = Spool(10, share())
        contents = []
        for i in range(100):
            literal = spool.new_literal()
            literal.write(b"%03d" % i)
            literal.write(b"-%03d" % i)
            contents.append(literal.finish())
            self.assertEqual(len(files), 0 if i == 0 else 1)
        for i, content in enumerate(contents):
            self.assertEqual(content.read(0, 99), b"%03d-%03d" % (i, i))
            self.assertEqual(content.read(2, 3), (b"%03d-%03d" % (i, i))[2:5])
        discarded = spool.new_literal()
        discarded.write(b"12345678901")
        discarded.discard()
        for content in contents:
            self.assertFalse(files[0].closed)
            content.close()
            content.close()
        self.assertTrue(files[0].closed)
