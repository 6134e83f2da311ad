"""A file may be named as a credential of systemd."""

import os

from twisted.trial.unittest import SynchronousTestCase

from imapshield.config import ConfigError
from imapshield.credentials import credential_path


class CredentialTests(SynchronousTestCase):
    def test_credential_is_a_file_of_its_directory(self) -> None:
        """``credential:NAME`` is the file of that name in ``$CREDENTIALS_DIRECTORY``; any other path is itself."""
        folder = self.mktemp()
        os.mkdir(folder)
        path = os.path.join(folder, "key")
        open(path, "wb").close()
        environ = {"CREDENTIALS_DIRECTORY": folder}
        self.assertEqual(credential_path("credential:key", "--key", environ), path)
        self.assertEqual(credential_path("/etc/key.pem", "--key", {}), "/etc/key.pem")

    def test_missing_credential_is_an_error(self) -> None:
        """A credential that was not passed, or a path, is an error that says what to add to the unit."""
        environ = {"CREDENTIALS_DIRECTORY": "/"}
        for name, given in (("key", {}), ("nothing", environ), ("../etc/passwd", environ)):
            error = self.assertRaises(
                ConfigError, credential_path, f"credential:{name}", "--key", given
            )
            self.assertIn(f"--key credential:{name}: systemd has passed no such", str(error))
            self.assertIn(f"LoadCredential={name}:", str(error))
