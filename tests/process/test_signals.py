"""Signals call functions in the reactor."""

import os
import signal
from collections.abc import Callable
from signal import SIGHUP, SIGINT, SIGTERM, SIGUSR1

from twisted.trial.unittest import SynchronousTestCase

from imapshield.process.signals import ProcessSignals, keep_early_signals, stop_once


class QueueingReactor:
    """Runs calls from threads in `run`, as a reactor that has not started yet does later."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], object]] = []

    def callFromThread(self, call: Callable[..., object], *args: object) -> None:
        self.calls.append(lambda: call(*args))

    def run(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class SignalTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = QueueingReactor()
        self.signals = ProcessSignals(self.reactor)
        for number in (SIGHUP, SIGUSR1):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        self.signals.install()
        self.seen: list[str] = []

    def handle(self) -> None:
        self.signals.handlers[SIGHUP] = lambda: self.seen.append("HUP")
        self.signals.handlers[SIGUSR1] = lambda: self.seen.append("USR1")

    def test_signals_call_their_handlers(self) -> None:
        """Each signal calls its handler in the reactor, whether it came before the handler or after."""
        os.kill(os.getpid(), SIGHUP)
        self.handle()
        self.assertEqual(self.seen, [])
        self.reactor.run()
        os.kill(os.getpid(), SIGUSR1)
        self.reactor.run()
        self.assertEqual(self.seen, ["HUP", "USR1"])

    def test_many_signals_are_one(self) -> None:
        """Signals that arrive before the reactor handles them are one, and one that comes later is another."""
        self.handle()
        for _ in range(2):
            for _ in range(10):
                self.signals.received(SIGHUP)
            self.assertEqual(len(self.reactor.calls), 1)
            self.reactor.run()
        self.assertEqual(self.seen, ["HUP", "HUP"])

    def test_signal_without_handler_does_nothing(self) -> None:
        """A signal that arrives while the server starts does not end the process."""
        os.kill(os.getpid(), SIGUSR1)
        self.reactor.run()

    def test_twistd_leaves_the_signal(self) -> None:
        """Twistd takes SIGUSR1 only if it has no handler yet."""
        self.assertTrue(signal.getsignal(SIGUSR1))

    def test_signals_of_the_first_second(self) -> None:
        """Signals that come while the server is imported are handled later, once, by the first that handles signals."""
        keep_early_signals()
        for number in (SIGHUP, SIGHUP, SIGUSR1):
            os.kill(os.getpid(), number)
        self.handle()
        for _ in range(2):
            self.signals.install()
            self.reactor.run()
            self.assertEqual(sorted(self.seen), ["HUP", "USR1"])


class StoppingReactor:
    """Has the handlers of signals that a reactor has, and the functions that it calls when it runs and when it stops."""

    def __init__(self) -> None:
        self.stops: list[int] = []
        self.before_shutdown: list[Callable[[], object]] = []

    def callWhenRunning(self, call: Callable[[], object]) -> None:
        if not self.before_shutdown:
            for number in (SIGTERM, SIGINT):
                signal.signal(number, lambda received, _: self.stops.append(received))
        call()

    def stop(self) -> None:
        self.stops.append(0)

    def addSystemEventTrigger(self, phase: str, event: str, call: Callable[[], object]) -> None:
        assert (phase, event) == ("before", "shutdown")
        self.before_shutdown.append(call)


class StopTests(SynchronousTestCase):
    def setUp(self) -> None:
        for number in (SIGTERM, SIGINT):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        self.reactor = StoppingReactor()
        self.stop = stop_once(self.reactor)

    def test_first_signal_stops(self) -> None:
        """Of several signals the first one stops the reactor, and the others do nothing."""
        for number in (SIGTERM, SIGTERM, SIGINT):
            os.kill(os.getpid(), number)
        self.assertEqual(self.reactor.stops, [SIGTERM])

    def test_signal_of_a_reactor_that_stops(self) -> None:
        """A signal does nothing when the reactor stops for another reason."""
        for call in self.reactor.before_shutdown:
            call()
        os.kill(os.getpid(), SIGTERM)
        self.assertEqual(self.reactor.stops, [])

    def test_signal_and_function(self) -> None:
        """A signal and the function stop the reactor once together, whichever is first."""
        self.stop()
        self.stop()
        os.kill(os.getpid(), SIGTERM)
        self.assertEqual(self.reactor.stops, [0])
        other = StoppingReactor()
        stop = stop_once(other)
        os.kill(os.getpid(), SIGTERM)
        stop()
        self.assertEqual(other.stops, [SIGTERM])

    def test_ignored_signal(self) -> None:
        """A signal that is ignored stays so."""
        signal.signal(SIGINT, signal.SIG_IGN)
        self.patch(self.reactor, "callWhenRunning", lambda call: call())
        stop_once(self.reactor)
        self.assertEqual(signal.getsignal(SIGINT), signal.SIG_IGN)
