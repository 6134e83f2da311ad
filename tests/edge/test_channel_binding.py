"""Both ends of a TLS connection compute the same channel bindings, over TLS and after STARTTLS."""

from __future__ import annotations

import hashlib
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from twisted.internet import ssl
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.test.iosim import FakeTransport, connect
from twisted.trial.unittest import SynchronousTestCase

from imapshield.edge.channel_binding import channel_bindings
from tests.certificates import self_signed


class ChannelBindingTests(SynchronousTestCase):
    def connect_tls(self) -> tuple[Any, Any, bytes]:
        """Return the transports of a server and a client connected over TLS, and the certificate as DER."""
        certificate, key = self_signed()
        context = ssl.PrivateCertificate.loadPEM(certificate + key).options()
        server_factory = TLSMemoryBIOFactory(context, False, Factory.forProtocol(Protocol))
        client_factory = TLSMemoryBIOFactory(
            ssl.CertificateOptions(verify=False), True, Factory.forProtocol(Protocol)
        )
        server, client = server_factory.buildProtocol(None), client_factory.buildProtocol(None)
        pump = connect(server, FakeTransport(server, True), client, FakeTransport(client, False))
        pump.flush()
        der = x509.load_pem_x509_certificate(certificate).public_bytes(Encoding.DER)
        return server, client, der

    def test_tls_bindings_equal_those_of_the_client(self) -> None:
        """tls-exporter equals the client's value, and tls-server-end-point is the digest of the certificate."""
        server, client, der = self.connect_tls()
        bindings = channel_bindings(server.wrappedProtocol.transport)
        self.assertEqual(bindings[b"tls-server-end-point"], hashlib.sha256(der).digest())
        handle: SSL.Connection = client.getHandle()
        self.assertEqual(
            bindings[b"tls-exporter"],
            handle.export_keying_material(b"EXPORTER-Channel-Binding", 32, b""),
        )

    def test_starttls_bindings_equal_those_of_the_client(self) -> None:
        """After STARTTLS the TLS connection is found in the transport's protocol."""
        server, _, _ = self.connect_tls()

        class Connection:
            protocol = server

            def getHandle(self) -> object:
                return object()

        self.assertEqual(
            set(channel_bindings(Connection())), {b"tls-exporter", b"tls-server-end-point"}
        )

    def test_no_tls_means_no_channel_bindings(self) -> None:
        """Without TLS there are no channel bindings."""
        self.assertEqual(channel_bindings(StringTransport()), {})
