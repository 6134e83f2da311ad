"""Signals and the control socket reload and log the state, and systemd is told."""

from collections.abc import Callable
from signal import SIGHUP, SIGUSR1
from typing import Any, cast

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from imapshield.config import ConfigError, Settings
from imapshield.control.request_lines import Request
from imapshield.process.process_control import ProcessControl
from imapshield.process.reload import Reloader
from imapshield.process.signals import ProcessSignals
from imapshield.process.systemd import Notifier

STATUS = {
    "version": "1",
    "seconds": 9.6,
    "connections": 3,
    "without_login": 1,
    "max_connections": 100,
    "pending_commands": 7,
    "memory_of_connections": 5000,
    "max_memory": 9000,
    "bans": 2,
}


class FakeReactor(Clock):
    """A running reactor: it runs calls of other threads at once, and collects triggers."""

    def __init__(self) -> None:
        super().__init__()
        self.triggers: list[tuple[str, str, Callable[[], object]]] = []

    def callFromThread(self, call: Callable[..., object], *arguments: object) -> None:
        call(*arguments)

    def callWhenRunning(self, call: Callable[[], object]) -> None:
        call()

    def addSystemEventTrigger(self, phase: str, event: str, call: Callable[[], object]) -> None:
        self.triggers.append((phase, event, call))


class ProcessControlTests(SynchronousTestCase):
    """`sent` is what systemd is told."""

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.sent: list[str] = []
        self.notifier = Notifier({"NOTIFY_SOCKET": "/run/x"}, self.reactor, lambda: 7000)
        self.patch(self.notifier, "_send", lambda *fields: self.sent.append(" ".join(fields)))
        self.load: Callable[[], Settings] = Settings
        self.status: Any = self.fixed_status
        self.signals = ProcessSignals(self.reactor)

    async def fixed_status(self, request: Request) -> dict[str, Any]:
        return STATUS

    def call_load(self) -> Settings:
        return self.load()

    def start(self) -> ProcessControl:
        reloader = Reloader(Settings(), self.call_load, {}, run_in_thread=maybeDeferred)
        control = ProcessControl(reloader, self.notifier, self.status, cast("Any", self.reactor))
        control.start(self.signals)
        return control

    def signal(self, number: int) -> list[str]:
        """Deliver a signal, and return what is logged."""
        with capturedLogs() as logged:
            self.signals.received(number)
        return [formatEvent(event) for event in logged]

    def test_systemd_is_told_about_the_life_of_the_server(self) -> None:
        """Systemd is told when the server serves, reloads and begins to stop."""
        self.start()
        self.assertEqual(self.sent[0], "READY=1")
        self.assertEqual(self.signal(SIGHUP), ["reloaded: changes=0 problems=0"])
        self.assertEqual(self.sent[2:], ["RELOADING=1 MONOTONIC_USEC=7", "READY=1"])
        ((phase, event, stop),) = self.reactor.triggers
        self.assertEqual((phase, event), ("before", "shutdown"))
        stop()
        self.assertEqual(self.sent[4:], ["STOPPING=1"])

    def test_status_is_one_line(self) -> None:
        """SIGUSR1 logs what the server is doing in one line."""
        self.start()
        expected = (
            "status connections=3 without-login=1 max-connections=100 pending=7 memory=5000 max-memory=9000"
            " bans=2 seconds=10 version=1"
        )
        self.assertEqual(self.signal(SIGUSR1), [expected])

    def test_warnings_have_lines(self) -> None:
        """What is wrong is before that line, each with what to do."""

        async def status(_: Request) -> dict[str, Any]:
            return {**STATUS, "warnings": ["--user-map x: broken; mend it"]}

        self.status = status
        self.start()
        first, second = self.signal(SIGUSR1)
        self.assertEqual(first, "status: --user-map x: broken; mend it")
        self.assertTrue(second.startswith("status connections=3"), second)

    def test_status_for_systemd(self) -> None:
        """``systemctl status`` shows the state in words, from the start on."""
        control = self.start()
        expected = "STATUS=3 connections, 1 without a login, 7 commands pending, 2 bans"
        self.assertEqual(self.sent[-1], expected)
        control.update()
        self.assertEqual(len(self.sent), 2)

    def test_answer_of_the_control_socket(self) -> None:
        """The request ``reload`` is answered with what has changed, what needs a restart, and problems."""
        control = self.start()
        self.load = lambda: Settings(listen=("tcp:1",))
        answer = self.successResultOf(Deferred.fromCoroutine(control.reload(Request("reload"))))
        self.assertEqual(answer, {"changed": [], "needs_restart": ["listen"], "problems": []})

    def test_wrong_configuration_is_one_line(self) -> None:
        """A wrong configuration is one line, and systemd is told that the reload has ended."""
        self.start()

        def load() -> Settings:
            raise ConfigError("--config x: invalid TOML")

        self.load = load
        self.assertEqual(
            self.signal(SIGHUP), ["reload: --config x: invalid TOML; nothing is changed"]
        )
        self.assertEqual(self.sent[-1], "READY=1")

    def test_bugs_are_logged(self) -> None:
        """A bug in a reload or in the status is a traceback in the log, and the server goes on."""

        async def fail(request: Request) -> dict[str, Any]:
            raise ZeroDivisionError

        self.status = fail
        self.start()
        self.load = lambda: cast("Any", 1 / 0)
        self.signal(SIGHUP)
        self.signal(SIGUSR1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)
        self.assertEqual(self.sent[-1], "READY=1")

    def test_without_systemd_or_signals(self) -> None:
        """A program that embeds the server and does not use systemd is left alone."""
        self.notifier = Notifier({}, self.reactor)
        self.signals = cast("Any", None)
        self.start().update()
        self.assertEqual((self.sent, self.reactor.triggers), ([], []))
