"""The connections of the attackers: carries out the steps of `benchmarks.flood_attacks` on non-blocking sockets."""

from __future__ import annotations

import heapq
import random
import select
import socket
import struct
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from benchmarks.flood_attacks import (
    ATTACKS,
    TAG,
    Answers,
    Attack,
    Behaviour,
    Bot,
    Close,
    Ready,
    Receive,
    Send,
    Step,
)

SOURCES = tuple(f"127.0.0.{number}" for number in range(2, 7))
STALLED_SECONDS = 1
"""A connection is stalled if the server has read nothing for so long, and the attacker wants to send more."""
_BATCH = 200
_IP_BIND_ADDRESS_NO_PORT = 24
_CHUNK = 1 << 16
_KEPT = 8192
"""Bytes that wait for `Receive`: the flight of a TLS handshake, or the end of an answer to LOGIN."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the attackers do.

    Attributes:
        host: the server's address.
        port: the server's port.
        attack: a key of `ATTACKS`.
        seconds: the duration of the flood.
        connections: how many connections there are at once.
        sources: the addresses to connect from.
        users: the names of the attackers' accounts.
        password: the password of all of them.
        processor: where to run; None means anywhere.
    """

    host: str
    port: int
    attack: str
    seconds: float
    connections: int
    sources: tuple[str, ...] = SOURCES
    users: tuple[str, ...] = ()
    password: str = ""
    processor: int | None = None


@dataclass(slots=True)
class Tally:
    """What happened to the attackers. Each connection counts once, except in the last four lines.

    Attributes:
        connections: attempts to connect: the sum of the next seven.
        refused: attempts that failed, or were cut before the greeting.
        resets: connections that the server ended with a RST.
        closed: connections that the server ended with a FIN.
        finished: connections that the attacker ended by itself.
        stalled: connections that were open at the end, with a server that did not read.
        unserved: connections that had no greeting at the end.
        held: all others that were open at the end.
        ready: connections that were logged in when the attack began.
        answers: tagged responses to the attack that arrived; unread ones are counted at the end of a connection, and
            are lost if it ends with a RST.
        bytes_sent: sent to the server, of all connections.
        bytes_received: received from the server, of all connections.
        cut_after: seconds from connecting to the RST or FIN of the server.
        cpu: seconds of CPU that the attackers used during the attack.
    """

    connections: int = 0
    refused: int = 0
    resets: int = 0
    closed: int = 0
    finished: int = 0
    stalled: int = 0
    unserved: int = 0
    held: int = 0
    ready: int = 0
    answers: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    cut_after: list[float] = field(default_factory=list)
    cpu: float = 0.0


class TagCounter:
    """Counts the tagged responses of a stream, however it is split."""

    def __init__(self) -> None:
        self.count = 0
        self._tail = b"\r\n"

    def feed(self, data: bytes) -> None:
        """Count the responses that begin in `data`."""
        data = self._tail + data
        self.count += data.count(b"\r\n" + TAG + b" ")
        self._tail = data[-(len(TAG) + 2) :]


class _Connection:
    """One connection, and the steps of its bot that remain."""

    __slots__ = (
        "answers", "bot", "data", "greeted", "mask", "opened_at", "parked", "queued", "read_at",
        "socket", "steps", "unsent", "wanted",
    )  # fmt: skip

    def __init__(self, bot: Bot, steps: Behaviour, link: socket.socket, now: float) -> None:
        self.bot, self.steps, self.socket = bot, steps, link
        self.opened_at = self.read_at = now
        self.answers = TagCounter()
        self.greeted = self.parked = self.queued = False
        self.unsent = memoryview(b"")
        self.data = b""  # what has arrived since the last step
        self.wanted: Step | None = None
        self.mask = 0


class Swarm:
    """All connections of the attackers, on one epoll.

    A connection is in exactly one place: it waits for its socket (in epoll), for a time (in `_sleeping`), for
    the attack (in `_parked`), or for its turn (in `_runnable`).
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.tally = Tally()
        self._attack: Attack = ATTACKS[plan.attack]
        self._epoll = select.epoll()
        self._by_fd: dict[int, _Connection] = {}
        self._runnable: deque[_Connection] = deque()
        self._sleeping: list[tuple[float, int, _Connection]] = []
        self._parked: list[_Connection] = []
        self._waiting = deque(self._bot(number) for number in range(plan.connections))
        self._connects = self._sends = self._ticket = 0
        self._started = time.monotonic()

    def _bot(self, number: int) -> Bot:
        users = self.plan.users or ("",)
        user = users[number % len(users)]
        return Bot(number, user, self.plan.password, 0, random.Random(number))

    def prepare(self, seconds: float) -> None:
        """Connect and run every connection to its `Ready`; give up after `seconds`, or 3 without progress."""
        end = progress_at = time.monotonic()
        end += seconds
        before = 0
        while len(self._parked) < self.plan.connections and time.monotonic() < end:
            self._turn()
            if len(self._parked) != before:
                before, progress_at = len(self._parked), time.monotonic()
            elif time.monotonic() - progress_at > 3:
                break
        self.tally.ready = len(self._parked)

    def attack(self, seconds: float, pipe: Connection) -> None:
        """Attack for `seconds`, or until the pipe has a message or is closed."""
        parked, self._parked = self._parked, []
        for connection in parked:
            connection.parked = False
            self._queue(connection)
        self._started, self._connects, self._sends = time.monotonic(), 0, 0
        self.tally.answers = self.tally.bytes_sent = self.tally.bytes_received = 0
        end = self._started + seconds
        while time.monotonic() < end and not pipe.poll():
            self._turn()
            for connection in self._parked:  # logged in after the attack began
                connection.parked = False
                self._queue(connection)
            self._parked.clear()

    def close(self) -> None:
        """Count the connections that are open, and reset them."""
        now = time.monotonic()
        for connection in list(self._by_fd.values()):
            self._drain(connection)
            if not connection.greeted:
                self.tally.unserved += 1
            elif len(connection.unsent) and now - connection.read_at > STALLED_SECONDS:
                self.tally.stalled += 1
            else:
                self.tally.held += 1
            self._discard(connection)
        self._epoll.close()

    def _turn(self) -> None:
        now = time.monotonic()
        elapsed = now - self._started
        self._connect_some(now, self._attack.connects_per_second * elapsed + 50 - self._connects)
        while self._sleeping and self._sleeping[0][0] <= now:
            self._resume(heapq.heappop(self._sleeping)[2])
        for _ in range(min(_BATCH, len(self._runnable))):
            if self._sends > self._attack.sends_per_second * elapsed + 50:
                break
            self._resume(self._runnable.popleft())
        idle = not self._runnable and not self._waiting
        for fd, events in self._epoll.poll(0.002 if idle else 0, _BATCH):
            if connection := self._by_fd.get(fd):
                self._handle(connection, events)
        if self._runnable and self._sends > self._attack.sends_per_second * elapsed + 50:
            time.sleep(0.0005)

    def _connect_some(self, now: float, allowed: float) -> None:
        for _ in range(min(len(self._waiting), _BATCH, max(0, int(allowed)))):
            self._connect(self._waiting.popleft(), now)

    def _connect(self, bot: Bot, now: float) -> None:
        assert self._attack.behave is not None
        self._connects += 1
        self.tally.connections += 1
        link = socket.socket()
        link.setblocking(False)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The port is chosen by connect(), so that no address runs out of ports because of TIME_WAIT.
        link.setsockopt(socket.SOL_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        if not self._attack.reads:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            link.bind((self.plan.sources[bot.number % len(self.plan.sources)], 0))
            link.connect((self.plan.host, self.plan.port))
        except BlockingIOError:
            pass
        except OSError:
            link.close()
            self.tally.refused += 1
            self._waiting.append(bot)
            return
        connection = _Connection(bot, self._attack.behave(bot), link, now)
        bot.visits += 1
        self._by_fd[link.fileno()] = connection
        self._watch(connection, select.EPOLLOUT)

    def _watch(self, connection: _Connection, events: int) -> None:
        """Wait for events of a socket; its end is always one."""
        events |= select.EPOLLRDHUP | (select.EPOLLIN if self._attack.reads else 0)
        if connection.mask == 0:
            self._epoll.register(connection.socket, events)
        elif connection.mask != events:
            self._epoll.modify(connection.socket, events)
        connection.mask = events

    def _handle(self, connection: _Connection, events: int) -> None:
        if events & (select.EPOLLERR | select.EPOLLHUP | select.EPOLLRDHUP):
            self._ended(connection, events)
            return
        if events & select.EPOLLIN and not self._receive(connection):
            return
        if events & select.EPOLLOUT:
            if len(connection.unsent):
                self._send(connection)
            elif connection.wanted is None:  # connected
                self._resume(connection)
        elif not connection.queued and self._satisfied(connection):
            self._resume(connection)

    def _satisfied(self, connection: _Connection) -> bool:
        wanted = connection.wanted
        if isinstance(wanted, Answers):
            return connection.answers.count >= wanted.count
        return isinstance(wanted, Receive) and bool(connection.data)

    def _receive(self, connection: _Connection) -> bool:
        """Read once; return False if the connection has ended."""
        try:
            data = connection.socket.recv(_CHUNK)
        except BlockingIOError:
            return True
        except OSError:
            self._ended(connection, select.EPOLLERR)
            return False
        if not data:
            self._ended(connection, select.EPOLLRDHUP)
            return False
        self._take(connection, data)
        return True

    def _take(self, connection: _Connection, data: bytes) -> None:
        connection.greeted = True
        before = connection.answers.count
        connection.answers.feed(data)
        self.tally.answers += connection.answers.count - before
        self.tally.bytes_received += len(data)
        connection.data = (connection.data + data)[-_KEPT:]

    def _queue(self, connection: _Connection) -> None:
        connection.queued = True
        self._runnable.append(connection)

    def _resume(self, connection: _Connection) -> None:
        """Give a connection's steps what has arrived, and begin the next step."""
        connection.queued = False
        if connection.socket.fileno() < 0:
            return
        step, data = connection.wanted, b""
        if isinstance(step, Answers):
            connection.answers.count -= step.count
        if isinstance(step, Receive | Answers):
            data, connection.data = connection.data, b""
        try:
            step = connection.steps.send(data) if step is not None else next(connection.steps)
        except StopIteration:
            step = Close(reset=True)
        self._begin(connection, step)

    def _begin(self, connection: _Connection, step: Step) -> None:
        connection.wanted = step
        if isinstance(step, Send):
            self._sends += 1
            connection.unsent = memoryview(step.data)
            self._send(connection)
        elif isinstance(step, Receive | Answers):
            if self._satisfied(connection):
                self._queue(connection)
            else:
                self._watch(connection, select.EPOLLIN)
        elif isinstance(step, Close):
            self._drain(connection)
            self.tally.finished += 1
            self._discard(connection, step.reset)
            self._waiting.append(connection.bot)
        else:
            self._watch(connection, 0)
            if isinstance(step, Ready):
                connection.parked = True
                self._parked.append(connection)
            else:
                self._ticket += 1
                due = time.monotonic() + step.seconds
                heapq.heappush(self._sleeping, (due, self._ticket, connection))

    def _send(self, connection: _Connection) -> None:
        try:
            count = connection.socket.send(connection.unsent)
        except BlockingIOError:
            self._watch(connection, select.EPOLLOUT)
            return
        except OSError:
            self._ended(connection, select.EPOLLERR)
            return
        self.tally.bytes_sent += count
        connection.read_at = time.monotonic()
        connection.unsent = connection.unsent[count:]
        if len(connection.unsent):
            self._watch(connection, select.EPOLLOUT)
        else:
            self._watch(connection, 0)
            self._queue(connection)

    def _ended(self, connection: _Connection, events: int) -> None:
        """Count how the server has ended a connection."""
        if connection.socket.fileno() < 0:
            return
        self._drain(connection)
        error = connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        failed = error or events & select.EPOLLERR
        if not connection.greeted:
            self.tally.refused += 1
        else:
            self.tally.resets += bool(failed)
            self.tally.closed += not failed
            self.tally.cut_after.append(time.monotonic() - connection.opened_at)
        self._discard(connection)
        self._waiting.append(connection.bot)

    def _drain(self, connection: _Connection) -> None:
        """Read what has arrived, to count it."""
        with suppress(OSError):
            while data := connection.socket.recv(_CHUNK):
                self._take(connection, data)

    def _discard(self, connection: _Connection, reset: bool = True) -> None:
        del self._by_fd[connection.socket.fileno()]
        if connection.parked:
            self._parked.remove(connection)
        if reset:
            linger = struct.pack("ii", 1, 0)
            with suppress(OSError):
                connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        connection.socket.close()
        connection.steps.close()
