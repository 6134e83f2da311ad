"""The directory with the account key and the certificate."""

import os
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from imapshield.acme.acme_files import AcmeFiles, default_folder
from imapshield.config import ConfigError


class FileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.files = AcmeFiles(str(self.folder), "https://ca.example/dir")

    def test_only_the_server_can_read_the_files(self) -> None:
        """The directories have the mode 0700, also those that were there, and the files 0600."""
        self.folder.mkdir(mode=0o755)
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
        self.assertEqual(stat.S_IMODE(self.folder.stat().st_mode), 0o700)

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
        self.assertRaisesRegex(ConfigError, "File exists; name a.*--acme-state", self.files.prepare)
        self.folder.unlink()
        self.patch(os, "access", lambda *_, **__: False)
        self.assertRaisesRegex(ConfigError, "cannot be written; name a", self.files.prepare)
        self.patch(os, "geteuid", lambda: 4711)
        self.assertRaisesRegex(ConfigError, "belongs to another user", self.files.prepare)

    def test_default(self) -> None:
        """Without an option, the directory is in that of systemd, or beside the mail of the first start."""
        self.assertEqual(default_folder("/var/lib/a:/var/lib/b", "/home"), "/var/lib/a/acme")
        self.assertEqual(default_folder("", "/home/x"), "/home/x/acme")
