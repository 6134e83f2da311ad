"""Logins pass to the backend, behind the guard; until then no client reaches it."""

from __future__ import annotations

from base64 import b64encode

from imapshield import events
from imapshield.front.front_parts import BackendChecker
from imapshield.testing.in_process import Client
from tests.front.front_case import CAPABILITIES, FrontCase, Link

SCRAM = b64encode(b"n,,n=alice,r=abc")
UNAVAILABLE = b"NO [UNAVAILABLE] The mail server cannot be reached; try again later\r\n"


class BeforeLoginTests(FrontCase):
    def test_strangers_do_not_reach_the_backend(self) -> None:
        """What a client sends before its login is answered by the shield."""
        client = self.server.connect()
        offered = b"IMAP4rev1 SASL-IR LITERAL+ ID AUTH=PLAIN AUTH=SCRAM-SHA-256 AUTH=OAUTHBEARER AUTH=XOAUTH2"
        self.assertEqual(client.greeting, b"* OK [CAPABILITY " + offered + b"] IMAP4rev1 ready\r\n")
        self.assertEqual(
            client(b"a CAPABILITY"), b"* CAPABILITY %b\r\na OK CAPABILITY completed\r\n" % offered
        )
        self.assertEqual(client(b"b NOOP"), b"b OK NOOP completed\r\n")
        self.assertIn(b"c OK ID completed", client(b'c ID ("name" "x")'))
        self.assertIn(b"d BAD", client(b"d SELECT INBOX"))
        self.assertIn(b"e BAD STARTTLS is not available", client(b"e STARTTLS"))
        self.assertEqual(client(b"f LOGOUT"), b"* BYE Logging out\r\nf OK LOGOUT completed\r\n")
        self.assertTrue(client.transport.disconnecting)
        self.assertEqual(self.links, [])

    def test_rule_of_pending_commands(self) -> None:
        """The 101st pending command resets the connection, and the backend has seen none of them."""
        client = self.server.connect()
        self.assertEqual(client.send(b"a NOOP\r\n" * 101), b"")
        self.assertTrue(client.transport.aborted)
        self.assertEqual(self.links, [])

    def test_other_protocols(self) -> None:
        """A browser is sent away, and invalid commands count."""
        client = self.server.connect()
        self.assertEqual(client(b"GET / HTTP/1.1"), b"* BYE This is an IMAP server\r\n")
        client = self.server.connect()
        self.assertIn(b"* BAD", client(b"+ NOOP"))
        client(b"a")
        self.assertIn(b"BYE", client(b"a XYZZY"))

    def test_passwords_need_tls(self) -> None:
        """A client that is not on this machine must use TLS; SCRAM needs none."""
        client = self.server.connect("192.0.2.1")
        self.assertIn(b"AUTH=SCRAM-SHA-256 LOGINDISABLED]", client.greeting)
        self.assertIn(b"a NO [PRIVACYREQUIRED]", client(b"a LOGIN alice secret"))
        self.assertIn(b"b NO [PRIVACYREQUIRED]", client(b"b AUTHENTICATE PLAIN AGEAYg=="))
        self.assertEqual(self.links, [])


class PasswordTests(FrontCase):
    def test_login_is_passed_on(self) -> None:
        """LOGIN is passed on, and answered as the backend does, with the capabilities that pass."""
        client = self.server.connect()
        self.assertEqual(client(b'a LOGIN alice "a\\"b"'), b"")
        self.assertEqual(self.link.received(), b's1 LOGIN "alice" "a\\"b"\r\n')
        self.link.send(b"* OK [ALERT] hello\r\n* CAPABILITY IDLE STARTTLS\r\n")
        self.link.send(b"s1 OK [CAPABILITY IDLE COMPRESS=DEFLATE UNAUTHENTICATE] Logged in\r\n")
        self.assertEqual(
            client.read(),
            b"* OK [ALERT] hello\r\n* CAPABILITY IDLE COMPRESS=DEFLATE\r\n"
            b"a OK [CAPABILITY IDLE COMPRESS=DEFLATE] Logged in\r\n",
        )
        (event,) = self.server.events_of(events.LoggedIn)
        self.assertEqual((event.user, event.mechanism), ("alice", "LOGIN"))

    def test_plain_that_is_not_offered_is_a_login(self) -> None:
        """A backend that permits LOGIN without offering PLAIN gets a LOGIN; one that forbids it gets nothing."""
        self.backend.capabilities = (b"IMAP4rev1",)
        plain = b64encode(b"\0alice\0secret")
        client = self.server.connect()
        self.assertEqual(client(b"a AUTHENTICATE PLAIN"), b"+ \r\n")
        self.assertEqual(client(plain), b"")
        self.assertEqual(self.link.received(), b's1 LOGIN "alice" "secret"\r\n')
        self.link.send(b"s1 OK done\r\n")
        self.assertEqual(client.read(), b"a OK done\r\n")
        client = self.server.connect("192.0.2.1")
        self.assertIn(b"b NO [PRIVACYREQUIRED]", client(b"b AUTHENTICATE PLAIN " + plain))
        self.backend.capabilities = (b"IMAP4rev1", b"LOGINDISABLED")
        client = self.server.connect()
        self.assertIn(b"c NO [CANNOT]", client(b"c AUTHENTICATE PLAIN " + plain))
        self.assertEqual(len(self.links), 1)

    def test_strings_that_cannot_be_quoted_are_literals(self) -> None:
        """A password with 8-bit characters is a literal, for which the backend is asked."""
        client = self.server.connect()
        client("a LOGIN alice {3+}\r\nü1".encode())
        self.assertEqual(self.link.received(), b's1 LOGIN "alice" {3}\r\n')
        self.link.send(b"+ go\r\n")
        self.assertEqual(self.link.received(), "ü1\r\n".encode())
        self.link.send(b"s1 OK done\r\n")
        self.assertEqual(client.read(), b"a OK done\r\n")

    def test_names_that_no_map_can_have(self) -> None:
        """Without a map, the only backend decides about a name that is not UTF-8 or that is all master user."""
        for name in (b"{6+}\r\nM\xfcller", b"*admin"):
            client = self.server.connect()
            client(b"a LOGIN %b secret" % name)
            received = self.link.received()
            if received.endswith(b"{6}\r\n"):
                self.link.send(b"+ go\r\n")
                received = self.link.received()
            self.assertIn(b'"secret"\r\n', received)
            self.link.send(b"s1 OK done\r\n")
            self.assertEqual(client.read(), b"a OK done\r\n")

    def test_line_breaks_in_a_password_are_refused(self) -> None:
        """A password cannot contain another command."""
        client = self.server.connect()
        self.assertIn(b"a BAD", client(b"a LOGIN alice {9+}\r\nx\r\nb NOOP"))
        self.assertEqual(self.links, [])

    def test_wrong_password_counts_as_any(self) -> None:
        """A wrong password has the same answer as without a backend, and counts for the guard."""
        client = self.server.connect()
        client(b"a LOGIN alice wrong")
        self.link.send(b"s1 NO [AUTHENTICATIONFAILED] secret reason\r\n")
        self.assertEqual(client.read(), b"a NO [AUTHENTICATIONFAILED] Authentication failed\r\n")
        self.assertTrue(self.link.ended)
        self.assertEqual(self.backend.connections, 0)
        self.assertEqual(len(self.server.events_of(events.LoginFailed)), 1)
        for _ in range(2):
            client(b"a LOGIN alice wrong")
            self.link.send(b"s1 BAD no\r\n")
        self.assertIn(b"BYE", client.read())

    def test_refusal_for_another_reason_is_no_failed_login(self) -> None:
        """A backend that cannot decide now is unavailable."""
        client = self.server.connect()
        client(b"a LOGIN alice secret")
        self.link.send(b"s1 NO [UNAVAILABLE] database\r\n")
        self.assertEqual(client.read(), b"a " + UNAVAILABLE)
        self.assertEqual(self.server.events_of(events.LoginFailed), [])

    def test_client_that_hangs_up_before_the_answer(self) -> None:
        """A wrong password counts without its client, too: a guesser would not wait for an answer that is delayed."""
        client = self.server.connect()
        client(b"a LOGIN alice wrong")
        client.lose_connection()
        self.link.send(b"s1 NO no\r\n")
        self.assertTrue(self.link.ended)
        self.assertEqual(len(self.server.events_of(events.LoginFailed)), 1)
        client = self.server.connect()
        client(b"a LOGIN alice secret")
        client.lose_connection()
        self.link.send(b"s1 OK in\r\n")
        self.assertTrue(self.link.ended)
        self.assertEqual(self.backend.connections, 0)
        self.assertEqual(self.server.events_of(events.LoggedIn), [])

    def test_guesses_count_for_the_user_with_the_password(self) -> None:
        """A guesser who acts for another user each time, or writes a master user so, gains nothing."""
        resolve = BackendChecker().resolve
        for name in (b"alice", b"Alice", b"bob*alice", b"a*b*alice"):
            self.assertEqual(resolve(name), b"alice")
        self.assertEqual(resolve("bob*M\u00dcLLER".encode()), "m\u00fcller".encode())
        self.assertEqual(resolve(b"M\xdcLLER"), b"m\xdcller")
        for text in (" alice  ", "\uff41lice", "bob* Alice"):
            self.assertEqual(resolve(text.encode()), b"alice")
        self.assertEqual(resolve("\ufdfa".encode() * 100), "\ufdfa".encode() * 100)
        self.assertEqual(resolve(b"alice*"), b"alice*")
        self.assertEqual(resolve("bob\uff0aalice".encode()), b"alice")

    def test_empty_password_does_not_reach_the_backend(self) -> None:
        """An empty password is wrong without a question."""
        client = self.server.connect()
        self.assertIn(b"a NO [AUTHENTICATIONFAILED]", client(b'a LOGIN alice ""'))
        self.assertEqual(self.links, [])

    def test_authenticate_plain(self) -> None:
        """AUTHENTICATE PLAIN is passed on, with or without an initial response."""
        message = b64encode(b"\0alice\0secret")
        for names, sent in (
            (CAPABILITIES, b"s1 AUTHENTICATE PLAIN %b\r\n" % message),
            (CAPABILITIES.replace(b"SASL-IR ", b""), b"s1 AUTHENTICATE PLAIN\r\n"),
        ):
            self.backend.capabilities = tuple(names.split())
            client = self.server.connect()
            self.assertEqual(client(b"a AUTHENTICATE PLAIN"), b"+ \r\n")
            client(message)
            self.assertEqual(self.link.received(), sent)
            if sent.endswith(b"PLAIN\r\n"):
                self.link.send(b"+ \r\n")
                self.assertEqual(self.link.received(), message + b"\r\n")
            self.link.send(b"s1 OK in\r\n")
            self.assertEqual(client.read(), b"a OK in\r\n")

    def test_login_disabled(self) -> None:
        """A backend that does not permit LOGIN gets AUTHENTICATE PLAIN."""
        self.backend.capabilities = (*self.backend.capabilities, b"LOGINDISABLED")
        client = self.server.connect()
        client(b"a LOGIN alice secret")
        self.assertIn(b"s1 AUTHENTICATE PLAIN ", self.link.received())

    def test_unknown_mechanisms(self) -> None:
        """A mechanism that does not pass, or that the backend does not have, is refused."""
        client = self.server.connect()
        for mechanism in (b"GSSAPI", b"SCRAM-SHA-256-PLUS", b"SCRAM-SHA-512"):
            self.assertIn(b"a NO [CANNOT]", client(b"a AUTHENTICATE " + mechanism))

    def test_commands_of_the_login_are_refused_afterwards(self) -> None:
        """The backend does not see a second login."""
        client = self.log_in()
        for command in (b"LOGIN bob word", b"AUTHENTICATE PLAIN", b"STARTTLS", b"UNAUTHENTICATE"):
            self.assertIn(b"a BAD", client(b"a " + command))
        self.assertEqual(self.link.received(), b"")


class ExchangeTests(FrontCase):
    limits = {"max_backend_exchanges": 8}

    def begin(self, host: str = "127.0.0.1") -> tuple[Client, Link]:
        client = self.server.connect(host)
        client(b"a AUTHENTICATE SCRAM-SHA-256 " + SCRAM)
        return client, self.link

    def test_scram_passes(self) -> None:
        """The challenges and responses of SCRAM pass as they are."""
        client, link = self.begin()
        self.assertEqual(link.received(), b"s1 AUTHENTICATE SCRAM-SHA-256 %b\r\n" % SCRAM)
        link.send(b"+ Y2hhbGxlbmdl\r\n")
        self.assertEqual(client.read(), b"+ Y2hhbGxlbmdl\r\n")
        client(b"cHJvb2Y=")
        self.assertEqual(link.received(), b"cHJvb2Y=\r\n")
        link.send(b"+ dj14\r\n")
        self.assertEqual(client.read(), b"+ dj14\r\n")
        client(b"")
        self.assertEqual(link.received(), b"\r\n")
        link.send(b"s1 OK in\r\n")
        self.assertEqual(client.read(), b"a OK in\r\n")
        (event,) = self.server.events_of(events.LoggedIn)
        self.assertEqual((event.user, event.mechanism), ("alice", "SCRAM-SHA-256"))
        self.assertEqual(self.nodes.exchanges.running, [])

    def test_cancelled_exchange(self) -> None:
        """A client can cancel, and what is no base64 does not reach the backend."""
        for line in (b"*", b"***"):
            client, link = self.begin()
            link.received()
            link.send(b"+ eA==\r\n")
            client.read()
            self.assertIn(b"a BAD", client(line))
            self.assertTrue(link.ended)
            self.assertEqual(link.received(), b"")
        self.assertEqual((self.nodes.exchanges.running, self.backend.connections), ([], 0))

    def test_wrong_proof_that_is_not_answered_counts(self) -> None:
        """A server may say with a challenge that the proof is wrong. A client that cancels then has failed."""
        client, link = self.begin()
        link.send(b"+ eA==\r\n")
        client.read()
        client(b"cHJvb2Y=")
        link.send(b"+ %b\r\n" % b64encode(b"e=invalid-proof"))
        self.assertEqual(client.read(), b"a NO [AUTHENTICATIONFAILED] Authentication failed\r\n")
        self.assertTrue(link.ended)
        self.assertEqual(len(self.server.events_of(events.LoginFailed)), 1)
        self.assertEqual((self.backend.breaker.reason, self.nodes.exchanges.running), ("", []))

    def test_client_that_leaves_after_its_proof(self) -> None:
        """A wrong proof counts, although the client has not waited for the answer."""
        client, link = self.begin()
        link.send(b"+ eA==\r\n")
        client.read()
        client(b"cHJvb2Y=")
        client.lose_connection()
        link.send(b"s1 NO no\r\n")
        self.assertEqual(len(self.server.events_of(events.LoginFailed)), 1)
        self.assertEqual((self.nodes.exchanges.running, self.backend.connections), ([], 0))

    def test_challenges_have_an_end(self) -> None:
        """A backend that asks without end, or not in base64, is no IMAP server."""
        client, link = self.begin()
        link.send(b"+ ?\r\n")
        self.assertEqual(client.read(), b"a " + UNAVAILABLE)
        client = self.server.connect()
        client(b"a AUTHENTICATE XOAUTH2 " + b64encode(b"user=alice\x01auth=Bearer t\x01\x01"))
        self.link.send(b"+ \r\n" * 101)
        self.assertEqual(client.read(), b"a " + UNAVAILABLE)

    def test_client_that_leaves(self) -> None:
        """The connection to the backend ends with that of the client."""
        client, link = self.begin()
        link.send(b"+ eA==\r\n")
        client.read()
        client.lose_connection()
        self.assertTrue(link.ended)
        self.assertEqual((self.nodes.exchanges.running, self.backend.connections), ([], 0))

    def test_one_network_has_a_part_of_the_exchanges(self) -> None:
        """A client that does not answer occupies a connection, so they are few. Others wait for them."""
        first = [self.begin("192.0.2.1") for _ in range(4)]
        waiting = [self.server.connect("192.0.2.1") for _ in range(2)]
        for client in waiting:
            self.assertEqual(client(b"a AUTHENTICATE SCRAM-SHA-256 " + SCRAM), b"")
        self.assertEqual(len(self.links), 4)
        self.begin("198.51.100.1")
        self.assertEqual(len(self.links), 5)
        for client, link in first:
            link.send(b"+ eA==\r\n")
            client.lose_connection()
        self.assertEqual(len(self.links), 7)
        self.link.send(b"+ eA==\r\n")
        self.assertEqual(waiting[1].read(), b"+ eA==\r\n")

    def test_network_that_runs_the_fewest_goes_on(self) -> None:
        """Networks that occupy all exchanges, and wait for more, do not keep a client of another one out."""
        busy = [self.begin(host) for host in ("192.0.2.1", "198.51.100.1") for _ in range(4)]
        for host in ("192.0.2.1", "198.51.100.1"):
            for _ in range(4):
                self.server.connect(host)(b"a AUTHENTICATE SCRAM-SHA-256 " + SCRAM)
        other = self.server.connect("203.0.113.1")
        other(b"a AUTHENTICATE SCRAM-SHA-256 " + SCRAM)
        self.assertEqual(len(self.links), 8)
        client, link = busy[0]
        link.send(b"+ eA==\r\n")
        client.lose_connection()
        self.link.send(b"+ eA==\r\n")
        self.assertEqual(other.read(), b"+ eA==\r\n")

    def test_many_clients_of_one_address_log_in(self) -> None:
        """An office behind one address waits for its turns, and all log in."""
        clients = [self.server.connect("192.0.2.1") for _ in range(30)]
        for client in clients:
            client(b"a AUTHENTICATE SCRAM-SHA-256 " + SCRAM)
        for number, client in enumerate(clients):
            self.links[number].send(b"+ eA==\r\n")
            client(b"cHJvb2Y=")
            self.links[number].send(b"s1 OK in\r\n")
            self.assertTrue(client.read().endswith(b"a OK in\r\n"))
        self.assertEqual(self.nodes.exchanges.running, [])

    def test_wait_for_an_exchange_has_an_end(self) -> None:
        """A login whose turn does not come is refused, with the limit in the log; a client may leave before."""
        for _ in range(4):
            self.begin("192.0.2.1")
        left, late = (self.server.connect("192.0.2.1") for _ in range(2))
        for client in (left, late):
            client(b"a AUTHENTICATE SCRAM-SHA-256 " + SCRAM)
        left.lose_connection()
        self.clock.advance(15)
        self.assertIn(b"a NO [UNAVAILABLE] Too many simultaneous logins", late.read())
        (event,) = self.server.events_of(events.LimitTriggered)
        self.assertEqual(event.limit, "backend_exchange_wait_seconds")
        self.assertEqual(event.binding, "max_backend_exchanges_per_network")
        self.assertEqual(len(self.links), 4)

    def test_oauth_failure_has_its_reason(self) -> None:
        """The reason of a failed OAuth login is answered to the backend, and reaches the client."""
        message = b64encode(b"n,a=alice,\x01auth=Bearer t\x01\x01")
        client = self.server.connect()
        client(b"a AUTHENTICATE OAUTHBEARER " + message)
        self.link.received()
        self.link.send(b"+ cmVhc29u\r\n")
        self.assertEqual(self.link.received(), b"AQ==\r\n")
        self.link.send(b"s1 NO no\r\n")
        self.assertEqual(client.read(), b"+ cmVhc29u\r\n")
        self.assertEqual(client(b"AQ=="), b"a NO [AUTHENTICATIONFAILED] Authentication failed\r\n")

    def test_xoauth2_passes(self) -> None:
        """XOAUTH2 is passed on."""
        client = self.server.connect()
        client(b"a AUTHENTICATE XOAUTH2 " + b64encode(b"user=alice\x01auth=Bearer t\x01\x01"))
        self.link.send(b"s1 OK in\r\n")
        self.assertEqual(client.read(), b"a OK in\r\n")
        (event,) = self.server.events_of(events.LoggedIn)
        self.assertEqual(event.mechanism, "XOAUTH2")

    def test_plain_has_no_challenge(self) -> None:
        """A backend that asks for more than PLAIN needs is no IMAP server."""
        client = self.server.connect()
        client(b"a AUTHENTICATE PLAIN " + b64encode(b"\0alice\0secret"))
        self.link.send(b"+ eA==\r\n")
        self.assertEqual(client.read(), b"a " + UNAVAILABLE)
