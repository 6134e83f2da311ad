"""SCRAM-SHA-256 (RFC 7677) and -PLUS, OAUTHBEARER (RFC 7628) and XOAUTH2, tested through the whole server."""

import base64
import hmac
import json
from hashlib import pbkdf2_hmac, sha256
from typing import Any
from unittest import mock

from twisted.cred.checkers import ICredentialsChecker, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import CramMD5Credentials
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, fail, succeed
from twisted.mail.imap4 import IllegalClientResponse
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from imapshield import events
from imapshield.cred import passwords, users
from imapshield.cred.checker_chain import CheckerChain
from imapshield.cred.checkers import PasswordFile
from imapshield.cred.passwords import ScramSecret
from imapshield.cred.sasl import IBearerToken, Scram, ScramChecker, challengers
from imapshield.edge import authentication
from imapshield.edge.factory import ShieldedIMAP4Factory
from imapshield.testing.in_process import Client, Server
from tests.cred.fakes import FakePool, FakeReactor

SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
SECRET = ScramSecret.make(b"pencil", SALT, 4096)


@implementer(ICredentialsChecker)
class TokenChecker:
    """A checker of bearer tokens, as an operator would write one."""

    credentialInterfaces = (IBearerToken,)

    def __init__(self) -> None:
        self.checked: list[bytes] = []

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes | tuple[()]]:
        self.checked.append(credentials.token)
        if credentials.token == b"vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==":
            return succeed(b"alice")
        return fail(UnauthorizedLogin())


class SaslTestCase(SynchronousTestCase):
    """A server with a SCRAM checker, a token checker, passwords and CRAM-MD5."""

    def scram_checker(self) -> Any:
        return ScramChecker({b"user": SECRET, b"a,b=c": SECRET}.get)

    def setUp(self) -> None:
        self.scram = self.scram_checker()
        self.tokens = TokenChecker()
        checkers = [
            self.scram,
            self.tokens,
            InMemoryUsernamePasswordDatabaseDontUse(alice=b"secret"),
        ]
        self.server = Server()
        self.server.factory = ShieldedIMAP4Factory(
            Portal(self.server.realm, checkers),
            observers=[self.server.events.append],
            reactor=self.server.clock,
            challengers={**challengers(checkers), b"CRAM-MD5": CramMD5Credentials},
        )

    def client(self, host: str = "127.0.0.1") -> Client:
        return Client(self.server, host)


def challenge(answer: bytes) -> bytes:
    """Return the decoded challenge of a continuation request."""
    assert answer.startswith(b"+ "), answer
    return base64.b64decode(answer[2:])


class ScramTests(SaslTestCase):
    def exchange(
        self,
        client: Client,
        password: bytes = b"pencil",
        user: bytes = b"user",
        gs2: bytes = b"n,,",
        binding: bytes = b"",
        mechanism: bytes = b"SCRAM-SHA-256",
        initial: bool = True,
    ) -> bytes:
        """Log in as a client does, check the server's signature, and return the last response."""
        bare = b"n=%b,r=rOprNGfwEbeRWgbNEkqO" % user
        first = base64.b64encode(gs2 + bare)
        if initial:
            answer = client(b"a AUTHENTICATE %b %b" % (mechanism, first))
        else:
            self.assertEqual(client(b"a AUTHENTICATE %b" % mechanism), b"+ \r\n")
            answer = client(first)
        if not answer.startswith(b"+ "):
            return answer
        server_first = challenge(answer)
        fields = dict(field.split(b"=", 1) for field in server_first.split(b","))
        self.assertTrue(fields[b"r"].startswith(b"rOprNGfwEbeRWgbNEkqO"))
        salted = pbkdf2_hmac("sha256", password, base64.b64decode(fields[b"s"]), int(fields[b"i"]))
        without_proof = b"c=%b,r=%b" % (base64.b64encode(gs2 + binding), fields[b"r"])
        signed = b",".join((bare, server_first, without_proof))
        key = hmac.digest(salted, b"Client Key", "sha256")
        signature = hmac.digest(sha256(key).digest(), signed, "sha256")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature, strict=True)))
        answer = client(base64.b64encode(without_proof + b",p=" + proof))
        if not answer.startswith(b"+ "):
            return answer
        server_key = hmac.digest(salted, b"Server Key", "sha256")
        expected = base64.b64encode(hmac.digest(server_key, signed, "sha256"))
        self.assertEqual(challenge(answer), b"v=" + expected)
        return client(b"")

    def test_correct_password_logs_in(self) -> None:
        """The correct password logs in, with and without an initial response."""
        for initial in (True, False):
            client = self.client()
            self.assertIn(b"a OK [CAPABILITY", self.exchange(client, initial=initial))
            self.assertIn(b"b OK", client(b"b SELECT INBOX"))
        self.assertEqual(self.server.events_of(events.LoggedIn)[0].mechanism, "SCRAM-SHA-256")

    def test_user_name_may_contain_comma_and_equals(self) -> None:
        """User names may contain ``,`` and ``=``."""
        self.assertIn(b"a OK", self.exchange(self.client(), user=b"a=2Cb=3Dc"))

    def test_wrong_password_and_unknown_user_look_the_same(self) -> None:
        """A wrong password and an unknown user get the same response, and the salt of an unknown user is constant."""
        self.assertIn(b"a NO [AUTHENTICATIONFAILED]", self.exchange(self.client(), b"pen"))
        self.assertIn(b"a NO [AUTHENTICATIONFAILED]", self.exchange(self.client(), user=b"nobody"))
        self.assertEqual(self.scram.secret(b"nobody").salt, self.scram.secret(b"nobody").salt)
        self.assertEqual(len(self.server.events_of(events.LoginFailed)), 2)

    def test_exchange_of_rfc_7677_succeeds(self) -> None:
        """The exchange of RFC 7677 section 3 succeeds."""
        nonce = base64.b64encode(b"x" * 18)
        credentials = Scram(self.scram)
        with mock.patch("imapshield.cred.sasl.secrets.token_bytes", return_value=b"x" * 18):
            credentials.setResponse(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
        self.assertEqual(
            credentials.getChallenge(),
            b"r=rOprNGfwEbeRWgbNEkqO" + nonce + b",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        )
        # From here on, the exchange uses the nonce of the RFC.
        nonce = b"rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
        credentials._nonce = nonce
        credentials._challenge = b"r=" + nonce + b",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        credentials.setResponse(
            b"c=biws,r=" + nonce + b",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        )
        self.assertTrue(credentials.proved)
        self.assertEqual(
            credentials.getChallenge(), b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        )

    def test_invalid_message_is_refused_in_both_steps(self) -> None:
        """An invalid message is refused in both steps."""
        for message in (
            b"",
            b"n,,",
            b"n,,n=user",
            b"n,,n=,r=x",
            b"p=x,,n=user,r=x",
            b"n,a=other,n=user,r=x",
            b"n,,n=a=zz,r=x",
            b"y,,n=user,r=x,m=1\0"[:9],
        ):
            self.assertRaises(IllegalClientResponse, Scram(self.scram).setResponse, message)
        for message in (b"", b"c=biws", b"c=biws,r=x,p=!", b"c=biws,r=x,p=abc"):
            credentials = Scram(self.scram)
            credentials.setResponse(b"n,,n=user,r=x")
            self.assertRaises(IllegalClientResponse, credentials.setResponse, message)
        self.assertIn(
            b"a BAD", self.client()(b"a AUTHENTICATE SCRAM-SHA-256 " + base64.b64encode(b"n,,x"))
        )

    def test_message_with_another_nonce_is_refused(self) -> None:
        """A message with another nonce is refused."""
        credentials = Scram(self.scram)
        credentials.setResponse(b"n,,n=user,r=x")
        credentials.setResponse(b"c=biws,r=y,p=AAAA")
        self.assertFalse(credentials.proved)
        self.assertFalse(credentials.moreChallenges())

    def test_proof_for_another_checker_is_refused(self) -> None:
        """A proof for the secret of one checker is not accepted by another."""
        credentials = Scram(ScramChecker(lambda _: None))
        credentials.proved = True
        self.failureResultOf(self.scram.requestAvatarId(credentials), UnauthorizedLogin)


class ScramPasswordFileTests(ScramTests):
    """A password file supports all exchanges of `ScramTests`."""

    def scram_checker(self) -> Any:
        path = self.mktemp()
        parts = (SECRET.salt, SECRET.stored_key, SECRET.server_key)
        encoded = "$".join(base64.b64encode(part).decode().rstrip("=") for part in parts)
        for name in ("user", "a,b=c"):
            users.set_hash(path, name, f"$scram-sha-256$i=4096${encoded}")
        checker = PasswordFile(
            path, reactor=FakeReactor(), pool=FakePool(), reading_pool=FakePool()
        )
        checker.load()
        return checker

    def test_scram_secret_verifies_a_plain_password(self) -> None:
        """The same secret verifies a plain password; SCRAM is offered only while all users have SCRAM secrets."""
        self.server.factory.portal.registerChecker(self.scram)
        self.assertIn(b"a OK", self.client()(b"a LOGIN user pencil"))
        self.assertIn(b"AUTH=SCRAM-SHA-256", self.client().greeting)
        users.set_hash(self.scram.path, "bob", passwords.hash_scrypt(b"x", ln=2))
        self.scram.load()
        self.assertNotIn(b"AUTH=SCRAM-SHA-256", self.client().greeting)
        self.assertIn(b"NO [CANNOT]", self.exchange(self.client()))

    def test_third_wrong_proof_ends_the_connection(self) -> None:
        """Three wrong proofs end the connection, as three wrong passwords do."""
        client = self.client()
        for _ in range(2):
            self.assertNotIn(b"BYE", self.exchange(client, b"pen"))
        self.assertIn(b"* BYE", self.exchange(client, b"pen"))


class ScramPlusTests(ScramTests):
    """A TLS connection supports all exchanges of `ScramTests`, and channel binding."""

    def setUp(self) -> None:
        super().setUp()
        self.bindings = {b"tls-exporter": b"E" * 32, b"tls-server-end-point": b"P" * 32}
        self.patch(authentication, "channel_bindings", lambda _: self.bindings)

    def plus(self, gs2: bytes, binding: bytes) -> bytes:
        return self.exchange(
            self.client(), gs2=gs2, binding=binding, mechanism=b"SCRAM-SHA-256-PLUS"
        )

    def test_channel_binding_requires_the_correct_data(self) -> None:
        """Each binding type of the connection is accepted with the correct data, and nothing else is."""
        self.assertIn(b"AUTH=SCRAM-SHA-256-PLUS", self.client().greeting)
        self.assertIn(b"a OK", self.plus(b"p=tls-exporter,,", b"E" * 32))
        self.assertIn(b"a OK", self.plus(b"p=tls-server-end-point,a=user,", b"P" * 32))
        self.assertIn(b"a NO", self.plus(b"p=tls-exporter,,", b"X" * 32))
        self.assertIn(b"a BAD", self.plus(b"p=tls-unique,,", b"E" * 32))
        self.assertIn(b"a BAD", self.plus(b"n,,", b""))

    def test_downgrade_attack_fails_the_login(self) -> None:
        """If a client supports channel binding but got no offer, an attacker removed the offer: the login fails."""
        self.assertIn(b"a BAD", self.exchange(self.client(), gs2=b"y,,"))
        self.bindings = {}
        self.assertIn(b"a OK", self.exchange(self.client(), gs2=b"y,,"))


class BearerTests(SaslTestCase):
    TOKEN = b"auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="

    def bearer(self, message: bytes, mechanism: bytes = b"OAUTHBEARER") -> tuple[Client, bytes]:
        client = self.client()
        return client, client(
            b"t1 AUTHENTICATE %b %b" % (mechanism, base64.b64encode(message) or b"=")
        )

    def test_checker_decides_the_user_of_a_token(self) -> None:
        """The checker decides which user a token belongs to; the client does not (example of RFC 7628 section 4.1)."""
        for message, mechanism in (
            (
                b"n,a=user@example.com,\1host=server.example.com\1port=143\1"
                + self.TOKEN
                + b"\1\1",
                b"OAUTHBEARER",
            ),
            (b"n,,\1" + self.TOKEN + b"\1\1", b"OAUTHBEARER"),
            (b"user=user@example.com\1" + self.TOKEN + b"\1\1", b"XOAUTH2"),
        ):
            client, answer = self.bearer(message, mechanism)
            self.assertIn(b"t1 OK", answer)
            self.assertIn(b"a OK", client(b"a SELECT INBOX"))
        self.assertEqual(
            [event.user for event in self.server.events_of(events.LoggedIn)],
            ["alice"] * 3,
        )

    def test_wrong_token_and_any_answer(self) -> None:
        """The answer to the error does not matter: a client may also cancel with "*", and the response is NO."""
        for answer_to_error in (b"*", b"not base64"):
            client, _ = self.bearer(b"n,a=user@example.com,\1auth=Bearer wrong\1\1")
            self.assertIn(b"t1 NO [AUTHENTICATIONFAILED]", client(answer_to_error))

    def test_wrong_token_gets_a_json_error_and_then_no(self) -> None:
        """A wrong token gets an error in JSON, which the client acknowledges, and then NO (RFC 7628 section 4.3)."""
        client, answer = self.bearer(b"n,a=user@example.com,\1auth=Bearer wrong\1\1")
        self.assertEqual(json.loads(challenge(answer))["status"], "invalid_token")
        self.assertIn(b"t1 NO [AUTHENTICATIONFAILED]", client(b"AQ=="))
        for no_token in (b"", b"auth=\1", b"auth=Basic x\1"):
            client, answer = self.bearer(b"n,,\1host=x\1" + no_token + b"\1")
            self.assertEqual(json.loads(challenge(answer))["status"], "invalid_token")
            self.assertIn(b"t1 NO", client(b"AQ=="))
        self.assertEqual(self.tokens.checked, [b"wrong"])
        client, answer = self.bearer(b"user=x\1auth=Bearer wrong\1\1", b"XOAUTH2")
        self.assertEqual(json.loads(challenge(answer))["status"], "401")
        self.assertIn(b"t1 NO", client(b""))

    def test_invalid_message_is_bad(self) -> None:
        """An invalid message is BAD."""
        for message in (
            b"",
            b"n,,",
            b"n,,\1" + self.TOKEN,
            b"x\1" + self.TOKEN + b"\1\1",
        ):
            self.assertIn(b"t1 BAD", self.bearer(message)[1], message)


class OfferedMechanismsTests(SaslTestCase):
    def test_mechanism_is_offered_if_a_checker_accepts_it(self) -> None:
        """A mechanism is offered if a checker accepts its credentials; tokens only on a private connection."""
        greeting = self.client().greeting
        for name in (b"SCRAM-SHA-256", b"OAUTHBEARER", b"XOAUTH2"):
            self.assertIn(b"AUTH=" + name, greeting)
        self.assertNotIn(b"-PLUS", greeting)
        remote = self.client("192.0.2.1")
        self.assertIn(b"AUTH=SCRAM-SHA-256", remote.greeting)
        self.assertNotIn(b"OAUTHBEARER", remote.greeting)
        self.assertIn(b"t NO [CANNOT]", remote(b"t AUTHENTICATE OAUTHBEARER"))

    def test_chain_is_no_source_of_secrets(self) -> None:
        """A chain of checkers accepts SCRAM proofs, but has no secrets, so it does not offer SCRAM."""
        chain = CheckerChain([self.scram])
        self.assertEqual(challengers([chain]), {})
        self.assertIs(challengers([chain, self.scram])[b"SCRAM-SHA-256"]().source, self.scram)

    def test_plain_and_login_need_a_password_checker(self) -> None:
        """If no checker accepts passwords, PLAIN and LOGIN are not offered."""
        self.server.factory.portal = Portal(self.server.realm, [TokenChecker()])
        greeting = self.client().greeting
        self.assertIn(b"LOGINDISABLED", greeting)
        self.assertNotIn(b"AUTH=PLAIN", greeting)
        self.assertIn(b"AUTH=OAUTHBEARER", greeting)

    def test_twisted_mechanisms_are_offered_by_the_same_rule(self) -> None:
        """Mechanisms of twisted.mail are offered by the same rule."""
        self.assertIn(b"AUTH=CRAM-MD5", self.client().greeting)
        # The server sends the first message, so an initial response is not permitted (RFC 4959 section 3).
        self.assertIn(b"a BAD", self.client()(b"a AUTHENTICATE CRAM-MD5 eA=="))
        self.assertEqual(self.client()(b"a AUTHENTICATE CRAM-MD5")[:2], b"+ ")
        server = Server()
        server.factory.challengers = dict(challengers([TokenChecker()]))
        self.assertNotIn(b"OAUTHBEARER", server.connect().greeting)
