"""Measures what front mode costs, beside HAProxy in TCP mode and Dovecot without anything in front of it.

    python -m benchmarks.front_cost
    python -m benchmarks.front_cost --only NOOP --rounds 5

All are in one run, in turns, without TLS. The table shows the round trip of a NOOP, and the CPU time of the shield and
of HAProxy for large responses and messages. Then come the users in IDLE, without and with TLS, of whom `front_backend`
takes thousands. It needs Dovecot and HAProxy: ``apt-get install dovecot-imapd haproxy``.
"""

from __future__ import annotations

import argparse
import base64
import os
import random
import re
import resource
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import corpus, peers
from benchmarks.peers import HOST, PASSWORD, USER
from benchmarks.processes import cpu, memory, settled_cpu
from benchmarks.stranger_clients import source_address, unverified_context

MAX_ADDED_SECONDS = 0.0003
MAX_CPU_RATIO = 3.0
MAX_IDLE_BYTES = {False: 20_000, True: 50_000}
"""With and without TLS."""

BODY_BYTES = 24 << 20
MESSAGES = 10_000
ROUND_TRIPS = 500
IDLE_WARM_UP = 1000
"""Users before the first measurement, so that free space in a heap does not count as thrift."""

_HAPROXY = """\
global
  nbthread 1
  maxconn 1000
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen imap
  bind {host}:{port}
  server dovecot {host}:{backend}
"""


class Session:
    """One connection, which reads responses as fast as it can."""

    def __init__(self, port: int, user: str = USER) -> None:
        self.socket = socket.create_connection((HOST, port), 60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(1 << 20)
        self.socket.recv(4096)
        self.run(b"LOGIN %b %b" % (user.encode(), PASSWORD.encode()))

    def run(self, command: bytes, times: int = 1) -> int:
        """Send a command, several times at once, and return the bytes of the responses."""
        line = b"x " + command + b"\r\n"
        self.socket.sendall(line * (times - 1) + b"y" + line[1:])
        return self._receive(b"y OK")

    def _receive(self, end: bytes) -> int:
        view, total, tail = memoryview(self._buffer), 0, b""
        while True:
            size = self.socket.recv_into(view)
            if not size:
                raise RuntimeError("the connection has ended")
            total += size
            tail = (tail + bytes(view[max(0, size - 2000) : size]))[-2000:]
            found = tail.rfind(b"\r\n", 0, len(tail) - 2) + 2
            last = tail[found if found > 1 else 0 :]
            if last.startswith(end) and last.endswith(b"\r\n"):
                return total
            if re.match(rb"[xy] (NO|BAD)", last):
                raise RuntimeError(last.decode("ascii", "replace"))

    def append(self, message: bytes) -> None:
        """Store a message."""
        self.socket.sendall(b"y APPEND drafts {%d}\r\n" % len(message))
        self.socket.recv(4096)
        self.socket.sendall(message + b"\r\n")
        self._receive(b"y OK")


@dataclass(frozen=True, slots=True)
class Server:
    """What a client connects to; `pid` is the process whose CPU time counts."""

    name: str
    port: int
    pid: int


@contextmanager
def running(name: str, command: Sequence[str], port: int) -> Iterator[Server]:
    """Run a server until the end of the block."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            try:
                peers.wait_for_greeting(process, port)
            except TimeoutError:
                output.seek(0)
                raise RuntimeError(f"{name}: {output.read().decode(errors='replace')}") from None
            yield Server(name, port, process.pid)
        finally:
            process.terminate()
            process.wait(20)


def haproxy(folder: Path, backend: int) -> tuple[str, Sequence[str], int]:
    """Return the arguments of `running` for HAProxy in front of a port."""
    program = shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if program is None:
        raise SystemExit("haproxy not found: apt-get install haproxy")
    port = peers.free_port()
    file = folder / "haproxy.cfg"
    file.write_text(_HAPROXY.format(host=HOST, port=port, backend=backend))
    return "HAProxy", [program, "-db", "-f", str(file)], port


def shield(
    folder: Path, backend: int, certificate: Path | None = None
) -> tuple[str, Sequence[str], int]:
    """Return the arguments of `running` for imapshield in front of a port."""
    port = peers.free_port()
    # It counts as a process that may open any number of files, so that 10,000 users fit into a limit of 20,000.
    command = [sys.executable, "-m", "benchmarks.stranger_server"]
    command += ["--listen", f"tcp:{port}:interface={HOST}"]
    command += ["--backend", f"tcp:{HOST}:{backend}", "--state", str(folder / "state.sqlite")]
    for name in ("max_connections", "max_backend_connections"):
        command += ["--limit", f"{name}=20000"]
    if certificate is not None:
        command += ["--certificate", str(certificate)]
    return "imapshield", command, port


# CPU time and round trips


def round_trip(session: Session, _: int) -> float:
    """Return the median seconds of a NOOP."""
    seconds = []
    for _ in range(ROUND_TRIPS):
        started = time.perf_counter()
        session.run(b"NOOP")
        seconds.append(time.perf_counter() - started)
    return median(seconds)


def used_cpu(work: Callable[[Session], object]) -> Callable[[Session, int], float]:
    """Return a function that returns the CPU seconds of a process for `work`."""

    def measure(session: Session, pid: int) -> float:
        before = settled_cpu(pid)
        work(session)
        return settled_cpu(pid) - before

    return measure


def many_noops(session: Session) -> None:
    """Send a NOOP again and again."""
    for _ in range(ROUND_TRIPS):
        session.run(b"NOOP")


_MESSAGE = base64.encodebytes(random.Random(2).randbytes(BODY_BYTES * 57 // 78)).replace(
    b"\n", b"\r\n"
)


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table: what it measures, and by which ratio to HAProxy or difference to Dovecot it is judged."""

    name: str
    mailbox: str
    measure: Callable[[Session, int], float]
    scale: float
    max_ratio: float = 0
    max_added: float = 0


ROWS = (
    Row("NOOP, round trip, us", "INBOX", round_trip, 1e6, max_added=MAX_ADDED_SECONDS),
    Row("50 NOOPs together, round trip, us", "INBOX",
        lambda session, _: _seconds(lambda: session.run(b"NOOP", 50)), 1e6),
    Row("NOOP, CPU, us", "INBOX", used_cpu(many_noops), 1e6 / ROUND_TRIPS),
    Row("FETCH of 24 MB, CPU, ms", "big",
        used_cpu(lambda session: session.run(b"FETCH 1 BODY.PEEK[]")), 1e3, MAX_CPU_RATIO),
    Row("FETCH of 10,000 messages, CPU, ms", "INBOX",
        used_cpu(lambda session: session.run(b"FETCH 1:* BODY.PEEK[]")), 1e3, MAX_CPU_RATIO),
    Row("FETCH of 10,000 FLAGS, CPU, ms", "INBOX",
        used_cpu(lambda session: session.run(b"FETCH 1:* FLAGS")), 1e3),
    Row("APPEND of 24 MB, CPU, ms", "INBOX",
        used_cpu(lambda session: session.append(_MESSAGE)), 1e3),
)  # fmt: skip


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def fill(home: Path, messages: int) -> None:
    """Write the mail of the user."""
    corpus.write_maildir(home, messages)
    for folder in (home / ".big", home / ".drafts"):
        for part in ("cur", "new", "tmp"):
            (folder / part).mkdir(parents=True)
    (home / ".big" / "cur" / "1.1.x:2,S").write_bytes(b"Subject: big\r\n\r\n" + _MESSAGE)


def compare(rows: Sequence[Row], rounds: int, messages: int) -> bool:
    """Print the rows; return whether a goal is missed."""
    missed = False
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        folder.chmod(0o755)
        root = folder / "mail"
        fill(root / USER, messages)
        peers.change_owner(root)
        dovecot = stack.enter_context(peers.start("dovecot", root))
        servers = [
            Server("Dovecot", dovecot.port, dovecot.pid),
            stack.enter_context(running(*haproxy(folder, dovecot.port))),
            stack.enter_context(running(*shield(folder, dovecot.port))),
        ]
        print(f"{'':36}{'Dovecot':>11}{'HAProxy':>11}{'imapshield':>11}{'ratio':>8}{'added':>8}")
        for row in rows:
            sessions = [Session(server.port) for server in servers]
            for session in sessions:
                session.run(b"SELECT " + row.mailbox.encode())
                row.measure(session, os.getpid())  # Dovecot reads the messages once
            pairs = list(zip(sessions, servers, strict=True))
            found: list[list[float]] = [[] for _ in servers]
            for number in range(rounds):
                for place in range(len(pairs)):
                    index = (place + number) % len(pairs)
                    session, server = pairs[index]
                    found[index].append(row.measure(session, server.pid) * row.scale)
            direct, proxied, shielded = map(median, found)
            ratio, added = shielded / (proxied or 1), shielded - direct
            goals = (row.max_ratio and ratio > row.max_ratio) or (
                row.max_added and added > row.max_added * row.scale
            )
            missed |= bool(goals)
            print(
                f"{row.name:36}{direct:11.1f}{proxied:11.1f}{shielded:11.1f}{ratio:8.2f}{added:8.1f}"
                + ("  missed" if goals else ""),
                flush=True,
            )
            for session in sessions:
                session.socket.close()
    return missed


# Memory of users in IDLE


def idle_user(number: int, port: int, context: ssl.SSLContext | None) -> socket.socket:
    """Return a connection whose user is in IDLE."""
    connection = socket.socket()
    connection.settimeout(60)
    connection.bind((source_address(number), 0))
    connection.connect((HOST, port))
    connection.recv(4096)
    commands = [b"LOGIN user%d %b" % (number, PASSWORD.encode()), b"SELECT INBOX", b"IDLE"]
    if context is not None:
        connection.sendall(b"t STARTTLS\r\n")
        connection.recv(4096)
        connection = context.wrap_socket(connection)
    for command in commands:
        connection.sendall(b"x " + command + b"\r\n")
        answer = connection.recv(4096)
        while not answer.startswith((b"x ", b"+")) and b"\nx " not in answer:
            if not answer:
                raise RuntimeError(f"user {number} has lost the connection")
            answer += connection.recv(4096)
        if b"x OK" not in answer and not answer.startswith(b"+"):
            raise RuntimeError(f"user {number}: {answer!r}")
    return connection


def measure_idle(count: int, tls: bool, folder: Path) -> bool:
    """Print what a user in IDLE takes; return whether the goal is missed."""
    certificate = None
    if tls:
        certificate = folder / "server.pem"
        command = (
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj"
            f" /CN=localhost -keyout {certificate} -out {folder}/certificate.pem"
        )
        subprocess.run(command.split(), check=True, stderr=subprocess.DEVNULL)
        certificate.write_text(certificate.read_text() + (folder / "certificate.pem").read_text())
    port = peers.free_port()
    backend = [sys.executable, "-m", "benchmarks.front_backend", str(port)]
    context = unverified_context() if tls else None
    with (
        ExitStack() as stack,
        running("the backend", backend, port),
        running(*shield(folder, port, certificate)) as server,
    ):

        def add(first: int, last: int) -> None:
            for number in range(first, last):
                stack.enter_context(idle_user(number, server.port, context))

        add(0, IDLE_WARM_UP)
        wait_until_idle(server.pid)
        before = memory(server.pid)
        add(IDLE_WARM_UP, count)
        wait_until_idle(server.pid)
        now = memory(server.pid)
    added = count - IDLE_WARM_UP
    uss, pss = (now.private - before.private) / added, (now.pss - before.pss) / added
    missed = pss > MAX_IDLE_BYTES[tls]
    print(
        f"{count:,} users in IDLE{', with TLS' if tls else ''}: {uss / 1000:.1f} kB USS, {pss / 1000:.1f} kB PSS each"
        f" (goal {MAX_IDLE_BYTES[tls] / 1000:.0f}), {now.pss / 1e6:.0f} MB PSS in all"
        + (", missed" if missed else ""),
        flush=True,
    )
    return missed


def wait_until_idle(pid: int) -> None:
    """Wait until a process has done hardly anything for two seconds."""
    before = cpu(pid)
    while True:
        time.sleep(2)
        now = cpu(pid)
        if now - before < 0.04:
            return
        before = now


def main() -> int:
    """Print the tables; return 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--only", default="", metavar="REGEX", help="measure only matching rows")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--messages", type=int, default=MESSAGES)
    parser.add_argument("--users", type=int, default=10_000, help="users in IDLE")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    rows = [row for row in ROWS if re.search(options.only, row.name)]
    missed = bool(rows) and compare(rows, options.rounds, options.messages)
    if hard != resource.RLIM_INFINITY:  # the shield needs two files for each user
        options.users = min(options.users, hard // 2 - 100)
    for tls, name in ((False, "IDLE"), (True, "IDLE with TLS")):
        if re.search(options.only, name):
            with tempfile.TemporaryDirectory() as folder:
                missed |= measure_idle(options.users, tls, Path(folder))
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())
