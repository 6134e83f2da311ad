"""The web server gives short, clear answers to whatever a client sends, and nobody can fill it."""

from twisted.logger import capturedLogs, formatEvent

from imapshield.web_site import MAX_BODY, MAX_CLIENTS, TIMEOUT, Answer, BoundedSite
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
            self.assertIn(self.send(raw.encode()).status, (400, 403))

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


class BoundTests(WebCase):
    def test_slow_client_is_disconnected(self) -> None:
        """A client that sends nothing for a while is disconnected."""
        protocol = self.connect()
        protocol.dataReceived(b"GET / HT")
        self.clock.advance(TIMEOUT + 1)
        self.assertTrue(protocol.transport.disconnecting)

    def test_connections_are_bounded(self) -> None:
        """Whoever holds all connections locks nobody out: the oldest is closed."""
        held = [self.connect("192.0.2.66") for _ in range(MAX_CLIENTS)]
        self.assertFalse(any(each.transport.aborted for each in held))
        self.assertEqual(self.request("GET", "/health").status, 200)
        self.assertTrue(held[0].transport.aborted)
        self.assertFalse(held[1].transport.aborted)
        self.site.close()
        self.assertTrue(all(each.transport.aborted for each in held))
