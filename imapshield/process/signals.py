"""`ProcessSignals`: SIGHUP and SIGUSR1, which would end the process without a line in the log.

And `stop_once`: of all that would stop the reactor, the first one does.
"""

import signal
from collections.abc import Callable
from functools import partial
from signal import SIGHUP, SIGINT, SIGTERM, SIGUSR1
from typing import Any

__all__ = ["SIGHUP", "SIGUSR1", "ProcessSignals"]


_early: set[int] = set()


def keep_early_signals() -> None:
    """Keep the signals for `ProcessSignals` from now on, without a reactor, which takes most of a second to import."""
    for number in (SIGHUP, SIGUSR1):
        signal.signal(number, lambda received, _: _early.add(received))


def stop_once(reactor: Any) -> Callable[[], None]:
    """Let SIGTERM and SIGINT do nothing when the reactor stops already, in place of a traceback of Twisted.

    Args:
        reactor: an `IReactorCore` whose handlers of signals are installed when it runs.

    Returns:
        a function that stops the reactor when it runs, and does nothing either when it stops already. A signal that has
        arrived stops it a moment later, so that nobody else must.
    """
    # A signal may arrive between any two instructions, but not within a call of `next`.
    begins = partial(next, iter([True]), False)

    def wrap(number: int) -> None:
        stop = signal.getsignal(number)
        if not callable(stop):
            return

        def received(received: int, frame: Any) -> None:
            if begins():
                stop(received, frame)

        signal.signal(number, received)

    def wrap_all() -> None:
        for number in (SIGTERM, SIGINT):
            wrap(number)

    reactor.callWhenRunning(wrap_all)
    reactor.addSystemEventTrigger("before", "shutdown", begins)

    def stop() -> None:
        if begins():
            reactor.stop()

    return lambda: reactor.callWhenRunning(stop)


class ProcessSignals:
    """Calls functions in the reactor when a signal has arrived.

    A signal that arrives before the reactor runs is not lost, not even one that `keep_early_signals` has kept. Several
    that arrive at once are one.

    Args:
        reactor: an `IReactorFromThreads`.

    Attributes:
        handlers: signal → what is called. A signal without one is ignored.
    """

    def __init__(self, reactor: Any) -> None:
        self.handlers: dict[int, Callable[[], object]] = {}
        self._reactor = reactor
        self._pending: set[int] = set()

    def install(self) -> None:
        """Handle the signals from now on. twistd leaves SIGUSR1 to a program that does."""
        for number in (SIGHUP, SIGUSR1):
            signal.signal(number, self.received)
        while _early:
            self.received(_early.pop())

    def received(self, number: int, frame: object = None) -> None:  # noqa: ARG002
        """Note a signal. Python calls this between two instructions of the main thread."""
        if number not in self._pending:
            self._pending.add(number)
            self._reactor.callFromThread(self._handle, number)

    def _handle(self, number: int) -> None:
        self._pending.discard(number)
        self.handlers.get(number, lambda: None)()
