"""`imapshield trace` shows the dialogue of some connections, and costs the others nothing."""

from base64 import b64encode
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

    def test_two_traces_of_one_connection(self) -> None:
        """Both show it, each ends by itself, and the connection is then no longer traced."""
        alice = self.server.login()
        shown: list[list[Any]] = []
        for seconds, who in ((10, "alice"), (20, "127.0.0.1")):
            self.shown = []
            shown.append(self.shown)
            self.begin_into(self.shown, who, seconds)
        for expected in ((1, 1), (1, 2), (1, 2)):
            alice(b"a NOOP")
            counts = tuple("\n".join(lines).count("C: a NOOP") for lines in shown)
            self.assertEqual(counts, expected)
            self.clock.advance(10)
        self.assertIsNone(alice.protocol.reporter.tap)
        self.assertIsNone(alice.protocol.write_buffer.tap)

    def begin_into(self, shown: list[Any], who: str, seconds: int) -> None:
        async def follow() -> None:
            async for item in self.traces.trace(Request("trace", {"who": who, "seconds": seconds})):
                shown.append(item)  # noqa: PERF401 (the test looks at what has come until now)

        Deferred.fromCoroutine(follow())

    def test_no_form_of_a_login_shows_the_password(self) -> None:
        """However a login is written, divided, answered or interrupted, no trace has the password, also as base64."""
        plain = b64encode(b"\0alice\0secret")
        for number, data in enumerate(
            (
                *(b"a LOGIN alice secret\r\n", b'a LOGIN "alice" "secret"\r\n'),
                *(b"a LOGIN {5}\r\nalice {6}\r\nsecret\r\n", b"a LOGIN {5+}\r\nalice secret\r\n"),
                b"a NOOP\r\na LOGIN {5+}\r\nalice secret\r\n",
                b"a NOOP\r\na LOGIN {5}\r\nalice secret\r\n",
                b"a LOGIN alice {6000}\r\nsecret\r\nb NOOP\r\n",
                b'a LOGIN {5+}\r\nalice "secret\r\n',
                b"a AUTHENTICATE PLAIN " + plain + b"\r\n",
                b"a AUTHENTICATE PLAIN\r\n" + plain + b"\r\n",
                b"a AUTHENTICATE PLAIN\r\n*\r\n" + plain + b"\r\n",
                b"a AUTHENTICATE XXX\r\n" + plain + b"\r\n",
                b"a AUTHENTICATE\r\n" + plain + b"\r\n",
                b"a AUTHENTICATE " + plain + b"\r\n",
                b"a AUTHENTICATE PLAIN {%d}\r\n" % len(plain) + plain + b"\r\n",
                b"a AUTHENTICATE PLAIN\r\n" + plain + b" x\r\n" + plain + b"\r\n",
                plain + b"\r\n" + plain + b" " + plain + b"\r\n",
                b"LOGIN alice secret\r\nsecret\r\na secret\r\nsecret BAD\r\n",
                b"a LOGIN alice " + b"secret" * 2000 + b"\r\nsecret\r\n",
                b"a LOGIN alice secret\r\nb LOGIN alice secret\r\nc AUTHENTICATE PLAIN\r\n"
                + plain
                + b"\r\n",
                b"a LOGIN alice secret\r\nb UNAUTHENTICATE\r\nc AUTHENTICATE PLAIN\r\n"
                + plain
                + b"\r\n",
            )
        ):
            for step, start in ((1, 0), (len(data), 0), (7, len(data) // 2)):
                for host in ("127.0.0.1", "192.0.2.7"):
                    self.shown.clear()
                    client = self.server.connect(host)
                    client.send(data[:start])
                    done = self.begin(host, seconds=1)
                    for at in range(start, len(data), step):
                        client.send(data[at : at + step])
                    client.lose_connection()
                    text = "\n".join(self.shown)
                    self.assertNotIn("secret", text, (number, text))
                    self.assertNotIn(plain.decode(), text, (number, text))
                    self.assertIn("-- ", text)
                    self.clock.advance(1)
                    self.successResultOf(done)

    def test_a_number_without_a_connection(self) -> None:
        """No later connection gets the number of an old one, so that is an error at once; a number is counted well."""
        number = self.server.login().protocol.reporter.number
        error = self.failureResultOf(self.begin(str(number + 9)), ControlError).value
        self.assertEqual(str(error), f"{number + 9}: no connection; `imapshield who` lists them")
        self.begin(str(number))
        self.assertIn(f"-- {number}: 1 connection now", "\n".join(self.shown))

    def test_login_during_idle_shows_no_password(self) -> None:
        """A client that sends LOGIN where IDLE waits for DONE is shown without the line, and its reset is."""
        alice = self.server.login()
        self.begin("alice", seconds=5)
        alice.send(b"e IDLE\r\n")
        alice.send(b"f LOGIN alice secret\r\n")
        text = "\n".join(self.shown)
        self.assertIn("C: e IDLE", text)
        self.assertIn("C: (hidden) 20 octets", text)
        self.assertNotIn("secret", text)

    def test_traces_are_bounded(self) -> None:
        """One trace too many is refused, and an ended one makes room."""
        self.patch(trace, "MAX_TRACES", 1)
        self.begin("alice", seconds=5)
        self.failureResultOf(self.begin("bob"), ControlError)
        self.clock.advance(5)
        self.assertNoResult(self.begin("bob"))
