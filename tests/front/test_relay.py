"""After the login, bytes pass both ways: whole commands to the backend, and responses as fast as the client reads."""

from __future__ import annotations

import zlib

from imapshield import events
from imapshield.front.relay import CHUNK_SIZE, UNSENT_BYTES
from imapshield.front.response_stream import MAX_UNASKED_CONTINUATIONS
from imapshield.testing.in_process import Client
from tests.front.front_case import FrontCase


class CommandTests(FrontCase):
    def test_commands_pass_one_at_a_time(self) -> None:
        """The next command is sent when the response to the last one has arrived."""
        client = self.log_in()
        client.send(b"a NOOP\r\nb SELECT INBOX\r\n")
        self.assertEqual(self.link.received(), b"a NOOP\r\n")
        self.link.send(b"* 3 EXISTS\r\na OK done\r\n")
        self.assertEqual(client.read(), b"* 3 EXISTS\r\na OK done\r\n")
        self.assertEqual(self.link.received(), b"b SELECT INBOX\r\n")
        self.assertEqual(self.link.protocol.transport.value(), b"")

    def test_hundred_pending_commands_pause_the_client(self) -> None:
        """While a hundred commands are pending, the client is not read; they are not lost."""
        client = self.log_in()
        lines = [b"n%d EXPUNGE\r\n" % number for number in range(150)]
        client.send(b"".join(lines))
        self.assertTrue(client.transport.paused_reading)
        for number, line in enumerate(lines):
            self.assertEqual(self.link.received(), line)
            self.link.send(b"n%d OK\r\n" % number)
            client.read()
        self.assertFalse(client.transport.paused_reading)

    def test_commands_are_counted_for_operators(self) -> None:
        """The commands of a user are counted, as without a backend."""
        client = self.log_in()
        client(b"a NOOP")
        self.link.send(b"a OK\r\n")
        self.assertEqual(client.read(), b"a OK\r\n")
        client(b"b LOGOUT")
        self.link.send(b"* BYE see you\r\nb OK done\r\n")
        self.assertEqual(client.read(), b"* BYE see you\r\nb OK done\r\n")
        client.lose_connection()
        (closed,) = self.server.events_of(events.ConnectionClosed)
        self.assertEqual((closed.reason, closed.commands), ("logged out", 3))
        self.assertEqual(closed.last_commands, ("LOGIN", "NOOP", "LOGOUT"))
        self.assertEqual(self.backend.connections, 0)

    def test_unsolicited_responses_pass_at_any_time(self) -> None:
        """What NOTIFY sends reaches the client without a command."""
        client = self.log_in()
        self.link.send(b"* STATUS x (MESSAGES 3)\r\n")
        self.assertEqual(client.read(), b"* STATUS x (MESSAGES 3)\r\n")

    def test_bad_commands_count(self) -> None:
        """BAD of the backend counts as an invalid command, and what could be two commands does not reach it."""
        client = self.log_in()
        client(b"a XYZZY")
        self.link.received()
        self.link.send(b"a BAD unknown\r\n")
        self.assertEqual(client.read(), b"a BAD unknown\r\n")
        self.assertIn(b"b BAD", client(b"b NOOP\nc NOOP"))
        self.assertEqual(self.link.received(), b"")
        self.assertEqual(client.protocol.guard.bad_commands, 2)
        client(b"d NOOP")
        self.link.send(b"d OK\r\n")
        client.read()
        self.assertEqual(client.protocol.guard.bad_commands, 0)

    def test_capabilities_are_those_that_pass(self) -> None:
        """CAPABILITY of the backend is rewritten."""
        client = self.log_in()
        client(b"a CAPABILITY")
        self.link.send(b"* CAPABILITY IMAP4rev1 STARTTLS APPENDLIMIT\r\na OK\r\n")
        size = self.server.factory.limits.max_message_size
        self.assertEqual(
            client.read(),
            b"* CAPABILITY IMAP4rev1 APPENDLIMIT=%d COMPRESS=DEFLATE\r\na OK\r\n" % size,
        )

    def test_compression_ends_at_the_shield(self) -> None:
        """COMPRESS is answered by the shield; the backend gets the commands as they are."""
        client = self.log_in()
        self.assertIn(b"a BAD", client(b"a COMPRESS LZW"))
        self.assertIn(b"b OK", client(b"b COMPRESS DEFLATE"))
        deflate = zlib.compressobj(wbits=-15)
        packed = deflate.compress(b"c NOOP\r\n") + deflate.flush(zlib.Z_SYNC_FLUSH)
        client.send(packed)
        self.assertEqual(self.link.received(), b"c NOOP\r\n")
        self.link.send(b"c OK\r\n")
        self.assertEqual(zlib.decompressobj(wbits=-15).decompress(client.read()), b"c OK\r\n")
        packed = deflate.compress(b"d COMPRESS DEFLATE\r\n") + deflate.flush(zlib.Z_SYNC_FLUSH)
        client.send(packed)
        self.assertEqual(self.link.received(), b"")


class LiteralTests(FrontCase):
    def test_backend_is_asked(self) -> None:
        """The backend is asked for each literal, also if it has LITERAL+ and the client does not wait."""
        client = self.log_in()
        self.assertEqual(client(b"a APPEND x {3}"), b"+ Go ahead\r\n")
        client.send(b"abc ~{0+}\r\n\r\n")
        self.assertEqual(self.link.received(), b"a APPEND x {3}\r\n")
        self.link.send(b"+ go\r\n")
        self.assertEqual(self.link.received(), b"abc ~{0}\r\n")
        self.link.send(b"+ go\r\n")
        self.assertEqual(self.link.received(), b"\r\n")
        self.link.send(b"a OK\r\n")
        self.assertEqual(client.read(), b"a OK\r\n")

    def test_refused_literal_is_not_sent(self) -> None:
        """A backend that refuses a literal does not get it, and the next command follows."""
        client = self.log_in()
        client.send(b"a APPEND x {5000+}\r\n" + b"m" * 5000 + b"\r\nb NOOP\r\n")
        self.assertEqual(self.link.received(), b"a APPEND x {5000}\r\n")
        self.link.send(b"a NO [TRYCREATE] no such mailbox\r\n")
        self.assertEqual(client.read(), b"a NO [TRYCREATE] no such mailbox\r\n")
        self.assertEqual(self.link.received(), b"b NOOP\r\n")

    def test_literal_of_a_command_that_is_answered_before_its_line_ends(self) -> None:
        """The backend gets the end of the line. Dovecot answers DELETE {0} at once, and would take the next line for it."""
        client = self.log_in()
        client.send(b"a DELETE {0+}\r\n \r\nb NOOP\r\n")
        self.assertEqual(self.link.received(), b"a DELETE {0}\r\n")
        self.link.send(b"+ OK\r\na NO no name\r\n")
        self.assertEqual(client.read(), b"a NO no name\r\n")
        self.assertEqual(self.link.received(), b" \r\nb NOOP\r\n")

    def test_nul_in_a_message_passes(self) -> None:
        """The backend decides about NUL in the literal of a message. In other literals it is refused."""
        client = self.log_in()
        client.send(b"a APPEND x {3+}\r\na\0b\r\n")
        self.link.received()
        self.link.send(b"+ go\r\n")
        self.assertEqual(self.link.received(), b"a\0b\r\n")
        self.link.send(b"a OK\r\n")
        self.assertEqual(client.read(), b"a OK\r\n")
        self.assertIn(b"b BAD NUL", client(b"b SEARCH TEXT {1+}\r\n\0"))
        self.assertEqual(self.link.received(), b"")

    def test_literal_that_the_backend_takes_for_text(self) -> None:
        """What another server takes for the end of a line or for an error is not followed by commands."""
        client = self.log_in()
        for text in (b"SEARCH TEXT x{8+}", b"SEARCH TEXT x\\y {8+}", b"APPEND x ~{8+}"):
            client.send(b"a %b\r\nb NOOP\r\n\r\n" % text)
            self.assertEqual(self.link.received(), b"a " + text.replace(b"+", b"") + b"\r\n")
            self.link.send(b"a BAD what\r\n")
            self.assertEqual(client.read(), b"a BAD what\r\n")
            self.assertEqual(self.link.received(), b"")

    def test_large_literal_waits_for_the_backend(self) -> None:
        """A message is sent no faster than the backend reads, and answered in the middle without losing step."""
        client = self.log_in()
        size = 3 * CHUNK_SIZE
        self.link.transport.high_water_mark = CHUNK_SIZE
        client.send(b"b APPEND x {%d+}\r\n" % size + b"n" * size + b"\r\nc NOOP\r\n")
        self.link.send(b"+ go\r\n")
        line = b"b APPEND x {%d}\r\n" % size
        self.assertEqual(len(self.link.received()), len(line) + CHUNK_SIZE)
        self.assertEqual(client.protocol.memory.results, UNSENT_BYTES)
        self.link.send(b"b NO [OVERQUOTA] full\r\n")
        self.assertEqual(client.read(), b"b NO [OVERQUOTA] full\r\n")
        self.assertEqual(self.link.read_all(), b"")
        self.assertEqual(len(self.link.read_all()), 2 * CHUNK_SIZE)
        self.assertEqual(self.link.read_all(), b"\r\n")
        client.run_due_calls()
        self.assertEqual(self.link.received(), b"c NOOP\r\n")
        self.assertEqual(client.protocol.memory.results, 0)

    def test_backend_that_answers_without_reading(self) -> None:
        """The next command waits until the backend has taken the last one, although it has answered."""
        client = self.log_in()
        self.link.transport.high_water_mark = 1
        client.send(b"a EXPUNGE\r\nb EXPUNGE\r\n")
        self.link.send(b"a OK\r\n")
        self.assertEqual(client.read(), b"a OK\r\n")
        self.assertEqual(self.link.read_all(), b"a EXPUNGE\r\n")
        client.run_due_calls()
        self.assertEqual(self.link.read_all(), b"b EXPUNGE\r\n")


class IdleTests(FrontCase):
    def test_idle(self) -> None:
        """IDLE passes: its continuation, updates, and DONE, for as long as the client likes."""
        client = self.log_in()
        self.assertEqual(client(b"a IDLE"), b"")
        self.assertEqual(self.link.received(), b"a IDLE\r\n")
        self.link.send(b"+ idling\r\n* 1 EXISTS\r\n")
        self.assertEqual(client.read(), b"+ idling\r\n* 1 EXISTS\r\n")
        self.clock.advance(1000)
        self.link.send(b"* 2 EXISTS\r\n")
        self.assertEqual(client.read(), b"* 2 EXISTS\r\n")
        client.send(b"done\r\nb NOOP\r\n")
        self.assertEqual(self.link.received(), b"DONE\r\n")
        self.link.send(b"a OK\r\n")
        self.assertEqual(client.read(), b"a OK\r\n")
        self.assertEqual(self.link.received(), b"b NOOP\r\n")

    def test_continuation_is_not_within_a_response(self) -> None:
        """Wherever the bytes of the backend are divided, the client gets them in their order."""
        sent = b"* LIST () {3}\r\nx y z\r\n+ idling\r\n* 1 FETCH (BODY[] {3}\r\nabc)\r\n"
        for at in range(1, len(sent)):
            client = self.log_in()
            client(b"a IDLE")
            self.link.received()
            self.link.send(sent[:at])
            received = client.read()
            self.link.send(sent[at:])
            self.assertEqual(received + client.read(), sent, at)
            client(b"DONE")
            self.assertEqual(self.link.received(), b"DONE\r\n")
            self.link.lose()

    def test_idle_with_a_literal_is_refused(self) -> None:
        """The request for DONE must not be taken for the request for a literal, which would be commands."""
        client = self.log_in()
        for line in (b"a IDLE {11+}\r\nx\r\nb NOOP\r\n\r\n", b"a IDLE x\r\n", b"a UID IDLE\r\n"):
            self.assertEqual(client.send(line), b"a BAD IDLE has no arguments\r\n")
        self.assertEqual(self.link.received(), b"")

    def test_spaces_after_done(self) -> None:
        """The backend decides about them: Courier permits them."""
        client = self.log_in()
        client(b"a IDLE")
        self.link.send(b"+ idling\r\n")
        self.link.received()
        client(b"Done ")
        self.assertEqual(self.link.received(), b"DONE \r\n")

    def test_no_command_ends_idle(self) -> None:
        """A line other than DONE does not reach the backend as it is."""
        client = self.log_in()
        client(b"a IDLE")
        self.link.send(b"+ idling\r\n")
        self.link.received()
        client(b"x DELETE INBOX")
        self.assertEqual(self.link.received(), b"NOT-DONE\r\n")
        self.link.send(b"a BAD Expected DONE\r\n")
        self.assertEqual(client.read(), b"a BAD Expected DONE\r\n")

    def test_backend_that_refuses_or_ends_idle(self) -> None:
        """A backend may refuse IDLE, or end it by itself; the next line is a command again."""
        client = self.log_in()
        client(b"a IDLE")
        self.link.send(b"a BAD no\r\n")
        self.assertEqual(client.read(), b"a BAD no\r\n")
        client(b"b IDLE")
        self.link.send(b"+ idling\r\nb OK enough\r\n")
        self.assertIn(b"b OK enough", client.read())
        self.link.received()
        client(b"c NOOP")
        self.assertEqual(self.link.received(), b"c NOOP\r\n")

    def test_client_that_leaves(self) -> None:
        """The backend's connection ends with the client's."""
        client = self.log_in()
        client(b"a IDLE")
        self.link.send(b"+ idling\r\n")
        client.lose_connection()
        self.assertTrue(self.link.ended)


class BackPressureTests(FrontCase):
    def test_backend_is_read_as_fast_as_the_client_reads(self) -> None:
        """A backend that floods is not read while the client does not read."""
        client = self.log_in()
        client(b"a FETCH 1 BODY[]")
        self.link.send(b"* 1 FETCH (BODY[] {1000000}\r\n")
        client.protocol.write_buffer.pauseProducing()
        self.link.send(b"x" * 1000)
        self.assertTrue(self.link.transport.paused_reading)
        client.run_due_calls()
        self.assertTrue(self.link.transport.paused_reading)
        client.protocol.write_buffer.resumeProducing()
        client.run_due_calls()
        self.assertFalse(self.link.transport.paused_reading)

    def test_continuation_requests_without_an_end(self) -> None:
        """A backend that floods with what the client does not get is given up; those for literals do not count."""
        client = self.log_in()
        for _ in range(MAX_UNASKED_CONTINUATIONS + 1):
            client.send(b"a STATUS {1+}\r\nx (MESSAGES)\r\n")
            self.link.send(b"+ go\r\na OK\r\n")
            client.read()
        self.link.send(b"+ \r\n" * MAX_UNASKED_CONTINUATIONS)
        self.assertFalse(self.link.ended)
        self.link.send(b"+ \r\n")
        self.assertTrue(self.link.ended)
        self.assertIn(b"* BYE [UNAVAILABLE]", client.read())

    def test_others_have_their_turn(self) -> None:
        """A large response is read in several turns."""
        client = self.log_in()
        client(b"a FETCH 1 BODY[]")
        self.link.send(b"* 1 FETCH (BODY[] {1000000}\r\n" + b"x" * 600_000)
        self.assertTrue(self.link.transport.paused_reading)
        client.run_due_calls()
        self.assertFalse(self.link.transport.paused_reading)


class EndTests(FrontCase):
    BYE = b"* BYE [UNAVAILABLE] The mail server has closed the connection\r\n"

    def test_backend_that_leaves(self) -> None:
        """The client gets BYE when the backend leaves, with or without a command."""
        for command in (b"", b"a NOOP\r\n"):
            client = self.log_in()
            client.send(command)
            self.link.lose()
            self.assertEqual(client.read(), self.BYE)
            self.assertTrue(client.transport.disconnecting)
            self.assertEqual(self.cause(client), "the backend: it closed the connection")

    def cause(self, client: Client) -> str:
        """Return why the connection of a client has ended, as operators see it."""
        client.lose_connection()
        return self.server.events_of(events.ConnectionClosed)[-1].cause

    def test_bye_of_the_backend_is_enough(self) -> None:
        """A backend that says BYE is not corrected."""
        client = self.log_in()
        self.link.send(b"* BYE shutting down\r\n")
        self.link.lose()
        self.assertEqual(client.read(), b"* BYE shutting down\r\n")
        self.assertTrue(client.transport.disconnecting)
        self.assertEqual(self.cause(client), "the backend has said BYE")

    def test_end_within_a_response_is_a_reset(self) -> None:
        """A message that is incomplete is not completed with other text."""
        client = self.log_in()
        client(b"a FETCH 1 BODY[]")
        self.link.send(b"* 1 FETCH (BODY[] {100}\r\nabc")
        self.link.lose()
        self.assertNotIn(b"BYE", client.read())
        self.assertTrue(client.transport.aborted)
        cause = "the backend: it closed the connection, within a response"
        self.assertEqual(self.cause(client), cause)

    def test_end_of_the_server_within_a_response(self) -> None:
        """At the end of the server, a client that has half a message gets no BYE, which would be taken for mail."""
        client = self.log_in()
        client(b"a FETCH 1 BODY[]")
        self.link.send(b"* 1 FETCH (BODY[] {100}\r\nabc")
        self.server.factory.shutdown()
        self.assertEqual(client.read(), b"* 1 FETCH (BODY[] {100}\r\nabc")
        self.assertTrue(client.transport.disconnecting)

    def test_logout_without_a_tagged_response(self) -> None:
        """A backend that leaves after its BYE has logged the client out."""
        client = self.log_in()
        client(b"a LOGOUT")
        self.link.send(b"* BYE\r\n")
        self.link.lose()
        self.assertEqual(client.read(), b"* BYE\r\na OK LOGOUT completed\r\n")

    def test_refused_logout(self) -> None:
        """A LOGOUT that the backend refuses does not end the connection."""
        client = self.log_in()
        client(b"a UID LOGOUT")
        self.link.send(b"a NO what\r\n")
        self.assertEqual(client.read(), b"a NO what\r\n")
        client(b"b NOOP")
        self.assertEqual(self.link.received(), b"a UID LOGOUT\r\nb NOOP\r\n")

    def test_whole_response_before_what_is_none(self) -> None:
        """What precedes a line that is no response reaches the client, so that BYE is not within a message."""
        client = self.log_in()
        client(b"a FETCH 1 BODY[]")
        self.link.send(b"* 1 FETCH (BODY[] {100}\r\nabc")
        self.link.send(b"d" * 97 + b")\r\n220 smtp\r\n")
        received = client.read()
        self.assertTrue(received.endswith(b"ddd)\r\n" + self.BYE), received)
        self.assertTrue(self.link.ended)

    def test_lying_backend(self) -> None:
        """A tagged response to no command ends the connection: nobody knows which command it answers."""
        client = self.log_in()
        self.link.send(b"a OK\r\n")
        self.assertEqual(client.read(), self.BYE)
        self.assertTrue(self.link.ended)

    def test_flood_after_login_is_what_it_is_without_a_backend(self) -> None:
        """An unread flood of responses is bounded, and the rest of the flood waits in the client's kernel."""
        client = self.log_in()
        for _ in range(50):
            client.send(b"a NOOP\r\n" * 20)
        self.assertTrue(client.transport.paused_reading)
        self.assertEqual(self.link.received(), b"a NOOP\r\n" * 20)

    def test_shutdown(self) -> None:
        """At the end of the server, clients get BYE and the backend's connections end."""
        client = self.log_in()
        self.server.factory.shutdown()
        self.assertIn(b"* BYE [UNAVAILABLE]", client.read())
        self.assertTrue(self.link.ended)

    def test_bytes_that_arrive_with_the_login(self) -> None:
        """What the backend sends together with the answer to the login is not lost."""
        client = self.server.connect()
        client(b"a LOGIN alice secret")
        self.link.send(b"s1 OK in\r\n* 1 EXISTS\r\n")
        self.assertEqual(client.read(), b"a OK in\r\n* 1 EXISTS\r\n")
