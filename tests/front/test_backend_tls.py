"""TLS toward the backend verifies its certificate, over real connections."""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Any

from OpenSSL import crypto
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.ssl import CertificateOptions
from twisted.protocols.basic import LineReceiver
from twisted.trial.unittest import TestCase

from imapshield.config import ConfigError, load_settings
from imapshield.front.backend import Backend, ClientAddress
from imapshield.front.backend_address import BackendAddress
from imapshield.front.backend_client import BackendClient
from imapshield.front.backend_connection import BackendUnavailable
from imapshield.front.backend_tls import tls_options
from imapshield.front.front_parts import Front
from imapshield.limits import Limits
from tests.certificates import reload_authority, self_signed, write_authority

reactor: Any = installed_reactor


class Server(LineReceiver):
    """Answers CAPABILITY and STARTTLS."""

    transport: Any
    factory: Any

    def connectionMade(self) -> None:
        self.factory.open.append(self)
        if self.factory.implicit:
            self.transport.startTLS(self.factory.options)
        self.sendLine(b"* OK ready")

    def lineReceived(self, line: bytes) -> None:
        tag, command = line.split(b" ")[:2]
        self.factory.commands.append(command)
        if command == b"CAPABILITY":
            self.sendLine(b"* CAPABILITY IMAP4rev1 X-SEEN")
        self.sendLine(tag + b" OK done")
        if command == b"STARTTLS":
            self.transport.startTLS(self.factory.options)

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.open.remove(self)
        on_end = self.factory.on_end
        if on_end is not None and not self.factory.open:
            on_end.callback(None)


class ServerFactory(Factory):
    """Makes the servers.

    Attributes:
        implicit: whether TLS begins with the connection.
        open: the open connections.
        commands: the names of all commands that have arrived.
        on_end: fires when the last of them has ended.
    """

    noisy = False
    protocol = Server

    def __init__(self, options: CertificateOptions) -> None:
        self.options = options
        self.implicit = False
        self.open: list[Server] = []
        self.commands: list[bytes] = []
        self.on_end: Deferred[None] | None = None


class TlsTests(TestCase):
    timeout = 60

    def setUp(self) -> None:
        certificate, key = self_signed("localhost")
        self.path = self.mktemp()
        with open(self.path, "wb") as file:
            file.write(certificate)
        options = CertificateOptions(
            privateKey=crypto.load_privatekey(crypto.FILETYPE_PEM, key),
            certificate=crypto.load_certificate(crypto.FILETYPE_PEM, certificate),
        )
        self.factory = ServerFactory(options)

    async def check(
        self, text: str, *, implicit: bool = False, unix: bool = False, log_in: bool = False
    ) -> Backend:
        """Return a backend that has checked the server at an address, in which {port} is its port, or has logged in."""
        self.factory.implicit = implicit
        folder = tempfile.mkdtemp()  # a short path, as sockets need
        self.addCleanup(shutil.rmtree, folder)
        socket_path = os.path.join(folder, "socket")
        if unix:
            port = reactor.listenUNIX(socket_path, self.factory)
        else:
            port = reactor.listenTCP(0, self.factory, interface="127.0.0.1")
        number = 0 if unix else port.getHost().port
        address = BackendAddress.parse(text.format(port=number, ca=self.path, socket=socket_path))
        backend = Backend(address, tls_options(address), reactor, Limits)
        try:
            if log_in:
                await self.log_in(backend)
            else:
                await backend.check()
        finally:
            if self.factory.open:
                self.factory.on_end = Deferred()
                await self.factory.on_end
            await port.stopListening()
        return backend

    async def test_certificate_is_verified(self) -> None:
        """A certificate of the given authority, for the right name, is accepted: tls: and starttls:."""
        for kind, implicit in (("tls", True), ("starttls", False)):
            backend = await self.check(
                kind + ":127.0.0.1:{port}:ca={ca}:name=localhost", implicit=implicit
            )
            self.assertEqual(backend.breaker.reason, "")
            self.assertIn(b"X-SEEN", backend.capabilities)
            self.factory.on_end = None

    async def test_wrong_certificates(self) -> None:
        """A certificate of an unknown authority, and one for another name, are refused with a reason."""
        for text, said in (
            ("tls:127.0.0.1:{port}:name=localhost", "certificate verify failed; add :ca=FILE"),
            (
                "tls:127.0.0.1:{port}:ca={ca}:name=example.org",
                "its certificate is for another name",
            ),
        ):
            backend = await self.check(text, implicit=True)
            self.assertIn(said, backend.breaker.reason)
            self.factory.on_end = None

    async def log_in(self, backend: Backend) -> None:
        """Log in, and close the connection."""

        async def use(client: BackendClient) -> None:
            await client.log_in(b"alice", b"secret", ())
            client.log_out()

        await backend.open(ClientAddress(), use)

    async def test_password_after_starttls(self) -> None:
        """A password is sent over TLS only when the certificate is verified, although it is written before."""
        text = "starttls:127.0.0.1:{port}:ca={ca}:name="
        await self.check(text + "localhost", log_in=True)
        self.assertEqual(self.factory.commands[:2], [b"STARTTLS", b"LOGIN"])
        for wrong in (text + "example.org", "starttls:localhost:{port}"):
            self.factory.commands.clear()
            self.factory.on_end = None
            with self.assertRaisesRegex(BackendUnavailable, "TLS failed"):
                await self.check(wrong, log_in=True)
            self.assertEqual(self.factory.commands, [b"STARTTLS"])

    async def test_unix_socket(self) -> None:
        """A UNIX socket needs no TLS."""
        backend = await self.check("unix:{socket}", unix=True)
        self.assertEqual(backend.breaker.reason, "")
        self.assertIn(b"X-SEEN", backend.capabilities)


class AuthorityTests(TestCase):
    def test_file_of_the_authority(self) -> None:
        """A file that has no certificate is an error that names it."""
        for content, said in (
            (None, "No such file"),
            (b"", "has no certificate"),
            (b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----", "not a certificate"),
        ):
            path = self.mktemp()
            if content is not None:
                with open(path, "wb") as file:
                    file.write(content)
            settings = load_settings({"backend": [f"tls:localhost:993:ca={path}"]})
            with self.assertRaisesRegex(ConfigError, f"--backend tls.*{said}"):
                Front(settings, reactor, Limits)

    async def test_reload(self) -> None:
        """All logins share what was read, until a reload applies a changed file that can be used."""
        path = write_authority(self.mktemp())
        front = Front(load_settings({"backend": [f"tls:localhost:993:ca={path}"]}), reactor, Limits)
        backend = next(iter(front.nodes.by_name.values()))
        options: Any = backend._tls_options
        problem = await reload_authority(self, path, options, front.reload)
        self.assertIn("has no certificate in PEM format; the certificates that", problem)

    async def test_reload_of_the_authority_of_a_map(self) -> None:
        """A reload also reads the file of ``ca=`` in --user-map again."""
        path = write_authority(self.mktemp())
        options = {"backend": ["mail1=unix:/a"], "user-map": f"rediss://h?ca={path}"}
        front = Front(load_settings(options), reactor, Limits)
        self.assertEqual(await front.reload(), [])
        os.unlink(path)
        (problem,) = await front.reload()
        self.assertIn("--user-map: ca=", problem)

    def test_fifo(self) -> None:
        """A FIFO in place of the file is an error, and nothing waits for it."""
        path = self.mktemp()
        os.mkfifo(path)
        settings = load_settings({"backend": [f"tls:localhost:993:ca={path}"]})
        with self.assertRaisesRegex(ConfigError, "Not a regular file"):
            Front(settings, reactor, Limits)

    def test_name_that_no_certificate_can_have(self) -> None:
        """Such a name is an error at the start, and not of each login."""
        settings = load_settings({"backend": ["tls:mail..example:993"]})
        with self.assertRaisesRegex(ConfigError, "cannot be the name in a certificate"):
            Front(settings, reactor, Limits)
