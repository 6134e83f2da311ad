"""If root starts the server for another user, the checks of the start have the rights of that user."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from imapshield.certificates import Certificates, PairFiles
from imapshield.config import ConfigError, Settings
from imapshield.process.process_control import Process
from imapshield.process.server_user import ServerUser
from imapshield.start_checks import check_as_user, check_shared_indexes, check_worker_program
from tests.certificates import self_signed
from tests.command_line import CommandLineTestCase


class FakeUser(ServerUser):
    """A user who can neither read nor write the paths that end with `denied`."""

    denied = ""

    @property
    def is_other(self) -> bool:
        return True

    @contextmanager
    def acting(self) -> Iterator[None]:
        access: Any = os.access
        open_file: Any = os.open

        def fake_access(path: str, *arguments: int, **options: bool) -> bool:
            return not path.endswith(self.denied) and access(path, *arguments, **options)

        def fake_open(path: str, *arguments: int, **options: Any) -> int:
            if path.endswith(self.denied):
                raise PermissionError(13, "Permission denied", path)
            return int(open_file(path, *arguments, **options))

        with mock.patch("os.access", fake_access), mock.patch("os.open", fake_open):
            yield


class StartCheckTests(CommandLineTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.settings = Settings(mail_root=self.mail, auth=(f"file:{self.users}", "memory:a:b"))
        self.certificates = Certificates(Clock())

    def check(self, denied: str, settings: Settings | None = None, error: str = "") -> list[str]:
        """Check for a user who is denied a path, and return the lines of the log."""

        def load() -> Settings:
            if error:
                raise ConfigError(error)
            return self.settings

        self.patch(FakeUser, "denied", denied)
        with capturedLogs() as logged:
            check_as_user(
                settings or self.settings, Process(load, None, FakeUser()), self.certificates
            )
        return [formatEvent(event) for event in logged]

    def refused(self, denied: str, settings: Settings | None = None) -> str:
        with self.assertRaises(ConfigError) as caught:
            self.check(denied, settings)
        return str(caught.exception)

    def test_user_who_may_everything(self) -> None:
        """A user who can read and write everything that is needed gets no line."""
        self.assertEqual(self.check("nothing"), [])

    def test_password_file(self) -> None:
        """A password file that the user cannot read is an error that says what to do."""
        error = self.refused("users")
        self.assertIn(f"--auth file:{self.users}: Permission denied; make it readable", error)

    def test_mail(self) -> None:
        """Directories of mail and indexes that the user cannot write are errors."""
        self.assertIn(f"--mail-root {self.mail}: the server cannot read", self.refused("mail"))
        index = self.path("index")
        os.mkdir(index)
        settings = Settings(mail_root=self.mail, index_root=index, auth=("memory:a:b",))
        self.assertIn(f"--index-root {index}: the server", self.refused("index", settings))

    def test_directory_of_the_first_start(self) -> None:
        """Without --mail-root, the user must be able to create the directory of the first start."""
        folder = self.path("")
        error = self.refused(self.folder, Settings())
        self.assertIn(f"the user of the server cannot write in {folder.rstrip('/')}; name", error)
        self.assertEqual(self.check("nothing", Settings()), [])
        self.assertFalse(os.path.exists(self.path("xdg")))

    def test_key(self) -> None:
        """A key that the user cannot read is a line: the server starts, but cannot use a renewed certificate."""
        certificate, key = self_signed()
        paths = self.file("cert.pem", certificate), self.file("key.pem", key)
        self.certificates.add(PairFiles(*paths))
        (line,) = self.check("key.pem")
        self.assertIn(f"{paths[1]}: the user of the server cannot read it", line)

    def test_configuration(self) -> None:
        """A configuration file that the user cannot read is a line: the server starts, but cannot reload it."""
        (line,) = self.check("nothing", error="--config /c: Permission denied")
        self.assertIn("cannot reload the configuration: --config /c: Permission denied", line)

    def test_nothing_is_checked_for_oneself(self) -> None:
        """Without another user there is nothing to check: the server is made with these rights."""
        with mock.patch("os.geteuid", return_value=1000):
            check_as_user(Settings(auth=("file:/none",)), Process(), self.certificates)


class SharedIndexTests(CommandLineTestCase):
    def settings(self, *arguments: str) -> Settings:
        options = "--mail-root", self.mail, "--auth", f"file:{self.users}"
        return self.parse(*options, *arguments).settings

    def test_maildirs_of_others_need_an_index_root(self) -> None:
        """Workers cannot share an index in a Maildir of another user, so they need --index-root."""
        os.mkdir(os.path.join(self.mail, "alice"))
        check_shared_indexes(self.settings("--workers", "2"))
        with mock.patch.object(os, "geteuid", lambda: os.stat(self.mail).st_uid + 1):
            check_shared_indexes(self.settings())
            check_shared_indexes(self.settings("--workers", "2", "--index-root", self.mail))
            with self.assertRaisesRegex(ConfigError, "add --index-root DIR"):
                check_shared_indexes(self.settings("--workers", "2"))

    def test_number_of_workers(self) -> None:
        """The number of workers is a whole number from 1 to 64, also in the file of --config."""
        for text in ("0", "65", "two", "1.5", "-1"):
            with self.assertRaises(SystemExit) as caught:
                self.settings(f"--workers={text}")
            self.assertIn("must be a whole number from 1 to 64", str(caught.exception))
        path = self.file("shield.toml", b"workers = 3")
        self.assertEqual(self.settings("--config", path).workers, 3)

    def test_workers_begin_without_root(self) -> None:
        """The user of the server must be able to read the program, because workers begin without the rights of root."""
        check_worker_program(self.settings("--workers", "2"))
        with mock.patch.object(os, "access", lambda *_, **__: False):
            check_worker_program(self.settings())
            with self.assertRaisesRegex(ConfigError, "install imapshield where all users can read"):
                check_worker_program(self.settings("--workers", "2"))
