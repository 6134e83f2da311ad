"""The program of ``--ban-command``: its arguments, one process at a time, and failures."""

import os
import sys
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import provider

from imapshield.edge.ban_command import BanCommand, parse_command
from imapshield.guard.bans import Bans
from imapshield.guard.networks import NetworkSet
from imapshield.limits import Limits


class FakeProcess:
    """The transport of a process that runs until `end`."""

    def __init__(self, protocol: Any, argv: list[str], environ: dict[str, str]) -> None:
        self.protocol, self.argv, self.environ = protocol, argv, environ
        self.signals: list[str] = []
        self.closed: list[str] = []
        self.exited = False
        protocol.makeConnection(self)

    def closeStdin(self) -> None:
        self.closed.append("stdin")

    def loseConnection(self) -> None:
        self.closed.append("all")

    def signalProcess(self, name: str) -> None:
        if self.exited:
            raise ProcessExitedAlready
        self.signals.append(name)

    def end(self, status: int = 0) -> None:
        self.exited = True
        reason = ProcessTerminated(status) if status else ProcessDone(0)
        self.protocol.processExited(Failure(reason))


class FakeReactor(Clock):
    """A clock that starts fake processes."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[FakeProcess] = []
        self.error: Exception | None = None

    def spawnProcess(self, protocol: Any, program: str, argv: Any, environ: Any) -> None:
        if self.error is not None:
            raise self.error
        assert program == argv[0]
        self.processes.append(FakeProcess(protocol, argv, environ))


def collect_warnings(case: SynchronousTestCase) -> list[str]:
    warnings: list[str] = []

    @provider(ILogObserver)
    def observe(event: dict[str, Any]) -> None:
        if "problem" in event:
            warnings.append(event["log_format"].format(**event))

    globalLogPublisher.addObserver(observe)
    case.addCleanup(globalLogPublisher.removeObserver, observe)
    return warnings


class BanCommandTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.bans = Bans(Limits())
        trusted = NetworkSet.parse(["127.0.0.0/8", "10.0.0.1"])
        self.command = BanCommand(
            ["/bin/x", "-y"], trusted, reactor=self.reactor, now=self.reactor.seconds
        )
        self.warnings = collect_warnings(self)

    def ban(self, network: str, *, strangers_only: bool = False) -> None:
        now = self.reactor.seconds()
        self.command.ban(self.bans.ban(network, "x", now, strangers_only=strangers_only))

    @property
    def calls(self) -> list[str]:
        return [" ".join(process.argv) for process in self.reactor.processes]

    def test_one_process_at_a_time(self) -> None:
        """Each ban is one call, and the next one begins when it has ended. Nothing but PATH is in its environment."""
        for network in ("192.0.2.7", "2001:db8::1"):
            self.ban(network)
        self.command.unban("192.0.2.8/32")
        self.assertEqual(self.calls, ["/bin/x -y ban 192.0.2.7/32 600"])
        first = self.reactor.processes[0]
        self.assertEqual((list(first.environ), first.closed), (["PATH"], ["stdin"]))
        self.reactor.advance(5)
        first.end()
        self.assertEqual(first.closed, ["stdin", "all"])
        self.reactor.advance(0)
        self.reactor.processes[1].end()
        self.reactor.advance(0)
        self.assertEqual(
            self.calls[1:], ["/bin/x -y ban 2001:db8::/64 595", "/bin/x -y unban 192.0.2.8/32"]
        )
        self.reactor.processes[2].end()
        self.assertEqual((self.reactor.getDelayedCalls(), self.warnings), ([], []))

    def test_honest_users_are_not_passed_on(self) -> None:
        """Neither a trusted network, nor one around it, nor a shared address is passed on."""
        for network in ("127.0.0.1", "10.0.0.1", "10.0.0.0/8"):
            self.ban(network)
        self.ban("192.0.2.7", strangers_only=True)
        self.assertEqual(self.calls, [])

    def test_timeout(self) -> None:
        """A process that takes more than ten seconds is killed, and the next one is started a second later."""
        self.ban("192.0.2.7")
        self.ban("192.0.2.8")
        self.reactor.advance(10)
        process = self.reactor.processes[0]
        self.assertEqual(process.signals, ["KILL"])
        process.end(9)
        self.reactor.advance(0.9)
        self.assertEqual(len(self.calls), 1)
        self.reactor.advance(0.1)
        self.assertEqual(len(self.calls), 2)
        self.assertIn("--ban-command failed: killed after 10 seconds", self.warnings[0])

    def test_end_at_the_moment_of_the_timeout(self) -> None:
        """A process that has just ended cannot be killed, which is no error."""
        self.ban("192.0.2.7")
        self.reactor.processes[0].exited = True
        self.reactor.advance(10)
        self.reactor.processes[0].end()
        self.assertEqual(len(self.warnings), 1)

    def test_failures_are_one_line_a_minute(self) -> None:
        """Failures are logged with the beginning of the output, at most once a minute, with their number."""
        for n in range(200):
            self.ban(f"192.0.2.{n}")
            process = self.reactor.processes[-1]
            process.protocol.childDataReceived(2, b"no\nrights" * 1000)
            process.end(1)
            self.reactor.advance(1)
        self.assertEqual(len(self.warnings), 4)
        self.assertIn("/bin/x -y ban 192.0.2.0/32 600;", self.warnings[0])
        self.assertIn("exit status 1; output: no\\nrights", self.warnings[0])
        self.assertLess(len(self.warnings[0]), 500)
        self.assertIn("failures since the last such line: 60;", self.warnings[1])

    def test_process_that_cannot_be_started(self) -> None:
        """If no process can be started, that is logged, and one attempt is made each second."""
        self.reactor.error = OSError(11, "Resource temporarily unavailable")
        for n in range(20):
            self.ban(f"192.0.2.{n}")
        self.reactor.advance(1)
        self.reactor.error = None
        self.assertEqual(len(self.warnings), 1)
        self.assertIn("Resource temporarily unavailable", self.warnings[0])
        self.reactor.advance(1)
        self.assertEqual(self.calls, ["/bin/x -y ban 192.0.2.2/32 598"])

    def test_stop(self) -> None:
        """`stop` waits for the running process and starts no other; it does not wait for a pause."""
        self.assertTrue(self.command.stop().called)
        for n in range(3):
            self.ban(f"192.0.2.{n}")
        stopping = self.command.stop()
        self.assertFalse(stopping.called)
        self.reactor.processes[0].end()
        self.assertTrue(stopping.called)
        self.assertEqual((len(self.calls), self.reactor.getDelayedCalls()), (1, []))

    def test_stop_kills_a_process_that_hangs(self) -> None:
        """A process that hangs when the server stops is killed after a second."""
        self.ban("192.0.2.1")
        stopping = self.command.stop()
        self.reactor.advance(0.9)
        self.assertEqual(self.reactor.processes[0].signals, [])
        self.reactor.advance(0.1)
        self.assertEqual(self.reactor.processes[0].signals, ["KILL"])
        self.reactor.processes[0].end(1)
        self.assertTrue(stopping.called)

    def test_stop_during_a_pause(self) -> None:
        """`stop` after a failure ends the pause."""
        self.ban("192.0.2.1")
        self.ban("192.0.2.2")
        self.reactor.processes[0].end(1)
        self.assertTrue(self.command.stop().called)
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class ParseCommandTests(SynchronousTestCase):
    def test_arguments(self) -> None:
        """The value is a program, found on PATH or by its path, and its arguments."""
        self.assertEqual(parse_command("sh -c 'a b'"), [parse_command("sh")[0], "-c", "a b"])
        self.assertEqual(parse_command(sys.executable), [sys.executable])

    def test_errors(self) -> None:
        """A value without an executable program is an error of one line."""
        for text in ("", "/no/such/program", __file__, "no-such-program x", "'"):
            self.assertRaises(ValueError, parse_command, text)
        error = self.assertRaises(ValueError, parse_command, f"{__file__} x")
        self.assertTrue(str(error).endswith(f"is not executable; run `chmod +x {__file__}`"), error)


class RealProcessTests(TestCase):
    def test_program_is_called_without_a_shell(self) -> None:
        """A real program gets the arguments, and its failure is logged with its output."""
        self.warnings = collect_warnings(self)
        path = os.path.abspath(self.mktemp())
        code = f"import sys; open({path!r}, 'a').write(repr(sys.argv[1:])); sys.exit('it failed')"
        now = reactor.seconds
        command = BanCommand([sys.executable, "-c", code], NetworkSet(), reactor=reactor, now=now)
        command.ban(Bans(Limits()).ban("192.0.2.7", "x", now()))

        def stopped(_: object) -> None:
            with open(path, encoding="utf-8") as file:
                self.assertRegex(file.read(), r"^\['ban', '192.0.2.7/32', '(600|599)'\]$")
            self.assertIn("failed: exit status 1; output: it failed", self.warnings[0])
            self.assertIn(f"{sys.executable} -c '", self.warnings[0])
            self.assertRegex(self.warnings[0], r"' ban 192.0.2.7/32 \d+; failures")

        waiting: Deferred[None] = command.stop()
        return waiting.addCallback(stopped)  # type: ignore[return-value]
