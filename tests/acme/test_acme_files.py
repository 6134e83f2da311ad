"""The directory with the account key and the certificate."""

import os
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from imapshield.acme.acme_files import AcmeError, AcmeFiles
from imapshield.config import ConfigError


class FileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.files = AcmeFiles(str(self.folder), "https://ca.example/dir")

    def test_only_the_server_can_read_the_files(self) -> None:
        """The directory has the mode 0700, also one that was there, and the files 0600. That of the option is as it was."""
        self.folder.mkdir(mode=0o755)
        (self.folder / "ca.example_dir").mkdir(mode=0o755)
        self.files.prepare()
        self.files.key(lambda: b"key")
        self.files.save(b"certificate")
        modes = {}
        for path in (self.folder, self.folder / "ca.example_dir", *self.folder.glob("*/*")):
            modes[path.name] = stat.S_IMODE(path.stat().st_mode)
        del modes[self.folder.name]
        self.assertEqual(
            modes, {"ca.example_dir": 0o700, "account.pem": 0o600, "certificate.pem": 0o600}
        )
        self.assertEqual(stat.S_IMODE(self.folder.stat().st_mode), 0o755)

    def test_account_key_is_made_once(self) -> None:
        """The key of the account stays the same."""
        self.files.prepare()
        self.assertEqual(self.files.key(lambda: b"first"), b"first")
        self.assertEqual(self.files.key(lambda: b"second"), b"first")

    def test_certificate_is_replaced(self) -> None:
        """A new certificate takes the place of the earlier one."""
        self.files.prepare()
        for content in (b"old", b"new"):
            self.files.save(content)
            self.assertEqual(Path(self.files.certificate).read_bytes(), content)

    def test_directory_that_cannot_be_used(self) -> None:
        """A directory that cannot be made or written, or belongs to another user, is an error with the option."""
        self.folder.write_text("a file")
        self.assertRaisesRegex(
            ConfigError, "is not a directory; name a.*--acme-state", self.files.prepare
        )
        self.folder.unlink()
        self.patch(os, "access", lambda *_, **__: False)
        self.assertRaisesRegex(ConfigError, "cannot write in .*; name a", self.files.prepare)

    def test_directory_of_others(self) -> None:
        """A directory of another user, or in which others can write, is an error; it is not changed."""
        for path in (self.folder, Path(self.files.directory)):
            path.mkdir()
            path.chmod(0o775)
            text = f"others* .* write in {path}; type chmod go-w"
            self.assertRaisesRegex(ConfigError, text, self.files.prepare)
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o775)
            path.chmod(0o755)
        self.folder.chmod(0o1777)  # as /tmp: nobody else can rename or remove what is there
        self.files.prepare()
        self.patch(os, "geteuid", lambda: 4711)
        self.assertRaisesRegex(ConfigError, "belongs to another user", self.files.prepare)

    def test_directory_that_fails(self) -> None:
        """An error of the file system is one with the option."""

        def fail(path: str, *_: object, **__: object) -> None:
            raise OSError(28, "No space left on device", path)

        self.patch(os, "makedirs", fail)
        self.assertRaisesRegex(ConfigError, "No space left .*--acme-state", self.files.prepare)

    def test_error_is_one_line(self) -> None:
        """Whatever an authority has sent, the text of the error is one line that a terminal can show."""
        self.assertEqual(str(AcmeError("a\r\n\x1b[2J\u202eb\x85c")), "a ?[2J?b c")
