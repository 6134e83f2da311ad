"""The attackers of a flood: each is a process that sends NOOPs on several connections from one address.

They send `a NOOP` packed into full TCP segments, as in Microsoft's KB Q230285, and connect again whenever
they are disconnected. They end by themselves at a time that is fixed before they start, whatever happens to
the process that has started them.
"""

from __future__ import annotations

import multiprocessing
import signal
import socket
import struct
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection

from benchmarks.client import ServerError

FRAME = b"a NOOP\r\n" * 187  # 1,496 bytes: what the attackers of Exchange put into one segment
CONNECTIONS = 4
FRAMES_PER_SECOND = 2000.0
CONNECTS_PER_SECOND = 200.0
SOURCES = ("127.0.0.2", "127.0.0.3", "127.0.0.4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What each attacker does; the rates are limited so that a machine with two cores can run it.

    Attributes:
        host: the server's address.
        port: the server's port.
        seconds: the duration of the flood.
        connections: how many connections each attacker has at once.
        frames_per_second: the limit of frames that each attacker sends.
        connects_per_second: the limit of connections that each attacker opens.
        reading: whether attackers read the responses.
        frame: what is sent repeatedly.
        stall_seconds: after so long without room in the send buffer an attacker closes the connection.
    """

    host: str
    port: int
    seconds: float = 10
    connections: int = CONNECTIONS
    frames_per_second: float = FRAMES_PER_SECOND
    connects_per_second: float = CONNECTS_PER_SECOND
    reading: bool = False
    frame: bytes = FRAME
    stall_seconds: float = 1


@dataclass(slots=True)
class Tally:
    """What happened to the attackers.

    Attributes:
        connections: attempts to connect.
        resets: connections that ended with a RST.
        closed: connections that ended in an orderly way.
        stalled: connections that an attacker gave up, because the server did not read.
        refused: attempts that failed.
        bytes_sent: sent to the server.
        bytes_received: received from the server; 0 unless attackers read.
    """

    connections: int = 0
    resets: int = 0
    closed: int = 0
    stalled: int = 0
    refused: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0

    def add(self, other: Tally) -> None:
        """Add the numbers of another attacker."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)


class Attacker:
    """A process that attacks; spawned and not forked, so that the caller may have threads and a reactor."""

    def __init__(self, plan: Plan, source: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, child_pipe = context.Pipe()
        self._seconds = plan.seconds
        self._process = context.Process(
            target=_attack, args=(child_pipe, plan, source), daemon=True
        )
        self._process.start()
        child_pipe.close()

    def start(self) -> None:
        """Wait until the process is ready, and let it attack."""
        self._receive(30)
        self._pipe.send("start")

    def result(self) -> Tally:
        """Wait until the attack has ended, and return what happened."""
        tally = self._receive(self._seconds + 15)
        assert isinstance(tally, Tally)
        return tally

    def _receive(self, seconds: float) -> object:
        if not self._pipe.poll(seconds):
            raise ServerError("an attacker does not respond")
        return self._pipe.recv()

    def stop(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(2)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _attack(pipe: Connection, plan: Plan, source: str) -> None:
    """Run in an attacker's process: send "ready", wait for a message, attack, send the tally."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, which closes the pipe
    pipe.send("ready")
    try:
        pipe.recv()
    except EOFError:
        return
    tally = Tally()
    slots = [_Slot(plan, source, tally) for _ in range(plan.connections)]
    started = time.monotonic()
    frames = 0
    while (elapsed := time.monotonic() - started) < plan.seconds and not pipe.poll():
        progress = False
        for slot in slots:
            if slot.socket is None and tally.connections < plan.connects_per_second * elapsed + 1:
                slot.connect()
            if slot.socket is not None and frames < plan.frames_per_second * elapsed + 1:
                sent = slot.send()
                frames += sent
                progress = progress or sent
        if not progress:
            time.sleep(0.001)
    for slot in slots:
        slot.disconnect()
    with suppress(BrokenPipeError):
        pipe.send(tally)


@dataclass
class _Slot:
    """One connection of an attacker at a time; `connect` replaces one that has ended."""

    plan: Plan
    source: str
    tally: Tally
    socket: socket.socket | None = None
    _unsent: bytes = b""
    _last_sent_at: float = 0

    def connect(self) -> None:
        self.tally.connections += 1
        try:
            connection = socket.create_connection(
                (self.plan.host, self.plan.port), 0.5, (self.source, 0)
            )
        except OSError:
            self.tally.refused += 1
            return
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Close with a RST, so that no address runs out of ports because of TIME_WAIT.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.setblocking(False)
        self.socket, self._unsent, self._last_sent_at = connection, b"", time.monotonic()

    def send(self) -> bool:
        """Send a frame, or the rest of one; return whether any byte was sent."""
        assert self.socket is not None
        try:
            if self.plan.reading:
                self._read()
            data = self._unsent or self.plan.frame
            count = self.socket.send(data)
        except BlockingIOError:
            if time.monotonic() - self._last_sent_at > self.plan.stall_seconds:
                self.tally.stalled += 1
                self.disconnect()
            return False
        except ConnectionResetError:
            self.tally.resets += 1
            self.disconnect()
            return False
        except OSError:  # EPIPE: the server had closed the connection before it received more
            self.tally.closed += 1
            self.disconnect()
            return False
        self.tally.bytes_sent += count
        self._unsent = data[count:]
        self._last_sent_at = time.monotonic()
        return True

    def _read(self) -> None:
        assert self.socket is not None
        with suppress(BlockingIOError):
            while data := self.socket.recv(65536):
                self.tally.bytes_received += len(data)
            raise BrokenPipeError

    def disconnect(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None
