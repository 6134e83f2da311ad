"""The certificate and the private key are loaded and checked when the server starts."""

import os

from twisted.internet.ssl import CertificateOptions
from twisted.trial.unittest import SynchronousTestCase

from imapshield.config import ConfigError
from imapshield.tls import load_context
from tests.certificates import self_signed


class LoadContextTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.certificate, self.key = self_signed()

    def file(self, content: bytes) -> str:
        path: str = os.path.abspath(self.mktemp())
        with open(path, "wb") as file:
            file.write(content)
        return path

    def refuses(self, certificate: str, key: str | None, *words: str) -> None:
        """Check that the files raise ConfigError with one line that contains all of `words`."""
        error = self.assertRaises(ConfigError, load_context, certificate, key)
        self.assertEqual(len(str(error).splitlines()), 1, error)
        for word in words:
            self.assertIn(word, str(error))

    def test_certificate_and_key_may_be_in_two_files(self) -> None:
        """Certificate and key may be in two files."""
        context = load_context(self.file(self.certificate), self.file(self.key))
        self.assertIsInstance(context, CertificateOptions)

    def test_certificate_and_key_may_be_in_one_file(self) -> None:
        """Key, certificate and chain may be in one file."""
        chain = self.key + self.certificate + self_signed()[0]
        self.assertIsInstance(load_context(self.file(chain)), CertificateOptions)

    def test_missing_file_is_an_error(self) -> None:
        """A missing file is an error that names the option and the file."""
        missing, certificate = os.path.abspath(self.mktemp()), self.file(self.certificate)
        self.refuses(missing, None, "--certificate", missing)
        self.refuses(certificate, missing, "--key", missing)

    def test_file_without_a_private_key_is_an_error(self) -> None:
        """A file without a private key is an error that names the file."""
        certificate = self.file(self.certificate)
        self.refuses(certificate, None, f"--certificate {certificate}: contains no", "private key")

    def test_file_without_a_certificate_is_an_error(self) -> None:
        """A file without a certificate is an error."""
        self.refuses(self.file(self.key), None, "no PEM certificate")

    def test_damaged_certificate_is_an_error(self) -> None:
        """A damaged certificate is an error."""
        damaged = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        self.refuses(self.file(damaged + self.key), None, "damaged")

    def test_key_of_another_certificate_is_an_error(self) -> None:
        """A private key that does not match the certificate is an error that names its file."""
        other = self.file(self_signed()[1])
        self.refuses(self.file(self.certificate), other, f"--key {other}: ", "does not match")
        both = self.file(self_signed()[1] + self.certificate)
        self.refuses(both, None, f"--certificate {both}: ", "does not match", "with --key")
