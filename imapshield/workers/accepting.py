"""Which worker accepts the next connection.

All workers listen on the same sockets, and the kernel wakes one of those that wait: the first in its list. IMAP
connections stay for hours, so a worker that has more than the others leaves new connections to them. It still looks
every `LOOK_SECONDS`: they may be too busy, or hang. All look every `HUNG_SECONDS`, and when a worker has ended: one
that was woken may not have run since.

Connections that are reset before they begin count for nobody. So a worker that has accepted many more in a second than
another one that waits for connections leaves new ones to it, too. Otherwise the first in the list would get nearly all
of a flood of them.

Each worker writes how many connections it has into memory that all processes of the server share. A message would come
too late: a client opens its 20 connections in less time than two processes need to tell each other.
"""

import mmap
import os
import select
import tempfile
from collections.abc import Callable, Sized
from typing import Any

from twisted.internet.task import LoopingCall

from imapshield import events

LOOK_SECONDS = 0.05
"""Seconds that a connection waits if those workers do not accept it that have fewer."""

HUNG_SECONDS = 1.0
"""Seconds that a connection waits for a worker that hangs since it was woken for it."""

MORE_CONNECTIONS, MORE_SHARE = 1, 1.1
"""A worker is ahead if it has more connections than so many times those of the one that has fewest, and so many more
(the first of the two numbers)."""

MORE_ACCEPTED, MORE_ACCEPTED_SHARE = 100, 1.5
"""A worker has accepted too many if these are more than so many times what another one has accepted in the same
second, and so many more. Workers that share clients by their connections stay below it."""

CHECK_EACH = 8
"""Accepted connections between two comparisons with other workers."""

_SIZE = 8
_NOT_SERVING = -1
_WAITS, _LEAVES = 0, 1


class ConnectionCounts:
    """How many connections each worker has. Each writes its own numbers, in one store each; the workers count from 1.

    Args:
        descriptor: that of the memory, as `make` returns it.
        count: how many workers there are.
    """

    def __init__(self, descriptor: int, count: int) -> None:
        # For all workers: the connections; the second and, in the lower half, how many were accepted in it; whether
        # the worker leaves connections to others.
        self._numbers = memoryview(mmap.mmap(descriptor, 3 * count * _SIZE)).cast("q")
        self._count = count

    @staticmethod
    def make(count: int) -> int:
        """Return the descriptor of new memory, in which no worker serves yet."""
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("imapshield-connections")
        else:  # only Linux has memory with a descriptor
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.write(descriptor, b"\xff" * 3 * count * _SIZE)
        return descriptor

    def set(self, worker: int, connections: int = _NOT_SERVING) -> None:
        """Note how many connections a worker has; by default that it does not serve."""
        self._numbers[worker - 1] = connections

    def set_accepted(self, worker: int, second: int, accepted: int) -> None:
        """Note how many connections a worker has accepted in a second."""
        self._numbers[self._count + worker - 1] = (second << 32) + accepted

    def set_leaves(self, worker: int, leaves: bool) -> None:
        """Note whether a worker leaves connections to others."""
        self._numbers[2 * self._count + worker - 1] = _LEAVES if leaves else _WAITS

    def is_ahead(self, worker: int) -> bool:
        """Whether a worker has more connections than another one that serves."""
        serving = numbers = self._numbers[: self._count].tolist()
        if _NOT_SERVING in numbers:
            serving = [number for number in numbers if number != _NOT_SERVING]
        most = min(serving, default=0) * MORE_SHARE + MORE_CONNECTIONS
        return bool(numbers[worker - 1] > most)

    def has_accepted_more(self, worker: int, second: int) -> bool:
        """Whether a worker has accepted many more connections in this second than one that waits for connections."""
        numbers, count = self._numbers.tolist(), self._count
        accepted = [max(0, number - (second << 32)) for number in numbers[count : 2 * count]]
        own, number = accepted[worker - 1], worker - 1
        others = [
            accepted[n]
            for n in range(count)
            if n != number and numbers[n] != _NOT_SERVING and numbers[2 * count + n] == _WAITS
        ]
        return own > min(others, default=own) * MORE_ACCEPTED_SHARE + MORE_ACCEPTED


class Accepting(events.EventHandlers):
    """The listening ports of a worker. It is an observer of events, too: of connections that begin and end.

    Args:
        clock: an `IReactorTime`.
        counts: those of all workers.
        worker: the number of this one.

    Attributes:
        connections: those of this worker.
        is_ahead: whether it leaves connections to other workers.
    """

    def __init__(self, clock: Any, counts: ConnectionCounts, worker: int) -> None:
        self._clock, self._counts, self._worker = clock, counts, worker
        self._second = self._accepted = 0
        self.connections: Sized = ()
        self.is_ahead = False
        self._ports: list[Any] = []
        self._loop, self._slow_loop = LoopingCall(self._look), LoopingCall(self.look)
        self._loop.clock = self._slow_loop.clock = clock
        self.handlers = dict.fromkeys(
            (events.ConnectionOpened, events.ConnectionClosed), self.update
        )

    def add(self, port: Any) -> None:
        """Accept the connections of a port."""
        self._ports.append(port)
        port.factory.on_accept = self.accepted
        _wake_one(port)

    def begin(self) -> None:
        """Accept connections from now on."""
        self._counts.set_leaves(self._worker, False)
        self.update()
        self._slow_loop.start(HUNG_SECONDS, now=False)

    def update(self, event: events.Event | None = None) -> None:
        """Say how many connections there are, without the one whose end is the `event`, and compare that with others.

        Others leave no connections to a worker that stops, whose ports are closed.
        """
        is_end = type(event) is events.ConnectionClosed
        connections = max(0, len(self.connections) - is_end)
        for port in self._ports:
            if port.connected:
                break
        else:
            connections = _NOT_SERVING if self._ports else connections
        counts, worker = self._counts, self._worker
        counts.set(worker, connections)
        if is_end and not self.is_ahead:
            return
        second = int(self._clock.seconds())
        is_ahead = counts.is_ahead(worker) or (
            self._accepted > MORE_ACCEPTED and counts.has_accepted_more(worker, second)
        )
        if is_ahead == self.is_ahead:
            return
        self.is_ahead = is_ahead
        counts.set_leaves(worker, is_ahead)
        change: Callable[[Any], None] = _stop if is_ahead else _start
        for port in self._ports:
            change(port)
        if is_ahead:
            self._loop.start(LOOK_SECONDS, now=False)
        elif self._loop.running:
            self._loop.stop()

    def accepted(self) -> None:
        """Count a connection that was accepted, whatever becomes of it."""
        second = int(self._clock.seconds())
        if second != self._second:
            self._second, self._accepted = second, 0
        self._accepted += 1
        self._counts.set_accepted(self._worker, second, self._accepted)
        if not self._accepted % CHECK_EACH:
            self.update()

    def stop(self) -> None:
        """Look no more."""
        for loop in (self._loop, self._slow_loop):
            if loop.running:
                loop.stop()

    def look(self) -> None:
        """Accept what waits, unless other workers have fewer connections."""
        self.update()
        if not self.is_ahead:
            self._accept()

    def _look(self) -> None:
        self.update()
        self._accept()

    def _accept(self) -> None:
        for port in self._ports:
            if port.connected:
                port.doRead()


def _stop(port: Any) -> None:
    port.stopReading()


def _start(port: Any) -> None:
    if port.connected:
        port.startReading()
        _wake_one(port)


def _wake_one(port: Any) -> None:
    """Have the kernel wake one worker for a connection, and not all. The others would find that it is gone."""
    # That of Twisted's epoll reactor, which has no option for it.
    poller, epoll = getattr(port.reactor, "_poller", None), getattr(select, "epoll", None)
    if epoll is not None and isinstance(poller, epoll):
        poller.unregister(port.fileno())
        poller.register(port.fileno(), select.EPOLLIN | select.EPOLLEXCLUSIVE)
