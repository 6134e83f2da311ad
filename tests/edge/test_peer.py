"""The server notices that a client has left without reading from it."""

import socket
import struct
from types import SimpleNamespace

from twisted.internet.address import IPv6Address
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.trial.unittest import SynchronousTestCase

from imapshield.edge import peer
from imapshield.testing.in_process import Transport


class AddressTests(SynchronousTestCase):
    def test_ipv4_address_of_an_ipv6_socket(self) -> None:
        """A client has one address in the log, also on an endpoint with an IPv6 socket, as that of tls: is."""
        for host, text in (
            ("::ffff:127.0.0.1", "127.0.0.1"),
            ("::ffff:0:192.0.2.1", "::ffff:0:192.0.2.1"),
            ("::ffff:1", "::ffff:1"),
            ("2001:db8::ffff:1", "2001:db8::ffff:1"),
        ):
            self.assertEqual(peer.address_text(IPv6Address("TCP", host, 1)), text)


class HasLeftTests(SynchronousTestCase):
    """Real sockets, because the states are those of the kernel."""

    def connect(self) -> tuple[socket.socket, socket.socket]:
        """Return the two ends of a TCP connection."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname())
            server, _ = listener.accept()
        return self.close_later(client, server)

    def close_later(
        self, client: socket.socket, server: socket.socket
    ) -> tuple[socket.socket, socket.socket]:
        self.addCleanup(client.close)
        self.addCleanup(server.close)
        return client, server

    def test_close_after_unread_data(self) -> None:
        """A client that has sent data and closed has left, although the data was not read."""
        client, server = self.connect()
        client.sendall(b"a NOOP\r\n")
        self.assertFalse(peer.has_left(SimpleNamespace(socket=server)))
        client.close()
        self.assertTrue(peer.has_left(SimpleNamespace(socket=server)))

    def test_reset(self) -> None:
        """A client that has reset the connection has left."""
        client, server = self.connect()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        self.assertTrue(peer.has_left(SimpleNamespace(socket=server)))

    def test_unix_socket(self) -> None:
        """The client of a UNIX socket has left if it has closed and everything is read."""
        client, server = self.close_later(*socket.socketpair())
        wrapped = SimpleNamespace(transport=SimpleNamespace(socket=server))
        self.assertFalse(peer.has_left(wrapped))
        client.close()
        self.assertTrue(peer.has_left(wrapped))

    def test_closed_socket(self) -> None:
        """A connection whose socket is closed already has lost its client."""
        _, server = self.connect()
        server.close()
        self.assertTrue(peer.has_left(SimpleNamespace(socket=server)))

    def test_transport_without_a_socket(self) -> None:
        """Nothing is known about a transport without a socket."""
        self.assertFalse(peer.has_left(Transport()))


class InnermostTests(SynchronousTestCase):
    def test_transport_below_tls(self) -> None:
        """The innermost transport is the one with the socket, although Twisted's TLS passes on its attributes."""
        transport = Transport()
        vars(transport)["socket"] = object()
        wrapper = ProtocolWrapper(WrappingFactory(ServerFactory()), Protocol())
        wrapper.makeConnection(transport)
        self.assertIs(peer.innermost(wrapper), transport)
        self.assertIs(peer.innermost(transport), transport)
