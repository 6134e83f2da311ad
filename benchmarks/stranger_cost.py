"""Measures how much memory clients take that have not logged in, in the worst states in which they can wait.

    python -m benchmarks.stranger_cost
    python -m benchmarks.stranger_cost --connections 9000 --only 'half of a long ID over TLS'

For each state a fresh server gets many connections that stay in the state. The table shows the resident memory of the
server for each connection beside B, the most that one client may take (`imapshield.guard.memory_budget`), and what the
kernel holds in socket buffers of both sides. A row above 1.1 B, or a greeted connection above its share, is
exit status 1. So is a row in which the server has cut connections: its figure would be too low.
"""

from __future__ import annotations

import argparse
import re
import resource
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks import peers
from benchmarks.processes import resident
from imapshield.guard.memory_budget import (
    CONNECTION_BYTES,
    TLS_BYTES,
    bytes_per_stranger,
    stranger_cost,
)
from imapshield.limits import Limits

KB = 1 << 10
_LIMITS = Limits()
_PAGE = 4 * KB


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


class Clients:
    """Many connections in the same state.

    Args:
        port: the port of the server.
        state: what each connection sends.
        context: for TLS from the beginning, or None.
    """

    def __init__(self, port: int, state: State, context: ssl.SSLContext | None) -> None:
        self._port, self._state, self._context = port, state, context
        self._sockets: list[socket.socket] = []

    def add(self, count: int) -> None:
        """Bring `count` more connections into the state."""
        for _ in range(count):
            self._sockets.append(self._connect(f"127.0.1.{len(self._sockets) % 250 + 1}"))

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
        with suppress(OSError):  # the server has cut it, which `cut` counts
            if state.data:
                raw.sendall(state.data)
        return raw

    def cut(self) -> int:
        """Return how many connections the server has ended."""
        count = 0
        for connection in self._sockets:
            connection.setblocking(False)
            try:
                while self._state.reads:
                    if not connection.recv(64 * KB):
                        count += 1
                        break
                else:
                    connection.send(b"")
            except (BlockingIOError, ssl.SSLWantReadError):
                pass
            except OSError:
                count += 1
        return count

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
        assert self._context is not None
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        with suppress(ssl.SSLWantReadError):
            self._context.wrap_bio(incoming, outgoing).do_handshake()
        raw = socket.create_connection((peers.HOST, self._port), 20, (source, 0))
        raw.sendall(outgoing.read())
        raw.recv(16 * KB)
        return raw


def kernel_bytes() -> int:
    """Return the bytes that the kernel holds for TCP sockets, of all programs."""
    text = Path("/proc/net/sockstat").read_text()
    return int(re.findall(r"TCP: .*mem (\d+)", text)[0]) * _PAGE


@dataclass(frozen=True, slots=True)
class Row:
    """What one state costs: bytes per connection, and how many connections the server has cut."""

    name: str
    connections: int
    memory: float
    kernel: float
    kept: float
    cut: int
    limit: int

    def problem(self) -> str:
        """Return what is wrong with the row, "" if nothing is."""
        if self.cut:
            return f"{self.cut} cut"
        return "above the limit" if self.memory > self.limit else ""

    def __str__(self) -> str:
        values = self.memory / KB, self.limit / KB, self.kernel / KB, self.kept / KB
        columns = "".join(f"{value:9.1f}" for value in values)
        return f"{self.name:<45}{self.connections:>7}{columns}  {self.problem()}"


def measure(
    clients: Clients, pid: int, connections: int, limit: int, name: str, released: float
) -> Row:
    """Return the cost of `connections` more connections, after a hundred that warm the server up."""
    clients.add(100)
    time.sleep(1)
    before, kernel = resident(pid), kernel_bytes()
    clients.add(connections)
    time.sleep(1)
    memory, held = resident(pid) - before, kernel_bytes() - kernel
    cut = clients.cut()
    clients.close()
    time.sleep(released)
    kept = resident(pid) - before
    return Row(
        name,
        connections,
        memory / connections,
        held / connections,
        kept / connections,
        cut,
        limit,
    )


@contextmanager
def server(folder: Path) -> Iterator[tuple[peers.Peer, int]]:
    """Start a server; yields it and its port for TLS from the beginning."""
    certificate = folder / "server.pem"
    if not certificate.exists():
        command = (
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj"
            f" /CN=localhost -keyout {certificate} -out {folder}/certificate.pem"
        )
        subprocess.run(command.split(), check=True, stderr=subprocess.DEVNULL)
        with certificate.open("a") as file:
            file.write((folder / "certificate.pem").read_text())
    port = peers.free_port()
    listen = f"ssl:{port}:interface={peers.HOST}:privateKey={certificate}:certKey={certificate}"
    options = ["--listen", listen, "--certificate", str(certificate)]
    for name, value in (
        ("preauth_seconds", 3600),
        ("max_connections", 15_000),
        ("max_preauth_connections", 15_000),
        ("max_preauth_per_address", 15_000),
        ("connections_per_minute", 1e6),
        ("max_memory_bytes", 4 << 30),
    ):
        options += ["--limit", f"{name}={value}"]
    with peers.start("imapshield", folder, options) as peer:
        yield peer, port


def rows(connections: int, only: str, released: float, folder: Path) -> Iterator[Row]:
    """Measure each state whose name matches `only`, without and with TLS, on a server of its own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    limit = bytes_per_stranger(_LIMITS) * 11 // 10
    plans: list[tuple[str, State, type[Clients], bool]] = []
    for state in STATES:
        plans += [
            (state.name, state, Clients, False),
            (f"{state.name} over TLS", state, Clients, True),
        ]
        if state.name == "half of a long ID":
            plans.append(("half of a long ID and of a record of TLS", state, HalfRecords, True))
    plans.append(("half of a TLS handshake", STATES[0], HalfHandshakes, True))
    for name, state, kind, tls in plans:
        if re.search(only, name):
            with server(folder) as (peer, tls_port):
                port = tls_port if tls else peer.port
                clients = kind(port, state, context if tls else None)
                share = state.limit and state.limit + tls * TLS_BYTES
                allowed = share if share and kind is Clients else limit
                yield measure(clients, peer.pid, connections, allowed, name, released)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return the exit status."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--only", default="", metavar="REGEX", help="measure only matching states")
    parser.add_argument(
        "--released", type=float, default=2, help="seconds after which kept memory is measured"
    )
    options = parser.parse_args(arguments)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    total = bytes_per_stranger(_LIMITS)
    parts = ", ".join(f"{name} {size // KB}" for name, size in stranger_cost(_LIMITS).items())
    print(f"B = {total / KB:.0f} KiB: {parts}\nKiB for each connection:")
    print(f"{'state':<45}{'number':>7}{'memory':>9}{'limit':>9}{'kernel':>9}{'kept':>9}")
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        for row in rows(options.connections, options.only, options.released, Path(folder)):
            print(row, flush=True)
            failed |= bool(row.problem())
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
