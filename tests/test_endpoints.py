"""The endpoints of ``--listen``: TLS from the first byte, the chain of the certificate, and sockets of systemd."""

import os
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactor
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase

from imapshield import endpoints
from imapshield.certificates import Certificates, PairFiles
from imapshield.config import ConfigError
from imapshield.endpoints import listen_endpoint
from tests.certificates import issued, self_signed
from tests.handshakes import handshake, sent_certificates


class EndpointCase(SynchronousTestCase):
    """Has a directory with the files of a certificate with a chain: cert.pem, chain.pem, key.pem and fullchain.pem."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        (self.leaf, key), self.issuer = issued("mail.example")
        for name, pem in (
            ("cert", self.leaf),
            ("chain", self.issuer),
            ("key", key),
            ("fullchain", self.leaf + self.issuer),
        ):
            (self.folder / f"{name}.pem").write_bytes(pem)
        self.certificates = Certificates(Clock())

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def with_main(self) -> None:
        files = PairFiles(self.path("fullchain.pem"), self.path("key.pem"))
        self.certificates.main = self.certificates.add(files)

    def listening(self, description: str) -> Any:
        """Let an endpoint listen, and return its reactor."""
        reactor: Any = MemoryReactor()
        endpoint = listen_endpoint(reactor, description, self.certificates)
        self.successResultOf(endpoint.listen(Factory()))
        return reactor

    def chain_of(self, description: str) -> list[bytes]:
        """Return the certificates that an endpoint sends."""
        ((_, factory, *_),) = self.listening(description).tcpServers
        assert isinstance(factory, TLSMemoryBIOFactory)
        inner: Any = Protocol()
        peer = factory._creatorCallable(factory.protocol(factory, inner))
        return sent_certificates(handshake(peer))

    def refuses(self, description: str, *words: str) -> None:
        reactor: Any = MemoryReactor()
        error = self.assertRaises(
            ConfigError, listen_endpoint, reactor, description, self.certificates
        )
        for word in (f"--listen {description.removesuffix(':993')}", *words):
            self.assertIn(word, str(error))


class ImapsTests(EndpointCase):
    def test_certificate_and_chain(self) -> None:
        """``imaps:`` has the certificate of ``--certificate`` with its chain."""
        self.with_main()
        for description in ("imaps:993", "haproxy:imaps:993", "imaps:tcp:993"):
            self.assertEqual(self.chain_of(description), [self.leaf, self.issuer], description)

    def test_address(self) -> None:
        """``imaps:`` listens on port 993 of all addresses, unless it has a port, an interface or another endpoint."""
        self.with_main()
        for description, port, interface in (
            ("imaps:", 993, "::"),
            ("imaps", 993, "::"),
            ("imaps:1993", 1993, "::"),
            ("imaps:interface=127.0.0.1", 993, "127.0.0.1"),
            ("imaps:1993:interface=127.0.0.1", 1993, "127.0.0.1"),
            ("imaps:tcp:1993:interface=127.0.0.1", 1993, "127.0.0.1"),
        ):
            ((given, _, _, address),) = self.listening(description).tcpServers
            self.assertEqual((given, address), (port, interface), description)
        ((path, *_),) = self.listening("imaps:unix:/run/imaps").unixServers
        self.assertEqual(path, "/run/imaps")

    def test_without_ipv6(self) -> None:
        """Without IPv6, as in some containers, ``imaps:`` and ``tls:`` listen on all addresses of IPv4."""
        self.with_main()
        self.patch(endpoints, "_has_ipv6", lambda: False)
        for description in ("imaps:993", f"tls:{self.folder}:993"):
            ((_, _, _, address),) = self.listening(description).tcpServers
            self.assertEqual(address, "", description)


class SslTests(EndpointCase):
    def test_chain(self) -> None:
        """The chain of ``ssl:`` may be in the file of the certificate, or in one of its own."""
        key = f"privateKey={self.path('key.pem')}"
        for certificate in (
            f"certKey={self.path('fullchain.pem')}",
            f"certKey={self.path('cert.pem')}:extraCertChain={self.path('chain.pem')}",
        ):
            for description in (
                f"ssl:993:{certificate}:{key}",
                f"ssl:port=993:{key}:{certificate}",
            ):
                self.assertEqual(self.chain_of(description), [self.leaf, self.issuer], description)

    def test_arguments(self) -> None:
        """The arguments of Twisted's endpoint ``ssl:`` may be given, by name or by their position."""
        both = self.path("both.pem")
        Path(both).write_bytes(b"".join(self_signed()))
        for description in (
            f"ssl:993:{both}:{both}:TLSv1_2_METHOD:127.0.0.1:7",
            f"ssl:993:privateKey={both}:interface=127.0.0.1:backlog=7:dhParameters=x",
        ):
            ((port, _, backlog, interface),) = self.listening(description).tcpServers
            self.assertEqual((port, backlog, interface), (993, 7, "127.0.0.1"))

    def test_errors(self) -> None:
        """A missing port or file and an unknown argument are errors."""
        self.refuses("ssl:", "has no port")
        self.refuses(f"ssl:993:privateKey={self.path('none')}", "No such file")
        Path(self.path("half.pem")).write_bytes(self_signed()[0])
        self.refuses(
            f"ssl:993:privateKey={self.path('half.pem')}", "name other files with privateKey="
        )
        self.refuses("ssl:993:nonsense=1", "unknown argument nonsense")
        self.refuses("ssl:1:2:3:4:5:6:7", "unknown argument 7")


class OtherTests(EndpointCase):
    def test_directory_without_certificates(self) -> None:
        """``tls:`` with a directory that is empty or does not exist is an error."""
        empty = self.path("empty")
        os.mkdir(empty)
        self.refuses(f"tls:{empty}:993", "no certificate with its private key")
        self.refuses(f"tls:{empty}/none:993", "No such file or directory")

    def test_sockets_of_systemd(self) -> None:
        """An endpoint ``systemd:`` without a socket of systemd is an error that says what to start."""
        for description in (
            "systemd:domain=INET:index=0",
            "systemd:domain=INET:name=imap",
            "haproxy:systemd:domain=INET:index=7",
        ):
            self.refuses(description, "systemd has passed no such socket", "imapshield.socket")
        self.with_main()
        self.refuses("imaps:systemd:domain=INET:index=0", "systemd has passed no such socket")

    def test_endpoints_of_twisted(self) -> None:
        """Other descriptions are those of Twisted."""
        endpoint = listen_endpoint(MemoryReactor(), "unix:/run/imap", self.certificates)
        self.assertTrue(IStreamServerEndpoint.providedBy(endpoint))
