"""Calculates how many nodes a number of users needs, from the figures and the formulas of docs/planning.rst.

In a checkout: .venv/bin/python -m benchmarks.plan --users 100000 --commands 2
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Habits:
    """What one user does at the busiest time.

    Attributes:
        connections: how many are open.
        commands: per minute, of all connections of the user together.
        logins: per hour, of all devices.
        hash: CPU seconds of one password check, such as 0.05 for argon2id; 0 if another machine checks passwords.
    """

    connections: float = 3.0
    commands: float = 3.0
    logins: float = 6.0
    hash: float = 0.05


@dataclass(frozen=True, slots=True)
class Machine:
    """One node.

    Attributes:
        cores: how many it has; each is used by a process.
        memory: gigabytes for the server, without what the kernel needs.
        load: the part of the cores that may be busy at the busiest time. The rest is for floods and peaks.
        open: the most connections (``max_connections``).
    """

    cores: float = 4.0
    memory: float = 8.0
    load: float = 0.5
    open: float = 60_000


@dataclass(frozen=True, slots=True)
class Role:
    """What a kind of node needs, as measured.

    Attributes:
        command, login: CPU seconds, without the password check.
        connection: bytes of an open connection.
        user: bytes of a user who is logged in.
        checks_passwords: whether the node does that.
        spare: nodes for each that is needed: with 1.5, those that remain suffice when a third fails. A mail node cannot
            take the users of another one.
        least: the fewest nodes. A single shield node would be what shuts everybody out when it fails.
    """

    command: float
    login: float
    connection: float
    user: float
    checks_passwords: bool
    spare: float
    least: int = 1


ROLES = {
    "shield": Role(0.00047, 0.0080, 104e3, 0, checks_passwords=False, spare=1.5, least=2),
    "mail": Role(0.00078, 0.0044, 45e3, 560e3, checks_passwords=True, spare=1.0),
    "all in one": Role(0.00078, 0.0040, 35e3, 560e3, checks_passwords=True, spare=1.0),
}
"""The figures of docs/planning.rst, which says where each comes from."""


def users_per_node(role: Role, habits: Habits, machine: Machine) -> dict[str, float]:
    """Return how many users one node serves, by what would be used up first."""
    login = role.login + habits.hash * role.checks_passwords
    cpu = habits.commands / 60 * role.command + habits.logins / 3600 * login
    memory = habits.connections * role.connection + role.user
    return {
        "cores": machine.cores * machine.load / cpu if cpu else math.inf,
        "memory": machine.memory * 1e9 / memory,
        "connections": machine.open / habits.connections,
    }


def nodes(users: float, role: Role, habits: Habits, machine: Machine) -> tuple[int, str]:
    """Return how many nodes are needed, with the spare ones, and why: what is used up first, or ``redundancy``."""
    limits = users_per_node(role, habits, machine)
    first = min(limits, key=lambda name: limits[name])
    needed = math.ceil(users / limits[first] * role.spare)
    return (needed, first) if needed >= role.least else (role.least, "redundancy")


def report(users: float, habits: Habits, machine: Machine) -> Iterator[str]:
    """Yield the lines of a plan."""
    for name, role in ROLES.items():
        limits = users_per_node(role, habits, machine)
        needed, first = nodes(users, role, habits, machine)
        each = ", ".join(f"{limit:,.0f} by {resource}" for resource, limit in limits.items())
        why = "so that one may fail" if first == "redundancy" else f"because of the {first}"
        yield f"{name}: {needed} node{'s' * (needed > 1)} {why} (users per node: {each})"


HELP = {
    "connections": "open connections of one user",
    "commands": "commands per minute of one user, on all connections together",
    "logins": "logins per hour of one user, on all devices",
    "hash": "CPU seconds of one password check; 0 if another machine checks passwords",
    "cores": "processor cores of one node",
    "memory": "gigabytes of one node for the server",
    "load": "part of the cores that may be busy, more than 0, at most 1; the rest is for floods",
    "open": "most connections of one node, its max_connections",
}

MAY_BE_ZERO = ("commands", "logins", "hash")


def positive(text: str) -> float:
    """Return a number of the command line that is more than 0."""
    number = not_negative(text)
    if not number:
        raise argparse.ArgumentTypeError("must be more than 0")
    return number


def not_negative(text: str) -> float:
    """Return a number of the command line that is at least 0."""
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError("must be a number, at least 0")
    return number


def main() -> None:
    """Print a plan."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        allow_abbrev=False,
        epilog="All numbers of users are for the busiest time. 'all in one' is one kind of node with mail and without"
        " shield nodes; 'shield' and 'mail' belong together.",
    )
    parser.add_argument("--users", type=positive, default=10_000, help="all users (10000)")
    for value in (Habits(), Machine()):
        for each in fields(value):
            default = getattr(value, each.name)
            kind = not_negative if each.name in MAY_BE_ZERO else positive
            text = f"{HELP[each.name]} ({default:g})"
            parser.add_argument(
                f"--{each.name}", type=kind, default=default, metavar="N", help=text
            )
    options = vars(parser.parse_args())
    if options["load"] > 1:
        parser.error("argument --load: must be at most 1")
    habits = Habits(*(options[each.name] for each in fields(Habits)))
    machine = Machine(*(options[each.name] for each in fields(Machine)))
    print("\n".join(report(options["users"], habits, machine)))


if __name__ == "__main__":
    main()
