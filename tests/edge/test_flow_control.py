"""Users who are held by flow control are reported at that time, once, and not if they only read slowly."""

from twisted.trial.unittest import SynchronousTestCase

from imapshield.events import LimitTriggered
from imapshield.testing.in_process import Server


class FlowControlTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = Server()
        self.client = self.server.login()

    def reported(self) -> list[tuple[str, str, str]]:
        events = self.server.events_of(LimitTriggered)
        return [(event.limit, event.action, event.user) for event in events]

    def stop_reading(self) -> None:
        self.client.protocol.write_buffer.pauseProducing()

    def test_client_that_does_not_read(self) -> None:
        """A user who reads nothing for ten seconds is reported, once."""
        self.stop_reading()
        self.server.clock.advance(9)
        self.assertEqual(self.reported(), [])
        self.server.clock.advance(1)
        self.assertEqual(self.reported(), [("max_unsent_bytes", "paused", "alice")])
        self.server.clock.pump([10] * 5)
        self.assertEqual(len(self.reported()), 1)

    def test_client_that_recovers_is_reported_again(self) -> None:
        """A client that has read again and then stops a second time is reported a second time."""
        for count in (1, 2):
            self.stop_reading()
            self.server.clock.advance(10)
            self.assertEqual(len(self.reported()), count)
            self.client.protocol.write_buffer.resumeProducing()
            self.server.clock.advance(10)

    def test_full_backlog(self) -> None:
        """A user whose backlog is full for ten seconds is reported with the number of pending commands."""
        self.stop_reading()
        progress = iter(range(100))
        buffer = self.client.protocol.write_buffer
        buffer.progress_marker = lambda: (next(progress),)  # type: ignore[method-assign]
        self.client.send(b"a NOOP\r\n" * 200)
        self.server.clock.advance(10)
        (event,) = self.server.events_of(LimitTriggered)
        self.assertEqual((event.limit, event.value, event.observed), ("backlog", 100, 100))

    def test_flood(self) -> None:
        """A user whose backlog is refilled whenever it is half empty is reported."""
        for _ in range(11):
            self.client.send(b"a NOOP\r\n" * 300)
            self.client.protocol.dataReceived(b"a NOOP\r\n" * 150)
            self.server.clock.advance(0.999)
            self.client.transport.clear()
        self.assertIn(("backlog", "paused", "alice"), self.reported())

    def test_burst_is_not_reported(self) -> None:
        """A burst that is answered at once is not reported, and neither is a slow reader."""
        self.assertEqual(self.client.send(b"a NOOP\r\n" * 500).count(b"a OK"), 500)
        self.server.clock.advance(10)
        progress = iter(range(100))
        buffer = self.client.protocol.write_buffer
        buffer.progress_marker = lambda: (next(progress),)  # type: ignore[method-assign]
        self.stop_reading()
        self.server.clock.pump([10] * 5)
        self.assertEqual(self.reported(), [])

    def test_slow_reader_with_few_commands(self) -> None:
        """A client that has sent three commands and reads slowly is not reported as one with a full backlog."""
        progress = iter(range(100))
        buffer = self.client.protocol.write_buffer
        buffer.progress_marker = lambda: (next(progress),)  # type: ignore[method-assign]
        self.stop_reading()
        self.client.send(b"a NOOP\r\n" * 3)
        self.assertTrue(self.client.protocol.guard.busy)
        for _ in range(100):
            buffer.resumeProducing()
            self.stop_reading()
            self.server.clock.advance(0.5)
        self.assertEqual(self.reported(), [])

    def test_nothing_is_left(self) -> None:
        """Nothing is scheduled any more when the connection has ended, or before login."""
        self.stop_reading()
        self.client.lose_connection()
        self.assertEqual(self.server.clock.getDelayedCalls(), [])
        stranger = self.server.connect()
        stranger.protocol.write_buffer.pauseProducing()
        self.server.clock.advance(10)
        self.assertEqual(self.reported(), [])
