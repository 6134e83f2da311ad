"""What a server costs, from /proc: CPU and memory of a process and of all that came from it.

A server of many short-lived processes is charged for the dead too: a parent that has waited for its
children carries their time (cutime, cstime), and the tree is listed anew at every question.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from dataclasses import dataclass

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class MemoryLiteral:
    """Octets: `private` would come back if the processes ended, `pss` adds their share of the rest.

    Neither holds what the kernel keeps for them: sockets, page tables, descriptors.
    """

    processes: int
    rss: int
    pss: int
    private: int


def family(root: int) -> list[int]:
    """List `root` and its descendants that are alive now."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := _stat(int(name))):
            children[int(fields[1])].append(int(name))
    found = [root]
    for pid in found:
        found += children[pid]
    return found


def cpu(root: int) -> float:
    """Seconds of CPU that `root` and its descendants have used, the dead ones included.

    The living are counted in nanoseconds (schedstat, all threads), the dead in ticks of 10 ms that
    the kernel rounds only once, so that a hundred short lives are not a hundred errors.
    """
    total = 0.0
    for pid in family(root):
        fields = _stat(pid)
        if fields:
            own, dead = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
            # A thread that has ended is in the ticks alone.
            total += max(own * _TICK, _scheduled(pid)) + dead * _TICK
    return total


def settled_cpu(root: int, patience: float = 0.5) -> float:
    """`cpu`, once the server has finished what it still did after its last answer."""
    deadline = time.monotonic() + patience
    before = cpu(root)
    while time.monotonic() < deadline:
        time.sleep(0.01)
        now = cpu(root)
        if now - before < 0.0002:
            return now
        before = now
    return before


def memory(root: int) -> MemoryLiteral:
    """Add up the memory of `root` and its descendants, from smaps_rollup."""
    pids = family(root)
    sums: defaultdict[str, int] = defaultdict(int)
    for pid in pids:
        for line in _read(f"/proc/{pid}/smaps_rollup").splitlines()[1:]:
            name, value, *_ = line.split()
            sums[name] += int(value) * 1024
    private = sums["Private_Clean:"] + sums["Private_Dirty:"]
    return MemoryLiteral(len(pids), sums["Rss:"], sums["Pss:"], private)


def resident(root: int) -> int:
    """Add up the resident octets alone: cheap enough to ask four times a second."""
    pages = (_read(f"/proc/{pid}/statm").split() for pid in family(root))
    return sum(int(fields[1]) * _PAGE for fields in pages if fields)


def _read(path: str) -> str:
    """Read a file of /proc; "" when the process is gone or has become a zombie."""
    try:
        with open(path) as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _stat(pid: int) -> list[str]:
    """Split the fields of /proc/PID/stat after the name, which may hold spaces and brackets."""
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()


def _scheduled(pid: int) -> float:
    """Seconds on a CPU, of all threads that live."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except FileNotFoundError:
        return 0.0
    spent = (_read(f"/proc/{pid}/task/{thread}/schedstat").split() for thread in threads)
    return sum(int(fields[0]) for fields in spent if fields) / 1e9
