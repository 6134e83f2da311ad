"""If root starts the server for another user, the checks of the start have the rights of that user."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
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
        os.makedirs(os.path.join(self.mail, "alice", "cur"))
        check_shared_indexes(self.settings("--workers", "2"))
        with self.owners({"alice": 1001}), mock.patch.object(os, "geteuid", lambda: 1000):
            check_shared_indexes(self.settings())
            check_shared_indexes(self.settings("--workers", "2", "--index-root", self.mail))
            with self.assertRaisesRegex(ConfigError, "add --index-root DIR"):
                check_shared_indexes(self.settings("--workers", "2"))

    def test_maildirs_at_the_level_of_the_pattern(self) -> None:
        """Maildirs are looked for where the pattern has them. What is no Maildir does not matter, nor does root's."""
        deep = os.path.join(self.mail, "{domain}", "[{local}]")
        settings = replace(self.settings("--workers", "2"), mail_root=deep)
        os.makedirs(os.path.join(self.mail, "lost+found"))
        os.makedirs(os.path.join(self.mail, "example.org", "alice", "cur"))
        os.makedirs(os.path.join(self.mail, "example.org", "[bob]", "cur"))
        flat = self.settings("--workers", "2")
        with mock.patch.object(os, "geteuid", lambda: 1000):
            with self.owners({}):
                check_shared_indexes(settings)
            with self.owners({"lost+found": 1001, "alice": 1001, "mail": 1001}):
                check_shared_indexes(flat)
                check_shared_indexes(settings)
            with self.owners({"[bob]": 1001}):
                check_shared_indexes(flat)
                with self.assertRaisesRegex(ConfigError, r"/example.org/\[bob\] belongs to"):
                    check_shared_indexes(settings)

    def test_maildirs_that_root_will_create(self) -> None:
        """A Maildir that root creates gets the owner of the directory above, who must not be another user either."""
        os.makedirs(os.path.join(self.mail, "alice"))
        homes = os.path.join(self.mail, "{user}", "Maildir")
        settings = replace(self.settings("--workers", "2"), mail_root=homes)
        with self.owners({"alice": 1001}):
            with mock.patch.object(os, "geteuid", lambda: 1000):
                check_shared_indexes(settings)
            with (
                mock.patch.object(os, "geteuid", lambda: 0),
                self.assertRaisesRegex(ConfigError, "/alice belongs to"),
            ):
                check_shared_indexes(settings)

    @contextmanager
    def owners(self, owners: dict[str, int]) -> Iterator[None]:
        """Have directories with these names these owners; all others are root's."""
        real_stat: Any = os.stat

        def stat(path: str, **options: Any) -> Any:
            status = real_stat(path, **options)
            owner = owners.get(os.path.basename(path), 0)
            return mock.Mock(st_uid=owner, st_mode=status.st_mode)

        with mock.patch.object(os, "stat", stat):
            yield

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
