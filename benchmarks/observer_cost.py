"""Measures what the operator's view costs: top talkers, why, traces and advice, on against off in the same run.

    python -m benchmarks.observer_cost

It prints the processor time of a NOOP and of a short connection with and without what observes them, and the memory of
the top talkers after connections from a hundred thousand addresses. Rounds with and without alternate, and the median
of their differences counts, so a busy machine disturbs both alike.
"""

from __future__ import annotations

import gc
import random
import time
import tracemalloc
from collections.abc import Callable, Iterable
from statistics import median

from twisted.internet.task import Clock

from imapshield.control.advisor import Advisor
from imapshield.control.end_history import EndHistory
from imapshield.control.trace import Traces
from imapshield.control.work_meter import WorkMeter
from imapshield.events import EventObserver
from imapshield.observe.counters import Counters
from imapshield.observe.talkers import Source, Talkers, Work
from imapshield.testing.in_process import Server

ROUNDS = 11
COMMANDS = 4000
COMMANDS_PER_SECOND = 2000
CONNECTIONS = 300
ADDRESSES = 100_000
MAX_MICROSECONDS = 2.0
"""Of each command: the goal."""


class ObservedServer:
    """A server in memory, with everything that observes it for the operator, or with nothing."""

    def __init__(self, *, observed: bool) -> None:
        self.clock = Clock()
        self._meter, advisor = WorkMeter(self.clock), Advisor(self.clock)
        observers: Iterable[EventObserver] = ()
        if observed:
            traces = Traces(self.clock.callLater)
            observers = [self._meter, EndHistory(time.time), Counters(), traces, advisor]
        self.server = Server(clock=self.clock, observers=observers)
        if observed:
            self._meter.start(self.server.factory)
            advisor.start(self.server.factory)
        self._client = self.server.login()

    def commands(self) -> None:
        """Run `COMMANDS` commands of one client."""
        for number in range(COMMANDS):
            self._client(b"a NOOP")
            if number % COMMANDS_PER_SECOND == 0:
                self.clock.advance(1)
        self.server.events.clear()

    def connections(self) -> None:
        """Run connections of one command each, from addresses that nobody has seen before."""
        for _ in range(CONNECTIONS):
            address = f"10.{random.randrange(256)}.{random.randrange(256)}.{random.randrange(256)}"
            client = self.server.connect(address)
            client(b"a NOOP")
            client.lose_connection()
        self.clock.advance(1)
        self.server.events.clear()


def microseconds(work: Callable[[], None], times: int) -> float:
    """Return the processor time of `work`, divided by `times`."""
    gc.collect()
    started = time.process_time()
    work()
    return (time.process_time() - started) / times * 1e6


def compare(name: str, times: int) -> float:
    """Print and return by how many microseconds the method `name` takes longer when it is observed."""
    without, observed = ObservedServer(observed=False), ObservedServer(observed=True)
    pairs = []
    for number in range(ROUNDS):
        order = (without, observed) if number % 2 else (observed, without)
        found = {id(each): microseconds(getattr(each, name), times) for each in order}
        pairs.append((found[id(without)], found[id(observed)]))
    base = median(off for off, _ in pairs)
    more = median(on - off for off, on in pairs)
    print(f"{name:12} {base:8.2f} us without, {more:+6.2f} us with: ratio {1 + more / base:.3f}")
    return more


def talkers_memory() -> float:
    """Return the MB that the top talkers take after work of `ADDRESSES` addresses in a day."""
    tracemalloc.start()
    talkers, chosen = Talkers(0.0), random.Random(1)
    now, batch = 0.0, 1000
    for number in range(ADDRESSES):
        host = chosen.getrandbits(32)
        address = f"{host >> 24}.{host >> 16 & 255}.{host >> 8 & 255}.{host & 255}"
        source = Source(str(number), address, f"{host >> 16}.0/26", f"user{host}")
        talkers.add(source, Work(1, 100, 0.001, 1), now)
        if number % batch == 0:
            now += 86400 * batch / ADDRESSES
            talkers.end_second(now)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size / 1e6


def main() -> int:
    """Print the figures; return 1 if a command costs more than the goal."""
    more = compare("commands", COMMANDS)
    compare("connections", CONNECTIONS)
    print(f"top talkers  {talkers_memory():8.1f} MB after {ADDRESSES:,} addresses")
    return int(more > MAX_MICROSECONDS)


if __name__ == "__main__":
    raise SystemExit(main())
