"""Events of one connection reach every observer, without secrets."""

from twisted.trial.unittest import SynchronousTestCase

from imapshield.edge.event_reporter import EventReporter
from imapshield.events import Event, LimitTriggered, LoggedIn
from imapshield.guard.verdicts import Reset
from imapshield.wire.framing import RawCommand

RESET = Reset("backlog", 100, 101)


class EventReporterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.first: list[Event] = []
        self.second: list[Event] = []

    def reporter(self, *, report_only: bool = False) -> EventReporter:
        return EventReporter([self.first.append, self.second.append], report_only)

    def test_observers(self) -> None:
        """Every observer gets every event; an event names the user who has logged in."""
        reporter = self.reporter()
        reporter.peer = "192.0.2.1"
        reporter.connection_opened()
        reporter.logged_in("alice", "PLAIN", tls=True)
        reporter.limit_triggered(RESET, "reset")
        self.assertEqual(self.first, self.second)
        _, login, limit = self.first
        self.assertEqual(login, LoggedIn(reporter.number, "192.0.2.1", "alice", "PLAIN", True))
        assert isinstance(limit, LimitTriggered)
        self.assertEqual(limit.user, "alice")

    def test_no_observers(self) -> None:
        """Without observers events are dropped."""
        EventReporter([], False).connection_opened()

    def test_sample(self) -> None:
        """The sample of a command is its tag and name; of LOGIN, AUTHENTICATE and unreadable commands it is empty."""
        reporter = self.reporter()
        for name in (b"FETCH", b"LOGIN", b"AUTHENTICATE", b""):
            command = RawCommand(b"tag", name, (b"secret",), 20)
            reporter.limit_triggered(RESET, "reset", command)
        samples = [event.sample for event in self.first if isinstance(event, LimitTriggered)]
        self.assertEqual(samples, ["tag FETCH", "", "", ""])

    def test_report_only(self) -> None:
        """In report-only mode each limit is reported once, with the action "none"."""
        reporter = self.reporter(report_only=True)
        for limit in ("backlog", "backlog", "preauth_bytes"):
            reporter.limit_triggered(Reset(limit, 1, 2), "reset")
        reported = [(e.limit, e.action) for e in self.first if isinstance(e, LimitTriggered)]
        self.assertEqual(reported, [("backlog", "none"), ("preauth_bytes", "none")])
