"""A backend that is dead, slow, lying or flooding gives the client an answer, and a check finds it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionRefusedError, DNSLookupError

from imapshield.front.backend import _reason
from imapshield.front.backend_connection import describe
from imapshield.wire.proxy_header import ProxyHeader, ProxyHeaderReader
from tests.front.front_case import FrontCase
from tests.front.test_login import SCRAM, UNAVAILABLE


class FailureTests(FrontCase):
    limits = {"backend_failures": 2, "max_backend_connections": 1}

    def login(self) -> Any:
        client = self.server.connect()
        client(b"a LOGIN alice secret")
        return client

    def test_dead_backend(self) -> None:
        """A backend that refuses connections is unavailable at once, and after some failures not even tried."""
        self.reachable = False
        states = []
        for _ in range(2):
            client = self.server.connect()
            self.assertEqual(client(b"a LOGIN alice secret"), b"a " + UNAVAILABLE)
            states.append(self.backend.state)
        self.assertTrue(self.backend.breaker.is_open)
        self.assertEqual(states, ["failing", "down"])
        self.reachable = True
        client = self.server.connect()
        self.assertEqual(client(b"a LOGIN alice secret"), b"a " + UNAVAILABLE)
        self.assertEqual(self.links, [])

    def test_reasons_are_our_own_words(self) -> None:
        """The errors of connections are in words of ours, which say what to look at."""
        for error, words in (
            (
                ConnectionRefusedError(osError=111),
                "connection refused (does the server run, and listen there?)",
            ),
            (DNSLookupError("no such host"), "no name service knows its host"),
            (ConnectError(2, "x"), "No such file or directory"),
            (OSError("some. thing."), "some. thing"),
        ):
            self.assertEqual(_reason(error, 3), words)

    def test_backend_without_tls(self) -> None:
        """TLS with a port that has none, or of another protocol, is named as that."""
        error = SSL.Error([("SSL routines", "", "wrong version number")])
        self.assertEqual(describe(error), "no TLS at this port: use starttls:, or the port for TLS")

    def test_check_closes_the_circuit_breaker(self) -> None:
        """A check that succeeds lets logins pass again, and learns the capabilities."""
        self.reachable = False
        self.backend.start()
        self.clock.advance(10)
        self.assertTrue(self.backend.breaker.is_open)
        self.reachable = True
        self.clock.advance(10)
        self.assertEqual(self.link.received(), b"s1 CAPABILITY\r\n")
        # The text is that of Courier.
        self.link.send(b"* CAPABILITY IMAP4rev1 IDLE\r\ns1 OK CAPABILITY completed\r\n")
        self.assertEqual(self.link.received(), b"s2 LOGOUT\r\n")
        self.assertFalse(self.backend.breaker.is_open)
        self.assertEqual(self.backend.connections, 0)
        self.assertIn(
            b"* OK [CAPABILITY IMAP4rev1 IDLE] Mail server ready.", self.server.connect().greeting
        )
        self.backend.stop()
        self.clock.advance(100)
        self.assertEqual(len(self.links), 1)

    def test_interval_of_checks_can_be_reloaded(self) -> None:
        """A changed backend_check_seconds counts from the next check."""
        self.backend.start()
        self.server.factory.limits = replace(self.server.factory.limits, backend_check_seconds=3)
        for seconds, checks in ((10, 2), (3, 3), (3, 4)):
            self.link.send(b"* CAPABILITY IMAP4rev1\r\ns1 OK done\r\n")
            self.clock.advance(seconds)
            self.assertEqual(len(self.links), checks)
        self.backend.stop()

    def test_check_without_capabilities_fails(self) -> None:
        """A server that lists no capabilities fails its check."""
        for _ in range(2):
            self.backend.check()
            self.link.send(b"s1 OK done\r\n")
        self.assertTrue(self.backend.breaker.is_open)

    def test_backend_that_does_not_answer(self) -> None:
        """A login has a maximum time."""
        client = self.login()
        self.clock.advance(19)
        self.assertEqual(client.read(), b"")
        self.clock.advance(1)
        self.assertEqual(client.read(), b"a " + UNAVAILABLE)
        self.assertEqual(self.backend.connections, 0)

    def test_slow_login_of_one_user_does_not_keep_the_others_out(self) -> None:
        """What fails after the greeting does not open the circuit breaker."""
        for _ in range(3):
            client = self.login()
            self.clock.advance(20)
            self.assertEqual(client.read(), b"a " + UNAVAILABLE)
        self.assertFalse(self.backend.breaker.is_open)

    def test_connection_that_is_not_made_in_time(self) -> None:
        """Connecting has a maximum time, with the resolution of names."""
        self.backend._connect = lambda _: Deferred()
        client = self.login()
        self.clock.advance(5)
        self.assertEqual(client.read(), b"a " + UNAVAILABLE)
        self.assertEqual(self.backend.breaker.reason, "no connection in 5 seconds")
        self.assertEqual(self.backend.connections, 0)

    def test_maximum_number_of_connections(self) -> None:
        """A login that needs one connection too many is refused; a check is not."""
        self.log_in()
        client = self.server.connect()
        self.assertEqual(client(b"a LOGIN alice secret"), b"a " + UNAVAILABLE)
        self.assertEqual(len(self.links), 1)
        self.backend.check()
        self.assertEqual(len(self.links), 2)

    def test_what_is_no_imap_server(self) -> None:
        """A lying backend is unavailable: whatever it sends, the client gets an answer."""
        for sent in (
            b"s9 OK other tag\r\n",
            b"s1 PERHAPS\r\n",
            b"* BYE full\r\n",
            b"+ more\r\n",
            b"* OK again\r\n" * 101,
            b"x" * 70_000,
        ):
            client = self.login()
            self.link.send(sent)
            self.assertEqual(client.read(), b"a " + UNAVAILABLE, sent[:20])
            self.assertTrue(self.link.ended)

    def test_greetings_that_are_refused(self) -> None:
        """PREAUTH, BYE and other greetings are failures of the backend."""
        for greeting in (b"* PREAUTH in\r\n", b"* BYE full\r\n", b"220 smtp\r\n"):
            self.backend.breaker.succeeded()
            self.greeting = greeting
            client = self.server.connect()
            self.assertEqual(client(b"a LOGIN alice secret"), b"a " + UNAVAILABLE)
            self.assertIn("its greeting is", self.backend.breaker.reason)

    def test_backend_that_leaves(self) -> None:
        """A backend that closes the connection during a login is unavailable."""
        client = self.login()
        self.link.lose()
        self.assertEqual(client.read(), b"a " + UNAVAILABLE)

    def test_client_that_leaves(self) -> None:
        """The login of a client that leaves has the same maximum time, and is no failure of the backend."""
        client = self.login()
        client.lose_connection()
        self.clock.advance(20)
        self.assertTrue(self.link.ended)
        self.assertEqual((self.backend.breaker.reason, self.backend.connections), ("", 0))

    def test_client_that_leaves_before_the_greeting(self) -> None:
        """The backend gets no password of a client that has left already."""
        self.greeting = b""
        client = self.login()
        client.lose_connection()
        self.link.send(b"* OK ready\r\n")
        self.assertTrue(self.link.ended)
        self.assertEqual((self.link.received(), self.backend.connections), (b"", 0))

    def test_what_each_client_gets_is_short(self) -> None:
        """Neither a long greeting nor many capabilities reach all clients."""
        self.greeting = b"* OK %b\r\n" % (b"x" * 60_000)
        self.backend.check()
        self.link.send(b"* CAPABILITY%b\r\ns1 OK done\r\n" % (b" X" * 5_000))
        self.assertLess(len(self.server.connect().greeting), 300)
        self.assertEqual(self.backend.breaker.reason, "a line of capabilities without an end")

    def test_untagged_lines_of_a_login_are_bounded(self) -> None:
        """A backend that floods within the answer to a login is given up, however fast it is read."""
        client = self.login()
        for _ in range(3):
            self.link.send(b"* OK %b\r\n" % (b"x" * 30_000))
        self.assertEqual(client.read(), b"a " + UNAVAILABLE)


class AddressTests(FrontCase):
    options = {"sends_proxy_header": True, "sends_id": True}

    def test_backend_learns_the_address_of_the_client(self) -> None:
        """The PROXY header comes first, and ID before the login."""
        client = self.server.connect()
        client(b"a LOGIN alice secret")
        received = self.link.received()
        header, _, rest = received.partition(b"s1 ")
        self.assertEqual(ProxyHeaderReader().feed(header), ProxyHeader("127.0.0.1", 50000))
        self.assertEqual(
            rest, b'ID ("x-originating-ip" "127.0.0.1" "x-originating-port" "50000")\r\n'
        )
        self.link.send(b"* ID NIL\r\ns1 BAD whatever\r\n")
        self.assertEqual(self.link.received(), b's2 LOGIN "alice" "secret"\r\n')

    def test_address_that_the_backend_refuses_keeps_nobody_out(self) -> None:
        """The backend may end the connections of an address that it has banned; checks decide whether it works."""
        self.greeting = b"* BYE banned\r\n"
        for _ in range(5):
            client = self.server.connect()
            self.assertEqual(client(b"a LOGIN alice secret"), b"a " + UNAVAILABLE)
        self.assertFalse(self.backend.breaker.is_open)
        for _ in range(3):
            self.backend.check()
        self.assertTrue(self.backend.breaker.is_open)

    def test_only_an_address_is_told(self) -> None:
        """What a proxy calls an address, and is none, is not told; an IPv4 address is told as one."""
        client = self.server.connect('x" "y')
        client(b"a AUTHENTICATE SCRAM-SHA-256 " + SCRAM)
        header, _, rest = self.link.received().partition(b"s1 ")
        self.assertEqual(ProxyHeaderReader().feed(header), ProxyHeader(from_proxy=True))
        self.assertTrue(rest.startswith(b"AUTHENTICATE "))
        client = self.server.connect("::ffff:192.0.2.1")
        client(b"a AUTHENTICATE SCRAM-SHA-256 " + SCRAM)
        self.assertIn(b'"x-originating-ip" "192.0.2.1"', self.link.received())

    def test_check_speaks_for_the_shield(self) -> None:
        """A check has no client."""
        self.backend.check()
        header = self.link.received().partition(b"s1 ")[0]
        self.assertEqual(ProxyHeaderReader().feed(header), ProxyHeader(from_proxy=True))


class StartTlsTests(FrontCase):
    address = "starttls:127.0.0.1:143"

    def test_password_waits_for_tls(self) -> None:
        """A backend that refuses STARTTLS does not get the password."""
        client = self.server.connect()
        client(b"a LOGIN alice secret")
        self.assertEqual(self.link.received(), b"s1 STARTTLS\r\n")
        self.link.send(b"s1 NO not now\r\n")
        self.assertEqual(client.read(), b"a " + UNAVAILABLE)
        self.assertEqual(self.link.received(), b"")
        self.assertEqual(self.backend.breaker.reason, "it refuses STARTTLS")

    def test_greeting_without_tls_reaches_nobody(self) -> None:
        """What somebody else sends in place of the backend, before TLS proves who it is, is not passed on."""
        self.backend._tls_options = lambda: "options"
        self.greeting = b"* OK call 555 1234\r\n"
        self.backend.check()
        self.link.send(b"s1 OK now\r\n")
        self.assertNotIn(b"555", self.server.connect().greeting)
        self.link.send(b"* CAPABILITY IMAP4rev1\r\ns2 OK done\r\n")
        self.assertIn(b"555", self.server.connect().greeting)

    def test_tls_begins_before_the_password(self) -> None:
        """TLS begins after the answer, and what came with the answer is dropped."""
        self.backend._tls_options = lambda: "options"
        client = self.server.connect()
        client(b"a LOGIN alice secret")
        self.link.received()
        self.link.send(b"s1 OK now\r\ns2 OK Logged in\r\n")
        self.assertEqual(self.link.transport.tls_started, ["options"])
        self.assertEqual(client.read(), b"")
        self.link.send(b"s2 OK really\r\n")
        self.assertEqual(client.read(), b"a OK really\r\n")
