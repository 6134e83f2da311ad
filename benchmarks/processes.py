"""Reads CPU time and memory of a server from /proc: of a process and all its descendants.

CPU time includes processes that have ended: a parent that has waited for its children carries their time
(cutime, cstime). The descendants are listed again at every call.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from dataclasses import dataclass

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Memory in bytes: `private` would be freed if the processes ended, `pss` adds their share of the rest.

    Neither includes what the kernel holds for the processes: sockets, page tables, descriptors.
    """

    processes: int
    rss: int
    pss: int
    private: int


def process_tree(root: int) -> list[int]:
    """Return the process ids of `root` and its living descendants."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := _stat(int(name))):
            children[int(fields[1])].append(int(name))
    found = [root]
    for pid in found:
        found += children[pid]
    return found


def started(pid: int) -> int:
    """Return when a process started, in ticks; 0 if it has ended. A number that is used again has another value."""
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


def cpu(root: int) -> float:
    """Return the seconds of CPU that `root` and its descendants have used, including ended processes.

    Living processes are counted in nanoseconds (schedstat, all threads). Ended ones are counted in ticks of
    10 ms, which the kernel rounds only once, so that a hundred short processes do not add a hundred errors.
    """
    total = 0.0
    for pid in process_tree(root):
        fields = _stat(pid)
        if fields:
            own, ended = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
            # Threads that have ended are counted in the ticks only.
            total += max(own * _TICK, _scheduled(pid)) + ended * _TICK
    return total


def machine_cpu() -> float:
    """Return the seconds of CPU that all processes of the machine have used, in ticks of 10 ms."""
    user, nice, system, _, _, *interrupts = map(int, _read("/proc/stat").split()[1:8])
    return (user + nice + system + sum(interrupts)) * _TICK


def run_delay(root: int) -> float:
    """Return the seconds that the living threads of `root` and its descendants have waited for a processor."""
    return sum(_scheduled(pid, 1) for pid in process_tree(root))


def settled_cpu(root: int, timeout: float = 0.5) -> float:
    """Return `cpu` once it has stopped growing: after its last response a server may still work.

    After `timeout` seconds the last value is returned even if it still grows.
    """
    deadline = time.monotonic() + timeout
    before = cpu(root)
    while time.monotonic() < deadline:
        time.sleep(0.01)
        now = cpu(root)
        if now - before < 0.0002:
            return now
        before = now
    return before


def memory(root: int) -> MemoryUse:
    """Return the total memory of `root` and its descendants, from smaps_rollup."""
    pids = process_tree(root)
    sums: defaultdict[str, int] = defaultdict(int)
    for pid in pids:
        for line in _read(f"/proc/{pid}/smaps_rollup").splitlines()[1:]:
            name, value, *_ = line.split()
            sums[name] += int(value) * 1024
    private = sums["Private_Clean:"] + sums["Private_Dirty:"]
    return MemoryUse(len(pids), sums["Rss:"], sums["Pss:"], private)


def own_memory(pid: int) -> int:
    """Return the private bytes of one process, without its descendants."""
    lines = _read(f"/proc/{pid}/smaps_rollup").splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def resident(root: int) -> int:
    """Return the total resident bytes only: cheap enough to call four times a second."""
    pages = (_read(f"/proc/{pid}/statm").split() for pid in process_tree(root))
    return sum(int(fields[1]) * _PAGE for fields in pages if fields)


def open_files(pid: int) -> int:
    """Return how many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def wait_until_asleep(pid: int, seconds: float = 1) -> None:
    """Wait until the main thread of a process has done nothing for `seconds`: it neither runs nor waits for a CPU."""
    asleep_since = time.monotonic()
    while time.monotonic() - asleep_since < seconds:
        time.sleep(0.02)
        if _stat(pid)[0] not in ("S", "I"):
            asleep_since = time.monotonic()


def _read(path: str) -> str:
    """Return a file of /proc, or "" if the process has ended or is a zombie."""
    try:
        with open(path) as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name, which may contain spaces and brackets."""
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()


def _scheduled(pid: int, column: int = 0) -> float:
    """Return the seconds on a CPU of all living threads; with column 1, those of waiting for one."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except FileNotFoundError:
        return 0.0
    times = (_read(f"/proc/{pid}/task/{thread}/schedstat").split() for thread in threads)
    return sum(int(fields[column]) for fields in times if fields) / 1e9
