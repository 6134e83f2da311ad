"""Certificates are loaded and checked when the server starts, and only forward-secret AEAD suites are accepted."""

import os
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactor
from twisted.logger import capturedLogs, formatEvent
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase

from imapshield.certificates import Certificates, CertificateSource, PairFiles
from imapshield.config import ConfigError
from imapshield.endpoints import server_endpoint
from imapshield.tls import load_file
from tests.certificates import self_signed
from tests.handshakes import handshake

ACCEPTED = (
    b"ECDHE-RSA-AES128-GCM-SHA256",
    b"ECDHE-RSA-AES256-GCM-SHA384",
    b"ECDHE-RSA-CHACHA20-POLY1305",
)
REFUSED = (
    b"AES128-SHA",  # RSA key transport, CBC, SHA-1
    b"AES128-GCM-SHA256",  # RSA key transport
    b"AES256-SHA256",
    b"ECDHE-RSA-AES128-SHA",  # CBC, SHA-1
    b"ECDHE-RSA-AES256-SHA384",  # CBC
    b"DHE-RSA-AES256-GCM-SHA384",
    b"DHE-RSA-AES128-SHA",
    b"ALL:COMPLEMENTOFALL:!ECDHE",  # 3DES, anonymous suites and what else the client has
)


def connection(factory: TLSMemoryBIOFactory) -> SSL.Connection:
    """Return a new connection of a server."""
    inner: Any = Protocol()
    return factory._creatorCallable(factory.protocol(factory, inner))


class LoadFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.certificate, self.key = self_signed()

    def file(self, content: bytes) -> str:
        path: str = os.path.abspath(self.mktemp())
        with open(path, "wb") as file:
            file.write(content)
        return path

    def refuses(self, certificate: str, key: str | None, *words: str) -> None:
        """Check that the files raise ConfigError with one line that contains all of `words`."""
        error = self.assertRaises(ConfigError, load_file, certificate, key)
        self.assertEqual(len(str(error).splitlines()), 1, error)
        for word in words:
            self.assertIn(word, str(error))

    def test_certificate_and_key_may_be_in_two_files(self) -> None:
        """Certificate and key may be in two files."""
        loaded = load_file(self.file(self.certificate), self.file(self.key))
        self.assertEqual(loaded.names, (b"localhost",))

    def test_certificate_and_key_may_be_in_one_file(self) -> None:
        """Key, certificate and chain may be in one file."""
        chain = self.key + self.certificate + self_signed()[0]
        self.assertEqual(load_file(self.file(chain)).names, (b"localhost",))

    def test_missing_file_is_an_error(self) -> None:
        """A missing file is an error that names the option and the file."""
        missing, certificate = os.path.abspath(self.mktemp()), self.file(self.certificate)
        self.refuses(missing, None, "--certificate", missing)
        self.refuses(certificate, missing, "--key", missing)

    def test_fifo_is_an_error(self) -> None:
        """A FIFO instead of a file is an error at once; to wait for its content could take for ever."""
        fifo, certificate = os.path.abspath(self.mktemp()), self.file(self.certificate)
        os.mkfifo(fifo)
        self.refuses(fifo, None, f"--certificate {fifo}: not a regular file")
        self.refuses(certificate, fifo, f"--key {fifo}: not a regular file")

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

    def test_short_key_is_an_error(self) -> None:
        """A key that OpenSSL finds too short is an error that says so, and not that it belongs to something else."""
        short = self.file(b"".join(self_signed(rsa_key=True, bits=1024)))
        self.refuses(short, None, f"--certificate {short}: OpenSSL refuses", "too short", "2048")


class PolicyTests(SynchronousTestCase):
    """One policy applies to STARTTLS and all endpoints with TLS."""

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        os.mkdir(self.folder)
        self.pem = os.path.join(self.folder, "mail.pem")
        Path(self.pem).write_bytes(b"".join(self_signed(rsa_key=True)))
        self.servers = {
            "STARTTLS": TLSMemoryBIOFactory(
                CertificateSource(PairFiles(self.pem)), False, Factory()
            ),
            "ssl": self.listening(f"ssl:993:privateKey={self.pem}"),
            "tls": self.listening(f"tls:{self.folder}:993"),
            "haproxy": self.listening(f"haproxy:ssl:993:privateKey={self.pem}"),
            "imaps": self.listening("imaps:993"),
        }

    def listening(self, description: str) -> TLSMemoryBIOFactory:
        """Let an endpoint listen, and return the factory of its port."""
        reactor: Any = MemoryReactor()
        inner = Factory()
        certificates = Certificates(Clock())
        certificates.main = certificates.add(PairFiles(self.pem))
        endpoint = server_endpoint(reactor, description, certificates)
        self.successResultOf(endpoint.listen(inner))
        ((port, factory, *_),) = reactor.tcpServers
        self.assertEqual((port, factory.wrappedFactory), (993, inner))
        assert isinstance(factory, TLSMemoryBIOFactory)
        return factory

    def test_expired_certificate_of_ssl_is_logged(self) -> None:
        """An expired certificate of an endpoint ``ssl:`` is in the log at the start, with the endpoint; others are not."""
        expired = os.path.join(self.folder, "expired.pem")
        Path(expired).write_bytes(b"".join(self_signed(days=1)))
        with capturedLogs() as logged:
            self.listening(f"ssl:993:privateKey={self.pem}")
            self.listening(f"haproxy:ssl:993:privateKey={expired}")
        (text,) = map(formatEvent, logged)
        self.assertIn(f"--listen ssl:993:privateKey={expired}: the certificate has expired", text)

    def test_forward_secret_aead_suites_are_accepted(self) -> None:
        """TLS 1.2 with ECDHE and AES-GCM or ChaCha20-Poly1305 is accepted, and so is TLS 1.3."""
        for way, server in self.servers.items():
            for suite in ACCEPTED:
                client = handshake(connection(server), suite)
                self.assertEqual(client.get_cipher_name(), suite.decode(), way)
            client = handshake(connection(server), version=SSL.TLS1_3_VERSION)
            self.assertEqual(client.get_cipher_version(), "TLSv1.3", way)

    def test_other_suites_and_versions_are_refused(self) -> None:
        """Suites without forward secrecy or AEAD are refused, and so is TLS 1.1."""
        for suite in REFUSED:
            offer = SSL.Context(SSL.TLS_CLIENT_METHOD)
            offer.set_cipher_list(suite + b":@SECLEVEL=0")  # raises if the client does not know it
        for way, server in self.servers.items():
            for suite in REFUSED:
                with self.assertRaises(SSL.Error, msg=(way, suite)):
                    handshake(connection(server), suite)
            for version in (SSL.TLS1_VERSION, SSL.TLS1_1_VERSION):
                with self.assertRaises(SSL.Error, msg=way):
                    handshake(connection(server), version=version)

    def test_server_does_not_renegotiate(self) -> None:
        """A client cannot make the server renegotiate, which costs the server more than the client."""
        for way, server in self.servers.items():
            peer = connection(server)
            client = handshake(peer, ACCEPTED[0])
            client.renegotiate()
            with self.assertRaises(SSL.WantReadError):
                client.do_handshake()
            peer.bio_write(client.bio_read(1 << 16))
            with self.assertRaises(SSL.Error):
                peer.recv(1)
            client.bio_write(peer.bio_read(1 << 16))
            with self.assertRaises(SSL.Error, msg=way) as refused:
                client.do_handshake()
            self.assertNotIsInstance(refused.exception, SSL.WantReadError)
