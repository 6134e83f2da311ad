"""Measures what a flood of NOOPs does to a server, and to a user who reads mail meanwhile.

`flood` is the interface for tests; the command line is for people:

    python -m benchmarks.flood --server imapshield
    python -m benchmarks.flood --port 143 --user alice --password secret --pid PID --read

The attackers, on addresses of their own, are in `benchmarks.flood_attackers`. The victim logs in, selects and
fetches, again and again.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks import corpus, peers
from benchmarks.client import Client, ServerError
from benchmarks.flood_attackers import (
    CONNECTIONS,
    CONNECTS_PER_SECOND,
    FRAMES_PER_SECOND,
    SOURCES,
    Attacker,
    Plan,
    Tally,
)
from benchmarks.processes import cpu, resident
from benchmarks.report import time_text


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds for one visit: connect, LOGIN, SELECT, FETCH and LOGOUT. Failed visits are included."""

    samples: int
    failures: int
    median: float
    p99: float
    worst: float

    @classmethod
    def of(cls, times: Sequence[float], failures: int) -> Latency:
        """Summarize the durations of visits; without any, the latency is infinite."""
        ordered = sorted(times) or [float("inf")]
        p99 = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
        return cls(len(times), failures, statistics.median(ordered), p99, ordered[-1])


@dataclass(frozen=True, slots=True)
class FloodResult:
    """The victim's latency before, during and after; the server's resident bytes; its CPU, in cores."""

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
    """Flood a server, with a victim that reads mail before, during and after.

    Args:
        host: the server's address.
        port: the server's port.
        user: the victim's name.
        password: the victim's password.
        pid: the server's first process; without it, memory and CPU are reported as 0.
        sources: the addresses of the attackers, one for each.
        seconds: the duration of the flood.
        quiet_seconds: for how long the victim visits before the flood.
        reading: whether attackers read the responses.
        connections: how many connections each attacker has at once.
        frames_per_second: the limit of frames that each attacker sends.
        connects_per_second: the limit of connections that each attacker opens.

    Raises:
        ServerError, OSError: the victim could not log in before the flood.
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
    with _MemoryMonitor(pid) as memory:
        attackers = [Attacker(plan, source) for source in sources]
        try:
            for attacker in attackers:
                attacker.start()
            cpu_before, started = cpu(pid) if pid else 0.0, time.monotonic()
            during = victim.visit_for(seconds)
            cpu_used = (cpu(pid) if pid else 0.0) - cpu_before
            cores = cpu_used / (time.monotonic() - started)
            tally = Tally()
            for attacker in attackers:
                tally.add(attacker.result())
        finally:
            for attacker in attackers:
                attacker.stop()
        after = victim.visit_for(min(2.0, quiet_seconds))
    return FloodResult(quiet, during, after, memory.first, memory.peak, memory.read(), cores, tally)


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
                response = client.command(f"FETCH {max(1, count - 9)}:* (FLAGS ENVELOPE)")
                if len(response.fetched(b"ENVELOPE (")) != min(10, count):
                    raise ServerError("envelopes are missing")
            client.logout()

    def visit_for(self, seconds: float, pause: float = 0.01, timeout: float = 5) -> Latency:
        times, failures = [], 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            started = time.perf_counter()
            try:
                self.visit(timeout)
            except (ServerError, OSError):
                failures += 1
            times.append(time.perf_counter() - started)
            time.sleep(pause)
        return Latency.of(times, failures)


@dataclass
class _MemoryMonitor:
    """Reads the server's resident memory four times a second."""

    pid: int | None
    first: int = 0
    peak: int = 0
    _done: threading.Event = field(default_factory=threading.Event)

    def read(self) -> int:
        return resident(self.pid) if self.pid else 0

    def __enter__(self) -> _MemoryMonitor:
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


def describe(result: FloodResult) -> str:
    """Format a result as a table."""
    lines = ["victim     visits  failed     median        p99      worst"]
    for name in ("quiet", "during", "after"):
        latency: Latency = getattr(result, name)
        times = "".join(
            f"{time_text(value):>11}" for value in (latency.median, latency.p99, latency.worst)
        )
        lines.append(f"{name:9}{latency.samples:8}{latency.failures:8}{times}")
    rss = (result.rss_before, result.rss_peak, result.rss_after)
    lines.append(
        "server     RSS before, peak, after: " + ", ".join(f"{size / 1e6:.1f} MB" for size in rss)
    )
    lines.append(f"           CPU during the flood: {result.cores:.2f} cores")
    tally = result.attackers
    lines.append(
        f"attackers  {tally.connections} connections: {tally.resets} reset, {tally.closed} closed,"
        f" {tally.stalled} stalled, {tally.refused} refused; sent {tally.bytes_sent / 1e6:.1f} MB,"
        f" read {tally.bytes_received / 1e6:.1f} MB"
    )
    return "\n".join(lines)


def main() -> int:
    """Flood the server of the command line; return 1 if the victim's visits failed afterwards."""
    parser = argparse.ArgumentParser(prog="flood", description="Flood a server with NOOPs.")
    parser.add_argument(
        "--server", choices=peers.NAMES, help="start this server, and stop it afterwards"
    )
    parser.add_argument(
        "--imapshield-options", default="", help="more options for its command line"
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int)
    parser.add_argument("--user", default=peers.USER)
    parser.add_argument("--password", default=peers.PASSWORD)
    parser.add_argument("--pid", type=int, help="process id of the server")
    parser.add_argument("--sources", default=",".join(SOURCES))
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--read", action="store_true", help="attackers read the responses")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    if bool(options.server) == bool(options.port):
        parser.error("give either --server or --port")
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
            peers.change_owner(root)
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
    except RuntimeError as error:  # a server did not start; the text is its output
        sys.exit(str(error))
