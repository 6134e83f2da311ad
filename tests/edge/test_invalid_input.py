"""Invalid input gets a response, and the session stays in step with the client."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from imapshield import events
from imapshield.testing.in_process import Server


class InvalidInputTests(SynchronousTestCase):
    def test_third_bad_command_before_login_disconnects(self) -> None:
        """The third invalid command before login is answered and ends the connection."""
        client = Server().connect()
        self.assertIn(b"a BAD", client(b"a XYZZY"))
        self.assertIn(b"b BAD", client(b"b LOGIN onlyone"))
        answer = client(b"c (((")
        self.assertIn(b"c BAD", answer)
        self.assertIn(b"* BYE", answer)
        self.assertTrue(client.transport.disconnecting)

    def test_bye_follows_the_response(self) -> None:
        """The BYE follows the tagged BAD even if the response waits for updates that are sent first."""
        server = Server(max_bad_commands=1)
        client = server.login()
        client(b"a SELECT INBOX")

        async def refresh() -> None:
            waiter: Deferred[None] = Deferred()
            server.clock.callLater(1, waiter.callback, None)
            await waiter

        session = client.protocol._session.session  # type: ignore[attr-defined]
        self.patch(session.search_contexts, "refresh", refresh)
        client(b"b FETCH x FLAGS")
        server.clock.advance(1)
        answer = client.read()
        self.assertIn(b"b BAD", answer)
        self.assertLess(answer.index(b"b BAD"), answer.index(b"* BYE"))

    def test_overlong_line_before_login_disconnects(self) -> None:
        """A line of more than 8 KiB before login ends the connection."""
        client = Server().connect()
        answer = client.send(b"a NOOP " + b"x" * 8200)
        self.assertIn(b"* BYE", answer)

    def test_id_before_login_may_be_long(self) -> None:
        """ID before login may have 30 fields of 1 KiB (RFC 2971); the normal limit applies to the next line."""
        field = b'"n" "' + b"v" * 1024 + b'"'
        line = b"a ID (" + b" ".join([field] * 30) + b")\r\n"
        for cut in (1, 10_000, 30_000, len(line) - 1):
            client = Server().connect()
            answer = client.send(line[:cut]) + client.send(line[cut:])
            self.assertIn(b"a OK", answer)
            self.assertIn(b"* BYE", client.send(b"b NOOP " + b"x" * 8200))
        client = Server().connect()
        self.assertIn(b"* BYE", client.send(b"a ID (" + b"x" * 40_000))

    def test_overlong_line_after_login_is_bad(self) -> None:
        """An overlong line after login is answered BAD when it ends, and the session stays in step."""
        for cut in (1, 70_000, 80_011, 90_000):
            client = Server().login()
            data = b"long NOOP " + b"x" * 80_000 + b"\r\nnext NOOP\r\n"
            answer = client.send(data[:cut]) + client.send(data[cut:])
            self.assertIn(b"long BAD", answer)
            self.assertIn(b"next OK", answer)

    def test_literal_of_an_overlong_line_is_skipped(self) -> None:
        """A literal that an overlong line announces is skipped, and its text is not executed (RFC 7888)."""
        text = b"x LOGOUT\r\n" * 20
        for cut in (1, 70_000, 80_014, 80_016, 80_020, 80_100):
            client = Server().login()
            data = b"long NOOP " + b"x" * 80_000 + b" {200+}\r\n" + text + b" y\r\nnext NOOP\r\n"
            answer = client.send(data[:cut]) + client.send(data[cut:])
            self.assertEqual(answer.count(b"long BAD"), 1)
            self.assertIn(b"next OK", answer)
            self.assertNotIn(b"BYE", answer)
        client = Server().login()
        answer = client.send(b"long NOOP " + b"x" * 80_000 + b" {200}\r\nnext NOOP\r\n")
        self.assertIn(b"long BAD", answer)
        self.assertIn(b"next OK", answer)

    def test_overlong_line_with_literal_in_report_only_mode(self) -> None:
        """In report-only mode the literal of an overlong line is skipped too, even if the command is one too many."""
        client = Server(report_only=True, strict_backlog=True, backlog=1).login()
        long = b"long NOOP " + b"x" * 80_000 + b" {10+}\r\nx LOGOUT\r\n\r\n"
        answer = client.send(b"a NOOP\r\n" + long + b"next NOOP\r\n")
        self.assertIn(b"long BAD Line too long", answer)
        self.assertIn(b"next OK", answer)
        self.assertNotIn(b"BYE", answer)

    def test_overlong_line_is_not_logged(self) -> None:
        """The reported sample of an overlong line is empty if the line may hold a password."""
        for before, line, sample in (
            (b"", b"a NOOP ", "a NOOP"),
            (b"", b"a LOGIN alice secret", ""),
            (b"", b"LOGIN alice secret ", ""),
            (b"", b"alice secret ", ""),
            (b"", b"AGFsaWNlAHNlY3JldA", ""),
            (b"a LOGIN {5}\r\n", b"alice secret", ""),
            (b"a AUTHENTICATE PLAIN\r\n", b"AGFsaWNlAHNlY3JldA==", ""),
        ):
            server = Server()
            client = server.connect()
            client.send(before)
            client.send(line + b"x" * 9000)
            (event,) = server.events_of(events.LimitTriggered)
            self.assertEqual((event.limit, event.sample), ("preauth_line_length", sample))

    def test_sample_of_a_bad_command(self) -> None:
        """The reported sample of an invalid command is its tag and name, and is empty if it may hold a password."""
        for line, sample in (
            (b"a NOOP x", "a NOOP"),
            (b"a LOGIN alice", ""),
            (b"LOGIN alice secret", ""),
            (b"alice secret", ""),
        ):
            server = Server()
            server.connect()(line)
            (event,) = server.events_of(events.BadCommandReceived)
            self.assertEqual(event.sample, sample)

    def test_rejected_literal_is_skipped(self) -> None:
        """A rejected LITERAL+ is skipped, and its text is not executed."""
        client = Server(max_message_size=100).login()
        answer = client.send(
            b"a APPEND INBOX {200+}\r\n" + b"x LOGOUT\r\n" * 20 + b"\r\nb NOOP\r\n"
        )
        self.assertIn(b"a NO [TOOBIG]", answer)
        self.assertIn(b"b OK", answer)
        self.assertNotIn(b"BYE", answer)

    def test_http_request_is_disconnected_at_its_first_line(self) -> None:
        """An HTTP request, which a web page can make a browser send, is disconnected at its first line."""
        client = Server().connect()
        answer = client.send(b"GET / HTTP/1.1\r\nHost: x\r\nX: a LOGIN alice secret\r\n\r\n")
        self.assertIn(b"* BYE", answer)
        self.assertTrue(client.transport.disconnecting)
        self.assertNotIn(b" OK", answer)

    def test_server_bug_is_answered_with_a_reference(self) -> None:
        """A bug is answered with a reference and without its text; the event has the traceback."""
        server = Server()
        client = server.login()

        def broken(name: str) -> Any:
            raise RuntimeError("/var/mail/secret")

        self.patch(server.realm.account(), "status", broken)
        answer = client(b"a STATUS INBOX (MESSAGES)")
        self.assertIn(b"a NO [SERVERBUG]", answer)
        self.assertNotIn(b"secret", answer)
        (failed,) = server.events_of(events.CommandFailed)
        self.assertIn("/var/mail/secret", failed.traceback)
        self.assertIn(b"b OK", client(b"b NOOP"))
