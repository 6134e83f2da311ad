"""Events of one connection reach every observer, without secrets."""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from imapshield.edge.event_reporter import EventReporter, Observers
from imapshield.edge.factory import ShieldedIMAP4Factory
from imapshield.edge.protocol import ShieldedIMAP4Server
from imapshield.events import (
    ConnectionOpened,
    Event,
    EventHandlers,
    EventObserver,
    LimitTriggered,
    LoggedIn,
)
from imapshield.guard.verdicts import Reset
from imapshield.limits import Limits
from imapshield.testing.in_process import Server
from imapshield.wire.framing import RawCommand

RESET = Reset("backlog", 100, 101)


class EventReporterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.first: list[Event] = []
        self.second: list[Event] = []

    def reporter(self) -> EventReporter:
        return EventReporter([self.first.append, self.second.append])

    def test_every_observer_gets_every_event(self) -> None:
        """Every observer gets every event; an event names the user who has logged in."""
        reporter = self.reporter()
        reporter.peer = "192.0.2.1"
        reporter.connection_opened()
        reporter.logged_in("alice", "PLAIN", tls=True)
        reporter.limit_triggered("reset", RESET)
        self.assertEqual(self.first, self.second)
        _, login, limit = self.first
        self.assertEqual(login, LoggedIn(reporter.number, "192.0.2.1", "alice", "PLAIN", True))
        assert isinstance(limit, LimitTriggered)
        self.assertEqual(limit.user, "alice")

    def test_events_are_dropped_without_observers(self) -> None:
        """A reporter without observers drops events."""
        EventReporter([]).connection_opened()

    def test_observers_get_what_they_want(self) -> None:
        """An observer with handlers gets only the classes of events that it has some for, also if it is called."""

        class Logins(EventHandlers):
            def __init__(self, found: list[Event]) -> None:
                self.handlers = {LoggedIn: found.append}

        reporter = EventReporter([Logins(self.first), self.second.append])
        for _ in range(2):
            reporter.connection_opened()
            reporter.logged_in("alice", "PLAIN", tls=True)
        self.assertEqual([type(event) for event in self.first], [LoggedIn, LoggedIn])
        self.assertEqual(len(self.second), 4)
        for event in self.second:
            Logins(self.first)(event)
        self.assertEqual(len(self.first), 4)

    def test_observer_with_another_attribute_handlers(self) -> None:
        """An observer whose `handlers` are no mapping gets every event."""

        class Forwarder:
            def __init__(self, handlers: list[EventObserver]) -> None:
                self.handlers = handlers

            def __call__(self, event: Event) -> None:
                for handler in self.handlers:
                    handler(event)

        EventReporter([Forwarder([self.first.append])]).connection_opened()
        self.assertEqual(len(self.first), 1)

    def test_connections_share_the_observers(self) -> None:
        """The connections of a server share one object for its observers, which can be iterated over."""
        observers = Observers([self.first.append])
        self.assertIs(Observers.of(observers), observers)
        self.assertEqual([*observers], [self.first.append])

    def test_event_that_nobody_wants(self) -> None:
        """Who wants a class of events is asked once, also if nobody does."""
        asked = list[type[Event]]()

        class Wanted(dict[type[Event], EventObserver]):
            def get(self, kind: Any, default: Any = None) -> Any:
                asked.append(kind)
                return super().get(kind, default)

        observer = EventHandlers()
        observer.handlers = Wanted()
        reporter = EventReporter([observer])
        for _ in range(3):
            reporter.connection_opened()
        self.assertEqual(asked, [ConnectionOpened])

    def test_failing_observer_does_not_affect_others(self) -> None:
        """An exception of an observer is logged, and other observers get the event."""

        def fail(event: Event) -> None:
            raise RuntimeError("bug in an observer")

        EventReporter([fail, self.first.append]).connection_opened()
        self.assertEqual(len(self.first), 1)
        (failure,) = self.flushLoggedErrors(RuntimeError)
        self.assertIn("bug in an observer", failure.getErrorMessage())

    def test_connection_works_despite_a_failing_observer(self) -> None:
        """A connection works despite an observer that always raises, even when the connection is refused or closed."""

        def fail(event: Event) -> None:
            raise RuntimeError("bug in an observer")

        server = Server()
        server.factory = ShieldedIMAP4Factory(
            server.factory.portal,
            limits=Limits(max_connections=1),
            observers=[fail],
            reactor=server.clock,
        )
        client = server.login()
        self.assertNotIsInstance(server.factory.buildProtocol(None), ShieldedIMAP4Server)
        self.assertIn(b"a BAD", client(b"a XYZZY"))
        self.assertIn(b"b OK", client(b"b NOOP"))
        client.lose_connection()
        self.assertEqual(server.factory.connections, set())
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 7)

    def test_sample_of_a_command_shows_no_secrets(self) -> None:
        """The sample of a command is its tag and name; of LOGIN, AUTHENTICATE and unknown commands it is empty."""
        reporter = self.reporter()
        for name in (b"FETCH", b"LOGIN", b"AUTHENTICATE", b"ALICE", b""):
            command = RawCommand(b"tag", name, (b"secret",), 20)
            reporter.limit_triggered("reset", RESET, command)
        samples = [event.sample for event in self.first if isinstance(event, LimitTriggered)]
        self.assertEqual(samples, ["tag FETCH", "", "", "", ""])

    def test_limit_describes_the_connection(self) -> None:
        """The event of a limit has the network, what the client said with ID, its commands, bytes and seconds."""
        server = Server(preauth_commands=2)
        client = server.connect("2001:db8:1:2::3")
        client(b'a ID ("name" "Mail\xc3\xa9" "version" NIL "x" "' + b"y" * 200 + b'")')
        server.clock.advance(5)
        client.send(b"b NOOP\r\nc NOOP\r\n")
        (event,) = server.events_of(LimitTriggered)
        self.assertEqual(event.network, "2001:db8:1::/56")
        self.assertTrue(event.client_id.startswith("name=Mail\\xc3\\xa9 x=yyy"), event.client_id)
        self.assertLess(len(event.client_id), 130)
        self.assertEqual((event.commands, event.executed, event.seconds), (3, 1, 5))
        self.assertGreater(event.octets_in, 200)
        self.assertGreater(event.octets_out, 50)
        self.assertEqual(event.setting, "--limit=preauth_commands=N")

    def test_references(self) -> None:
        """The reference of an internal error is short, and no two are equal, also after a restart of the server."""
        references = {self.reporter().command_failed("NOOP", "") for _ in range(100)}
        self.assertEqual(len(references), 100)
        self.assertEqual({len(reference) for reference in references}, {8})

    def test_report_only_reports_each_limit_once(self) -> None:
        """A limit that is not enforced is reported once, others each time."""
        reporter = self.reporter()
        for limit in ("backlog", "backlog", "preauth_bytes"):
            reporter.limit_triggered("none", Reset(limit, 1, 2))
        reported = [(e.limit, e.action) for e in self.first if isinstance(e, LimitTriggered)]
        self.assertEqual(reported, [("backlog", "none"), ("preauth_bytes", "none")])
