"""The connections of a proxy: the client's address, and TLS that ends at the proxy, come from the PROXY header."""

from __future__ import annotations

import socket
import ssl
import struct
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.task import Clock
from twisted.internet.testing import AccumulatingProtocol
from twisted.trial.unittest import SynchronousTestCase

from imapshield.certificates import Certificates
from imapshield.edge.gate import Gate
from imapshield.edge.peer import UNKNOWN
from imapshield.edge.proxy import ProxiedConnection, Proxies, client_address
from imapshield.endpoints import is_proxied, server_endpoint
from imapshield.events import (
    BadCommandReceived,
    LimitTriggered,
    LoggedIn,
    LoginFailed,
    ProxyHeaderRejected,
)
from imapshield.guard.networks import NetworkSet
from imapshield.testing.in_process import Server, Transport
from imapshield.wire.proxy_header import ProxyHeader
from tests.edge import test_loopback
from tests.edge.fake_port import FakePort

HEADER = b"PROXY TCP4 192.0.2.7 192.0.2.8 4444 143\r\n"


def v2(client: bytes = b"", address: str = "192.0.2.7") -> bytes:
    """Return a header of version 2 with the fields `client`."""
    addresses = socket.inet_aton(address) + socket.inet_aton("192.0.2.8")
    payload = addresses + struct.pack("!HH", 4444, 143) + client
    return b"\r\n\r\n\0\r\nQUIT\n" + struct.pack("!BBH", 0x21, 0x11, len(payload)) + payload


BY_TLS = v2(struct.pack("!BHBI", 0x20, 5, 1, 0))
"""The header of a client that has connected to the proxy with TLS, as ``send-proxy-v2-ssl`` sends it."""


class ProxiedConnectionTests(SynchronousTestCase):
    """One connection on a transport in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.transport = Transport("198.51.100.1")
        self.headers: list[ProxyHeader] = []
        self.malformed: list[str] = []
        self.timeouts: list[float] = []
        self.inner: Any = AccumulatingProtocol()
        self.begins = True
        self.proxied = ProxiedConnection(
            self.header_arrived, self.clock, 5, self.malformed.append, self.timeouts.append
        )
        self.proxied.makeConnection(self.transport)

    def header_arrived(self, header: ProxyHeader, connection: ProxiedConnection) -> None:
        self.headers.append(header)
        if self.begins:
            connection.begin(self.inner)

    def test_client_is_connected_when_the_header_is_complete(self) -> None:
        """The protocol of the client is made after the last byte of the header, and gets the bytes after it."""
        for number in range(len(HEADER) - 1):
            self.proxied.dataReceived(HEADER[number : number + 1])
        self.assertEqual((self.headers, self.inner.made), ([], 0))
        self.proxied.dataReceived(HEADER[-1:] + b"a NOOP\r\n")
        self.assertEqual(self.headers, [ProxyHeader("192.0.2.7", 4444)])
        self.assertIs(self.inner.transport, self.transport)
        self.assertEqual(self.transport.getPeer(), IPv4Address("TCP", "192.0.2.7", 4444))
        self.proxied.dataReceived(b"b NOOP\r\n")
        self.assertEqual(self.inner.data, b"a NOOP\r\nb NOOP\r\n")
        self.proxied.connectionLost()
        self.assertTrue(self.inner.closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_client_may_wait(self) -> None:
        """Until `begin`, the transport is not read, and what arrives all the same is kept."""
        self.begins = False
        self.proxied.dataReceived(HEADER + b"a ")
        self.assertTrue(self.transport.paused_reading)
        self.proxied.dataReceived(b"NOOP\r\n")
        self.proxied.begin(self.inner)
        self.assertFalse(self.transport.paused_reading)
        self.assertEqual(self.inner.data, b"a NOOP\r\n")

    def test_a_waiting_client_may_leave(self) -> None:
        """If the connection ends before `begin`, whoever waits is told once."""
        self.begins = False
        ended: list[int] = []
        self.proxied.dataReceived(HEADER)
        self.proxied.on_end = lambda: ended.append(1)
        self.proxied.connectionLost()
        self.proxied.connectionLost()
        self.assertEqual(ended, [1])

    def test_nothing_is_left_of_the_header(self) -> None:
        """A reactor's transport passes later input directly to the client's protocol: a proxy costs no memory."""
        transport: Any = self.transport
        transport.protocol = self.proxied
        self.proxied.dataReceived(HEADER)
        self.assertIs(transport.protocol, self.inner)

    def test_malformed_header_resets_the_connection(self) -> None:
        """A malformed header resets the connection, is reported once, and nothing after it is read."""
        self.proxied.dataReceived(b"PROXY TCP4 192.0.2.7 192.0.2.8 xx 143\r\n")
        self.proxied.dataReceived(HEADER)
        self.proxied.connectionLost()
        self.assertTrue(self.transport.aborted)
        self.assertEqual(self.malformed, ["invalid line of version 1"])
        self.assertEqual((self.headers, self.timeouts), ([], []))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_missing_header_resets_the_connection(self) -> None:
        """A connection without a complete header is reset after the time for it; segments do not extend the time."""
        self.clock.advance(4)
        self.proxied.dataReceived(HEADER[:-1])
        self.clock.advance(0.5)
        self.assertFalse(self.transport.aborted)
        self.clock.advance(0.5)
        self.assertTrue(self.transport.aborted)
        self.proxied.dataReceived(HEADER[-1:])
        self.assertEqual((self.timeouts, self.headers, self.malformed), ([5.0], [], []))

    def test_closed_without_a_header(self) -> None:
        """A proxy that only connects and closes, as for a health check, reports nothing."""
        self.proxied.connectionLost()
        self.clock.advance(60)
        self.assertEqual((self.timeouts, self.malformed, self.headers), ([], [], []))

    def test_refused_client_is_reset(self) -> None:
        """If there is no protocol for the client, its connection is reset."""
        self.inner = None
        self.proxied.dataReceived(HEADER + b"a NOOP\r\n")
        self.assertTrue(self.transport.aborted)
        self.assertEqual(self.malformed, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])


class GateTests(SynchronousTestCase):
    """A complete server in memory behind a proxy."""

    def setUp(self) -> None:
        self.server = Server()
        self.server.factory.context_factory = object()  # STARTTLS is possible
        clock: Any = self.server.clock
        self.proxies = Proxies(
            NetworkSet.parse(["198.51.100.0/24", "127.0.0.1"]),
            self.server.factory.limits,
            clock,
            [self.server.events.append],
        )
        self.port: Any = FakePort(self.server.factory)
        Gate.close_off(
            self.port,
            self.server.factory.shared.admission,
            self.server.factory.shared.fair_queue,
            self.proxies,
        )

    def connect(self, proxy: str, header: bytes) -> tuple[Any, Transport]:
        self.port.accept(proxy)
        transport, proxied = self.port.made[-1], self.port.protocols[-1]
        self.assertEqual(transport.value(), b"")
        proxied.dataReceived(header)
        self.server.clock.advance(0)
        return proxied, transport

    def greeting(self, proxy: str, header: bytes) -> bytes:
        value: bytes = self.connect(proxy, header)[1].value()
        return value

    def test_tls_at_the_proxy_counts_as_tls(self) -> None:
        """With TLS up to the proxy, passwords are accepted and STARTTLS is not offered."""
        proxied, transport = self.connect("198.51.100.1", BY_TLS)
        self.assertIn(b"AUTH=PLAIN", transport.value())
        self.assertNotIn(b"STARTTLS", transport.value())
        self.assertNotIn(b"LOGINDISABLED", transport.value())
        proxied.dataReceived(b"a LOGIN alice secret\r\n")
        self.server.clock.advance(0)
        self.assertIn(b"a OK", transport.value())
        (event,) = self.server.events_of(LoggedIn)
        self.assertEqual((event.peer, event.tls), ("192.0.2.7", True))

    def test_no_tls_at_the_proxy(self) -> None:
        """Without TLS up to the proxy, a client needs STARTTLS, also if the proxy is on this machine."""
        for header in (v2(), v2(struct.pack("!BHBI", 0x20, 5, 0, 0)), HEADER):
            greeting = self.greeting("127.0.0.1", header)
            self.assertIn(b"LOGINDISABLED", greeting)
            self.assertIn(b"STARTTLS", greeting)

    def test_loopback_address_of_another_machine(self) -> None:
        """A loopback address in the header of a proxy on another machine is not this machine."""
        header = v2(address="127.0.0.9")
        self.assertNotIn(b"LOGINDISABLED", self.greeting("127.0.0.1", header))
        self.assertIn(b"LOGINDISABLED", self.greeting("198.51.100.1", header))

    def test_unknown_client_is_remote(self) -> None:
        """A client whose address the proxy does not know is remote, and not the proxy."""
        self.assertIn(b"LOGINDISABLED", self.greeting("127.0.0.1", b"PROXY UNKNOWN\r\n"))
        self.assertEqual(client_address(ProxyHeader(), IPv4Address("TCP", "::1", 5)), UNKNOWN)

    def test_proxy_may_speak_for_itself(self) -> None:
        """A LOCAL header, as of a health check, stands for the proxy itself."""
        local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
        self.assertNotIn(b"LOGINDISABLED", self.greeting("127.0.0.1", local))
        self.assertIn(b"LOGINDISABLED", self.greeting("198.51.100.1", local))

    def test_ipv6_client(self) -> None:
        """An IPv6 address in the header is an IPv6 address."""
        address = client_address(ProxyHeader("2001:db8::7", 4), None)
        self.assertEqual(address, IPv6Address("TCP", "2001:db8::7", 4))

    def test_malformed_header_is_reported_with_the_proxy(self) -> None:
        """A malformed header is reported with the address of the proxy and a reason of ours."""
        self.connect("198.51.100.1", b"PROXY TCP4 \xff\xfe 1 2 3\r\n")
        rejected = ProxyHeaderRejected(0, "198.51.100.1", "invalid line of version 1")
        self.assertEqual(self.server.events, [rejected])

    def test_missing_header_is_a_limit(self) -> None:
        """A header that does not come in time is reported as the limit `proxy_header_seconds`, with the connection's age."""
        self.connect("198.51.100.1", HEADER[:-1])
        self.server.clock.advance(5)
        values = "198.51.100.1", "proxy_header_seconds", 5, 5
        limit = LimitTriggered(0, *values, "reset", network="198.51.100.0/26", seconds=5)
        self.assertEqual(self.server.events, [limit])

    def test_connections_without_a_header_have_a_share(self) -> None:
        """A proxy, or whoever connects to its port, loses its oldest connection without a header above its share."""
        server = self.server = Server(max_preauth_per_address=2)
        self.port = FakePort(server.factory)
        Gate.close_off(
            self.port,
            server.factory.shared.admission,
            server.factory.shared.fair_queue,
            self.proxies,
        )
        connections = [self.connect("198.51.100.1", b"PROXY ") for _ in range(3)]
        self.assertEqual([t.aborted for _, t in connections], [True, False, False])
        values = "198.51.100.1", "max_preauth_per_address", 2, 3
        limit = LimitTriggered(0, *values, "reset", network="198.51.100.0/26")
        self.assertEqual(server.events, [limit])
        for proxied, _ in connections:
            proxied.connectionLost()
        for i in range(4):
            self.connect("198.51.100.1", b"PROXY TCP4 10.1.%d.1 10.0.0.1 1 2\r\n" % i)
        self.assertEqual(server.factory.shared.admission.guard.shares.strangers, 4)

    def test_clients_of_a_proxy_have_the_pace_of_their_address(self) -> None:
        """After a flood, connections of one client address are begun at its pace; other clients begin at once."""
        flood, _ = self.connect("198.51.100.1", BY_TLS)
        flood.dataReceived(b"a NOOP\r\n" * 300)
        waiting = [self.connect("198.51.100.1", BY_TLS)[1] for _ in range(4)]
        _, other = self.connect("198.51.100.1", b"PROXY TCP4 203.0.113.5 10.0.0.1 1 2\r\n")
        self.assertEqual([bool(t.value()) for t in waiting], [True, False, False, False])
        self.assertIn(b"* OK", other.value())
        self.server.clock.advance(0.02)
        self.server.clock.advance(0)
        self.assertEqual([bool(t.value()) for t in waiting], [True, True, False, False])
        strangers = self.server.factory.shared.admission.guard.shares.strangers
        self.port.protocols[-2].connectionLost()
        self.assertEqual(self.server.factory.shared.admission.guard.shares.strangers, strangers - 1)

    def test_a_client_that_leaves_while_it_waits_takes_no_memory(self) -> None:
        """Clients of a paced address that leave before their turn are forgotten at once, also behind one that stays."""
        flood, _ = self.connect("198.51.100.1", BY_TLS)
        flood.dataReceived(b"a NOOP\r\n" * 300)
        stays = [self.connect("198.51.100.1", BY_TLS)[0] for _ in range(2)]
        for _ in range(50):
            self.connect("198.51.100.1", BY_TLS)[0].connectionLost()
        (waiting,) = self.port.factory._paced.values()
        self.assertEqual(len(waiting), 1)
        for proxied in (flood, *stays):
            proxied.connectionLost()
        self.assertEqual(self.server.factory.shared.admission.guard.shares.strangers, 0)

    def test_header_of_an_ordinary_client(self) -> None:
        """A PROXY header from a peer that is no proxy is an invalid command."""
        self.port.accept("192.0.2.99")
        self.server.clock.advance(0)
        transport, client = self.port.made[-1], self.port.protocols[-1]
        client.dataReceived(HEADER)
        self.server.clock.advance(0)
        self.assertIn(b"PROXY BAD", transport.value())
        self.assertEqual(
            [event.peer for event in self.server.events_of(BadCommandReceived)], ["192.0.2.99"]
        )
        (hint,) = self.server.events_of(ProxyHeaderRejected)
        self.assertIn("--proxy 192.0.2.99", hint.reason)

    def test_header_later_is_only_an_invalid_command(self) -> None:
        """Only the first input of a client can be a PROXY header."""
        self.port.accept("192.0.2.99")
        self.server.clock.advance(0)
        client = self.port.protocols[-1]
        client.dataReceived(b"a NOOP\r\n")
        client.dataReceived(HEADER)
        self.assertEqual(self.server.events_of(ProxyHeaderRejected), [])


class ProxyLoopbackTests(test_loopback.LoopbackCase):
    """Behind ``haproxy:`` endpoints, on real sockets."""

    def setUp(self) -> None:
        super().setUp()
        folder = self.mktemp()
        with open(folder, "wb") as file:
            file.write(self.pem)
        self.proxied_port = self.listen("haproxy:tcp:0:interface=127.0.0.1")
        self.proxied_tls_port = self.listen(
            f"haproxy:ssl:0:interface=127.0.0.1:privateKey={folder}"
        )

    def listen(self, description: str) -> int:
        clock: Any = reactor
        proxies = Proxies(NetworkSet(), self.factory.limits, clock, [self.events.append])
        self.assertTrue(is_proxied(description))
        port = self.successResultOf(
            server_endpoint(reactor, description, Certificates(clock)).listen(self.factory)
        )
        Gate.close_off(
            port, self.factory.shared.admission, self.factory.shared.fair_queue, proxies.everyone()
        )
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        return number

    def proxied_peer(self, header: bytes, context: Any = None) -> test_loopback.Peer:
        port = self.proxied_port if context is None else self.proxied_tls_port
        peer = test_loopback.Peer.__new__(test_loopback.Peer)
        peer.raw = peer.socket = socket.create_connection(("127.0.0.1", port), 10)
        peer.buffer = b""
        peer.send(header)
        if context is not None:
            peer.start_tls(context)
        peer.line()
        self.addCleanup(peer.close)
        return peer

    async def test_starttls_and_implicit_tls_work_behind_a_proxy(self) -> None:
        """The PROXY header comes before the TLS handshake, and STARTTLS works after it."""

        def script(context: ssl.SSLContext | None) -> bytes:
            peer = self.proxied_peer(HEADER, context)
            if context is None:
                assert b" OK" in peer.command(b"STARTTLS")
                peer.start_tls(self.context)
            return peer.command(b"LOGIN alice secret")

        for context in (None, self.context):
            self.assertIn(b" OK", await self.client(script, context))
        logins = [event for event in self.events if isinstance(event, LoggedIn)]
        self.assertEqual([(event.peer, event.tls) for event in logins], [("192.0.2.7", True)] * 2)

    async def test_rule_about_pending_commands_applies_behind_a_proxy(self) -> None:
        """101 NOOPs behind a proxy end in a reset, also if they follow the header in the same segment."""

        def script(context: ssl.SSLContext | None) -> str:
            if context is None:
                raw = socket.create_connection(("127.0.0.1", self.proxied_port), 10)
                peer = test_loopback.Peer.__new__(test_loopback.Peer)
                peer.raw = peer.socket = raw
                self.addCleanup(peer.close)
                peer.send(HEADER + b"a NOOP\r\n" * 101)
            else:
                peer = self.proxied_peer(HEADER, context)
                peer.send(b"a NOOP\r\n" * 101)
            return peer.ending()

        for context in (None, self.context):
            self.assertEqual(await self.client(script, context), "reset")
        peers = {event.peer for event in self.events if isinstance(event, LimitTriggered)}
        self.assertEqual(peers, {"192.0.2.7"})

    async def test_failed_login_is_reported_with_the_client_address(self) -> None:
        """A failed login is reported with the address of the client and not of the proxy, which fail2ban would ban."""

        def script() -> bytes:
            header = b"PROXY TCP4 127.0.0.9 127.0.0.1 4444 143\r\n"
            return self.proxied_peer(header).command(b"LOGIN alice wrong")

        self.assertIn(b" NO", await self.client(script))
        failed = [event.peer for event in self.events if isinstance(event, LoginFailed)]
        self.assertEqual(failed, ["127.0.0.9"])

    async def test_malformed_header_closes_the_connection(self) -> None:
        """A malformed header closes the connection, and causes no traceback."""

        def script(data: bytes) -> str:
            with socket.create_connection(("127.0.0.1", self.proxied_port), 10) as raw:
                raw.sendall(data)
                try:
                    return "closed" if not raw.recv(100) else "answered"
                except ConnectionResetError:
                    return "reset"

        for data in (b"PROXY TCP4 1.1.1.1 1.1.1.1 xx 143\r\n", b"PROXY TCP4 \xff 1 1 1\r\n", b"a"):
            self.assertEqual(await self.client(script, data), "reset")
        peers = [event.peer for event in self.events if isinstance(event, ProxyHeaderRejected)]
        self.assertEqual(peers, ["127.0.0.1"] * 3)
        self.assertEqual(self.flushLoggedErrors(), [])
