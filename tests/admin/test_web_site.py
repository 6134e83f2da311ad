"""The web server gives short, clear answers to whatever a client sends, and nobody can fill it."""

from types import SimpleNamespace

from twisted.logger import capturedLogs, formatEvent

from imapshield.web_site import (
    ACCEPT_QUEUE,
    ACCEPTS_PER_TURN,
    ERRORS,
    MAX_BODY,
    MAX_CLIENTS,
    REQUESTS,
    TIMEOUT,
    Answer,
    BoundedSite,
)
from tests.admin.web_case import WebCase


class WrongRequestTests(WebCase):
    def test_unknown_path_and_wrong_method(self) -> None:
        """An unknown path is 404, a wrong method 405 with those that are right."""
        reply = self.request("GET", "/../../etc/passwd")
        self.assertEqual((reply.status, reply.body), (404, b"no such page\n"))
        reply = self.request("DELETE", "/login")
        self.assertEqual((reply.status, reply.headers["allow"]), (405, "GET, POST"))
        self.assertEqual(self.request("GET", "/api/ban").status, 405)
        reply = self.request("HEAD", "/health")
        self.assertEqual((reply.status, reply.body), (200, b""))

    def test_large_body_is_refused(self) -> None:
        """A body above the limit is refused before it is read, whether its length is known or not."""
        head = b"POST /login HTTP/1.1\r\nHost: x\r\n"
        for body in (
            b"Content-Length: %d\r\n\r\nx" % (MAX_BODY + 1),
            b"Content-Length: 99999999999\r\n\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n2000\r\n" + b"x" * 0x2000,
        ):
            protocol = self.connect()
            protocol.dataReceived(head + body)
            self.assertTrue(protocol.transport.value().startswith(b"HTTP/1.1 413 "))
            self.assertTrue(protocol.transport.disconnecting)
            protocol.dataReceived(b"x" * 10_000)
            self.assertEqual(protocol.transport.value().count(b"HTTP/1.1"), 1)

    def test_no_http_is_refused(self) -> None:
        """Other protocols, and long headers, get a short answer and no traceback."""
        for raw in (
            b"a LOGIN x y\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 1000 + b"\r\n",
            b"GET /" + b"x" * 20000,
        ):
            protocol = self.connect()
            protocol.dataReceived(raw)
            self.assertTrue(protocol.transport.disconnecting)
            self.assertLess(len(protocol.transport.value()), 200)
            self.assertNotIn(b"Traceback", protocol.transport.value())
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_multipart_and_binary_forms(self) -> None:
        """Forms of other kinds are refused like forms without fields."""
        for kind in ("multipart/form-data; boundary=x", "multipart/form-data", "application/json"):
            raw = f"POST /login HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: 5\r\n\r\n--x\r\n"
            self.assertEqual(self.send(raw.encode()).status, 403)

    def test_headers_that_cannot_be_parsed(self) -> None:
        """A header with an impossible value is refused, and makes no line in the log."""
        login = b"POST /login HTTP/1.1\r\nHost: x\r\n"
        self.assertEqual(
            self.send(login + b"Content-Length: %s\r\n\r\n" % (b"9" * 5000)).status, 400
        )
        for header in (
            b"Origin: http://[",
            b"Host: \xff",
            b"X-Form-Token: \xff",
            b"Cookie: a=\xff",
        ):
            self.assertEqual(self.send(login + header + b"\r\n\r\n").status, 403)
        scrape = b"GET /metrics HTTP/1.1\r\nOrigin: http://[\r\nAuthorization: Basic eDp5\r\n\r\n"
        self.assertEqual(self.send(scrape).status, 403)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_error_of_a_page(self) -> None:
        """An error is in the log, and the answer says no more than that."""

        async def fail(request: object) -> Answer:
            raise ZeroDivisionError("secret")

        site = BoundedSite({("GET", "/x"): fail}, self.clock, "my site")
        with capturedLogs() as logged:
            reply = self.request("GET", "/x", site=site)
        self.assertEqual(
            [formatEvent(event) for event in logged], ["error while answering a request of my site"]
        )
        self.assertEqual(reply.status, 500)
        self.assertNotIn(b"secret", reply.body)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_errors_in_the_log_are_few(self) -> None:
        """A client that can cause errors, in a page or in the web server, does not fill the disk."""

        async def fail(request: object) -> Answer:
            raise ZeroDivisionError

        def fail_early(request: object) -> bool:
            raise KeyError

        pages = BoundedSite({("GET", "/x"): fail}, self.clock, "pages")
        early = BoundedSite({}, self.clock, "early", fail_early)
        for _ in range(ERRORS + 5):
            self.request("GET", "/x", site=pages)
            protocol = self.connect(site=early)
            protocol.dataReceived(b"GET / HTTP/1.1\r\n\r\n")
            self.assertTrue(protocol.transport.aborted)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), ERRORS)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), ERRORS)


class BoundTests(WebCase):
    def test_slow_client_is_disconnected(self) -> None:
        """A client that sends nothing for a while is disconnected, also while it does not read the answer."""
        for data in (b"", b"GET / HT", b"GET /app.js HTTP/1.1\r\n\r\n"):
            protocol = self.connect()
            protocol.dataReceived(data)
            self.assertFalse(protocol.transport.aborted)
            self.clock.advance(TIMEOUT + 1)
            self.assertTrue(protocol.transport.aborted)

    def test_connection_has_one_request(self) -> None:
        """Of many requests that come at once, the first is answered, and the connection is closed."""
        for request in (b"GET /login HTTP/1.1\r\n\r\n", b"GET /x HTTP/1.1\r\n\r\n"):
            protocol = self.connect()
            protocol.dataReceived(request * 1000)
            protocol.dataReceived(request * 1000)
            answer = protocol.transport.value()
            self.assertEqual(answer.count(b"HTTP/1.1"), 1)
            self.assertIn(b"\r\nConnection: close\r\n", answer)
            self.assertTrue(protocol.transport.disconnecting)

    def test_requests_of_an_address_have_a_rate(self) -> None:
        """A stranger who asks too often is told so in a few bytes; others are not concerned."""
        for _ in range(REQUESTS):
            self.assertEqual(self.request("GET", "/x").status, 404)
        reply = self.request("GET", "/x")
        self.assertEqual((reply.status, reply.headers["retry-after"]), (429, "1"))
        self.assertEqual(self.request("GET", "/x", peer="198.51.100.1").status, 404)
        self.clock.advance(1)
        self.assertEqual(self.request("GET", "/x").status, 404)

    def test_rate_concerns_neither_operators_nor_prometheus(self) -> None:
        """Behind the address of a flood, sessions go on, and programs that watch get their answers."""
        self.log_in()
        cookie, self.cookie = self.cookie, ""
        for _ in range(REQUESTS + 5):
            self.request("GET", "/x")
        self.assertEqual(self.request("GET", "/login").status, 429)
        self.assertEqual(self.request("GET", "/health").status, 200)
        self.assertEqual(self.request("GET", "/metrics").status, 401)
        for _ in range(REQUESTS + 5):
            self.assertEqual(self.request("GET", "/metrics", site=self.open_site).status, 200)
        self.cookie = cookie
        for _ in range(REQUESTS + 5):
            self.assertEqual(self.request("GET", "/api/state").status, 200)

    def test_few_connections_are_accepted_in_a_turn(self) -> None:
        """Others wait in the kernel. Twisted's port accepts more and more in a turn while clients come; that is undone."""
        lengths: list[int] = []
        port = SimpleNamespace(numberAccepts=100, socket=SimpleNamespace(listen=lengths.append))
        self.site.bound(port)
        self.assertEqual((port.numberAccepts, lengths), (ACCEPTS_PER_TURN, [ACCEPT_QUEUE]))
        for _ in range(2):
            self.connect(port=port)
        port.numberAccepts += 20
        self.clock.advance(0)
        self.assertEqual(port.numberAccepts, ACCEPTS_PER_TURN)

    def test_connections_are_bounded(self) -> None:
        """Whoever holds all connections locks nobody out: the oldest is closed."""
        held = [self.connect("192.0.2.66") for _ in range(MAX_CLIENTS)]
        self.assertFalse(any(each.transport.aborted for each in held))
        self.assertEqual(self.request("GET", "/health").status, 200)
        self.assertTrue(held[0].transport.aborted)
        self.assertFalse(held[1].transport.aborted)
        self.connect("192.0.2.66")
        self.assertTrue(held[1].transport.aborted)
        self.assertFalse(held[2].transport.aborted)
        self.site.close()
        self.assertTrue(all(each.transport.aborted for each in held))

    def test_flood_closes_its_own_connections(self) -> None:
        """Of too many connections, one of the address that has most is closed, not that of an operator."""
        own = self.connect("198.51.100.1")
        for _ in range(3 * MAX_CLIENTS):
            self.connect("192.0.2.66")
        self.assertFalse(own.transport.aborted)
