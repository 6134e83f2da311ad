"""Simulates that a mail node of 10,000 users is drained: all of them move to other nodes, some at once.

    python -m benchmarks.drain_node
    python -m benchmarks.drain_node --users 10000 --targets 4 --disk 150 --network 110

The clock is simulated. What a move costs was measured with ``imapshield move``; the options have
these figures, and those of another machine can be given. The sizes of the accounts, and how much users work, are drawn
from a fixed seed.

Model
-----
* A node has a disk and a processor. Each serves the copies that run in equal shares; users have `--user-load` of both,
  always. The disk of a copy is that of the source and that of each target; the network is that of the source.
* A move is: a first copy of all; copies of what has changed until one is short; the pause. A copy looks at all files of
  the account, which takes the processor `--look` for each, and reads and writes what is new.
* The pause is fixed work, a look at all files, and what has changed in the last seconds. It shares processor and disk
  with the copies of the other moves.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

SEED = 13
COPIES = 5
"""As `imapshield.move.mover.COPIES`: after so many, the operator has to permit a longer pause."""


@dataclass(frozen=True)
class Costs:
    """What a move costs. Seconds of a processor, MB per second of a disk and of the network.

    Attributes:
        fixed: seconds of a processor on the source for the processes of a copy.
        pause: seconds of a processor for hold, close, verify, accept, map and release.
        look: seconds of a processor for each file that a copy looks at.
        file: seconds of the disk for each file that is created.
        disk: MB per second of a disk.
        network: MB per second of the network of the source.
        user_load: the share of processor and disk that users need all the time.
    """

    fixed: float
    pause: float
    look: float
    file: float
    disk: float
    network: float
    user_load: float


@dataclass
class Account:
    """A user: files, their size in MB, and how many messages come or change in a second."""

    files: int
    size: float
    rate: float


@dataclass
class Work:
    """Work in progress: what is left of it on each resource, in seconds of the resource alone."""

    move: Move
    left: dict[str, float]


@dataclass
class Move:
    """One move.

    Attributes:
        account: whose.
        target: the number of the target.
        began: when the current copy or pause began.
        step: ``copy`` or ``pause``.
        pause: how long the user waited.
        copies: how many copies there were.
        max_pause: the option: it is raised for an account of so many files that even a copy of nothing takes longer.
    """

    account: Account
    target: int
    began: float = 0.0
    changed_since: float = 0.0
    step: str = "copy"
    pause: float = 0.0
    copies: int = 0
    max_pause: float = 2.0


@dataclass
class Result:
    """What the simulation found; times are seconds. `again`: pauses that were undone. `longer`: users who needed a
    longer ``--max-pause``."""

    seconds: float = 0.0
    pauses: list[float] = field(default_factory=list)
    again: int = 0
    longer: int = 0
    busy: dict[str, float] = field(default_factory=dict)


def accounts(number: int, mean_size: float, mean_message: float, seed: int = SEED) -> list[Account]:
    """Return accounts whose sizes are log-normal, as those of mail servers are: many small ones, and a few very large.

    Args:
        number: how many.
        mean_size: MB.
        mean_message: MB.
        seed: of the random numbers.
    """
    dice = random.Random(seed)
    sigma = 1.5
    sizes = [dice.lognormvariate(math.log(mean_size) - sigma**2 / 2, sigma) for _ in range(number)]
    # One in ten users works at a moment: a message or a flag in 20 seconds; others get a message in half an hour.
    return [
        Account(1 + int(size / mean_message), size, 0.05 if dice.random() < 0.1 else 1 / 1800)
        for size in sizes
    ]


def drain(users: Sequence[Account], at_once: int, targets: int, costs: Costs) -> Result:
    """Move all users of a node away, `at_once` at a time, and return what happened."""
    result, now = Result(), 0.0
    waiting = [Move(account, number % targets) for number, account in enumerate(users)]
    waiting.reverse()
    running: list[Work] = []
    result.busy = {}
    while waiting or running:
        while waiting and len(running) < at_once:
            move = waiting.pop()
            move.began = now
            running.append(Work(move, _copy(move, move.account.files, move.account.size, costs)))
        step = _next_end(running, costs)
        now += step
        _advance(running, step, costs, result.busy)
        ended = [work for work in running if not work.left]
        running = [work for work in running if work.left]
        for work in ended:
            following = _after(work.move, now, costs, result)
            if following is not None:
                running.append(Work(work.move, following))
    result.seconds = now
    return result


def _copy(move: Move, new_files: float, megabytes: float, costs: Costs) -> dict[str, float]:
    look = costs.fixed + costs.look * move.account.files
    disk = megabytes / costs.disk + costs.file * new_files
    return {
        "processor of the source": look,
        f"processor of target {move.target}": look,
        "disk of the source": megabytes / costs.disk,
        f"disk of target {move.target}": disk,
        "network": megabytes / costs.network,
    }


def _next_end(running: Sequence[Work], costs: Costs) -> float:
    """Return the time until some work on some resource ends."""
    users = _users_of(running)
    return min(
        left * users[name] / _share(name, costs)
        for work in running
        for name, left in work.left.items()
    )


def _users_of(running: Sequence[Work]) -> dict[str, int]:
    users: dict[str, int] = {}
    for work in running:
        for name in work.left:
            users[name] = users.get(name, 0) + 1
    return users


def _share(name: str, costs: Costs) -> float:
    return 1.0 if name == "network" else 1.0 - costs.user_load


def _advance(running: Sequence[Work], step: float, costs: Costs, busy: dict[str, float]) -> None:
    users = _users_of(running)
    for work in running:
        for name in list(work.left):
            done = step * _share(name, costs) / users[name]
            busy[name] = busy.get(name, 0.0) + done
            work.left[name] -= done
            if work.left[name] <= 1e-9:
                del work.left[name]


def _after(move: Move, now: float, costs: Costs, result: Result) -> dict[str, float] | None:
    """Return the work that follows; None if the move has ended."""
    account, seconds = move.account, now - move.began
    changed = account.rate * (now - move.changed_since)
    if move.step == "pause":
        if seconds <= move.max_pause:
            result.pauses.append(seconds)
            result.longer += move.max_pause > 2
            return None
        result.again += 1
        move.step = "copy"
    elif seconds <= 0.4 * move.max_pause:
        move.step = "pause"
    move.copies += 1
    if move.copies % COPIES == 0:
        move.max_pause *= 1.5
    move.changed_since, move.began = now, now
    mean = account.size / account.files
    work = _copy(move, changed, changed * mean, costs)
    if move.step == "pause":
        work["processor of the source"] += costs.pause
    return work


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that a share of the values do not exceed."""
    return heapq.nsmallest(max(1, math.ceil(share * len(values))), values)[-1]


def report(result: Result, at_once: int) -> str:
    """Return a line of the table."""
    busy = {
        kind: max((t for name, t in result.busy.items() if name.startswith(kind)), default=0.0)
        / result.seconds
        for kind in (
            "processor of the source",
            "disk of the source",
            "processor of target",
            "disk of target",
            "network",
        )
    }
    pauses = [percentile(result.pauses, share) for share in (0.5, 0.99, 1.0)]
    cells = [f"{at_once:>7}", f"{result.seconds / 3600:>7.1f}", *(f"{p:>7.2f}" for p in pauses)]
    cells += [
        f"{result.again:>7}",
        f"{result.longer:>7}",
        *(f"{share:>7.0%}" for share in busy.values()),
    ]
    return " ".join(cells)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n", maxsplit=1)[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for name, default, text in (
        ("users", 10_000, "users of the node"),
        ("targets", 1, "nodes that get them"),
        ("size", 500.0, "mean size of an account in MB"),
        ("message", 0.075, "mean size of a message in MB"),
        ("fixed", 0.02, "seconds of a processor for a copy of nothing"),
        ("pause", 0.15, "seconds of a processor for the rest of a pause"),
        ("look", 0.00001, "seconds of a processor for each file that a copy looks at"),
        ("file", 0.0002, "seconds of the disk for each new file"),
        ("disk", 150.0, "MB per second of a disk"),
        ("network", 110.0, "MB per second of the network"),
        ("user-load", 0.3, "share of processor and disk that users need"),
    ):
        parser.add_argument(f"--{name}", type=type(default), default=default, help=text)
    options = parser.parse_args()
    costs = Costs(
        options.fixed,
        options.pause,
        options.look,
        options.file,
        options.disk,
        options.network,
        options.user_load,
    )
    users = accounts(options.users, options.size, options.message)
    total = sum(account.size for account in users) / 1e6
    print(
        f"{len(users)} users, {total:.1f} TB, {sum(a.files for a in users):,} files, {options.targets} targets"
    )
    print("                   pause of a user (s)                   busy: source          target")
    print(
        "at once   hours  median    99 %    most   again  longer     cpu    disk     cpu    disk network"
    )
    for at_once in (1, 2, 4, 8, 16):
        print(report(drain(users, at_once, options.targets, costs), at_once))


if __name__ == "__main__":
    main()
