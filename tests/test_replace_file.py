"""A file is replaced as a whole, or stays as it is."""

import os
import stat

from twisted.trial.unittest import SynchronousTestCase

from imapshield.replace_file import replace_file


class ReplaceFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.path = os.path.join(self.folder, "file")

    def read(self) -> bytes:
        with open(self.path, "rb") as file:
            return file.read()

    def test_content_and_mode(self) -> None:
        """Only the owner can read the file before `prepare` says otherwise, and it is complete then."""
        found: list[tuple[int, int]] = []

        def prepare(fd: int) -> None:
            status = os.fstat(fd)
            found.append((status.st_size, stat.S_IMODE(status.st_mode)))
            os.fchmod(fd, 0o640)

        replace_file(self.path, b"old")
        replace_file(self.path, b"newer", prepare)
        self.assertEqual((found, self.read()), ([(5, 0o600)], b"newer"))
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o640)

    def test_error_changes_nothing(self) -> None:
        """An error leaves the old file, and no other one."""
        replace_file(self.path, b"old")
        with self.assertRaises(ZeroDivisionError):
            replace_file(self.path, b"new", lambda fd: fd // 0)
        self.assertEqual((os.listdir(self.folder), self.read()), (["file"], b"old"))

    def test_link_stays_a_link(self) -> None:
        """The file that a symbolic link names is replaced."""
        link = os.path.join(self.folder, "link")
        os.symlink("file", link)
        replace_file(link, b"new")
        self.assertEqual((os.readlink(link), self.read()), ("file", b"new"))
