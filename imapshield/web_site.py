"""Twisted's web server with bounds: for the size of requests, for their number, and for what a browser may do.

Rules
-----
* A client gets no traceback, and no text that it has sent, but for the user name in the form of the login.
* A request has at most `MAX_BODY` bytes, and a client that is slow or idle is disconnected after `TIMEOUT` seconds.
* With `MAX_CLIENTS` connections, one more closes the oldest of the address that has most: a client that holds or opens
  many locks nobody out.
* A connection has one request, and few are accepted in a turn of the reactor: Twisted answers all requests that a
  client sends at once in one turn, in which IMAP would wait.
* Strangers have a rate for each address. Requests above it get the cheapest answer.
* No request makes a traceback; should one do so, the log has a few of them at most.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from io import BytesIO
from math import ceil
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, parse_qs
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from imapshield.guard.networks import networks_of
from imapshield.guard.rates import RateTable

MAX_BODY = 4096
"""Bytes of a form: the longest has a user name and a password."""

TIMEOUT = 20
"""Seconds without a byte after which a connection is closed."""

MAX_CLIENTS = 64
"""Connections. A browser opens up to six, Prometheus one."""

ACCEPTS_PER_TURN = 8
"""Connections that are accepted in one turn of the reactor. With their requests they take about 5 ms, so IMAP clients
notice no flood of them."""

ACCEPT_QUEUE = 4096
"""Connections that the kernel accepts before the server does. During a flood they wait for seconds, but for less time
than Prometheus does; with Twisted's 50, most would be lost. Linux lowers the value to net.core.somaxconn."""

REQUESTS_PER_SECOND, REQUESTS = 10.0, 100
"""Requests of strangers at one address (IPv6: one /64). The page of the login needs four; behind a proxy, all strangers
together have one address."""

MAX_ADDRESSES = 1000
"""Addresses whose requests are counted."""

ERRORS_PER_SECOND, ERRORS = 1 / 60, 5
"""Errors of one type that are logged. A traceback has kilobytes: a client that can cause one must not fill the disk."""

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "Server": "imapshield",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_log = Logger(namespace="imapshield")


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request."""

    status: int = 200
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: dict[str, str] = field(default_factory=dict)
    cookies: tuple[str, ...] = ()


Handler = Callable[["WebRequest"], Awaitable[Answer]]


class WebRequest(Request):
    """A request whose body is bounded."""

    channel: Any
    too_large = False

    def __init__(self, *arguments: Any) -> None:
        # Twisted raises errors for some forms with files, which no page has.
        super().__init__(*arguments, parsePOSTFormSubmission=False)

    def gotLength(self, length: int | None) -> None:
        """Keep the body in memory; a temporary file, as Twisted has it, would have no bound."""
        self.content = self._body = BytesIO()
        if length is not None and length > MAX_BODY:
            self._refuse_body()

    def handleContentChunk(self, data: bytes) -> None:
        """Keep a part of the body."""
        if not self.too_large:
            if self._body.tell() + len(data) > MAX_BODY:
                self._refuse_body()
            else:
                self._body.write(data)

    def _refuse_body(self) -> None:
        """Answer at once: a client that sends a huge body must not be read to its end."""
        self.too_large = True
        self.channel.refuse(b"413 Content Too Large")

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Process a request, unless it was answered already."""
        if not self.too_large:
            super().requestReceived(command, path, version)

    def process(self) -> None:
        """Answer, unless the client asks too often."""
        wait = self.channel.site.seconds_to_wait(self)
        if wait:
            self.channel.refuse(b"429 Too Many Requests\r\nRetry-After: %d" % ceil(wait))
            return
        kind = self.getHeader(b"content-type") or b""
        if kind.partition(b";")[0].strip().lower() == b"application/x-www-form-urlencoded":
            self.args.update(parse_qs(self._body.getvalue(), True))
        super().process()

    def argument(self, name: str) -> str:
        """Return the value of a field of the form, or of the query; "" if there is none."""
        values: list[bytes] = self.args.get(name.encode()) or [b""]
        return values[0].decode("utf-8", "replace")

    def client_host(self) -> str:
        """Return the address of the client; "" for a UNIX socket."""
        return str(getattr(self.getClientAddress(), "host", None) or "")

    def header(self, name: str) -> str:
        """Return the value of a header; "" if there is none."""
        return (self.getHeader(name.encode()) or b"").decode("utf-8", "replace")


class _Dispatcher(Resource):
    """Answers all paths.

    Args:
        handlers: by method and path.
        report: logs an error.
    """

    isLeaf = True

    def __init__(
        self, handlers: dict[tuple[str, str], Handler], report: Callable[[Failure], None]
    ) -> None:
        super().__init__()
        self._handlers, self._report = handlers, report

    def render(self, request: Any) -> int:
        """Answer a request, later."""
        method = request.method.decode("ascii", "replace")
        path = request.path.decode("ascii", "replace")
        handler = self._handlers.get(("GET" if method == "HEAD" else method, path))
        if handler is None:
            allowed = [known for known, its_path in self._handlers if its_path == path]
            self._send(_refusal(allowed), request)
            return NOT_DONE_YET
        answered = Deferred.fromCoroutine(self._answer(handler, request))
        # A client that has left needs no answer.
        request.notifyFinish().addErrback(lambda _: answered.cancel())
        answered.addCallback(self._send, request).addErrback(self._failed, request)
        return NOT_DONE_YET

    async def _answer(self, handler: Handler, request: WebRequest) -> Answer:
        return await handler(request)

    def _failed(self, failure: Failure, request: WebRequest) -> None:
        if not failure.check(CancelledError):
            self._report(failure)
            self._send(Answer(500, b"internal error; the log of the server has it\n"), request)

    def _send(self, answer: Answer, request: WebRequest) -> None:
        request.setResponseCode(answer.status)
        headers = {**_HEADERS, "Content-Type": answer.content_type, **answer.headers}
        headers["Content-Length"] = str(len(answer.body))
        for name, value in headers.items():
            request.setHeader(name, value)
        for cookie in answer.cookies:
            request.responseHeaders.addRawHeader("Set-Cookie", cookie)
        request.write(answer.body)
        request.finish()


def _refusal(allowed: list[str]) -> Answer:
    if not allowed:
        return Answer(404, b"no such page\n")
    return Answer(405, b"wrong method\n", headers={"Allow": ", ".join(allowed)})


class _Channel(HTTPChannel):
    """A connection for one request."""

    transport: Any

    def checkPersistence(self, request: Any, version: bytes) -> bool:  # noqa: ARG002
        """Return False: the connection ends after the answer, whatever the client has sent behind the request."""
        request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        return False

    def headerReceived(self, line: bytes) -> bool:
        """Process a line of the header; returns whether it is valid."""
        try:
            return bool(super().headerReceived(line))
        except ValueError:  # a length of thousands of digits
            self.refuse(b"400 Bad Request")
            return False

    def refuse(self, status: bytes) -> None:
        """Answer without the cost of an answer of `Request`, and close the connection."""
        head = b"HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        self.transport.write(head % status)
        self.loseConnection()

    def loseConnection(self) -> None:
        """Close the connection when the answer is sent, or after `TIMEOUT` if the client does not read it."""
        super().loseConnection()
        self.setTimeout(TIMEOUT)

    def timeoutConnection(self) -> None:
        """Close the connection, without the line in the log that Twisted writes."""
        self.transport.abortConnection()


class _Site(Site):
    noisy = False
    displayTracebacks = False
    protocol: Any = _Channel
    seconds_to_wait: Callable[[WebRequest], float]

    def log(self, request: Any) -> None:
        """Write no line for a request: pages ask every few seconds."""


class _Client(ProtocolWrapper):
    """A connection, which ignores what comes after its end: TLS may still deliver it."""

    transport: Any

    def dataReceived(self, data: bytes) -> None:
        if not self.disconnecting:
            try:
                super().dataReceived(data)
            except Exception:  # Twisted would log it each time
                self.factory.report(Failure())
                self.transport.abortConnection()


def _nobody(request: WebRequest) -> bool:  # noqa: ARG001
    return False


class BoundedSite(WrappingFactory):
    """A web site with at most `MAX_CLIENTS` connections, and a rate of requests.

    Args:
        handlers: by method and path.
        reactor: the reactor, whose time bounds idle connections.
        name: what the log calls the site.
        has_no_rate: returns whether a request counts for no rate and is always answered.
    """

    noisy = False
    protocol = _Client

    def __init__(
        self,
        handlers: dict[tuple[str, str], Handler],
        reactor: Any,
        name: str,
        has_no_rate: Callable[[WebRequest], bool] = _nobody,
    ) -> None:
        dispatcher = _Dispatcher(handlers, self.report)
        site = _Site(dispatcher, requestFactory=WebRequest, timeout=TIMEOUT, reactor=reactor)
        site.seconds_to_wait = self._seconds_to_wait
        super().__init__(site)
        self._reactor, self._now, self._has_no_rate = reactor, reactor.seconds, has_no_rate
        self._name, self._is_bounding = name, False
        self._rate = RateTable(REQUESTS_PER_SECOND, REQUESTS, MAX_ADDRESSES)
        self._errors = RateTable(ERRORS_PER_SECOND, ERRORS, MAX_ADDRESSES)
        self._hosts: dict[Any, str] = {}  # of the connections that are not being closed

    def _seconds_to_wait(self, request: WebRequest) -> float:
        if self._has_no_rate(request):
            return 0.0
        host = request.client_host()
        return self._rate.take((networks_of(host) or (host,))[0], self._now())

    def report(self, failure: Failure) -> None:
        """Log an error, unless there were many of its type."""
        if not self._errors.take(str(failure.type), self._now()):
            _log.failure("error while answering a request of {site}", failure, site=self._name)

    def bound(self, port: Any) -> None:
        """Accept few connections in a turn from a port that listens, and let others wait instead of getting lost."""
        port.numberAccepts = ACCEPTS_PER_TURN
        port.socket.listen(ACCEPT_QUEUE)

    def registerProtocol(self, p: Any) -> None:
        """Count a connection, and close another one if there are too many."""
        super().registerProtocol(p)
        port = getattr(p.transport, "server", None)
        if port is not None and not self._is_bounding:
            self._is_bounding = True
            self._reactor.callLater(0, self._bound_accepts, port)
        self._hosts[p] = str(getattr(p.transport.getPeer(), "host", ""))
        if len(self._hosts) > MAX_CLIENTS:
            hosts = [*self._hosts.values()]
            busiest = max(hosts, key=hosts.count)
            oldest = next(each for each, host in self._hosts.items() if host == busiest)
            # It stays registered until the next turn.
            del self._hosts[oldest]
            oldest.transport.abortConnection()

    def _bound_accepts(self, port: Any) -> None:
        """Lower the number that Twisted's port raises at the end of a turn."""
        self._is_bounding = False
        port.numberAccepts = min(port.numberAccepts, ACCEPTS_PER_TURN)

    def unregisterProtocol(self, p: Any) -> None:
        """Count a connection no more."""
        super().unregisterProtocol(p)
        self._hosts.pop(p, None)

    def close(self) -> None:
        """Close all connections."""
        for protocol in [*self.protocols]:
            protocol.transport.abortConnection()
