"""A client that cannot use TLS is an event that says why and what to do, in our words."""

from __future__ import annotations

import contextlib
import ssl
import struct
from typing import Any

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone
from twisted.internet.ssl import PrivateCertificate
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from imapshield.edge.tls_failures import describe_tls_failure
from imapshield.events import TLSFailed
from imapshield.observe.line_budget import LINES
from imapshield.observe.log_observer import LogObserver
from imapshield.testing.in_process import Server, Transport
from imapshield.tls import apply_policy
from tests.certificates import self_signed

PEER = "192.0.2.7"
TLS_1_1, TLS_1_2 = b"\x03\x02", b"\x03\x03"
AES128_SHA = b"\x00\x2f"


def client_hello(version: bytes) -> bytes:
    """Return the first message of a client that knows TLS until `version`, with RSA key transport only."""
    body = version + bytes(32) + b"\x00" + b"\x00\x02" + AES128_SHA + b"\x01\x00"
    handshake = b"\x01" + struct.pack(">I", len(body))[1:] + body
    return b"\x16\x03\x01" + struct.pack(">H", len(handshake)) + handshake


class TLSFailureTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = Server()
        self.certificate, key = self_signed()
        options = PrivateCertificate.loadPEM(self.certificate + key).options()
        apply_policy(options.getContext())
        self.tls = TLSMemoryBIOFactory(options, False, self.server.factory, self.server.clock)
        self.transport = Transport(PEER)
        self.protocol: Any = self.tls.buildProtocol(self.transport.getPeer())
        self.protocol.makeConnection(self.transport)

    def end(self) -> list[str]:
        """End the connection, and return the reasons that were reported."""
        self.protocol.connectionLost(Failure(ConnectionDone()))
        return [event.reason for event in self.server.events_of(TLSFailed)]

    def failure(self, data: bytes) -> str:
        self.protocol.dataReceived(data)
        (reason,) = self.end()
        (event,) = self.server.events_of(TLSFailed)
        self.assertEqual(event.peer, PEER)
        self.assertGreater(event.connection, 0)
        return reason

    def connect(self, context: ssl.SSLContext) -> ssl.SSLObject:
        """Return a real client, after its handshake or when it has given up."""
        to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(to_client, to_server, server_hostname="localhost")
        for _ in range(3):
            with contextlib.suppress(ssl.SSLError):
                client.do_handshake()
            if to_server.pending:
                self.protocol.dataReceived(to_server.read())
            to_client.write(self.transport.value())
            self.transport.clear()
        return client

    def test_plain_text_on_a_tls_port(self) -> None:
        """A client that sends IMAP without TLS to a port for TLS is told from others."""
        reason = self.failure(b"a LOGIN alice secret\r\n")
        self.assertIn("the client sends no TLS; set TLS in the client", reason)
        self.assertNotIn("secret", reason)

    def test_old_version(self) -> None:
        """A client that knows only TLS 1.1 is to be updated; the reason code of OpenSSL is in parentheses."""
        self.assertEqual(
            self.failure(client_hello(TLS_1_1)),
            "the client supports neither TLS 1.2 nor 1.3; update it (unsupported protocol)",
        )

    def test_old_cipher_suites(self) -> None:
        """A client without forward secrecy has no cipher suite of the server."""
        self.assertIn("no cipher suite or signature", self.failure(client_hello(TLS_1_2)))

    def test_refused_certificate(self) -> None:
        """If a client refuses the certificate, the operator reads what to check, with TLS 1.2 and 1.3."""
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            self.setUp()
            context = ssl.create_default_context(cadata=self_signed()[0].decode())
            context.maximum_version = version
            self.connect(context)
            (reason,) = self.end()
            self.assertIn("the client refuses the certificate; check that it has the name", reason)

    def test_tls_on_a_port_for_starttls(self) -> None:
        """A ClientHello where IMAP is expected is reported; as a later line, it is only an invalid command."""
        client = self.server.connect(PEER)
        client.send(client_hello(TLS_1_2))
        (event,) = self.server.events_of(TLSFailed)
        self.assertEqual((event.peer, event.connection), (PEER, client.protocol.reporter.number))
        self.assertIn("set STARTTLS in the client", event.reason)
        self.server.connect()(b"a NOOP\r\n" + client_hello(TLS_1_2))
        self.assertEqual(len(self.server.events_of(TLSFailed)), 1)

    def test_client_that_leaves(self) -> None:
        """A client that leaves before, during or after the handshake is no failure of TLS."""
        self.assertEqual(self.end(), [])
        self.setUp()
        self.protocol.dataReceived(client_hello(TLS_1_2)[:20])
        self.assertEqual(self.end(), [])
        self.setUp()
        client = self.connect(ssl.create_default_context(cadata=self.certificate.decode()))
        self.assertIn(b"* OK ", client.read())
        self.assertEqual(self.end(), [])

    def test_other_errors_have_a_reason_too(self) -> None:
        """An unknown error is described, and so is one without a reason code; input is in no text."""
        for error, text in (
            (SSL.Error([("SSL routines", "", "tls alert bad certificate")]), "refuses the certifi"),
            (SSL.Error([("SSL routines", "", "tls alert internal error")]), "has given up"),
            (SSL.Error([("SSL routines", "", "record layer failure")]), "no valid TLS"),
            (SSL.Error([]), "no valid TLS; if it is a mail program, update it (unknown)"),
            (SSL.Error(), "(unknown)"),
            (SSL.SysCallError(104, "ECONNRESET"), "(unknown)"),
        ):
            self.assertIn(text, describe_tls_failure(error) or "")

    def test_flood_is_few_lines(self) -> None:
        """A client that fails again and again has the lines of one kind and address, and no more."""
        lines: list[object] = []
        log = LogObserver(now=lambda: 0.0)
        self.patch(log.log, "observer", lines.append)
        for _ in range(10 * LINES):
            log(TLSFailed(1, PEER, "the client sends no TLS"))
        self.assertEqual(len(lines), LINES)
