"""Twisted's web server with bounds: for the size of requests, for their number, and for what a browser may do.

Rules
-----
* A client gets no traceback, and no text that it has sent, but for the user name in the form of the login.
* A request has at most `MAX_BODY` bytes, and a client that is slow or idle is disconnected after `TIMEOUT` seconds.
* With `MAX_CLIENTS` connections, one more closes the oldest: a client that holds connections open locks nobody out.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

MAX_BODY = 4096
"""Bytes of a form: the longest has a user name and a password."""

TIMEOUT = 20
"""Seconds without a byte after which a connection is closed."""

MAX_CLIENTS = 64
"""Connections. A browser opens up to six, Prometheus one."""

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

    too_large = False

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
        transport: Any = self.channel.transport
        transport.write(
            b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        )
        self.channel.loseConnection()

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Process a request, unless it was answered already."""
        if not self.too_large:
            super().requestReceived(command, path, version)

    def argument(self, name: str) -> str:
        """Return the value of a field of the form, or of the query; "" if there is none."""
        values: list[bytes] = self.args.get(name.encode()) or [b""]
        return values[0].decode("utf-8", "replace")

    def client_host(self) -> str:
        """Return the address of the client; "" for a UNIX socket."""
        return str(getattr(self.getClientAddress(), "host", None) or "")

    def header(self, name: str) -> str:
        """Return the value of a header; "" if there is none."""
        return str(self.getHeader(name) or "")


class _Dispatcher(Resource):
    """Answers all paths.

    Args:
        handlers: by method and path.
        name: what the log calls the site.
    """

    isLeaf = True

    def __init__(self, handlers: dict[tuple[str, str], Handler], name: str) -> None:
        super().__init__()
        self._handlers, self._name = handlers, name

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
            _log.failure("error while answering a request of {site}", failure, site=self._name)
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


class _Site(Site):
    noisy = False
    displayTracebacks = False

    def log(self, request: Any) -> None:
        """Write no line for a request: pages ask every few seconds."""


class _Client(ProtocolWrapper):
    """A connection, which ignores what comes after its end: TLS may still deliver it."""

    def dataReceived(self, data: bytes) -> None:
        if not self.disconnecting:
            super().dataReceived(data)


class BoundedSite(WrappingFactory):
    """A web site with at most `MAX_CLIENTS` connections.

    Args:
        handlers: by method and path.
        reactor: the reactor, whose time bounds idle connections.
        name: what the log calls the site.
    """

    noisy = False
    protocol = _Client

    def __init__(self, handlers: dict[tuple[str, str], Handler], reactor: Any, name: str) -> None:
        site = _Site(
            _Dispatcher(handlers, name), requestFactory=WebRequest, timeout=TIMEOUT, reactor=reactor
        )
        super().__init__(site)

    def registerProtocol(self, p: ProtocolWrapper) -> None:
        """Count a connection, and close the oldest if there are too many."""
        super().registerProtocol(p)
        if len(self.protocols) > MAX_CLIENTS:
            next(iter(self.protocols)).transport.abortConnection()

    def close(self) -> None:
        """Close all connections."""
        for protocol in [*self.protocols]:
            protocol.transport.abortConnection()
