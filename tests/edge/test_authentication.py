"""LOGIN and AUTHENTICATE PLAIN through the protocol."""

import base64
from typing import Any

from twisted.cred.checkers import ICredentialsChecker, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernamePassword
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from imapshield import events
from imapshield.cred.checkers import CheckerUnavailable
from imapshield.testing.in_process import Server


class LoginTests(SynchronousTestCase):
    def test_pipelined_commands_run_as_the_user(self) -> None:
        """Commands pipelined behind LOGIN are executed as the user, in order."""
        client = Server().connect()
        answer = client.send(b"a LOGIN alice secret\r\nb SELECT INBOX\r\nc UID FETCH 1:* FLAGS\r\n")
        self.assertLess(answer.index(b"a OK"), answer.index(b"b OK"))
        self.assertIn(b"c OK", answer)

    def test_unawaited_continuation_request_is_sent_in_order(self) -> None:
        """A client that does not wait for the continuation request gets it before the response to its command."""
        answer = (
            Server().connect().send(b"a NOOP\r\nb LOGIN {5}\r\nalice {6}\r\nsecret\r\nc NOOP\r\n")
        )
        self.assertRegex(
            answer,
            rb"^a OK [^\r]*\r\n\+ Go ahead\r\n\+ Go ahead\r\nb OK [^\r]*\r\nc OK [^\r]*\r\n$",
        )

    def test_third_wrong_password_ends_the_connection(self) -> None:
        """A wrong password is NO [AUTHENTICATIONFAILED]; the third wrong password ends the connection."""
        server = Server()
        client = server.connect()
        for _ in range(3):
            answer = client(b"a LOGIN alice wrong")
            self.assertIn(b"a NO [AUTHENTICATIONFAILED]", answer)
        self.assertIn(b"* BYE", answer)
        self.assertEqual(
            [event.user for event in server.events_of(events.LoginFailed)], ["alice"] * 3
        )

    def test_password_may_contain_quotes_and_backslashes(self) -> None:
        """A password may contain quotes and backslashes."""
        server = Server(checker=InMemoryUsernamePasswordDatabaseDontUse(alice=b'a"b\\c'))
        self.assertIn(b"a OK", server.connect()(b'a LOGIN "alice" "a\\"b\\\\c"'))

    def test_authenticate_plain_works_with_initial_response(self) -> None:
        """AUTHENTICATE PLAIN works with and without an initial response (SASL-IR)."""
        response = base64.b64encode(b"\0alice\0secret")
        client = Server().connect()
        self.assertEqual(client(b"a AUTHENTICATE PLAIN"), b"+ \r\n")
        self.assertIn(b"a OK", client(response))
        client = Server().connect()
        self.assertIn(b"a OK", client(b"a AUTHENTICATE PLAIN " + response))

    def test_asterisk_cancels_authenticate(self) -> None:
        """A "*" cancels AUTHENTICATE with BAD; the next line is a command again."""
        client = Server().connect()
        client(b"a AUTHENTICATE PLAIN")
        self.assertIn(b"a BAD", client(b"*"))
        self.assertIn(b"b OK", client(b"b NOOP"))

    def test_invalid_plain_response_is_bad(self) -> None:
        """A response that is not base64 or not PLAIN is BAD, without the text of an exception."""
        for line in (
            b"!!!!",
            b"AAA",
            b"AAAA",
            base64.b64encode(b"a\0b"),
            base64.b64encode(b"\0\0"),
            b"\xff",
        ):
            client = Server().connect()
            client(b"a AUTHENTICATE PLAIN")
            self.assertIn(b"a BAD", client(line), line)

    def test_empty_password_reaches_no_checker(self) -> None:
        """An empty password, which Thunderbird sends for an empty prompt, is refused without a checker."""
        server = Server(checker=InMemoryUsernamePasswordDatabaseDontUse(alice=b""))
        client = server.connect()
        plain = b"a AUTHENTICATE PLAIN " + base64.b64encode(b"\0alice\0")
        for command in (plain, b'a LOGIN alice ""'):
            self.assertIn(b"a NO [AUTHENTICATIONFAILED]", client(command))
        self.assertEqual(
            [event.user for event in server.events_of(events.LoginFailed)], ["alice", "alice"]
        )

    def test_remote_client_without_tls_cannot_send_a_password(self) -> None:
        """A remote client without TLS cannot send a password, the capabilities say so, and each attempt is reported."""
        server = Server()
        client = server.connect("192.0.2.1")
        self.assertIn(b"LOGINDISABLED", client.greeting)
        self.assertNotIn(b"AUTH=PLAIN", client.greeting)
        self.assertIn(b"a NO [PRIVACYREQUIRED]", client(b"a LOGIN alice secret"))
        self.assertIn(
            b"b NO [PRIVACYREQUIRED]",
            client(b"b AUTHENTICATE PLAIN " + base64.b64encode(b"\0alice\0secret")),
        )
        refused = [
            (event.peer, event.user, event.mechanism, event.reason)
            for event in server.events_of(events.LoginRefused)
        ]
        self.assertEqual(
            refused,
            [("192.0.2.1", "alice", "LOGIN", "no-tls"), ("192.0.2.1", "", "PLAIN", "no-tls")],
        )

    def test_checker_that_cannot_decide_is_reported(self) -> None:
        """A login that the checker cannot decide is reported as refused, not as failed, and does not count."""

        @implementer(ICredentialsChecker)
        class Unavailable:
            credentialInterfaces = (IUsernamePassword,)

            def requestAvatarId(self, credentials: Any) -> Any:
                raise CheckerUnavailable("details")

        server = Server(checker=Unavailable())
        self.assertIn(b"a NO [UNAVAILABLE]", server.connect()(b"a LOGIN alice secret"))
        (event,) = server.events_of(events.LoginRefused)
        self.assertEqual((event.user, event.reason), ("alice", "unavailable"))
        self.assertEqual(server.events_of(events.LoginFailed), [])

    def test_disconnect_during_login_leaves_no_session(self) -> None:
        """A client that disconnects while its password is checked leaves no session behind."""
        avatar_id: Deferred[bytes] = Deferred()

        @implementer(ICredentialsChecker)
        class SlowChecker:
            credentialInterfaces = (IUsernamePassword,)

            def requestAvatarId(self, credentials: Any) -> Any:
                return avatar_id

        server = Server(checker=SlowChecker())
        client = server.connect()
        client(b"a LOGIN alice secret")
        client.lose_connection()
        avatar_id.callback(b"alice")
        client.run_due_calls()
        self.assertEqual(server.realm.account().sessions, 0)
        self.assertEqual(server.events_of(events.CommandFailed), [])
