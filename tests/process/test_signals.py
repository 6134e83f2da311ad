"""Signals call functions in the reactor."""

import os
import signal
from collections.abc import Callable
from signal import SIGHUP, SIGUSR1

from twisted.trial.unittest import SynchronousTestCase

from imapshield.process.signals import ProcessSignals, keep_early_signals


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
