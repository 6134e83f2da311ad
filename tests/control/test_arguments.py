"""Whatever a program sends to the control socket, the answer is JSON, and never an internal error."""

import json
from contextlib import nullcontext
from typing import Any
from unittest import mock

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from imapshield.certificates import Certificates
from imapshield.config import Settings
from imapshield.control.arguments import ARGUMENTS, MAX_TEXT, problem_of
from imapshield.control.request_lines import encode_result
from imapshield.control.server import ControlConnection, ControlFactory
from imapshield.front.node_commands import NodeCommands
from imapshield.operator_ports import OperatorPorts
from imapshield.testing.in_process import Server

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)
NAMES = st.sampled_from(sorted({name for known in ARGUMENTS.values() for name in known}))
PLAUSIBLE = st.sampled_from(["alice", "192.0.2.7", "::1/64", "0.0.0.0/0", "minute", "7", 5, True])


def no_constant(text: str) -> object:
    raise AssertionError(f"{text} is not JSON")


class ArgumentTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        ports = OperatorPorts(Settings(), self.reactor)
        self.server = Server(clock=self.reactor, observers=ports.observers)
        ports.connect(self.server.factory, Certificates(self.reactor), self.mktemp(), nullcontext)
        ports.start()
        self.handlers = ports.handlers
        self.streams: Any = {"trace": ports._traces.trace}
        self.server.login()
        self.server.connect("192.0.2.7")

    def answer(self, line: bytes) -> dict[str, Any]:
        """Return the first line of the answer to a line. The client leaves after it."""
        connection, transport = ControlConnection(), StringTransport()
        connection.factory = ControlFactory(self.handlers, self.streams)
        connection.makeConnection(transport)
        with capturedLogs() as logged:
            connection.dataReceived(line + b"\n")
            for _ in range(10):
                self.reactor.advance(0)
            connection.connectionLost()
        self.assertEqual([each for each in logged if "log_failure" in each], [], line)
        first = transport.value().partition(b"\n")[0]
        answer: dict[str, Any] = json.loads(first, parse_constant=no_constant)
        return answer

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        return self.answer(json.dumps({"command": command, "arguments": arguments}).encode())

    def test_table_has_every_command(self) -> None:
        """No command, and no argument, is without a check. `reload` is of the process; a front has some."""
        nodes = mock.Mock()
        commands = {*self.handlers, *self.streams, *NodeCommands(nodes).handlers, "reload"}
        self.assertEqual(commands, set(ARGUMENTS))

    @given(st.sampled_from(sorted(ARGUMENTS)), st.dictionaries(NAMES, PLAUSIBLE | VALUES))
    @example("trace", {"who": "alice", "seconds": -1})
    @example("trace", {"who": "alice", "seconds": float("nan")})
    @example("talkers", {"period": [1]})
    @example("why", {"who": "9" * 5000})
    @example("ban", {"network": "192.0.2.9", "seconds": 1e300})
    def test_any_arguments(self, command: str, arguments: dict[str, Any]) -> None:
        """Arguments of any type have an answer or an error of one line."""
        known = ARGUMENTS[command]
        for each in (arguments, {k: v for k, v in arguments.items() if k in known}):
            answer = self.ask(command, **each)
            self.assertIn(next(iter(answer)), ("error", "item", "result"))
            self.assertNotIn("internal error", str(answer.get("error")))
            self.assertNotIn("\n", str(answer.get("error")))

    @given(VALUES | st.dictionaries(st.sampled_from(["command", "arguments"]), VALUES))
    def test_any_json(self, message: object) -> None:
        """JSON that is no request is an error that shows one."""
        self.assertIn("not a request", self.answer(json.dumps(message).encode()).get("error", ""))

    def test_wrong_arguments_are_named(self) -> None:
        """An error names the command, the argument, and what it must be."""
        for command, arguments, text in (
            ("kick", {}, "kick: who must be a text of 1 to 1000 characters"),
            ("kick", {"who": ""}, "kick: who must be a text of 1 to 1000 characters"),
            ("why", {"who": "9" * (MAX_TEXT + 1)}, "why: who must be a text of 0 to 1000"),
            ("bans", {"number": 2.5}, "bans: number must be a whole number from 1 to 10000"),
            ("who", {"number": True}, "who: number must be a whole number from 1 to 10000"),
            ("ban", {"network": "192.0.2.9", "seconds": -5}, "ban: seconds must be a number from"),
            ("ban", {"network": "192.0.2.9", "force": "no"}, "ban: force must be true or false"),
            ("talkers", {"by": "x"}, "talkers: by must be one of commands, octets, busy, resets"),
            ("advise", {"forgot": True}, "advise: unknown argument 'forgot'; known are forget"),
            ("status", {"x": 1}, "status: unknown argument 'x'; known are none"),
        ):
            self.assertIn(text, self.ask(command, **arguments)["error"])

    def test_number_that_is_not_finite(self) -> None:
        """Python writes and reads NaN and Infinity, which are not JSON. No argument may be one, and no answer has one."""
        for number in (float("nan"), float("inf"), -float("inf")):
            for command, known in ARGUMENTS.items():
                for name in known:
                    self.assertTrue(problem_of(command, {"who": "x", "network": "x", name: number}))
            self.assertRaises(ValueError, encode_result, {"seconds": number})

    def test_null_is_a_missing_argument(self) -> None:
        """Programs may send null for an argument that they do not give."""
        answer = self.ask("ban", network="192.0.2.9", seconds=None, force=None)
        self.assertEqual(answer["result"]["seconds"], self.server.factory.limits.ban_seconds)
        self.assertEqual(len(self.ask("who", who=None)["result"]), 2)

    def test_refused_traces_take_no_place(self) -> None:
        """However many traces are refused, or end, the next one begins."""
        for _ in range(20):
            self.assertIn("seconds", self.ask("trace", who="alice", seconds=-1)["error"])
            self.assertIn("alice: 1 connection now", self.ask("trace", who="alice")["item"])
