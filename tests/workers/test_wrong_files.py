"""A worker that starts while a file is wrong uses what the server has read before, as at a reload."""

import os
from typing import Any

from imapshield.cred.checkers import PasswordFile
from tests.certificates import self_signed
from tests.workers.cluster import ClusterTestCase


class CertificateCase(ClusterTestCase):
    def setUp(self) -> None:
        self.pem = os.path.abspath(self.mktemp())
        self.write(self_signed("mail.example.org"))
        super().setUp()

    def write(self, pair: tuple[bytes, bytes]) -> None:
        with open(self.pem, "wb") as file:
            file.write(b"".join(pair))

    def half_renewed(self) -> None:
        """Write a certificate with the key of another one."""
        self.write((self_signed("mail.example.org")[0], self_signed("mail.example.org")[1]))

    def replaced(self) -> Any:
        """Return the parts of a worker that has started in the place of another one."""
        self.kill(2)
        self.pump(0.1)
        self.assertEqual(len(self.supervisor.running), 2)
        return self.worker(2).parts


class CertificateTests(CertificateCase):
    def where_mail_is(self) -> tuple[str, ...]:
        listen = ("--certificate", self.pem, "--listen", "imaps:0")
        return (*super().where_mail_is(), "--master-users", f"file:{self.users}", *listen)

    def digest(self, parts: Any) -> bytes:
        """Return what tells the certificate of a process from others."""
        (certificate,) = parts.certificates.main.certificates
        return bytes(certificate.digest)

    def test_half_renewed_certificate(self) -> None:
        """The worker has the certificate that the others have; it uses the new one when the files fit."""
        before = self.digest(self.parts)
        self.half_renewed()
        parts = self.replaced()
        self.assertEqual(self.digest(parts), before)
        source = parts.certificates.main
        source.use(source.read(), insist=False)
        lines = self.lines(lambda: source.use(source.read(), insist=False))
        self.assertIn("the private key does not match", lines[0])
        self.assertIn("the earlier certificate stays in use", lines[0])
        self.write(self_signed("mail.example.org"))
        source.use(source.read(), insist=False)
        self.assertNotEqual(self.digest(parts), before)

    def test_missing_password_file(self) -> None:
        """The worker waits for the file, and refuses logins for now."""
        os.unlink(self.users)
        for checker in self.replaced().all_checkers():
            assert isinstance(checker, PasswordFile)
            checker.load()
            self.assertIn("nobody can log in", checker.outage)


class AuthorityTests(CertificateCase):
    def where_mail_is(self) -> tuple[str, ...]:
        return ("--backend", f"tls:mail.example.org:993:ca={self.pem}")

    def test_authorities(self) -> None:
        """The authorities for a backend are those of before, and the log says that their file is wrong."""
        before = self.parts.front.authorities()
        self.assertIn(b"BEGIN CERTIFICATE", before[self.pem])
        self.write((b"", b""))
        front = self.replaced().front
        self.assertEqual(front.authorities(), before)
        (problem,) = front.problems()
        self.assertIn(f"ca={self.pem}: has no certificate in PEM format; what was", problem)
