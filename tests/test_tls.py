"""Certificates are loaded and checked when the server starts, and only forward-secret AEAD suites are accepted."""

import contextlib
import os
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.internet.testing import MemoryReactor
from twisted.logger import capturedLogs, formatEvent
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase

from imapshield.config import ConfigError
from imapshield.endpoints import server_endpoint
from imapshield.tls import RELOAD_SECONDS, CertificateDirectory, load_context
from tests.certificates import issued, self_signed

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


def handshake(
    peer: SSL.Connection,
    ciphers: bytes = b"DEFAULT",
    version: int = SSL.TLS1_2_VERSION,
    name: bytes = b"",
) -> SSL.Connection:
    """Do a TLS handshake in memory. Returns the client's connection; raises `SSL.Error` if it fails.

    Args:
        peer: the server's connection.
        ciphers: the suites of TLS 1.2 that the client offers.
        version: the only version that the client speaks.
        name: the name of the server that the client asks for.
    """
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_cipher_list(ciphers + b":@SECLEVEL=0")
    context.set_min_proto_version(version)
    context.set_max_proto_version(version)
    client = SSL.Connection(context, None)
    if name:
        client.set_tlsext_host_name(name)
    client.set_connect_state()
    peer.set_accept_state()
    done: set[SSL.Connection] = set()
    for _ in range(4):
        for one, other in ((client, peer), (peer, client)):
            with contextlib.suppress(SSL.WantReadError):
                one.do_handshake()
                done.add(one)
            with contextlib.suppress(SSL.WantReadError):
                other.bio_write(one.bio_read(1 << 16))
    assert done == {client, peer}
    return client


def sent_certificates(client: SSL.Connection) -> list[bytes]:
    """Return the certificate of the server and its chain as PEM."""
    chain = client.get_peer_cert_chain(as_cryptography=True)
    assert chain is not None
    return [each.public_bytes(Encoding.PEM) for each in chain]


def connection(factory: TLSMemoryBIOFactory) -> SSL.Connection:
    """Return a new connection of a server."""
    inner: Any = Protocol()
    return factory._creatorCallable(factory.protocol(factory, inner))


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

    def test_short_key_is_an_error(self) -> None:
        """A key that OpenSSL finds too short is an error that says so, and not that it belongs to something else."""
        short = self.file(b"".join(self_signed(rsa_key=True, bits=1024)))
        self.refuses(short, None, f"--certificate {short}: OpenSSL refuses", "too short", "2048")

    def test_expired_certificate_is_logged(self) -> None:
        """An expired certificate is used, and the log says that it has expired."""
        for days, expected in ((1, 1), (3, 0)):
            path = self.file(b"".join(self_signed(days=days)))
            with capturedLogs() as logged:
                load_context(path)
            texts = [formatEvent(event) for event in logged]
            found = [text for text in texts if f"--certificate {path}: the certificate has" in text]
            self.assertEqual((len(texts), len(found)), (expected, expected))


class PolicyTests(SynchronousTestCase):
    """One policy applies to STARTTLS, ``ssl:`` and ``tls:``."""

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        os.mkdir(self.folder)
        self.pem = os.path.join(self.folder, "mail.pem")
        Path(self.pem).write_bytes(b"".join(self_signed(rsa_key=True)))
        self.servers = {
            "STARTTLS": TLSMemoryBIOFactory(load_context(self.pem), False, Factory()),
            "ssl": self.listening(f"ssl:993:privateKey={self.pem}"),
            "tls": self.listening(f"tls:{self.folder}:993"),
            "haproxy": self.listening(f"haproxy:ssl:993:privateKey={self.pem}"),
        }

    def listening(self, description: str) -> TLSMemoryBIOFactory:
        """Let an endpoint listen, and return the factory of its port."""
        reactor: Any = MemoryReactor()
        inner = Factory()
        endpoint = server_endpoint(reactor, description)
        self.successResultOf(endpoint.listen(inner))
        if reactor.sslServers:  # a real reactor does the same with TCP
            ((port, factory, context, *_),) = reactor.sslServers
            factory = TLSMemoryBIOFactory(context, False, factory)
        else:
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


class CertificateDirectoryTests(SynchronousTestCase):
    """The certificates of ``--listen tls:DIRECTORY``."""

    def setUp(self) -> None:
        self.now = 0.0
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    def add(self, folder: str, host: str, **options: Any) -> bytes:
        """Write a certificate and its key as certbot does. Returns the certificate."""
        (self.folder / folder).mkdir(exist_ok=True)
        certificate, key = self_signed(host, **options)
        for name in ("cert.pem", "fullchain.pem"):
            (self.folder / folder / name).write_bytes(certificate)
        (self.folder / folder / "privkey.pem").write_bytes(key)
        return certificate

    def load(self) -> CertificateDirectory:
        return CertificateDirectory(str(self.folder), lambda: self.now)

    def gets(self, server: CertificateDirectory, name: bytes, certificate: bytes) -> bool:
        """Return whether a client that asks for `name` gets `certificate`, in TLS 1.2 and 1.3."""
        versions = (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION)
        connections = [server.serverConnectionForTLS(None) for _ in versions]
        clients = [
            handshake(peer, version=version, name=name)
            for peer, version in zip(connections, versions, strict=True)
        ]
        return all(sent_certificates(client)[0] == certificate for client in clients)

    def test_client_gets_the_certificate_for_its_name(self) -> None:
        """Each client gets the certificate for the name that it asks for; any other name gets the first one."""
        first, second = self.add("a", "a.example"), self.add("b", "*.b.example", rsa_key=True)
        server = self.load()
        for name, certificate in (
            (b"a.example", first),
            (b"imap.b.example", second),
            (b"IMAP.B.example", second),
            (b"x.imap.b.example", first),
            (b"unknown.example", first),
            (b"\xff\xfe", first),
            (b"", first),
        ):
            self.assertTrue(self.gets(server, name, certificate), name)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_policy_applies_to_every_name(self) -> None:
        """The suites are the same for every certificate."""
        self.add("a", "a.example", rsa_key=True)
        self.add("b", "b.example", rsa_key=True)
        server = self.load()
        for name in (b"a.example", b"b.example"):
            handshake(server.serverConnectionForTLS(None), ACCEPTED[0], name=name)
            with self.assertRaises(SSL.Error):
                handshake(server.serverConnectionForTLS(None), b"AES128-SHA", name=name)

    def test_renewed_certificate_is_used_after_a_minute(self) -> None:
        """A renewed or new certificate is used within `RELOAD_SECONDS`."""
        old = self.add("a", "a.example")
        server = self.load()
        new, other = self.add("a", "a.example"), self.add("b", "b.example")
        self.assertTrue(self.gets(server, b"a.example", old))
        self.now = RELOAD_SECONDS
        self.assertTrue(self.gets(server, b"a.example", new))
        self.assertTrue(self.gets(server, b"b.example", other))

    def test_clients_cannot_make_the_server_read_files(self) -> None:
        """Connections with unknown names read no files in between."""
        self.add("a", "a.example")
        server = self.load()
        looks: list[str] = []

        def walk(folder: str, **_: Any) -> list[Any]:
            looks.append(folder)
            return []

        self.patch(os, "walk", walk)
        for _ in range(10):
            handshake(server.serverConnectionForTLS(None), name=b"unknown.example")
        self.assertEqual(looks, [])

    def test_damaged_renewal_leaves_the_old_certificate(self) -> None:
        """If the files are damaged later, the old certificate stays, and the log has a line."""
        old = self.add("a", "a.example")
        server = self.load()
        (self.folder / "a" / "privkey.pem").write_bytes(b"")
        self.now = RELOAD_SECONDS
        self.assertTrue(self.gets(server, b"a.example", old))

    def test_short_key_and_expired_certificate(self) -> None:
        """A short key is an error, and an expired certificate is in the log, both with the names of the certificate."""
        self.add("a", "a.example", days=1)
        with capturedLogs() as logged:
            self.load()
        (text,) = map(formatEvent, logged)
        self.assertIn(f"tls:{self.folder} (a.example): the certificate has expired", text)
        self.add("b", "b.example", rsa_key=True, bits=1024)
        error = self.assertRaises(ConfigError, self.load)
        self.assertIn(f"tls:{self.folder} (b.example): OpenSSL refuses", str(error))

    def test_chain_is_sent(self) -> None:
        """The certificates of the issuers are sent too, from whatever file."""
        leaf, issuer = issued("mail.example")
        (self.folder / "mail.pem").write_bytes(b"".join(leaf))
        (self.folder / "chain.pem").write_bytes(issuer)
        client = handshake(self.load().serverConnectionForTLS(None))
        self.assertEqual(sent_certificates(client), [leaf[0], issuer])

    def test_directory_without_a_certificate_is_an_error(self) -> None:
        """Without a certificate that has its key, or with a damaged file, the server does not start."""
        with self.assertRaisesRegex(ConfigError, "no certificate with its private key"):
            self.load()
        self.add("a", "a.example")
        (self.folder / "a" / "privkey.pem").write_bytes(self_signed()[1])
        with self.assertRaisesRegex(ConfigError, "no certificate with its private key"):
            self.load()
        damaged = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        (self.folder / "a" / "cert.pem").write_bytes(damaged)
        with self.assertRaisesRegex(ConfigError, "cert.pem is damaged"):
            self.load()
