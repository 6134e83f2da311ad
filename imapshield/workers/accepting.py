"""Which worker accepts the next connection.

All workers listen on the same sockets, and the kernel wakes all of them: whoever runs first accepts. On a busy machine
that is the same one for long, and IMAP connections stay for hours. So a worker that has more than the others leaves new
connections to them. It still looks every `LOOK_SECONDS`: they may be too busy, or hang.
"""

from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

from twisted.internet.task import LoopingCall

W = TypeVar("W", bound=Hashable)

LOOK_SECONDS = 0.05
"""Seconds that a connection waits if those workers do not accept it that have fewer."""

MORE_CONNECTIONS, MORE_SHARE = 8, 1.1
"""A worker is ahead if it has so many connections more, and so many times as many, as the one that has fewest."""


def ahead(connections: Mapping[W, int]) -> set[W]:
    """Return the workers that have more connections than others."""
    least = min(connections.values(), default=0)
    most = least * MORE_SHARE + MORE_CONNECTIONS
    return {worker for worker, number in connections.items() if number > most}


class Accepting:
    """The listening ports of a worker.

    Args:
        clock: an `IReactorTime`.
    """

    def __init__(self, clock: Any) -> None:
        self._ports: list[Any] = []
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock

    def add(self, port: Any) -> None:
        """Accept the connections of a port."""
        self._ports.append(port)

    def set_ahead(self, *, is_ahead: bool) -> None:
        """Leave connections to other workers from now on, or no more."""
        change: Callable[[Any], None] = _stop if is_ahead else _start
        for port in self._ports:
            change(port)
        if is_ahead and not self._loop.running:
            self._loop.start(LOOK_SECONDS, now=False)
        elif not is_ahead:
            self.stop()

    def stop(self) -> None:
        """Look no more."""
        if self._loop.running:
            self._loop.stop()

    def _look(self) -> None:
        for port in self._ports:
            if port.connected:
                port.doRead()


def _stop(port: Any) -> None:
    port.stopReading()


def _start(port: Any) -> None:
    if port.connected:
        port.startReading()
