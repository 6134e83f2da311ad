"""SCRAM-SHA-256 (RFC 7677, its own example), -PLUS, OAUTHBEARER (RFC 7628) and XOAUTH2, through the whole server."""

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
from imapshield.cred.checkers import PasswordFile
from imapshield.cred.passwords import ScramSecret
from imapshield.cred.sasl import IBearerToken, Scram, ScramChecker, challengers
from imapshield.edge import session_io
from imapshield.edge.factory import ShieldedIMAP4Factory
from imapshield.testing.in_process import Client, Server
from tests.cred.fakes import Pool, Reactor

SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
SECRET = ScramSecret.make(b"pencil", SALT, 4096)


@implementer(ICredentialsChecker)
class Tokens:
    """The operator's own checker of tokens."""

    credentialInterfaces = (IBearerToken,)

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes]:
        self.asked.append(credentials.token)
        if credentials.token == b"vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==":
            return succeed(b"alice")
        return fail(UnauthorizedLogin())


class Case(SynchronousTestCase):
    def source(self) -> Any:
        return ScramChecker({b"user": SECRET, b"a,b=c": SECRET}.get)

    def setUp(self) -> None:
        self.scram = self.source()
        tokens = Tokens()
        self.asked = tokens.asked
        checkers = [self.scram, tokens, InMemoryUsernamePasswordDatabaseDontUse(alice=b"secret")]
        self.server = Server()
        self.server.factory = ShieldedIMAP4Factory(
            Portal(self.server.realm, checkers),
            tell=self.server.events.append,
            reactor=self.server.clock,
            challengers={**challengers(checkers), b"CRAM-MD5": CramMD5Credentials},
        )

    def client(self, host: str = "127.0.0.1") -> Client:
        return Client(self.server, host)


def challenge(answer: bytes) -> bytes:
    assert answer.startswith(b"+ "), answer
    return base64.b64decode(answer[2:])


class Scrams(Case):
    def exchange(
        self,
        client: Client,
        password: bytes = b"pencil",
        user: bytes = b"user",
        gs2: bytes = b"n,,",
        bound: bytes = b"",
        mechanism: bytes = b"SCRAM-SHA-256",
        initial: bool = True,
    ) -> bytes:
        """Log in as a client does; returns the last answer, the server's signature having been checked."""
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
        without = b"c=%b,r=%b" % (base64.b64encode(gs2 + bound), fields[b"r"])
        signed = b",".join((bare, server_first, without))
        key = hmac.digest(salted, b"Client Key", "sha256")
        signature = hmac.digest(sha256(key).digest(), signed, "sha256")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature, strict=True)))
        answer = client(base64.b64encode(without + b",p=" + proof))
        if not answer.startswith(b"+ "):
            return answer
        server_key = hmac.digest(salted, b"Server Key", "sha256")
        expected = base64.b64encode(hmac.digest(server_key, signed, "sha256"))
        self.assertEqual(challenge(answer), b"v=" + expected)
        return client(b"")

    def test_login(self) -> None:
        """The right password logs in, with an initial response and without."""
        for initial in (True, False):
            client = self.client()
            self.assertIn(b"a OK [CAPABILITY", self.exchange(client, initial=initial))
            self.assertIn(b"b OK", client(b"b SELECT INBOX"))
        self.assertEqual(self.server.events_of(events.LoggedIn)[0].mechanism, "SCRAM-SHA-256")

    def test_escaped(self) -> None:
        """Names may have ``,`` and ``=``."""
        self.assertIn(b"a OK", self.exchange(self.client(), user=b"a=2Cb=3Dc"))

    def test_wrong(self) -> None:
        """A wrong password and an unknown user are the same: a salt that stays, and NO."""
        self.assertIn(b"a NO [AUTHENTICATIONFAILED]", self.exchange(self.client(), b"pen"))
        self.assertIn(b"a NO [AUTHENTICATIONFAILED]", self.exchange(self.client(), user=b"nobody"))
        self.assertEqual(self.scram.secret(b"nobody").salt, self.scram.secret(b"nobody").salt)
        self.assertEqual(len(self.server.events_of(events.LoginFailed)), 2)

    def test_rfc(self) -> None:
        """The example of RFC 7677 section 3."""
        nonce = base64.b64encode(b"x" * 18)
        credentials = Scram(self.scram)
        with mock.patch("imapshield.cred.sasl.secrets.token_bytes", return_value=b"x" * 18):
            credentials.setResponse(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
        self.assertEqual(
            credentials.getChallenge(),
            b"r=rOprNGfwEbeRWgbNEkqO" + nonce + b",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        )
        # with the RFC's own nonce
        rfc = b"rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
        credentials._nonce = rfc
        credentials._challenge = b"r=" + rfc + b",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        credentials.setResponse(
            b"c=biws,r=" + rfc + b",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        )
        self.assertTrue(credentials.proved)
        self.assertEqual(
            credentials.getChallenge(), b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        )

    def test_malformed(self) -> None:
        """What is no SCRAM message is refused, in either step."""
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

    def test_other_nonce(self) -> None:
        """A proof over another nonce or another binding is none, whatever it proves."""
        credentials = Scram(self.scram)
        credentials.setResponse(b"n,,n=user,r=x")
        credentials.setResponse(b"c=biws,r=y,p=AAAA")
        self.assertFalse(credentials.proved)
        self.assertFalse(credentials.moreChallenges())

    def test_another_checker(self) -> None:
        """What was proved to one checker counts for no other."""
        credentials = Scram(ScramChecker(lambda _: None))
        credentials.proved = True
        self.failureResultOf(self.scram.requestAvatarId(credentials), UnauthorizedLogin)


class FromFile(Scrams):
    """The same with the password file."""

    def source(self) -> Any:
        path = self.mktemp()
        octets = (SECRET.salt, SECRET.stored_key, SECRET.server_key)
        shown = "$".join(base64.b64encode(o).decode().rstrip("=") for o in octets)
        for name in ("user", "a,b=c"):
            users.set_hash(path, name, f"$scram-sha-256$i=4096${shown}")
        return PasswordFile(path, reactor=Reactor(), pool=Pool())

    def test_sent(self) -> None:
        """The password may be sent as well, and SCRAM is no more offered when somebody cannot use it."""
        self.server.factory.portal.registerChecker(self.scram)
        self.assertIn(b"a OK", self.client()(b"a LOGIN user pencil"))
        self.assertIn(b"AUTH=SCRAM-SHA-256", self.client().greeting)
        users.set_hash(self.scram.path, "bob", passwords.hash_scrypt(b"x", ln=2))
        self.assertNotIn(b"AUTH=SCRAM-SHA-256", self.client().greeting)
        self.assertIn(b"NO [CANNOT]", self.exchange(self.client()))

    def test_failures(self) -> None:
        """Three wrong proofs end a connection, as three wrong passwords do."""
        client = self.client()
        for _ in range(2):
            self.assertNotIn(b"BYE", self.exchange(client, b"pen"))
        self.assertIn(b"* BYE", self.exchange(client, b"pen"))


class Plus(Scrams):
    """The same over TLS, bound to it."""

    def setUp(self) -> None:
        super().setUp()
        self.bindings = {b"tls-exporter": b"E" * 32, b"tls-server-end-point": b"P" * 32}
        self.patch(session_io, "channel_bindings", lambda _: self.bindings)

    def plus(self, gs2: bytes, bound: bytes) -> bytes:
        return self.exchange(self.client(), gs2=gs2, bound=bound, mechanism=b"SCRAM-SHA-256-PLUS")

    def test_bound(self) -> None:
        """Each kind of binding that the connection has will do, with the right data."""
        self.assertIn(b"AUTH=SCRAM-SHA-256-PLUS", self.client().greeting)
        self.assertIn(b"a OK", self.plus(b"p=tls-exporter,,", b"E" * 32))
        self.assertIn(b"a OK", self.plus(b"p=tls-server-end-point,a=user,", b"P" * 32))
        self.assertIn(b"a NO", self.plus(b"p=tls-exporter,,", b"X" * 32))
        self.assertIn(b"a BAD", self.plus(b"p=tls-unique,,", b"E" * 32))
        self.assertIn(b"a BAD", self.plus(b"n,,", b""))

    def test_downgrade(self) -> None:
        """A client that could bind and was told that we cannot has been told so by somebody else."""
        self.assertIn(b"a BAD", self.exchange(self.client(), gs2=b"y,,"))
        self.bindings = {}
        self.assertIn(b"a OK", self.exchange(self.client(), gs2=b"y,,"))


class Tokening(Case):
    TOKEN = b"auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="

    def bearer(self, message: bytes, mechanism: bytes = b"OAUTHBEARER") -> tuple[Client, bytes]:
        client = self.client()
        return client, client(
            b"t1 AUTHENTICATE %b %b" % (mechanism, base64.b64encode(message) or b"=")
        )

    def test_login(self) -> None:
        """The checker says whose token it is, whatever the client says (the example of RFC 7628 section 4.1)."""
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
            [f.user for f in self.server.events_of(events.LoggedIn)],
            ["alice"] * 3,
        )

    def test_wrong(self) -> None:
        """A wrong token is told in JSON, acknowledged, and then NO (section 4.3)."""
        client, answer = self.bearer(b"n,a=user@example.com,\1auth=Bearer wrong\1\1")
        self.assertEqual(json.loads(challenge(answer))["status"], "invalid_token")
        self.assertIn(b"t1 NO [AUTHENTICATIONFAILED]", client(b"AQ=="))
        for none in (b"", b"auth=\1", b"auth=Basic x\1"):
            client, answer = self.bearer(b"n,,\1host=x\1" + none + b"\1")
            self.assertEqual(json.loads(challenge(answer))["status"], "invalid_token")
            self.assertIn(b"t1 NO", client(b"AQ=="))
        self.assertEqual(self.asked, [b"wrong"])
        client, answer = self.bearer(b"user=x\1auth=Bearer wrong\1\1", b"XOAUTH2")
        self.assertEqual(json.loads(challenge(answer))["status"], "401")
        self.assertIn(b"t1 NO", client(b""))

    def test_malformed(self) -> None:
        """What is no message is BAD."""
        for message in (
            b"",
            b"n,,",
            b"n,,\1" + self.TOKEN,
            b"x\1" + self.TOKEN + b"\1\1",
        ):
            self.assertIn(b"t1 BAD", self.bearer(message)[1], message)


class Offered(Case):
    def test_what_checkers_take(self) -> None:
        """Mechanisms are offered if a checker takes their credentials, tokens only where nobody listens."""
        greeting = self.client().greeting
        for name in (b"SCRAM-SHA-256", b"OAUTHBEARER", b"XOAUTH2"):
            self.assertIn(b"AUTH=" + name, greeting)
        self.assertNotIn(b"-PLUS", greeting)
        far = self.client("192.0.2.1")
        self.assertIn(b"AUTH=SCRAM-SHA-256", far.greeting)
        self.assertNotIn(b"OAUTHBEARER", far.greeting)
        self.assertIn(b"t NO [CANNOT]", far(b"t AUTHENTICATE OAUTHBEARER"))

    def test_tokens_alone(self) -> None:
        """Where no checker takes passwords, none is asked for."""
        self.server.factory.portal = Portal(self.server.realm, [Tokens()])
        greeting = self.client().greeting
        self.assertIn(b"LOGINDISABLED", greeting)
        self.assertNotIn(b"AUTH=PLAIN", greeting)
        self.assertIn(b"AUTH=OAUTHBEARER", greeting)

    def test_others(self) -> None:
        """Twisted's own mechanisms are offered by the same rule."""
        self.assertIn(b"AUTH=CRAM-MD5", self.client().greeting)
        # it speaks first, so it takes no initial response (RFC 4959 section 3)
        self.assertIn(b"a BAD", self.client()(b"a AUTHENTICATE CRAM-MD5 eA=="))
        self.assertEqual(self.client()(b"a AUTHENTICATE CRAM-MD5")[:2], b"+ ")
        server = Server()
        server.factory._challengers = dict(challengers([Tokens()]))
        self.assertNotIn(b"OAUTHBEARER", server.connect().greeting)
