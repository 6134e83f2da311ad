"""The address of a client behind a proxy that sends a PROXY header."""

from __future__ import annotations

import socket

from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString

from imapshield.events import BadCommandReceived, LoginFailed
from tests.edge import test_loopback


class ProxyTests(test_loopback.LoopbackCase):
    """Behind a ``haproxy:`` endpoint, the client's address is the one in the PROXY header."""

    def setUp(self) -> None:
        super().setUp()
        endpoint = serverFromString(reactor, "haproxy:tcp:0:interface=127.0.0.1")
        port = self.successResultOf(endpoint.listen(self.factory))
        self.addCleanup(port.stopListening)
        self.proxied_port = port.getHost().port

    async def test_remote_client_behind_a_proxy_needs_tls(self) -> None:
        """A remote client behind a proxy on this machine cannot log in without TLS."""

        def script() -> tuple[bytes, bytes]:
            raw = socket.create_connection(("127.0.0.1", self.proxied_port), 10)
            greeting = raw.recv(1000)
            raw.sendall(b"PROXY TCP4 192.0.2.7 127.0.0.1 4444 143\r\na LOGIN alice secret\r\n")
            answer = raw.recv(1000)
            raw.close()
            return greeting, answer

        greeting, answer = await self.client(script)
        self.assertIn(b"LOGINDISABLED", greeting)
        self.assertNotIn(b"AUTH=PLAIN", greeting)
        self.assertTrue(answer.startswith(b"a NO [PRIVACYREQUIRED]"), answer)

    async def test_invalid_proxy_address_is_not_trusted(self) -> None:
        """An invalid address in a PROXY header is neither logged nor treated as a local client."""

        def script() -> None:
            for address in (b"127.0.0.1\nlogin", b"127.%b" % (b"1" * 64), b'127.1"', b"x" * 80):
                raw = socket.create_connection(("127.0.0.1", self.proxied_port), 10)
                raw.recv(1000)
                raw.sendall(b"PROXY TCP4 %b 127.0.0.1 44 143\r\na LOGIN alice wrong\r\n" % address)
                self.assertIn(b"PRIVACYREQUIRED", raw.recv(1000))
                raw.sendall(b"b XYZZY\r\n")
                raw.recv(1000)
                raw.close()

        await self.client(script)
        self.assertEqual(
            {event.peer for event in self.events if isinstance(event, BadCommandReceived)},
            {"unknown"},
        )

    async def test_failed_login_is_reported_with_the_client_address(self) -> None:
        """A failed login is reported with the address of the client and not of the proxy, which fail2ban would ban."""

        def script() -> None:
            raw = socket.create_connection(("127.0.0.1", self.proxied_port), 10)
            raw.recv(1000)
            raw.sendall(b"PROXY TCP4 127.0.0.9 127.0.0.1 4444 143\r\na LOGIN alice wrong\r\n")
            raw.recv(1000)
            raw.close()

        await self.client(script)
        failed = [event.peer for event in self.events if isinstance(event, LoginFailed)]
        self.assertEqual(failed, ["127.0.0.9"])
