"""Timeouts of logins, idle users, literals and unread responses."""

from twisted.trial.unittest import SynchronousTestCase

from imapshield import events
from imapshield.session.dispatcher import Dispatcher
from imapshield.testing.in_process import MemoryRealm, Server, SlowWorker
from imapshield.wire.framing import RawCommand


class TimeoutTests(SynchronousTestCase):
    def test_client_must_log_in_within_60_seconds(self) -> None:
        """A client must log in within 60 seconds; other input does not extend the time."""
        server = Server()
        client = server.connect()
        for _ in range(59):
            server.clock.advance(1)
            client.send(b"a")
        self.assertEqual(client.read(), b"")
        server.clock.advance(1)
        self.assertIn(b"* BYE", client.read())
        self.assertTrue(client.transport.disconnecting)

    def test_client_that_does_not_read_bye_is_reset(self) -> None:
        """A client that does not read BYE is reset."""
        server = Server()
        client = server.connect()
        server.clock.advance(60)
        client.read()
        self.assertFalse(client.transport.aborted)
        server.clock.advance(server.factory.limits.closing_seconds)
        self.assertTrue(client.transport.aborted)

    def test_user_may_be_silent_for_half_an_hour(self) -> None:
        """A user may be silent for half an hour after the last command."""
        server = Server()
        client = server.login()
        server.clock.advance(1799)
        client(b"a NOOP")
        server.clock.advance(1799)
        self.assertEqual(client.read(), b"")
        server.clock.advance(1)
        self.assertIn(b"* BYE", client.read())

    def test_commands_do_not_move_the_delayed_call(self) -> None:
        """A command only notes the time: the delayed call of the timeout stays where it is, and then waits again."""
        server = Server()
        client = server.login()
        timeout = server.clock.calls[-1].getTime()
        for _ in range(3):
            server.clock.advance(500)
            client(b"a NOOP")
        self.assertEqual(server.clock.calls[-1].getTime(), timeout)
        server.clock.advance(300)
        self.assertEqual(server.clock.calls[-1].getTime(), 1500 + 1800)

    def test_idle_time_begins_with_input(self) -> None:
        """A line restarts the time, also one that begins a long command or that the running command reads."""
        server = Server()
        client = server.login()
        client(b"a NOOP")
        server.clock.advance(1700)
        client(b"b IDLE")
        server.clock.advance(1799)
        self.assertEqual(client.read(), b"")
        self.assertIn(b"b OK", client(b"DONE"))
        server.clock.advance(1799)
        self.assertEqual(client.read(), b"")
        server.clock.advance(1)
        self.assertIn(b"* BYE", client.read())

    def test_line_of_a_running_command(self) -> None:
        """A line that the running command reads restarts the time, even if the command goes on."""

        class TwoLineSession(Dispatcher):
            async def run(self, command: RawCommand) -> None:
                if command.name == b"IDLE":
                    await self.session.io.read_line()
                    await self.session.io.read_line()
                else:
                    await super().run(command)

        server = Server()
        server.factory.make_session = lambda io: TwoLineSession(io, server.factory.limits)
        client = server.login()
        client(b"a IDLE")
        server.clock.advance(1000)
        self.assertEqual(client(b"first"), b"")
        server.clock.advance(1799)
        self.assertEqual(client.read(), b"")

    def test_partial_line(self) -> None:
        """Bytes without the end of a line do not restart the time (RFC 9051 section 5.4)."""
        server = Server()
        client = server.login()
        for _ in range(17):
            server.clock.advance(100)
            client.send(b"a")
        server.clock.advance(100)
        self.assertIn(b"* BYE", client.read())

    def test_idle_timeout_applies_during_idle(self) -> None:
        """The idle timeout applies during IDLE too (RFC 2177)."""
        server = Server()
        client = server.login()
        client(b"a IDLE")
        server.clock.advance(1800)
        self.assertIn(b"* BYE", client.read())

    def test_slow_store_causes_no_timeout(self) -> None:
        """A user who waits for the store is not timed out."""
        worker = SlowWorker()
        server = Server(realm=MemoryRealm(worker))
        client = server.login()
        client(b"a SELECT INBOX")
        server.clock.advance(3600)
        self.assertEqual(client.read(), b'* OK [INPROGRESS ("a" NIL NIL)] Still in progress\r\n')
        worker.step()
        self.assertIn(b"a OK", client.read())

    def test_stalled_literal_ends_the_connection(self) -> None:
        """A literal that receives no data for a minute ends the connection."""
        server = Server()
        client = server.login()
        client.send(b"a APPEND INBOX {100+}\r\nabc")
        server.clock.advance(59)
        client.send(b"d")
        server.clock.advance(59)
        self.assertEqual(client.read(), b"")
        server.clock.advance(1)
        self.assertIn(b"* BYE", client.read())

    def test_literal_without_a_byte(self) -> None:
        """The time for a literal begins at its announcement, or at the continuation request if the client waits for it."""
        for announcement in (b"{100}", b"{100+}"):
            server = Server()
            client = server.login()
            server.clock.advance(100)
            client(b"a APPEND INBOX " + announcement)
            server.clock.advance(59)
            self.assertEqual(client.read(), b"")
            server.clock.advance(1)
            self.assertIn(b"* BYE Disconnected: Inactivity timeout", client.read())
            (event,) = server.events_of(events.LimitTriggered)
            self.assertEqual(
                (event.limit, event.value, event.observed), ("literal_seconds", 60, 60)
            )

    def test_continuation_request_after_a_slow_command(self) -> None:
        """The time for a literal does not begin before its continuation request, which follows all earlier responses."""
        worker = SlowWorker()
        server = Server(realm=MemoryRealm(worker))
        client = server.login()
        client(b"a SELECT INBOX")
        client(b"b APPEND INBOX {100}")
        server.clock.advance(150)
        worker.step()
        self.assertIn(b"+ Go ahead", client.read())
        server.clock.advance(59)
        self.assertEqual(client.read(), b"")
        server.clock.advance(1)
        self.assertIn(b"* BYE", client.read())

    def test_rest_of_the_command(self) -> None:
        """After the last byte of a literal the idle timeout applies again."""
        server = Server()
        client = server.login()
        client.send(b"a APPEND INBOX {3+}\r\nab")
        client.send(b"c")
        server.clock.advance(1799)
        self.assertEqual(client.read(), b"")
        server.clock.advance(1)
        self.assertEqual(server.events_of(events.LimitTriggered)[0].limit, "idle_seconds")


class WriteTimeoutTests(SynchronousTestCase):
    def test_user_with_a_full_backlog_must_read(self) -> None:
        """A user with a full backlog who reads nothing for 30 seconds is reset."""
        server = Server()
        client = server.login()
        client.protocol.write_buffer.pauseProducing()
        client.send(b"a NOOP\r\n" * 200)
        server.clock.advance(29)
        self.assertFalse(client.transport.aborted)
        server.clock.advance(1)
        self.assertTrue(client.transport.aborted)
        self.assertEqual(server.events_of(events.LimitTriggered)[-1].limit, "stalled_seconds")

    def test_slow_reader_is_not_reset(self) -> None:
        """A client that reads slowly, but makes progress, is not reset."""
        server = Server()
        client = server.login()
        progress = iter(range(100))
        client.protocol.write_buffer.progress_marker = lambda: (next(progress),)  # type: ignore[method-assign]
        client.protocol.write_buffer.pauseProducing()
        client.send(b"a NOOP\r\n" * 200)
        for _ in range(20):
            server.clock.advance(30)
        self.assertFalse(client.transport.aborted)

    def test_unread_responses_cause_a_reset_after_five_minutes(self) -> None:
        """A user without a full backlog who reads nothing is reset after five minutes."""
        server = Server()
        client = server.login()
        client.protocol.write_buffer.pauseProducing()
        for _ in range(9):
            server.clock.advance(30)
        self.assertFalse(client.transport.aborted)
        server.clock.advance(30)
        self.assertTrue(client.transport.aborted)

    def test_unsent_seconds_below_stalled_seconds(self) -> None:
        """`unsent_seconds` applies in time even if it is shorter than `stalled_seconds`."""
        server = Server(unsent_seconds=10)
        client = server.login()
        client.protocol.write_buffer.pauseProducing()
        server.clock.advance(9)
        self.assertFalse(client.transport.aborted)
        server.clock.advance(1)
        self.assertTrue(client.transport.aborted)
        self.assertEqual(server.events_of(events.LimitTriggered)[0].limit, "unsent_seconds")
