"""`imapshield trace` shows the dialogue of some connections, and costs the others nothing."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from imapshield.control import trace
from imapshield.control.commands import ConnectionCommands
from imapshield.control.request_lines import ControlError, Request
from imapshield.control.trace import Traces
from imapshield.testing.in_process import Server


class TraceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.traces = Traces(self.clock.callLater)
        self.server = Server(clock=self.clock, observers=[self.traces])
        commands = ConnectionCommands(self.server.factory, self.clock.seconds)
        self.traces.matching = commands.matching
        self.shown: list[Any] = []

    def begin(self, who: str, **arguments: Any) -> Deferred[None]:
        async def follow() -> None:
            async for item in self.traces.trace(Request("trace", {"who": who, **arguments})):
                self.shown.append(item)

        return Deferred.fromCoroutine(follow())

    def test_dialogue_of_a_user(self) -> None:
        """Present and new connections of a user are shown, with limits and the end; others are not."""
        alice = self.server.login()
        done = self.begin("alice", seconds=60)
        other = self.server.login(b"bob", b"word")
        other(b"x NOOP")
        alice(b"a NOOP")
        number = alice.protocol.reporter.number
        later = self.server.login().protocol.reporter.number
        text = "\n".join(self.shown)
        self.assertIn(f"{number} C: a NOOP\n{number} S: a OK", text)
        self.assertIn(f"{later} -- traced from here: 127.0.0.1 alice", text)
        self.assertNotIn("x NOOP", text)
        self.assertNotIn("secret", text)
        alice.append(b"From: x\r\n\r\nprivate")
        alice(b"b FETCH 1 BODY[]")
        alice.lose_connection()
        text = "\n".join(self.shown)
        self.assertNotIn("private", text)
        self.assertIn(f"{number} -- connection lost", text)
        self.clock.advance(60)
        self.successResultOf(done)
        self.assertTrue(
            all(
                s.reporter.tap is None and s.write_buffer.tap is None
                for s in self.server.factory.connections
            )
        )

    def test_strangers_of_an_address(self) -> None:
        """The connections of an address are shown before they log in; the password is hidden."""
        self.begin("192.0.2.7")
        self.server.connect("192.0.2.7")(b"a LOGIN alice secret")
        text = "\n".join(self.shown)
        self.assertIn("C: a LOGIN alice (hidden)", text)
        self.assertNotIn("secret", text)

    def test_what_is_not_read_is_left_out(self) -> None:
        """An operator who does not read loses lines, and the server keeps a bounded number of them."""
        self.patch(trace, "MAX_WAITING", 3)
        traced = self.traces.trace(Request("trace", {"who": "alice"}))
        self.successResultOf(Deferred.fromCoroutine(traced.__anext__()))
        alice = self.server.login()
        for _ in range(10):
            alice(b"a NOOP")
        items = [self.successResultOf(Deferred.fromCoroutine(traced.__anext__())) for _ in range(4)]
        self.assertIn("lines left out", items[-1])
        self.successResultOf(Deferred.fromCoroutine(traced.aclose()))

    def test_connection_with_another_trace(self) -> None:
        """A second trace of a connection says that another one shows it."""
        self.server.login()
        self.begin("alice")
        self.begin("127.0.0.1")
        self.assertIn("another trace shows this connection already", self.shown[-1])

    def test_traces_are_bounded(self) -> None:
        """One trace too many is refused, and an ended one makes room."""
        self.patch(trace, "MAX_TRACES", 1)
        self.begin("alice", seconds=5)
        self.failureResultOf(self.begin("bob"), ControlError)
        self.clock.advance(5)
        self.assertNoResult(self.begin("bob"))
