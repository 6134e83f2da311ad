"""An authorization server says whether a token is valid, and whose it is."""

import json
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone
from zope.interface.verify import verifyObject

from imapshield.auth_option import make_checker, mechanisms
from imapshield.config import ConfigError
from imapshield.cred.checkers import CheckerUnavailable, PasswordFile
from imapshield.cred.introspection import TIMEOUT_SECONDS, TokenIntrospection
from imapshield.cred.sasl import Bearer
from imapshield.cred.user_names import EXACT
from tests.cred.fakes import FakeReactor


class FakeResponse:
    def __init__(self, code: int, *pieces: bytes) -> None:
        self.code, self.pieces = code, pieces
        self.transport = StringTransport()

    def deliverBody(self, protocol: Any) -> None:
        protocol.makeConnection(self.transport)
        for piece in self.pieces:
            protocol.dataReceived(piece)
        protocol.connectionLost(Failure(ResponseDone()))


class FakeAgent:
    """Keeps the requests, which the test answers."""

    def __init__(self) -> None:
        self.requests: list[tuple[Any, ...]] = []

    def request(self, method: bytes, url: bytes, headers: Any, body: Any) -> Deferred[Any]:
        sent = StringTransport()
        body.startProducing(sent)
        self.result: Deferred[Any] = Deferred()
        self.requests.append((method, url, headers, sent.value()))
        return self.result


def bearer(token: bytes = b"tok", user: bytes = b"") -> Bearer:
    credentials = Bearer()
    credentials.token, credentials.username = token, user
    return credentials


class IntrospectionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.agent = Clock(), FakeAgent()
        self.logged: list[Any] = []
        observer: Any = self.logged.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.checker = self.make()

    def make(self, **more: Any) -> TokenIntrospection:
        return TokenIntrospection("https://as/i", reactor=self.clock, agent=self.agent, **more)

    def check(self, answer: object, user: bytes = b"") -> Deferred[bytes]:
        result = self.checker.requestAvatarId(bearer(user=user))
        self.agent.result.callback(FakeResponse(200, json.dumps(answer).encode()))
        return result

    def test_the_server_is_asked_about_the_token(self) -> None:
        """The request has the token and the credentials of this server; the answer names the user."""
        verifyObject(ICredentialsChecker, self.checker)
        self.checker = self.make(client=("imap", "pw"))
        result = self.check({"active": True, "username": "alice"})
        ((method, url, headers, body),) = self.agent.requests
        self.assertEqual((method, url), (b"POST", b"https://as/i"))
        self.assertEqual(headers.getRawHeaders("Authorization"), ["Basic aW1hcDpwdw=="])
        self.assertEqual(body, b"token=tok&token_type_hint=access_token")
        self.assertEqual(self.successResultOf(result), b"alice")

    def test_invalid_tokens_are_refused(self) -> None:
        """A token that is not active, or an answer without a user, is refused; only true is active."""
        for answer in (
            {"active": False, "username": "alice"}, {"username": "alice"}, {"active": "true", "username": "alice"},
            {"active": 1, "username": "alice"}, {"active": True}, {"active": True, "username": 5},
            {"active": True, "username": ""}, {"active": True, "sub": "alice"},
        ):  # fmt: skip
            self.failureResultOf(self.check(answer), UnauthorizedLogin)

    def test_the_name_of_the_client_must_fit(self) -> None:
        """A client may name the user in another letter case, but no other user."""
        answer = {"active": True, "username": "alice"}
        for user in (b"alice", b"Alice", b""):
            self.assertEqual(self.successResultOf(self.check(answer, user)), b"alice")
        self.failureResultOf(self.check(answer, b"bob"), UnauthorizedLogin)
        self.checker = self.make(names=EXACT)
        self.failureResultOf(self.check(answer, b"Alice"), UnauthorizedLogin)

    def test_the_scope_must_be_there(self) -> None:
        """With a scope, tokens that were issued for other services are refused."""
        self.checker = self.make(scope="imap")
        for scope, is_valid in (("openid imap", True), ("imaps", False), (None, False)):
            result = self.check({"active": True, "username": "a", "scope": scope})
            if is_valid:
                self.assertEqual(self.successResultOf(result), b"a")
            else:
                self.failureResultOf(result, UnauthorizedLogin)

    def test_a_server_that_cannot_answer_is_no_wrong_token(self) -> None:
        """Errors of the network, other status codes, and answers that are no object or too long are unavailable."""
        for answer in (
            Failure(ConnectionRefusedError()), FakeResponse(401, b"{}"), FakeResponse(200, b"<html>"),
            FakeResponse(200, b"[]"), FakeResponse(200, b"x" * 40000, b"x" * 40000, b"x"),
        ):  # fmt: skip
            for _ in range(2):
                result = self.checker.requestAvatarId(bearer())
                if isinstance(answer, Failure):
                    self.agent.result.errback(answer)
                else:
                    self.agent.result.callback(answer)
                self.failureResultOf(result, CheckerUnavailable)
        self.assertEqual(len([e for e in self.logged if "reason" in e]), 5)

    def test_silence_ends(self) -> None:
        """A server that does not answer is unavailable after some time, which is one line."""
        result = self.checker.requestAvatarId(bearer())
        self.clock.advance(TIMEOUT_SECONDS)
        self.failureResultOf(result, CheckerUnavailable)
        self.assertEqual([e["reason"] for e in self.logged if "reason" in e], ["no answer"])

    def test_option(self) -> None:
        """The option has the URL, the credentials and the scope. Tokens are never sent in plain text over a network."""
        made = make_checker(FakeReactor(), "introspect:https://a%40b:p%23w@as:8443/i?x=1#imap")
        self.assertEqual((made._url, made._scope), (b"https://as:8443/i?x=1", "imap"))
        self.assertEqual(made._headers["Authorization"], ["Basic YUBiOnAjdw=="])
        make_checker(FakeReactor(), "introspect:http://[::1]:80/i")
        for text in ("http://as/i", "as", "", "https://", "https://as:x/", "https://ä/"):
            with self.assertRaisesRegex(ConfigError, "^--auth introspect: .*use introspect:https"):
                make_checker(FakeReactor(), f"introspect:{text}")

    def test_mechanisms_of_tokens_and_of_passwords(self) -> None:
        """Beside one password file, tokens and SCRAM are offered; beside two, tokens only."""
        file = PasswordFile(self.mktemp(), reactor=FakeReactor())
        self.assertIn(b"SCRAM-SHA-256", mechanisms([file, self.checker], EXACT))
        self.assertEqual(
            {*mechanisms([file, self.checker, file], EXACT)}, {b"OAUTHBEARER", b"XOAUTH2"}
        )
