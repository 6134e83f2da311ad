"""No file that an operator names makes the server wait: a FIFO in its place is refused at once."""

import os

from twisted.trial.unittest import SynchronousTestCase

from imapshield.auth_option import check_auth_files
from imapshield.config import ConfigError, Settings, read_toml
from imapshield.cred.ldap_settings import LdapSettings
from imapshield.regular_file import open_regular
from imapshield.tls import load_file


class RegularFileTests(SynchronousTestCase):
    def test_only_regular_files_are_opened(self) -> None:
        """A regular file is opened, also through a link. A FIFO, a directory and a device are errors."""
        path, link = self.mktemp(), self.mktemp()
        with open(path, "wb") as file:
            file.write(b"text")
        os.symlink(os.path.abspath(path), link)
        with open_regular(link) as file:
            self.assertEqual(file.read(), b"text")
        self.assertRaises(IsADirectoryError, open_regular, ".")
        for other in (self.fifo(), os.devnull):
            with self.assertRaisesRegex(OSError, "[Nn]ot a regular file"):
                open_regular(other)

    def fifo(self) -> str:
        path = self.mktemp()
        os.mkfifo(path)
        return str(os.path.abspath(path))

    def test_no_option_waits_for_a_fifo(self) -> None:
        """Configuration, users, master users, certificates and LDAP settings: each is refused with its reason."""
        fifo = self.fifo()
        for read in (
            lambda: read_toml(fifo),
            lambda: check_auth_files(Settings(auth=(f"file:{fifo}",))),
            lambda: check_auth_files(Settings(master_users=fifo)),
            lambda: load_file(fifo, option="--certificate"),
        ):
            with self.assertRaisesRegex(ConfigError, "[Nn]ot a regular file"):
                read()
        self.assertRaises(OSError, LdapSettings.read, fifo)
