"""`MapHttp`: asks an HTTP service which node a user has, with the headers of nginx's ``auth_http``."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectionAborted, ConnectionClosed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import (
    URI,
    Agent,
    BrowserLikePolicyForHTTPS,
    HTTPConnectionPool,
    RequestTransmissionFailed,
    ResponseDone,
    ResponseFailed,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from imapshield.front.backend_address import BackendAddress
from imapshield.front.node_names import node_named, whole_number
from imapshield.front.user_map import Answer, EntryWrong, LookUpFailed, Query

CONNECTIONS = 8
"""Connections to the service that are kept open between requests."""

MAX_ANSWER_BYTES = 1 << 16
"""Bytes of an answer, of which only a few headers have a meaning. A longer one ends the connection."""

MAX_WAIT_SECONDS = 3600
"""The longest time for which Auth-Wait makes a user unknown."""

_PRINTABLE = "".join(chr(code) for code in range(0x21, 0x7F) if code != 0x25)


class MapHttp:
    """The service at a URL.

    Args:
        url: the URL.
        text: the same, as it may stand in the log.
        nodes: the addresses of all nodes.
        sends_password: whether it gets the password or token of each login.
        reactor: the reactor.
        agent: makes the requests; by default a new `Agent`, which verifies certificates and follows no redirections.
    """

    def __init__(
        self,
        url: str,
        text: str,
        nodes: Sequence[BackendAddress],
        *,
        sends_password: bool,
        reactor: Any,
        agent: Any = None,
    ) -> None:
        self.text, self.caches = text, not sends_password
        self._url, self._nodes = url.encode("ascii"), nodes
        self._pool = HTTPConnectionPool(reactor)
        self._pool.maxPersistentPerHost = CONNECTIONS
        self._agent = agent or Agent.usingEndpointFactory(
            reactor, _BoundedEndpoints(reactor), self._pool
        )

    async def ask(self, query: Query) -> Answer:
        """Return the answer of the service.

        Raises:
            LookUpFailed: it is none. Other exceptions mean that the service could not be reached.
        """
        try:
            response = await self._agent.request(b"GET", self._url, self._headers(query), None)
            body = _Ignored()
            response.deliverBody(body)
            await body.done
        except (RequestTransmissionFailed, ResponseFailed) as error:  # what Twisted combines
            raise LookUpFailed(_reason([each.value for each in error.reasons])) from None
        if response.code != 200:
            raise LookUpFailed(f"HTTP status {response.code}")
        return self._answer(response.headers)

    def _headers(self, query: Query) -> Headers:
        plain = query.mechanism in ("LOGIN", "PLAIN")
        values = {
            "Auth-Method": "plain" if plain else query.mechanism.lower(),
            "Auth-User": _encoded(query.user.encode("utf-8", "replace")),
            "Auth-Protocol": "imap",
            "Auth-Login-Attempt": "1",
        }
        if query.client:
            values["Client-IP"] = query.client
        if not self.caches:
            values["Auth-Pass"] = _encoded(query.password)
        return Headers({name: [value] for name, value in values.items()})

    def _answer(self, headers: Headers) -> Answer:
        status, server, port, wait = (
            _value(headers, name)
            for name in ("Auth-Status", "Auth-Server", "Auth-Port", "Auth-Wait")
        )
        if not status:
            raise LookUpFailed("the answer has no Auth-Status")
        if status.upper() != "OK":
            return Answer("", min(whole_number(wait, 8) or 0, MAX_WAIT_SECONDS))
        if not server:
            raise EntryWrong("the answer has no Auth-Server")
        number = whole_number(port, 5)
        if port and number is None:
            raise EntryWrong("Auth-Port is no port")
        return Answer(node_named(self._nodes, server, number))

    def stop(self) -> Deferred[Any]:
        """Close the connections."""
        closed: Deferred[Any] = self._pool.closeCachedConnections()
        return closed


def _reason(errors: Sequence[BaseException]) -> str:
    """Return why there is no answer. The texts of the errors have the names of classes, and bytes of the service."""
    if any(isinstance(each, ConnectionAborted) for each in errors):  # by `_bound_answers`
        return f"the answer has more than MAX_ANSWER_BYTES={MAX_ANSWER_BYTES}"
    for each in errors:
        if isinstance(each, SSL.Error):
            details = each.args[0] if each.args else ()  # a number in a SysCallError
            reasons = [reason for _, _, reason in details] if isinstance(details, list) else []
            return f"TLS: {', '.join(reasons) or 'the connection has ended'}"
    if all(isinstance(each, ConnectionClosed) for each in errors):
        return "the connection has ended before the answer"
    return "the answer is not HTTP"


def _encoded(value: bytes) -> str:
    """Return a value as nginx sends it: everything but printable ASCII is percent-encoded, and so is the percent."""
    return quote(value, safe=_PRINTABLE)


def _value(headers: Headers, name: str) -> str:
    values = headers.getRawHeaders(name) or [""]
    return values[-1].strip()


@implementer(IAgentEndpointFactory)
class _BoundedEndpoints:
    """Makes the connections of an `Agent` that bound the answers, whose headers it collects without end."""

    def __init__(self, reactor: Any) -> None:
        self._reactor, self._policy = reactor, BrowserLikePolicyForHTTPS()

    def endpointForURI(self, uri: URI) -> Any:
        """Return an endpoint, with TLS for https."""
        endpoint: Any = HostnameEndpoint(self._reactor, uri.host, uri.port)
        if uri.scheme == b"https":
            endpoint = wrapClientTLS(self._policy.creatorForNetloc(uri.host, uri.port), endpoint)
        return _BoundedEndpoint(endpoint)


@implementer(IStreamClientEndpoint)
class _BoundedEndpoint:
    def __init__(self, endpoint: Any) -> None:
        self._endpoint = endpoint

    def connect(self, factory: Any) -> Any:
        """Connect, and bound what arrives."""
        factory.noisy = False
        return self._endpoint.connect(factory).addCallback(_bound_answers)


def _bound_answers(protocol: Any) -> Any:
    """Let a connection of an `Agent` end when the answer to a request is too long; return it."""
    request, receive, size = protocol.request, protocol.dataReceived, 0

    def explain(failure: Failure) -> Failure:
        if size > MAX_ANSWER_BYTES:
            text = f"the answer has more than MAX_ANSWER_BYTES={MAX_ANSWER_BYTES}"
            return Failure(LookUpFailed(text))
        return failure

    def begin(each: Any) -> Any:
        nonlocal size
        size = 0
        return request(each).addErrback(explain)

    def count(data: bytes) -> None:
        nonlocal size
        size += len(data)
        if size > MAX_ANSWER_BYTES:
            protocol.transport.abortConnection()
        else:
            receive(data)

    protocol.request, protocol.dataReceived = begin, count
    return protocol


class _Ignored(Protocol):
    """Reads the body of an answer.

    Attributes:
        done: fires at its end.
    """

    def __init__(self) -> None:
        self.done: Deferred[None] = Deferred(lambda _: self._abort())
        self._size = 0

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > MAX_ANSWER_BYTES and not self.done.called:
            self._abort()
            self.done.errback(LookUpFailed("the body of the answer is too long"))

    def _abort(self) -> None:
        transport: Any = self.transport
        if transport is not None:
            getattr(transport, "abortConnection", transport.loseConnection)()

    def connectionLost(self, reason: Failure = Failure(ResponseDone())) -> None:  # noqa: B008
        if self.done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(None)
        else:
            self.done.errback(reason)
