"""Whether a directory can be created or written."""

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from imapshield.unwritable import unwritable


class UnwritableTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    def test_directory_that_can_be_created(self) -> None:
        """What exists can be written, so the rest can be created. Nothing is created."""
        for path in (self.folder, self.folder / "a" / "b"):
            self.assertIsNone(unwritable(str(path)))
        self.assertEqual(os.listdir(self.folder), [])

    def test_file_in_the_way(self) -> None:
        """A file, or a symbolic link to nothing, in place of a directory or above it is named."""
        (self.folder / "file").write_text("")
        (self.folder / "link").symlink_to("nothing")
        for name in ("file", "link"):
            for path in (self.folder / name, self.folder / name / "a" / "b"):
                self.assertEqual(unwritable(str(path)), f"{self.folder / name} is not a directory")

    def test_directory_of_another_user(self) -> None:
        """A directory that cannot be written is named."""
        self.patch(os, "access", lambda *_, **__: False)
        self.assertEqual(
            unwritable(str(self.folder / "a")),
            f"the user of the server cannot write in {self.folder}",
        )
