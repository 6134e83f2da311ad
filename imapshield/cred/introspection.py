"""`TokenIntrospection`: asks an authorization server whether a token is valid (RFC 7662).

The tokens come with OAUTHBEARER and XOAUTH2.
"""

import json
from base64 import b64encode
from typing import Any
from urllib.parse import urlencode

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import Agent, ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from imapshield.cred.sasl import IBearerToken
from imapshield.cred.unavailable import Outages
from imapshield.cred.user_names import UserNames

MAX_ANSWER_BYTES = 1 << 16
"""Longer answers are not read. One has some hundred bytes."""

TIMEOUT_SECONDS = 10.0


@implementer(ICredentialsChecker)
class TokenIntrospection:
    """Checks tokens at an authorization server.

    The avatar id is the ``username`` of the answer. If the client names a user, too, it must be the same one.

    Args:
        url: the introspection endpoint, without a fragment.
        client: the id and the secret of this server there; both are empty if it needs none.
        scope: a scope that the token must have. Without one, each valid token of the server is accepted, also one that
            was issued for another service.
        names: how the name of the client may be written.
        reactor: the reactor.
        agent: makes the requests; by default a new `Agent`, which verifies certificates.
    """

    credentialInterfaces = (IBearerToken,)

    def __init__(
        self,
        url: str,
        *,
        client: tuple[str, str] = ("", ""),
        scope: str = "",
        names: UserNames = UserNames(),  # noqa: B008
        reactor: Any,
        agent: Any = None,
    ) -> None:
        self._url = url.encode("ascii")
        self._scope, self._names, self._reactor = scope, names, reactor
        self._agent = agent or Agent(reactor, connectTimeout=TIMEOUT_SECONDS)
        self._headers = {
            "Accept": ["application/json"],
            "Content-Type": ["application/x-www-form-urlencoded"],
        }
        if any(client):
            secret = b64encode(":".join(client).encode()).decode("ascii")
            self._headers["Authorization"] = [f"Basic {secret}"]
        self._outages = Outages("introspect", "check the URL, the client id and its secret")

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        """Return the name of the user.

        It fails with `UnauthorizedLogin`, or with `CheckerUnavailable` if the authorization server does not answer.
        """
        checking = Deferred.fromCoroutine(self._check(credentials.token, credentials.username))
        return self._outages.limit(checking, TIMEOUT_SECONDS, self._reactor)

    async def _check(self, token: bytes, claimed: bytes) -> bytes:
        try:
            answer = await self._ask(token)
        except Exception as error:  # the errors of HTTP, TLS and the network have no common class
            self._outages.failed(Failure(error), lambda error: str(error) or type(error).__name__)
        if not isinstance(answer, dict):
            self._outages.fail("the answer is no JSON object")
        self._outages.over()
        name = answer.get("username")
        if answer.get("active") is not True or not isinstance(name, str) or not name:
            raise UnauthorizedLogin
        scopes = str(answer.get("scope", "")).split()
        user = name.encode("utf-8", "replace")
        is_other = claimed and user not in self._names.candidates(claimed)
        if is_other or (self._scope and self._scope not in scopes):
            raise UnauthorizedLogin
        return user

    async def _ask(self, token: bytes) -> Any:
        form = urlencode({"token": token, "token_type_hint": "access_token"}).encode("ascii")
        headers = Headers(self._headers)
        response = await self._agent.request(b"POST", self._url, headers, _Body(form))
        body = _Answer()
        response.deliverBody(body)
        data = await body.done
        if response.code != 200:
            raise ValueError(f"HTTP status {response.code}")
        return json.loads(data)


@implementer(IBodyProducer)
class _Body:
    """The body of a request, which is short."""

    def __init__(self, body: bytes) -> None:
        self._body, self.length = body, len(body)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        consumer.write(self._body)
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    def pauseProducing(self) -> None:
        """Do nothing: everything is written."""

    stopProducing = resumeProducing = pauseProducing


class _Answer(Protocol):
    """Collects the body of an answer, up to `MAX_ANSWER_BYTES`.

    Attributes:
        done: fires with the body.
    """

    def __init__(self) -> None:
        self.done: Deferred[bytes] = Deferred(lambda _: self._end())
        self._data = b""

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        if len(self._data) > MAX_ANSWER_BYTES and not self.done.called:
            self._end()
            self.done.errback(ValueError("the answer is too long"))

    def _end(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = Failure(ResponseDone())) -> None:  # noqa: B008
        if self.done.called:
            return
        if reason.check(ResponseDone):
            self.done.callback(self._data)
        else:
            self.done.errback(reason)
