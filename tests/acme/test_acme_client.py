"""The dialogue with an authority, which is in memory."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from typing import Any

import requests
from acme import client
from acme.client import ClientNetwork
from twisted.trial.unittest import SynchronousTestCase

from imapshield.acme.acme_client import new_key, obtain
from imapshield.acme.acme_files import AcmeError, Issued

DIRECTORY = "https://ca.example/dir"
CHAIN = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"


class Authority:
    """Answers the requests of the library, which checks the answers as it does in a network.

    Attributes:
        answers: answers in place of the usual ones, by the last part of the URL: a value, or an exception.
        sent: the requests, as pairs of the last part of the URL and the content.
    """

    def __init__(self) -> None:
        self.account: Any = None
        self.sent: list[tuple[str, Any]] = []
        self.links: dict[str, dict[str, str]] = {"up": {"url": "https://ca.example/authz"}}
        challenge = {"type": "http-01", "url": "https://ca.example/chall", "token": "dG9r" * 6}
        other = {"type": "dns-01", "url": "https://ca.example/other", "token": "dG9r" * 6}
        name = {"type": "dns", "value": "mail.example.org"}
        valid = {"identifier": name, "status": "valid", "challenges": [other, challenge]}
        order = {"authorizations": ["https://ca.example/authz"], "identifiers": [name]}
        order |= {"finalize": "https://ca.example/finalize", "status": "ready"}
        urls = {
            kind: f"https://ca.example/{kind}" for kind in ("newNonce", "newAccount", "newOrder")
        }
        self.answers: dict[str, list[Any]] = {
            "dir": [{**urls, "meta": {"termsOfService": "https://ca.example/terms"}}],
            "newAccount": [(201, {"status": "valid"})],
            "newOrder": [(201, order)],
            "authz": [{**valid, "status": "pending"}, valid],
            "chall": [challenge],
            "finalize": [order],
            "order": [{**order, "status": "valid", "certificate": "https://ca.example/cert"}],
            "cert": [CHAIN],
        }

    def get(self, url: str) -> requests.Response:
        return self._answer(url, None)

    def post(self, url: str, content: Any, **_: object) -> requests.Response:
        return self._answer(url, json.loads(content.json_dumps()) if content else None)

    def _answer(self, url: str, content: Any) -> requests.Response:
        kind = url.rpartition("/")[2]
        self.sent.append((kind, content))
        answers = self.answers[kind]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(found, Exception):
            raise found
        status, body = found if isinstance(found, tuple) else (200, found)
        response = requests.Response()
        response.status_code = status
        response._content = (body if isinstance(body, str) else json.dumps(body)).encode()
        is_error = isinstance(body, dict) and "detail" in body
        response.headers["Content-Type"] = f"application/{'problem+' * is_error}json"
        response.headers["Location"] = "https://ca.example/order"
        response.headers["Link"] = '<https://ca.example/authz>;rel="up"'
        return ClientNetwork._check_response(response)


class ClientTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.authority = Authority()
        self.published: dict[str, str] = {}
        self.account_key = new_key()
        self.patch(client.time, "sleep", lambda _: None)

    def obtain(self, **options: Any) -> Issued:
        arguments: dict[str, Any] = {"names": ["mail.example.org"], "server": DIRECTORY}
        arguments |= {"email": None}
        arguments |= {"account_key": self.account_key, "network": self.authority, **options}
        publish: Callable[[str, str], object] = self.published.__setitem__
        return obtain(publish=publish, **arguments)

    def problem(self, kind: str, code: str, detail: str, **more: Any) -> str:
        """Return the text of the error if the authority answers with a problem."""
        answer = {"type": f"urn:ietf:params:acme:error:{code}", "detail": detail, **more}
        self.authority.answers[kind] = [(403, answer)]
        return str(self.assertRaises(AcmeError, self.obtain))

    def test_certificate(self) -> None:
        """The answer to the challenge is published, and a key with its certificate returned. Terms are agreed to."""
        issued = self.obtain(email="me@example.org")
        self.assertTrue(issued.pem.startswith(b"-----BEGIN PRIVATE KEY-----"))
        self.assertTrue(issued.pem.endswith(CHAIN.encode()))
        self.assertEqual(issued.terms, "https://ca.example/terms")
        ((path, content),) = self.published.items()
        token = path.removeprefix("/.well-known/acme-challenge/")
        self.assertRegex(content, rf"^{token}\.[\w-]{{43}}$")
        account = dict(self.authority.sent)["newAccount"]
        expected = {"contact": ["mailto:me@example.org"], "termsOfServiceAgreed": True}
        self.assertEqual({**account, **expected}, account)

    def test_each_certificate_has_a_new_key(self) -> None:
        """A key that has leaked is of no use after the next renewal."""
        first, second = self.obtain(), self.obtain()
        self.assertNotEqual(first.pem, second.pem)

    def test_account_that_exists(self) -> None:
        """The account of the key is used again, and gets the present address."""
        self.authority.answers["newAccount"] = [{"status": "valid"}]
        self.authority.answers["order"].insert(
            0, {"status": "valid"}
        )  # the account has this URL, too
        self.obtain(email="me@example.org")
        sent = dict(self.authority.sent[:3])
        self.assertEqual(sent["order"]["contact"], ["mailto:me@example.org"])
        self.assertEqual(self.authority.account.uri, "https://ca.example/order")
        self.obtain()

    def test_name_that_was_proven_before(self) -> None:
        """A name that the authority still knows is not asked for again."""
        self.authority.answers["authz"].pop(0)
        self.obtain()
        self.assertEqual(self.published, {})

    def test_problem_of_the_authority(self) -> None:
        """What the authority says is in the error, in one line, with what to do."""
        for kind, code, words in (
            ("newOrder", "rateLimited", "the limits are of the authority"),
            ("newOrder", "rejectedIdentifier", "correct --acme"),
            ("newOrder", "unheardOf", "RFC 8555"),
        ):
            text = self.problem(
                kind, code, "too\r\nmany \x1b[1m", subproblems=[{"detail": "x\n\x1b"}]
            )
            self.assertIn(f"too many ?[1m; x ? ({code}); ", text)
            self.assertIn(words, text)

    def test_challenge_that_failed(self) -> None:
        """If the authority could not reach the port, the error has its reason and the option."""
        (_, valid) = self.authority.answers["authz"]
        error = {"type": "urn:ietf:params:acme:error:connection", "detail": "refused"}
        failed = {**valid["challenges"][1], "error": error}
        self.authority.answers["authz"][1] = {**valid, "status": "invalid", "challenges": [failed]}
        text = str(self.assertRaises(AcmeError, self.obtain))
        self.assertIn("mail.example.org: refused (connection); port 80 of the name must", text)
        self.assertIn("--acme-http", text)

    def test_order_that_failed(self) -> None:
        """An order that fails at its end has the reason of the authority."""
        (order,) = self.authority.answers["order"]
        error = {"type": "urn:ietf:params:acme:error:caa", "detail": "not permitted"}
        self.authority.answers["order"] = [{**order, "status": "invalid", "error": error}]
        self.assertIn("CAA record", str(self.assertRaises(AcmeError, self.obtain)))

    def test_authority_without_the_challenge(self) -> None:
        """An authority that does not offer HTTP-01 is named."""
        pending = self.authority.answers["authz"][0]
        pending["challenges"] = pending["challenges"][:1]
        self.assertIn("no challenge HTTP-01", str(self.assertRaises(AcmeError, self.obtain)))

    def test_authority_that_does_not_decide(self) -> None:
        """After a time, the attempt ends."""

        class Later(datetime.datetime):
            seconds = 0

            @classmethod
            def now(cls, tz: Any = None) -> Any:
                cls.seconds += 60
                return datetime.datetime(2026, 1, 1, tzinfo=tz) + datetime.timedelta(
                    seconds=cls.seconds
                )

        self.patch(client.datetime, "datetime", Later)
        self.authority.answers["authz"].pop()
        self.assertIn("not decided within", str(self.assertRaises(AcmeError, self.obtain)))

    def test_authority_that_cannot_be_reached(self) -> None:
        """The cause is in the error, without what the libraries add to it; for a certificate with the variable to set."""
        cause = "HTTPSConnectionPool(host='x'): Max (Caused by E(\"Failed: [Errno 1] Refused\"))"
        for error, words in (
            (
                requests.ConnectionError(cause),
                r"cannot reach ca.example; .*\(\[Errno 1\] Refused\)$",
            ),
            (requests.exceptions.SSLError("verify failed: self-signed')"), "REQUESTS_CA_BUNDLE"),
            (requests.Timeout("timed out"), "cannot reach ca.example; check the network"),
        ):
            self.authority.answers["dir"] = [error]
            self.assertRegex(str(self.assertRaises(AcmeError, self.obtain)), words)

    def test_server_that_is_no_authority(self) -> None:
        """Answers that are not those of ACME are an error with the option, whatever they are."""
        answers: tuple[Any, ...] = (
            "<html>\n\x1b[2J",
            {},
            {"newAccount": 1},
            (404, "not found"),
            [],
        )
        for answer in answers:
            self.authority.answers["dir"] = [answer]
            error = self.assertRaises(AcmeError, self.obtain)
            self.assertIn("look at --acme-server", str(error))
            self.assertTrue(str(error).isprintable())

    def test_damaged_account_key(self) -> None:
        """A key that cannot be read is an error with what to do."""
        error = self.assertRaises(AcmeError, self.obtain, account_key=b"x")
        self.assertIn("move account.pem away", str(error))
