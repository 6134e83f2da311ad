"""Floods one server with one attack, with two honest users at work, and measures what it costs.

The order: the users work while the attackers' process sleeps (quiet), the attackers log in, the attack, its end.
Then the server's memory is read after 5 seconds and after 30.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from benchmarks.client import Client
from benchmarks.flood_attackers import Attackers
from benchmarks.flood_attacks import ATTACKS
from benchmarks.flood_swarm import SOURCES, Plan, Tally
from benchmarks.flood_victims import KINDS, Account, Latency, Victim, Visits
from benchmarks.processes import cpu, memory, run_delay

VICTIM_SOURCES = {"newcomer": "127.99.0.50", "resident": "127.99.0.51"}
MAX_MEMORY = 3 << 30
"""An attack ends early when the server takes so many bytes more: the machine must survive it."""
_CALM = 0.05
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server, and who is there.

    Attributes:
        name: for the table.
        version: for the table.
        host: the server's address.
        port: the server's port.
        pid: its first process; without it, memory and CPU are reported as 0.
        victims: the accounts of the victims, by kind.
        attackers: the accounts of the attackers; without any, no attack logs in.
        password: the password of all.
    """

    name: str
    version: str = ""
    host: str
    port: int
    pid: int | None
    victims: dict[str, str]
    attackers: Sequence[str] = ()
    password: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much of it.

    Attributes:
        seconds: the duration of the attack.
        quiet_seconds: the duration of the quiet phase.
        connections: attacking connections at once.
        sources: the addresses of the attackers.
        processor: where attackers and victims run; None means anywhere.
        released_after: seconds after the end of the attack at which memory is read.
    """

    seconds: float = 8
    quiet_seconds: float = 3
    connections: int = 50
    sources: Sequence[str] = SOURCES
    processor: int | None = None
    released_after: Sequence[int] = (5, 30)


@dataclass(slots=True)
class Flood:
    """The figures of one attack on one server.

    Attributes:
        server: the name of the server.
        attack: a key of `ATTACKS`.
        connections: attacking connections at once.
        skipped: why the attack was not possible; then all other figures are missing.
        stopped: whether the attack ended early, because the server took more than `MAX_MEMORY`.
        seconds: the duration of the attack.
        quiet: the victims' latency before, by kind.
        during: the victims' latency during the attack, by kind.
        failures: why visits failed during the attack, and how often.
        quiet_cores: the server's CPU per second before, which is that of the victims' visits.
        cores: the server's CPU per second during the attack.
        run_delay: seconds per second in which threads of the server were ready to run, and waited for the
            processor. If the server is one process, something else disturbed the measurement.
        attack_cores: `cores` less what the victims' visits cost; see `attack_cores`.
        memory: the server's own memory (PSS) in bytes before the attack.
        growth: by how much it has grown at the peak.
        kept: by how much it is larger so many seconds after the end.
        kernel_growth: by how much the TCP buffers of the whole machine have grown at the peak.
        processes: the server's processes at the peak.
        tally: what happened to the attackers.
    """

    server: str
    attack: str
    connections: int
    skipped: str = ""
    stopped: bool = False
    seconds: float = 0.0
    quiet: dict[str, Latency] = field(default_factory=dict)
    during: dict[str, Latency] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    quiet_cores: float = 0.0
    cores: float = 0.0
    run_delay: float = 0.0
    attack_cores: float = 0.0
    memory: int = 0
    growth: int = 0
    kept: dict[int, int] = field(default_factory=dict)
    kernel_growth: int = 0
    processes: int = 0
    tally: Tally = field(default_factory=Tally)


def attack_cores(quiet: float, during: float, quiet_visits: float, visits: float) -> float:
    """Return the server's CPU per second for the attackers.

    A visit is assumed to cost as much as before the attack. The rates are per second.
    """
    share = quiet * visits / quiet_visits if quiet_visits else 0.0
    return max(0.0, during - share)


def missing_capability(target: Target, attack: str) -> str:
    """Return why an attack is impossible, or ""."""
    needs, logs_in = ATTACKS[attack].needs, ATTACKS[attack].logs_in
    if logs_in and not target.attackers:
        return "no accounts for the attackers"
    if not needs:
        return ""
    with Client(target.host, target.port, timeout=20, source="127.99.0.52") as client:
        if logs_in:
            client.login(target.victims["newcomer"], target.password)
        lines = client.command("CAPABILITY").untagged
    offered = b" ".join(line for line, *_ in lines).decode().split()
    return "" if needs in offered else f"no {needs}"


class Memory:
    """Reads the server's memory, and how far it has grown, in a thread.

    Attributes:
        first: PSS in bytes at the beginning.
        peak: the largest PSS.
        kernel_peak: the largest growth of the machine's TCP buffers, in bytes.
        processes: the largest number of processes.
        too_much: whether the growth has exceeded `MAX_MEMORY`.
    """

    def __init__(self, pid: int | None) -> None:
        self._pid = pid
        self._kernel_first = _tcp_memory()
        self.first = self.peak = self.read()
        self.kernel_peak = 0
        self.processes = 1
        self.too_much = threading.Event()
        self._done = threading.Event()

    def read(self) -> int:
        """Return PSS in bytes."""
        return memory(self._pid).pss if self._pid else 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Measure the peaks during the `with` statement."""
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            thread.join()

    def _watch(self) -> None:
        pause = 0.2
        while not self._done.wait(pause):
            started = time.monotonic()
            if self._pid:
                use = memory(self._pid)
                self.peak = max(self.peak, use.pss)
                self.processes = max(self.processes, use.processes)
            self.kernel_peak = max(self.kernel_peak, _tcp_memory() - self._kernel_first)
            if self.peak - self.first > MAX_MEMORY:
                self.too_much.set()
            # A thousand processes take long to read: never more than a tenth of the time.
            pause = max(0.2, 9 * (time.monotonic() - started))


def _tcp_memory() -> int:
    """Return the bytes of all TCP buffers of this machine."""
    with open("/proc/net/sockstat") as file:
        line = next(line for line in file if line.startswith("TCP:")).split()
    return int(line[line.index("mem") + 1]) * _PAGE


@dataclass(frozen=True, slots=True)
class Measurement:
    """An attack that has ended; `finish` waits for the last figures."""

    flood: Flood
    memory: Memory
    ended_at: float
    released_after: Sequence[int]

    def finish(self) -> Flood:
        """Read the memory that the server has kept; return when it has been read for the last time."""
        for seconds in self.released_after:
            if seconds not in self.flood.kept:
                self.wait_and_read(seconds)
        return self.flood

    def wait_and_read(self, seconds: int) -> None:
        """Read the memory `seconds` after the end of the attack."""
        time.sleep(max(0.0, self.ended_at + seconds - time.monotonic()))
        self.flood.kept[seconds] = self.memory.read() - self.memory.first


def measure(target: Target, attack: str, scale: Scale) -> Measurement:
    """Flood a server, with victims at work before and during the attack.

    Raises:
        client.ServerError, OSError: the server does not respond before the attack.
    """
    flood = Flood(target.name, attack, scale.connections, seconds=scale.seconds)
    plan = Plan(
        host=target.host,
        port=target.port,
        attack=attack,
        seconds=scale.seconds,
        connections=scale.connections,
        sources=tuple(scale.sources),
        users=tuple(target.attackers),
        password=target.password,
        processor=scale.processor,
    )
    with ExitStack() as stack:
        victims = {kind: _victim(target, kind, scale.processor) for kind in target.victims}
        for victim in victims.values():
            stack.callback(victim.stop)
        attackers = Attackers(plan)
        stack.callback(attackers.stop)
        _visits(victims, 0.5)  # the first visits fill caches
        before, started = _cpu(target), time.monotonic()
        quiet = _visits(victims, scale.quiet_seconds)
        flood.quiet_cores = (_cpu(target) - before) / (time.monotonic() - started)
        usage = Memory(target.pid)
        with usage.watched():
            attackers.prepare()
            before, delay, started = _cpu(target), _delay(target), time.monotonic()
            attackers.start()
            during = _attacked_visits(victims, scale.seconds, attackers, usage.too_much)
            # Visits may last longer than the attack.
            elapsed = time.monotonic() - started
            flood.cores = (_cpu(target) - before) / elapsed
            flood.run_delay = max(0.0, _delay(target) - delay) / elapsed
            flood.tally = attackers.result()
        ended_at = time.monotonic()
    _fill(flood, quiet, during, usage, scale)
    return Measurement(flood, usage, ended_at, scale.released_after)


def _fill(
    flood: Flood, quiet: dict[str, Visits], during: dict[str, Visits], usage: Memory, scale: Scale
) -> None:
    for kind, visits in quiet.items():
        flood.quiet[kind] = _latency(visits)
        flood.during[kind] = _latency(during[kind])
        for reason, count in during[kind].failures.items():
            flood.failures[f"{kind}: {reason}"] = count
    flood.attack_cores = attack_cores(
        flood.quiet_cores,
        flood.cores,
        sum(len(visits.times) for visits in quiet.values()) / scale.quiet_seconds,
        sum(len(visits.times) for visits in during.values()) / scale.seconds,
    )
    flood.stopped = usage.too_much.is_set()
    flood.memory = usage.first
    flood.growth = usage.peak - usage.first
    flood.kernel_growth = usage.kernel_peak
    flood.processes = usage.processes


def _victim(target: Target, kind: str, processor: int | None) -> Victim:
    assert kind in KINDS
    account = Account(
        host=target.host,
        port=target.port,
        source=VICTIM_SOURCES[kind],
        user=target.victims[kind],
        password=target.password,
    )
    return Victim(kind, account, processor)


def _visits(victims: dict[str, Victim], seconds: float) -> dict[str, Visits]:
    for victim in victims.values():
        victim.begin(seconds)
    return {kind: victim.result(seconds) for kind, victim in victims.items()}


def _attacked_visits(
    victims: dict[str, Victim], seconds: float, attackers: Attackers, too_much: threading.Event
) -> dict[str, Visits]:
    for victim in victims.values():
        victim.begin(seconds)
    if too_much.wait(seconds):
        attackers.end()
    return {kind: victim.result(seconds) for kind, victim in victims.items()}


def _latency(visits: Visits) -> Latency:
    return Latency.of(visits.times, sum(visits.failures.values()))


def _cpu(target: Target) -> float:
    return cpu(target.pid) if target.pid else 0.0


def _delay(target: Target) -> float:
    return run_delay(target.pid) if target.pid else 0.0


def calm_down(pid: int, seconds: float) -> float:
    """Wait until a server uses less than a twentieth of a core, or `seconds` have passed; return how long it took."""
    started = time.monotonic()
    before = cpu(pid)
    while (waited := time.monotonic() - started) < seconds:
        time.sleep(0.5)
        now = cpu(pid)
        if now - before < _CALM * 0.5:
            break
        before = now
    return waited
