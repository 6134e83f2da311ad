"""Timeouts of logins, idle users, literals and unread responses."""

from twisted.trial.unittest import SynchronousTestCase

from imapshield import events
from imapshield.testing.in_process import MemoryRealm, Server, SlowWorker


class TimeoutTests(SynchronousTestCase):
    def test_login_timeout(self) -> None:
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

    def test_unread_bye(self) -> None:
        """A client that does not read the BYE is reset."""
        server = Server()
        client = server.connect()
        server.clock.advance(60)
        client.read()
        self.assertFalse(client.transport.aborted)
        server.clock.advance(server.factory.limits.closing_seconds)
        self.assertTrue(client.transport.aborted)

    def test_idle_user(self) -> None:
        """A user may be silent for half an hour after the last command."""
        server = Server()
        client = server.login()
        server.clock.advance(1799)
        client(b"a NOOP")
        server.clock.advance(1799)
        self.assertEqual(client.read(), b"")
        server.clock.advance(1)
        self.assertIn(b"* BYE", client.read())

    def test_idle_command(self) -> None:
        """The idle timeout applies during IDLE too (RFC 2177)."""
        server = Server()
        client = server.login()
        client(b"a IDLE")
        server.clock.advance(1800)
        self.assertIn(b"* BYE", client.read())

    def test_slow_store(self) -> None:
        """A user who waits for the store is not timed out."""
        worker = SlowWorker()
        server = Server(realm=MemoryRealm(worker))
        client = server.login()
        client(b"a SELECT INBOX")
        server.clock.advance(3600)
        self.assertEqual(client.read(), b"")
        worker.step()
        self.assertIn(b"a OK", client.read())

    def test_stalled_literal(self) -> None:
        """A literal of which nothing arrives for a minute ends the connection."""
        server = Server()
        client = server.login()
        client.send(b"a APPEND INBOX {100+}\r\nabc")
        server.clock.advance(59)
        client.send(b"d")
        server.clock.advance(59)
        self.assertEqual(client.read(), b"")
        server.clock.advance(1)
        self.assertIn(b"* BYE", client.read())


class WriteTimeoutTests(SynchronousTestCase):
    def test_full_backlog(self) -> None:
        """A user with a full backlog who reads nothing for 30 seconds is reset."""
        server = Server()
        client = server.login()
        client.protocol.write_buffer.pauseProducing()
        client.send(b"a NOOP\r\n" * 200)
        server.clock.advance(29)
        self.assertFalse(client.transport.aborted)
        server.clock.advance(1)
        self.assertTrue(client.transport.aborted)
        self.assertEqual(server.events_of(events.LimitTriggered)[0].limit, "stalled_seconds")

    def test_slow_reader(self) -> None:
        """A client that reads at least something is not reset."""
        server = Server()
        client = server.login()
        progress = iter(range(100))
        client.protocol.write_buffer.progress_marker = lambda: (next(progress),)  # type: ignore[method-assign]
        client.protocol.write_buffer.pauseProducing()
        client.send(b"a NOOP\r\n" * 200)
        for _ in range(20):
            server.clock.advance(30)
        self.assertFalse(client.transport.aborted)

    def test_unread_responses(self) -> None:
        """Without a full backlog the reset comes after five minutes."""
        server = Server()
        client = server.login()
        client.protocol.write_buffer.pauseProducing()
        for _ in range(9):
            server.clock.advance(30)
        self.assertFalse(client.transport.aborted)
        server.clock.advance(30)
        self.assertTrue(client.transport.aborted)
