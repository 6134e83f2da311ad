"""What a flood of NOOPs does to a server, and to somebody who only wants to read mail.

Attackers on addresses of their own send `a NOOP` packed into full TCP frames, as in Microsoft's
KB Q230285, and come again for ever when they are thrown out; a victim logs in, selects and
fetches. `flood` is what tests call; the command line is for people:

    python -m benchmarks.flood --server imapshield
    python -m benchmarks.flood --port 143 --user alice --password secret --pid PID --read

Attackers end by themselves at a time that is fixed before they start, whatever becomes of the rest.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shlex
import shutil
import signal
import socket
import statistics
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks import corpus, peers
from benchmarks.client import Client, Wrong
from benchmarks.processes import cpu, resident
from benchmarks.report import time_text

FRAME = b"a NOOP\r\n" * 187  # 1,496 octets: what Exchange's strangers put into one segment
CONNECTIONS = 4
FRAMES_PER_SECOND = 2000.0
CONNECTS_PER_SECOND = 200.0
SOURCES = ("127.0.0.2", "127.0.0.3", "127.0.0.4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What each attacker does, and how much of it: two cores must survive it as well."""

    host: str
    port: int
    seconds: float = 10
    connections: int = CONNECTIONS  # at once, for each source
    frames_per_second: float = FRAMES_PER_SECOND  # of each source
    connects_per_second: float = CONNECTS_PER_SECOND  # of each source
    reading: bool = False
    frame: bytes = FRAME
    patience: float = 1  # seconds without room to send, then it hangs up and comes again


@dataclass(slots=True)
class Tally:
    """What the attackers met. `resets` are RSTs, `closed` orderly ends, `refused` no connection."""

    connections: int = 0
    resets: int = 0
    closed: int = 0
    stalled: int = 0
    refused: int = 0
    octets: int = 0
    read: int = 0

    def add(self, other: Tally) -> None:
        """Add another attacker's."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds for a connect, LOGIN, SELECT, FETCH and LOGOUT. A failed one counts as it lasted."""

    samples: int
    failures: int
    median: float
    p99: float
    worst: float

    @classmethod
    def of(cls, times: Sequence[float], failures: int) -> Latency:
        """Make it of some times; of none, they are infinite."""
        ordered = sorted(times) or [float("inf")]
        p99 = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
        return cls(len(times), failures, statistics.median(ordered), p99, ordered[-1])


@dataclass(frozen=True, slots=True)
class FloodResult:
    """The victim before, during and after; the server's resident octets; its CPU, in cores."""

    quiet: Latency
    during: Latency
    after: Latency
    rss_before: int
    rss_peak: int
    rss_after: int
    cores: float
    attackers: Tally


def flood(
    host: str,
    port: int,
    *,
    user: str,
    password: str,
    pid: int | None = None,
    sources: Sequence[str] = SOURCES,
    seconds: float = 10,
    quiet_seconds: float = 3,
    reading: bool = False,
    connections: int = CONNECTIONS,
    frames_per_second: float = FRAMES_PER_SECOND,
    connects_per_second: float = CONNECTS_PER_SECOND,
) -> FloodResult:
    """Flood a server for some seconds, with a victim before, during and after.

    `pid` is the server's first process; without it, memory and CPU are told as 0. `reading` makes
    attackers read their replies. Raises `Wrong` or `OSError` only if the victim cannot log in even
    while it is quiet.
    """
    victim = _Victim(host, port, user, password)
    victim.visit(timeout=10)
    quiet = victim.visit_for(quiet_seconds)
    plan = Plan(
        host=host,
        port=port,
        seconds=seconds,
        connections=connections,
        frames_per_second=frames_per_second,
        connects_per_second=connects_per_second,
        reading=reading,
    )
    with _Gauge(pid) as gauge:
        attackers = [_Attacker(plan, source) for source in sources]
        try:
            for attacker in attackers:
                attacker.await_start()
            used, started = cpu(pid) if pid else 0.0, time.monotonic()
            during = victim.visit_for(seconds)
            cores = ((cpu(pid) if pid else 0.0) - used) / (time.monotonic() - started)
            tally = Tally()
            for attacker in attackers:
                tally.add(attacker.await_end())
        finally:
            for attacker in attackers:
                attacker.stop()
        after = victim.visit_for(min(2.0, quiet_seconds))
    return FloodResult(quiet, during, after, gauge.first, gauge.peak, gauge.read(), cores, tally)


@dataclass(frozen=True, slots=True)
class _Victim:
    host: str
    port: int
    user: str
    password: str

    def visit(self, timeout: float) -> None:
        with Client(self.host, self.port, timeout=timeout) as client:
            client.login(self.user, self.password)
            count = client.select()
            if count:
                answer = client.command(f"FETCH {max(1, count - 9)}:* (FLAGS ENVELOPE)")
                if len(answer.fetched(b"ENVELOPE (")) != min(10, count):
                    raise Wrong("envelopes are missing")
            client.logout()

    def visit_for(self, seconds: float, pause: float = 0.01, timeout: float = 5) -> Latency:
        times, failures = [], 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            started = time.perf_counter()
            try:
                self.visit(timeout)
            except (Wrong, OSError):
                failures += 1
            times.append(time.perf_counter() - started)
            time.sleep(pause)
        return Latency.of(times, failures)


@dataclass
class _Gauge:
    """Looks at the server's resident memory four times a second."""

    pid: int | None
    first: int = 0
    peak: int = 0
    _done: threading.Event = field(default_factory=threading.Event)

    def read(self) -> int:
        return resident(self.pid) if self.pid else 0

    def __enter__(self) -> _Gauge:
        self.first = self.peak = self.read()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.25):
            self.peak = max(self.peak, self.read())


class _Attacker:
    """A process that attacks; spawned, not forked, so that a caller may have threads and a reactor."""

    def __init__(self, plan: Plan, source: str) -> None:
        spawning = multiprocessing.get_context("spawn")
        self._pipe, other = spawning.Pipe()
        self._seconds = plan.seconds
        self._process = spawning.Process(target=_attack, args=(other, plan, source), daemon=True)
        self._process.start()
        other.close()

    def await_start(self) -> None:
        """Wait until it is ready to attack, then let it."""
        self._receive(30)
        self._pipe.send("now")

    def await_end(self) -> Tally:
        """Wait for what it has to tell."""
        tally = self._receive(self._seconds + 15)
        assert isinstance(tally, Tally)
        return tally

    def _receive(self, seconds: float) -> object:
        if not self._pipe.poll(seconds):
            raise Wrong("an attacker is lost")
        return self._pipe.recv()

    def stop(self) -> None:
        self._pipe.close()
        self._process.join(2)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _attack(pipe: Connection, plan: Plan, source: str) -> None:
    """Do what an attacker's process does, from its first word to its tally."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes the pipe
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
        moved = False
        for slot in slots:
            if slot.socket is None and tally.connections < plan.connects_per_second * elapsed + 1:
                slot.connect()
            if slot.socket is not None and frames < plan.frames_per_second * elapsed + 1:
                sent = slot.send()
                frames += sent
                moved = moved or sent
        if not moved:
            time.sleep(0.001)
    for slot in slots:
        slot.hang_up()
    with suppress(BrokenPipeError):
        pipe.send(tally)


@dataclass
class _Slot:
    """One connection of an attacker, and then the next one."""

    plan: Plan
    source: str
    tally: Tally
    socket: socket.socket | None = None
    _rest: bytes = b""
    _moved_at: float = 0

    def connect(self) -> None:
        self.tally.connections += 1
        try:
            connected = socket.create_connection(
                (self.plan.host, self.plan.port), 0.5, (self.source, 0)
            )
        except OSError:
            self.tally.refused += 1
            return
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A RST on our side too: no address is ever short of ports for TIME_WAIT.
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connected.setblocking(False)
        self.socket, self._rest, self._moved_at = connected, b"", time.monotonic()

    def send(self) -> bool:
        """Send a frame, or the rest of one; say whether any octet went out."""
        assert self.socket is not None
        try:
            if self.plan.reading:
                self._read()
            data = self._rest or self.plan.frame
            count = self.socket.send(data)
        except BlockingIOError:
            if time.monotonic() - self._moved_at > self.plan.patience:
                self.tally.stalled += 1
                self.hang_up()
            return False
        except ConnectionResetError:
            self.tally.resets += 1
            self.hang_up()
            return False
        except OSError:  # EPIPE: the server had closed before it got more
            self.tally.closed += 1
            self.hang_up()
            return False
        self.tally.octets += count
        self._rest = data[count:]
        self._moved_at = time.monotonic()
        return True

    def _read(self) -> None:
        assert self.socket is not None
        with suppress(BlockingIOError):
            while data := self.socket.recv(65536):
                self.tally.read += len(data)
            raise BrokenPipeError

    def hang_up(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None


def describe(result: FloodResult) -> str:
    """Lay a result out for people."""
    lines = ["victim     visits  failed     median        p99      worst"]
    for name in ("quiet", "during", "after"):
        seen: Latency = getattr(result, name)
        times = "".join(f"{time_text(value):>11}" for value in (seen.median, seen.p99, seen.worst))
        lines.append(f"{name:9}{seen.samples:8}{seen.failures:8}{times}")
    rss = (result.rss_before, result.rss_peak, result.rss_after)
    lines.append(
        "server     RSS before, peak, after: " + ", ".join(f"{one / 1e6:.1f} MB" for one in rss)
    )
    lines.append(f"           CPU during the flood: {result.cores:.2f} cores")
    met = result.attackers
    lines.append(
        f"attackers  {met.connections} connections: {met.resets} reset, {met.closed} closed,"
        f" {met.stalled} given up unread, {met.refused} refused; sent {met.octets / 1e6:.1f} MB,"
        f" read {met.read / 1e6:.1f} MB"
    )
    return "\n".join(lines)


def main() -> int:
    """Flood the server that the command line tells; 1 if the victim failed afterwards."""
    parser = argparse.ArgumentParser(prog="flood", description="Flood a server with NOOPs.")
    parser.add_argument("--server", choices=peers.NAMES, help="start this one for the occasion")
    parser.add_argument("--imapshield-options", default="", help="more of its command line")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int)
    parser.add_argument("--user", default=peers.USER)
    parser.add_argument("--password", default=peers.PASSWORD)
    parser.add_argument("--pid", type=int, help="the server's first process")
    parser.add_argument("--sources", default=",".join(SOURCES))
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--read", action="store_true", help="attackers read their replies")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    if bool(options.server) == bool(options.port):
        parser.error("either --server or --port")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    def attack(host: str, port: int, pid: int | None) -> FloodResult:
        return flood(
            host,
            port,
            user=options.user,
            password=options.password,
            pid=pid,
            sources=options.sources.split(","),
            seconds=options.seconds,
            reading=options.read,
        )

    if options.server:
        root = Path(tempfile.mkdtemp(prefix="flood-"))
        root.chmod(0o755)
        try:
            corpus.write_maildir(root / peers.USER, 200)
            peers.own(root)
            extra = shlex.split(options.imapshield_options)
            with peers.start(options.server, root, extra) as peer:
                print(f"{peer.name} {peer.version}, {options.seconds:g} s")
                result = attack(peer.host, peer.port, peer.pid)
        finally:
            shutil.rmtree(root, ignore_errors=True)
    else:
        result = attack(options.host, options.port, options.pid)
    print(describe(result))
    if options.json:
        options.json.write_text(json.dumps(asdict(result), indent=1) + "\n")
    return 1 if result.after.failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RuntimeError as complaint:  # a server that does not start, in its own words
        sys.exit(str(complaint))
