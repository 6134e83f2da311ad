"""The rule about pending commands, on an in-memory transport."""

from twisted.mail.imap4 import IMAP4Server
from twisted.trial.unittest import SynchronousTestCase

from imapshield import events
from imapshield.edge.protocol import ShieldedIMAP4Server
from imapshield.testing.in_process import Server


class PendingCommandTests(SynchronousTestCase):
    def test_protocol_is_an_imap4_server(self) -> None:
        """The protocol is a subclass of Twisted's IMAP4Server."""
        self.assertTrue(issubclass(ShieldedIMAP4Server, IMAP4Server))

    def test_100_commands_get_100_responses(self) -> None:
        """A hundred NOOPs in one read get a hundred responses."""
        client = Server().connect()
        response = client.send(b"a NOOP\r\n" * 100)
        self.assertEqual(response.count(b"a OK"), 100)
        self.assertFalse(client.transport.aborted)

    def test_101st_pending_command_resets_the_connection(self) -> None:
        """The 101st pending command resets the connection: no response, and no later line is delivered."""
        server = Server()
        client = server.connect()
        response = client.send(b"a NOOP\r\n" * 4000)
        self.assertEqual(response, b"")
        self.assertTrue(client.transport.aborted)
        self.assertEqual(client.protocol._buffer, b"")
        (event,) = server.events_of(events.LimitTriggered)
        self.assertEqual(
            (event.limit, event.value, event.observed, event.action), ("backlog", 100, 101, "reset")
        )
        self.assertEqual((event.commands, event.executed), (101, 0))

    def test_all_settings_that_bind_are_named(self) -> None:
        """To permit a longer backlog before login, two limits must be changed, unless one is high enough already."""
        for preauth_commands, setting in (
            (100, "--backlog=N,--limit=preauth_commands=N"),
            (101, "--backlog=N"),
        ):
            server = Server(preauth_commands=preauth_commands)
            server.connect().send(b"a NOOP\r\n" * 101)
            (event,) = server.events_of(events.LimitTriggered)
            self.assertEqual((event.limit, event.setting), ("backlog", setting))

    def test_line_received_executes_nothing(self) -> None:
        """`lineReceived` executes and writes nothing."""
        server = Server()
        client = server.connect()
        for _ in range(100):
            client.protocol.lineReceived(b"a NOOP")
        self.assertEqual(client.transport.value(), b"")
        self.assertEqual(client.protocol.guard.pending, 100)
        client.lose_connection()
        (closed,) = server.events_of(events.ConnectionClosed)
        self.assertEqual((closed.commands, closed.executed), (100, 0))

    def test_input_after_a_reset_is_ignored(self) -> None:
        """Input after the reset is ignored and not counted."""
        client = Server().connect()
        client.send(b"a NOOP\r\n" * 101)
        received = client.protocol.bytes_in
        client.send(b"a NOOP\r\n" * 50)
        client.protocol.lineReceived(b"a NOOP")
        self.assertEqual(client.protocol.bytes_in, received)
        self.assertEqual(client.transport.value(), b"")

    def test_batches_of_90_reach_the_limit_before_login(self) -> None:
        """A client that sends 90 NOOPs at a time and reads every response may send 100 before login."""
        server = Server()
        client = server.connect()
        self.assertEqual(client.send(b"a NOOP\r\n" * 90).count(b"OK"), 90)
        client.send(b"a NOOP\r\n" * 90)
        self.assertTrue(client.transport.aborted)
        self.assertEqual(server.events_of(events.LimitTriggered)[0].limit, "preauth_commands")

    def test_responses_of_a_batch_are_one_write(self) -> None:
        """The responses of one batch are one write."""
        client = Server().connect()
        writes: list[bytes] = []
        client.transport.write = writes.append  # type: ignore[method-assign]
        client.send(b"a NOOP\r\n" * 16)
        self.assertEqual(len(writes), 1)

    def test_peer_that_does_not_read_is_reset(self) -> None:
        """No command leaves the backlog while the peer does not read, so such a peer is reset too."""
        client = Server().connect()
        client.protocol.write_buffer.pauseProducing()
        self.assertEqual(client.send(b"a NOOP\r\n" * 60), b"")
        client.send(b"a NOOP\r\n" * 41)
        self.assertTrue(client.transport.aborted)

    def test_pipelining_user_is_slowed_down_and_served(self) -> None:
        """A user who pipelines 5,000 commands is slowed down and gets every response, in order."""
        client = Server().login()
        data = b"".join(b"t%d NOOP\r\n" % i for i in range(5000))
        client.protocol.dataReceived(data)
        self.assertTrue(client.transport.paused_reading)
        self.assertLessEqual(client.protocol.guard.pending, 100)
        response = client.read()
        self.assertEqual(
            [line.split()[0] for line in response.splitlines()], [b"t%d" % i for i in range(5000)]
        )
        self.assertFalse(client.transport.paused_reading)

    def test_batch_ends_at_the_high_water_mark(self) -> None:
        """A batch ends when its responses reach the high-water mark; the remaining commands follow."""
        client = Server(max_unsent_bytes=1000).login()
        writes: list[bytes] = []
        client.transport.write = writes.append  # type: ignore[method-assign]
        client.send(b"c CAPABILITY\r\n" * 16)
        self.assertLess(max(map(len, writes)), 3000)
        self.assertEqual(b"".join(writes).count(b"c OK"), 16)

    def test_strict_backlog_resets_a_user_too(self) -> None:
        """With strict_backlog the 101st pending command resets a logged-in user too."""
        client = Server(strict_backlog=True).login()
        client.send(b"a NOOP\r\n" * 101)
        self.assertTrue(client.transport.aborted)

    def test_report_only_answers_every_command(self) -> None:
        """In report-only mode the limit is reported once, and every command is answered."""
        server = Server(report_only=True)
        client = server.connect()
        self.assertEqual(client.send(b"a NOOP\r\n" * 500).count(b"a OK"), 500)
        self.assertEqual(
            {(event.limit, event.action) for event in server.events_of(events.LimitTriggered)},
            {("backlog", "none")},
        )
        self.assertEqual(len(server.events_of(events.LimitTriggered)), 1)

    def test_report_only_limit_ends_no_connection(self) -> None:
        """A limit that would end the connection with BYE does not if it is report-only; it is reported once."""
        only = frozenset({"max_login_failures", "preauth_line_length", "preauth_seconds"})
        server = Server(report_only_limits=only)
        client = server.connect()
        for _ in range(5):
            self.assertIn(b"a NO", client(b"a LOGIN alice wrong"))
        self.assertIn(b"b BAD", client(b"b NOOP " + b"x" * 9000))
        server.clock.advance(60)
        self.assertIn(b"c OK", client(b"c NOOP"))
        reported = [
            (event.limit, event.action) for event in server.events_of(events.LimitTriggered)
        ]
        self.assertEqual(
            reported,
            [
                ("max_login_failures", "none"),
                ("preauth_line_length", "none"),
                ("preauth_seconds", "none"),
            ],
        )

    def test_report_only_literal(self) -> None:
        """In report-only mode a huge literal before login is skipped, not stored."""
        server = Server(report_only=True)
        client = server.connect()
        client.send(b"a LOGIN {999999999+}\r\n")
        for _ in range(10):
            client.send(b"x" * 100_000)
        self.assertEqual(client.protocol.framer.literal_bytes_due, 999_999_999 - 1_000_000)
        self.assertIsNotNone(client.protocol.framer._rejection)
        (limit, *_) = server.events_of(events.LimitTriggered)
        self.assertEqual((limit.limit, limit.action), ("preauth_literal_size", "none"))

    def test_backlog_delays_another_client_by_one_batch(self) -> None:
        """One client's backlog delays another client by at most one batch."""
        server = Server()
        busy, other = server.login(), server.login()
        writes: list[bytes] = []
        busy.transport.write = other.transport.write = writes.append  # type: ignore[method-assign]
        busy.protocol.dataReceived(b"g NOOP\r\n" * 100)
        other.protocol.dataReceived(b"m NOOP\r\n")
        busy.run_due_calls()
        self.assertEqual(writes[0].count(b"g OK"), server.factory.limits.commands_per_turn)
        self.assertIn(b"m OK", writes[1])
