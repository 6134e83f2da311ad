"""Clients that have not logged in, in the worst states in which they can wait, for `benchmarks.stranger_cost`."""

from __future__ import annotations

import resource
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection

from benchmarks import peers
from imapshield.guard.memory_budget import CONNECTION_BYTES

KB = 1 << 10
PROCESSES = 4
"""Each holds a quarter of the connections, because the number of open files of a process is limited."""
FIRST_OF_PROCESS = 20_000
"""The first connection of one process has this number more than that of the process before."""


@dataclass(frozen=True, slots=True)
class State:
    """A state of a connection. `data` is sent after the greeting; `reads` says whether the client reads the rest."""

    name: str
    data: bytes = b""
    reads: bool = True
    limit: int = 0


def _literals(count: int, size: int) -> bytes:
    return b"a ID (" + b"".join(b"{%d+}\r\n%b " % (size, b"x" * size) for _ in range(count))


STATES = (
    State("greeted", limit=CONNECTION_BYTES),
    State("half of a line", b"a LOGIN " + b"x" * (8 * KB - 20)),
    State("half of a long ID", b"a ID (" + b"x" * (36 * KB - 20)),
    State("half of a literal", b"a LOGIN {4096+}\r\n" + b"x" * 4000),
    State("large literals", _literals(10, 4 * KB)[:-10]),
    State("small literals", _literals(64, 1)[:-3]),
    State("empty lines of a literal", b"a ID (" + b"{0+}\r\n " * 64),
    State("parentheses", b"a LOGIN " + b"(" * (8 * KB - 20)),
    State("parentheses of a long ID", b"a ID (" + b"(" * (36 * KB - 20)),
    State("bare CRs", b"a ID (" + b"\r" * (36 * KB - 20)),
    State("AUTHENTICATE", b"a AUTHENTICATE PLAIN\r\n"),
    State("unread responses", b"a CAPABILITY\r\n" * 100, reads=False),
    State("unread long responses", (b"x" * 600 + b" NOOP\r\n") * 40, reads=False),
    State("hundred commands", b"a NOOP\r\n" * 100),
)


def source_address(number: int) -> str:
    """Return the address of a connection. Ten connections share one, in a /21 of their own."""
    block = number // 10 + 32
    return f"127.{block // 32}.{block % 32 * 8}.1"


class Clients:
    """Many connections in the same state.

    Args:
        port: the port of the server.
        state: what each connection sends.
        context: for TLS from the beginning, or None.
        first: the number of the first connection, which determines its address.
    """

    def __init__(
        self, port: int, state: State, context: ssl.SSLContext | None, first: int = 0
    ) -> None:
        self._port, self._state, self._context = port, state, context
        self._first = first
        self._sockets: list[socket.socket] = []

    def add(self, count: int) -> None:
        """Bring `count` more connections into the state."""
        for _ in range(count):
            self._sockets.append(self._connect(source_address(self._first + len(self._sockets))))

    def _connect(self, source: str) -> socket.socket:
        state = self._state
        raw = socket.socket()
        if not state.reads:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2 * KB)
        raw.settimeout(20)
        raw.bind((source, 0))
        raw.connect((peers.HOST, self._port))
        if self._context is not None:
            raw = self._context.wrap_socket(raw)
        raw.recv(4096)
        # The server may have reset it, which `benchmarks.stranger_cost` counts.
        with suppress(OSError):
            if state.data:
                raw.sendall(state.data)
        return raw

    def close(self) -> None:
        """Close all connections."""
        for connection in self._sockets:
            connection.close()
        self._sockets.clear()


class HalfRecords(Clients):
    """Connections that hold what `State.data` says, and have sent half of a record of TLS."""

    def _connect(self, source: str) -> socket.socket:
        connection = super()._connect(source)
        raw = socket.socket(fileno=connection.detach())
        with suppress(OSError):
            raw.sendall(b"\x17\x03\x03\x40\x10" + b"x" * (16 * KB))
        return raw


class HalfHandshakes(Clients):
    """Connections that have sent the first message of TLS, and nothing after it."""

    def _connect(self, source: str) -> socket.socket:
        raw = socket.create_connection((peers.HOST, self._port), 20, (source, 0))
        raw.sendall(self._first_message())
        raw.recv(16 * KB)
        return raw

    def _first_message(self) -> bytes:
        assert self._context is not None
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        with suppress(ssl.SSLWantReadError):
            self._context.wrap_bio(incoming, outgoing).do_handshake()
        return outgoing.read()


class HalfMessages(HalfHandshakes):
    """Connections that have sent half of the first message of TLS."""

    def _connect(self, source: str) -> socket.socket:
        raw = socket.create_connection((peers.HOST, self._port), 20, (source, 0))
        message = self._first_message()
        raw.sendall(message[: len(message) // 2])
        return raw


KINDS: dict[str, type[Clients]] = {
    kind.__name__: kind for kind in (Clients, HalfRecords, HalfHandshakes, HalfMessages)
}


def unverified_context() -> ssl.SSLContext:
    """Return a context that accepts every certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _run(pipe: Connection, kind: str, port: int, state: State, tls: bool, first: int) -> None:
    """Hold connections in this process: add as many as each message says, until the other side closes the pipe."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    clients = KINDS[kind](port, state, unverified_context() if tls else None, first)
    with suppress(EOFError):
        while True:
            clients.add(pipe.recv())
            pipe.send(True)
    clients.close()


class ClientProcesses:
    """Many connections in the same state, in processes of their own; a context manager that ends them.

    Args:
        port, state: as for `Clients`.
        kind: a name in `KINDS`.
        tls: whether to use TLS from the beginning.
    """

    def __init__(self, port: int, state: State, kind: str, tls: bool) -> None:
        context = get_context("spawn")
        self._pipes, self._processes = [], []
        for number in range(PROCESSES):
            ours, theirs = context.Pipe()
            arguments = theirs, kind, port, state, tls, number * FIRST_OF_PROCESS
            process = context.Process(target=_run, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def __enter__(self) -> ClientProcesses:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, count: int) -> None:
        """Bring `count` more connections into the state.

        Raises:
            EOFError: a process has failed, and has printed why.
        """
        for number, pipe in enumerate(self._pipes):
            pipe.send(count // PROCESSES + (number < count % PROCESSES))
        for pipe in self._pipes:
            pipe.recv()

    def close(self) -> None:
        """Close all connections; may be called more than once."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join()
