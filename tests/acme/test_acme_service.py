"""The server with ``--acme``: its options, its certificate and its port."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from imapshield.acme import acme_client, acme_service
from imapshield.acme.acme_files import Issued
from imapshield.acme.acme_service import AcmeService
from imapshield.certificates import Certificates
from imapshield.config import ConfigError, Settings
from imapshield.endpoints import listen_endpoint
from tests.certificates import self_signed


class Reactor(MemoryReactorClock):
    """Has a port that accepts connections or not."""

    def listenTCP(self, *arguments: Any, **options: Any) -> Any:
        port = super().listenTCP(*arguments, **options)
        port.startReading = port.stopReading = lambda: None
        return port


class ServiceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor, self.folder = Reactor(), Path(self.mktemp()).absolute()
        self.certificates = Certificates(self.reactor)
        self.settings = Settings(
            acme=("mail.example.org",),
            acme_email="me@example.org",
            acme_http="tcp:8080",
            acme_server="https://ca.example/dir",
        )

    def service(self, settings: Settings) -> AcmeService:
        environ = {"STATE_DIRECTORY": str(self.folder)}
        return AcmeService(settings, self.certificates, self.reactor, environ, "/none", nullcontext)

    def test_life(self) -> None:
        """The port is open from the start to the end, the certificate is asked for, and written to its file."""
        asked: list[Any] = []

        def obtain(*arguments: Any) -> Issued:
            asked.append(arguments)
            return Issued(b"pem", "")

        def in_thread(_: object, function: Any) -> Deferred[Any]:
            result: Deferred[Any] = Deferred()
            function()
            return result

        self.patch(acme_client, "obtain", obtain)
        self.patch(acme_service, "run_in_daemon_thread", in_thread)
        service = self.service(self.settings)
        service.open()
        self.assertEqual([server[0] for server in self.reactor.tcpServers], [8080])
        service.start()
        self.reactor.advance(0)
        ((names, server, email, key, _),) = asked
        self.assertEqual(
            (names, server, email),
            (("mail.example.org",), "https://ca.example/dir", "me@example.org"),
        )
        self.assertTrue(key.startswith(b"-----BEGIN"))
        certificate = self.folder / "acme" / "ca.example_dir" / "certificate.pem"
        self.assertEqual(certificate.read_bytes(), b"pem")
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(service.retry())), [])
        self.successResultOf(Deferred.fromCoroutine(service.close()))

    def test_endpoint_with_tls_before_the_certificate(self) -> None:
        """The endpoint ``imaps:`` can be used before there is a certificate."""
        self.service(self.settings)
        listen_endpoint(self.reactor, "imaps:993", self.certificates)
        assert self.certificates.main is not None
        self.assertEqual(self.certificates.unreadable(), [])  # a start as root has no warning
        self.assertEqual(self.certificates.main.certificates, [])

    def test_without_the_option(self) -> None:
        """Without ``--acme``, nothing happens, and no directory is made."""
        service = self.service(Settings())
        service.open()
        service.start()
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(service.retry())), [])
        self.successResultOf(Deferred.fromCoroutine(service.close()))
        self.assertFalse(os.path.exists(self.folder))
        self.assertIsNone(self.certificates.main)

    def test_damaged_certificate(self) -> None:
        """If the certificate is damaged, the error says to move it away: there is no other file to name."""
        folder = self.folder / "acme" / "ca.example_dir"
        folder.mkdir(parents=True, mode=0o700)
        path, (certificate, key) = folder / "certificate.pem", self_signed()
        for content in (b"", certificate, key, certificate + self_signed()[1]):
            path.write_bytes(content)
            error = str(self.assertRaises(ConfigError, self.service, self.settings))
            self.assertIn("--acme mail.example.org: ", error)
            self.assertTrue(
                error.endswith(f"; move {path} away, so that the server obtains another one")
            )

    def test_missing_package(self) -> None:
        """Without the packages, the error says what to install."""
        self.patch(acme_service, "find_spec", lambda name: None)
        error = self.assertRaises(ConfigError, self.service, self.settings)
        self.assertIn("pip install 'imapshield[acme]'", str(error))
