"""An HTTP service is asked as nginx asks its auth_http, and cannot lead the server anywhere else."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import ResponseFailed
from twisted.web.http_headers import Headers

from imapshield.front.backend_address import parse_nodes
from imapshield.front.map_http import MapHttp
from imapshield.front.node_names import node_named, whole_number
from imapshield.front.user_map import Answer, EntryWrong, LookUpFailed, Query
from tests.real_reactor import turns

reactor: Any = installed_reactor
NODES = parse_nodes(["mail1=tls:mail1.example:993", "mail2=tls:[2001:db8::2]:993"])


class _Response:
    """The response of a service."""

    def __init__(self, code: int, headers: dict[str, str]) -> None:
        self.code, self.body = code, None
        self.headers = Headers({name: [value] for name, value in headers.items()})

    def deliverBody(self, protocol: Any) -> None:
        self.body = protocol


class _Agent:
    """Notes the headers of each request."""

    def __init__(self) -> None:
        self.headers: list[dict[str, str]] = []
        self.responses: list[Any] = []

    async def request(self, method: bytes, url: bytes, headers: Headers, body: None) -> Any:
        assert (method, url, body) == (b"GET", b"http://127.0.0.1/map", None)
        found = {name.decode(): each[0].decode() for name, each in headers.getAllRawHeaders()}
        self.headers.append(found)
        return self.responses[-1]


class MapHttpTests(SynchronousTestCase):
    sends_password = False

    def setUp(self) -> None:
        self.agent = _Agent()
        self.service = MapHttp(
            "http://127.0.0.1/map", "http://127.0.0.1/map", NODES,
            sends_password=self.sends_password, reactor=None, agent=self.agent,
        )  # fmt: skip

    def ask(self, code: int = 200, query: Query | None = None, **headers: Any) -> Deferred[Answer]:
        """Return the answer of the service to a query; headers are without ``Auth-``."""
        sent = {f"Auth-{name.capitalize()}": value for name, value in headers.items()}
        response = _Response(code, sent)
        self.agent.responses.append(response)
        found = Deferred.fromCoroutine(self.service.ask(query or Query("alice")))
        response.body.connectionLost()  # type: ignore[attr-defined]
        return found

    def test_request(self) -> None:
        """The headers are those of nginx, with an encoded name, and without the password."""
        query = Query("a%b é", "LOGIN", "192.0.2.1", b"secret")
        self.ask(query=query, status="OK", server="mail1")
        self.assertEqual(
            self.agent.headers[-1],
            {
                "Auth-Method": "plain", "Auth-User": "a%25b%20%C3%A9", "Auth-Protocol": "imap",
                "Auth-Login-Attempt": "1", "Client-Ip": "192.0.2.1",
            },
        )  # fmt: skip
        self.ask(query=Query("alice", "SCRAM-SHA-256"), status="OK", server="mail1")
        self.assertEqual(self.agent.headers[-1]["Auth-Method"], "scram-sha-256")
        self.assertNotIn("Client-Ip", self.agent.headers[-1])
        self.assertTrue(self.service.caches)

    def test_nodes(self) -> None:
        """The answer is the name of a node, or its host, with or without the port."""
        for server, port, node in (
            ("mail2", "", "mail2"),
            ("mail1.example", "993", "mail1"),
            ("mail1.example:993", "", "mail1"),
            ("mail1.example", "", "mail1"),
            ("2001:db8::2", "993", "mail2"),
            ("[2001:db8::2]:993", "", "mail2"),
        ):
            headers = {"status": "OK", "server": server} | ({"port": port} if port else {})
            self.assertEqual(
                self.successResultOf(self.ask(200, None, **headers)).node, node, server
            )

    def test_other_servers(self) -> None:
        """A server that is no node is never connected to, nor is another port of a node."""
        for server, port in (
            ("10.0.0.1", "993"), ("mail1.example", "22"), ("mail1.example:22", ""), ("mail9", ""),
            ("mail1", "993"), ("mail1.example", "x"), ("", ""),
        ):  # fmt: skip
            headers = {"status": "OK", "server": server, "port": port}
            self.failureResultOf(self.ask(200, None, **headers), EntryWrong)

    def test_several_nodes_on_a_host(self) -> None:
        """A host without a port is an error if several nodes are there; a name counts before a host."""
        nodes = parse_nodes([f"mail{n}=tls:mail.example:{992 + n}" for n in (1, 2)])
        nodes += parse_nodes(["mail.other=tls:a.example:993"]) + parse_nodes(
            ["b=tls:mail.other:993"]
        )
        self.assertEqual(node_named(nodes, "mail.example:994"), "mail2")
        self.assertEqual(node_named(nodes, "mail.other"), "mail.other")
        for text in ("mail.example", "mail.example:\u00b2", "mail.example:" + "9" * 5000):
            self.assertRaises(EntryWrong, node_named, nodes, text)
        self.assertEqual((whole_number("\u00b2", 5), whole_number("\u0663", 5)), (None, None))

    def test_unknown_user(self) -> None:
        """Every other status is that of an unknown user, for as long as Auth-Wait says."""
        for headers, seconds in (({}, 0), ({"wait": "3"}, 3), ({"wait": "99999"}, 3600), ({"wait": "x"}, 0)):  # fmt: skip
            found = self.ask(200, None, status="Invalid login or password", **headers)
            self.assertEqual(self.successResultOf(found), Answer("", seconds))

    def test_answers_that_are_none(self) -> None:
        """Another HTTP status, a missing header, a long body and a lost connection are failures."""
        self.failureResultOf(self.ask(502, status="OK", server="mail1"), LookUpFailed)
        self.failureResultOf(self.ask(server="mail1"), LookUpFailed)
        for end in (
            lambda body: body.dataReceived(b"x" * 70_000),
            lambda body: body.connectionLost(Failure(ConnectionLost())),
        ):
            response: Any = _Response(200, {"Auth-Status": "OK"})
            self.agent.responses.append(response)
            found = Deferred.fromCoroutine(self.service.ask(Query("alice")))
            response.body.dataReceived(b"short")
            end(response.body)
            response.body.connectionLost()
            self.failureResultOf(found, LookUpFailed, ConnectionLost)

    def test_reasons_are_our_own_words(self) -> None:
        """Nothing that the service sends, and no name of a class, is in the reason."""
        for error, text in (
            (ValueError("wrong number of parts", b"\x1b[2J"), "the answer is not HTTP"),
            (SSL.Error([("", "", "certificate verify failed")]), "TLS: certificate verify failed"),
            (SSL.Error(), "TLS: the connection has ended"),
            (SSL.SysCallError(-1, "EOF"), "TLS: the connection has ended"),
            (ConnectionAborted(), "the answer has more than MAX_ANSWER_BYTES=65536"),
            (ConnectionLost(), "the connection has ended before the answer"),
        ):
            response: Any = _Response(200, {"Auth-Status": "OK"})
            self.agent.responses.append(response)
            found = Deferred.fromCoroutine(self.service.ask(Query("alice")))
            response.body.connectionLost(Failure(ResponseFailed([Failure(error)])))
            self.assertEqual(str(self.failureResultOf(found, LookUpFailed).value), text)

    def test_cancelled_body(self) -> None:
        """A login that gives up ends the connection."""
        response: Any = _Response(200, {"Auth-Status": "OK"})
        self.agent.responses.append(response)
        found = Deferred.fromCoroutine(self.service.ask(Query("alice")))
        ended: list[bool] = []

        class Transport:
            def loseConnection(self) -> None:
                ended.append(True)

        response.body.transport = Transport()
        found.cancel()
        self.failureResultOf(found)
        self.assertEqual(ended, [True])
        self.successResultOf(self.service.stop())


class PasswordTests(MapHttpTests):
    sends_password = True

    def test_request(self) -> None:
        """With --user-map-password, the service gets the password, and its answers are not remembered."""
        self.ask(query=Query("alice", "PLAIN", "", b"se cret"), status="OK", server="mail1")
        self.assertEqual(self.agent.headers[-1]["Auth-Pass"], "se%20cret")
        self.assertFalse(self.service.caches)


class EndlessAnswerTests(TestCase):
    timeout = 60

    async def test_headers_without_end(self) -> None:
        """An answer with endless headers ends the connection at a few bytes; a good one after it is read."""
        sent: list[int] = []

        class Service(Protocol):
            def dataReceived(self, data: bytes) -> None:
                self.transport.write(self.factory.answer)  # type: ignore[union-attr]
                if not self.factory.answer.endswith(b"\r\n\r\n"):
                    self.more()

            def connectionLost(self, reason: Any = None) -> None:
                self.connected = 0

            def more(self) -> None:
                if self.connected and sum(sent) < 1 << 22:
                    self.transport.write(b"X-1: y\r\n" * 1000)  # type: ignore[union-attr]
                    sent.append(8000)
                    reactor.callLater(0, self.more)

        factory: Any = Factory.forProtocol(Service)
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        url = f"http://127.0.0.1:{port.getHost().port}/"
        service = MapHttp(url, url, NODES, sends_password=False, reactor=reactor)
        self.addCleanup(service.stop)
        good = b"HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nAuth-Server: mail1\r\nContent-Length: 0\r\n"
        padding = b"X-2: %b\r\n" % (b"z" * 10_000)
        factory.answer = good + padding + b"\r\n"
        for _ in range(8):  # what is counted begins again with each answer of the connection
            self.assertEqual(await service.ask(Query("alice")), Answer("mail1"))
        factory.answer = good
        with self.assertRaisesRegex(LookUpFailed, "MAX_ANSWER_BYTES=65536"):
            await service.ask(Query("alice"))
        self.assertLess(sum(sent), 1 << 21)
        await turns()
