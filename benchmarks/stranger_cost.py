"""Measures how much memory clients take that have not logged in, in the worst states in which they can wait.

    python -m benchmarks.stranger_cost
    python -m benchmarks.stranger_cost --connections 1000 --only 'half of a long ID over TLS'

For each state a fresh server gets many connections that stay in the state. The table shows the resident memory of the
server for each connection beside B, the most that one client may take (`imapshield.guard.memory_budget`), and what the
kernel holds in socket buffers of both sides. A row above 1.1 B, or a greeted connection above its share, is
exit status 1. So is a row in which the server has cut connections: its figure would be too low.

The 10,000 connections come from a thousand addresses in networks of their own, and from four processes. Five limits
differ from their defaults:

* ``max_connections`` and ``max_preauth_connections``, because the defaults admit 5,000 strangers. `stranger_server`
  says what this has to do with open files. The share of an address stays 500.
* ``max_memory_bytes``, because the default lets all connections hold 256 MiB together.
* ``preauth_seconds`` and ``literal_seconds``, because 10,000 handshakes of TLS take longer than a client may wait.
"""

from __future__ import annotations

import argparse
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import peers
from benchmarks.processes import open_files, resident, wait_until_asleep
from benchmarks.stranger_clients import KB, STATES, ClientProcesses, State
from imapshield.guard.memory_budget import TLS_BYTES, bytes_per_stranger, stranger_cost
from imapshield.limits import Limits

_LIMITS = Limits()
_PAGE = 4 * KB


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


@dataclass(frozen=True, slots=True)
class Plan:
    """A state to measure, with the name of its row and a kind of `stranger_clients.KINDS`."""

    name: str
    state: State
    kind: str = "Clients"
    tls: bool = False

    def limit(self) -> int:
        """Return the most bytes that a connection may take."""
        if self.state.limit and self.kind == "Clients":
            return self.state.limit + self.tls * TLS_BYTES
        return bytes_per_stranger(_LIMITS) * 11 // 10


def measure(plan: Plan, port: int, pid: int, connections: int, released: float) -> Row:
    """Return the cost of `connections` more connections, after a hundred that warm the server up."""
    with ClientProcesses(port, plan.state, plan.kind, plan.tls) as clients:
        clients.add(100)
        wait_until_asleep(pid)
        before, kernel, files = resident(pid), kernel_bytes(), open_files(pid)
        clients.add(connections)
        wait_until_asleep(pid)
        memory, held = resident(pid) - before, kernel_bytes() - kernel
        cut = files + connections - open_files(pid)
    wait_until_asleep(pid)
    time.sleep(released)
    kept = resident(pid) - before
    return Row(
        plan.name,
        connections,
        memory / connections,
        held / connections,
        kept / connections,
        cut,
        plan.limit(),
    )


@contextmanager
def server(folder: Path, strangers: int) -> Iterator[tuple[peers.Peer, int]]:
    """Start a server that admits so many strangers; yields it and its port for TLS from the beginning."""
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
        ("max_connections", 2 * strangers),
        ("max_preauth_connections", strangers),
        ("max_memory_bytes", 4 << 30),
        ("preauth_seconds", 3600),
        ("literal_seconds", 3600),
    ):
        options += ["--limit", f"{name}={value}"]
    settings = peers.Settings(options, module=("benchmarks.stranger_server",))
    with peers.start_with("imapshield", folder, settings) as peer:
        yield peer, port


def plans() -> Iterator[Plan]:
    """Yield each state without and with TLS, and the states of TLS itself."""
    for state in STATES:
        yield Plan(state.name, state)
        yield Plan(f"{state.name} over TLS", state, tls=True)
        if state.name == "half of a long ID":
            yield Plan("half of a long ID and of a record of TLS", state, "HalfRecords", tls=True)
    yield Plan("half of a TLS handshake", STATES[0], "HalfHandshakes", tls=True)
    yield Plan("half of the first message of TLS", STATES[0], "HalfMessages", tls=True)


def rows(connections: int, only: str, released: float, folder: Path) -> Iterator[Row]:
    """Measure each state whose name matches `only`, on a server of its own."""
    for plan in plans():
        if re.search(only, plan.name):
            with server(folder, connections + 200) as (peer, tls_port):
                port = tls_port if plan.tls else peer.port
                yield measure(plan, port, peer.pid, connections, released)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return the exit status."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--connections", type=int, default=10_000)
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
