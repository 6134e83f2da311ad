"""The log file is opened again after it was renamed."""

import os
from typing import Any, cast

from twisted.logger import LegacyLogObserverWrapper, LogPublisher, textFileLogObserver
from twisted.python import log as legacy
from twisted.python.logfile import LogFile
from twisted.trial.unittest import SynchronousTestCase

from imapshield.observe.json_log import JsonLogObserver
from imapshield.process import log_files as module
from imapshield.process.log_files import log_files, reopen, reopen_all


class LogFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        os.mkdir(self.folder)
        self.path = os.path.join(self.folder, "log")
        self.file = LogFile.fromFullPath(self.path)
        self.addCleanup(self.close)

    def close(self) -> None:
        self.file.close()

    def content(self, name: str) -> str:
        with open(os.path.join(self.folder, name)) as file:
            return file.read()

    def test_files_of_every_kind_of_observer_are_found(self) -> None:
        """The file is found behind the observers of `twisted.logger` and of `twisted.python.log`."""
        old = legacy.FileLogObserver(cast("Any", self.file))
        for observer in (
            textFileLogObserver(cast("Any", self.file)),
            LegacyLogObserverWrapper(cast("Any", old.emit)),
            JsonLogObserver(self.file),
        ):
            self.assertEqual(log_files(LogPublisher(observer)), [self.file])
        self.assertEqual(log_files(LogPublisher()), [])

    def test_renamed_file_is_opened_again(self) -> None:
        """After a rename, lines go to a new file; before it, opening again changes nothing."""
        self.file.write("1")
        self.assertEqual(reopen(self.file), "")
        self.file.write("2")
        os.rename(self.path, self.path + ".1")
        self.assertEqual(reopen(self.file), "")
        self.file.write("3")
        self.assertEqual((self.content("log.1"), self.content("log")), ("12", "3"))

    def test_file_that_was_not_renamed(self) -> None:
        """A file that was not renamed stays open: root may have opened it, and the server may not."""

        def refuse(*_: object) -> int:
            raise PermissionError(13, "Permission denied")

        self.patch(os, "open", refuse)
        self.assertEqual(reopen(self.file), "")

    def test_mode_of_the_file_stays(self) -> None:
        """The new file has the mode that the file had when the server started."""
        self.file.close()
        os.chmod(self.path, 0o640)
        self.file = LogFile.fromFullPath(self.path)
        os.rename(self.path, self.path + ".1")
        reopen(self.file)
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o640)

    def test_file_that_cannot_be_opened(self) -> None:
        """If the new file cannot be opened, the earlier one stays in use, and has a line that says what to do."""
        os.rename(self.folder, self.folder + ".away")
        problem = reopen(self.file)
        self.assertIn(f"--logfile {self.path}: No such file or directory", problem)
        self.assertIn("writable for the user of the server", problem)
        self.file.write("x")
        os.rename(self.folder + ".away", self.folder)
        self.assertEqual(self.content("log"), "x")

    def test_all_files_are_opened_again(self) -> None:
        """All files are opened again, and their problems are returned."""
        self.patch(module, "log_files", lambda: [self.file])
        self.assertEqual(reopen_all(), [])
        os.rename(self.folder, self.folder + ".away")
        self.assertEqual(len(reopen_all()), 1)
