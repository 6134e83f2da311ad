"""Calculates how many nodes a number of users needs, from the figures and the formulas of docs/planning.rst.

python -m benchmarks.plan --users 100000 --commands 2
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
    """

    command: float
    login: float
    connection: float
    user: float
    checks_passwords: bool
    spare: float


ROLES = {
    "shield": Role(0.00047, 0.0080, 104e3, 0, checks_passwords=False, spare=1.5),
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
        "cores": machine.cores * machine.load / cpu,
        "memory": machine.memory * 1e9 / memory,
        "connections": machine.open / habits.connections,
    }


def nodes(users: float, role: Role, habits: Habits, machine: Machine) -> tuple[int, str]:
    """Return how many nodes are needed, with the spare ones, and what is used up first."""
    limits = users_per_node(role, habits, machine)
    first = min(limits, key=lambda name: limits[name])
    return math.ceil(users / limits[first] * role.spare), first


def report(users: float, habits: Habits, machine: Machine) -> Iterator[str]:
    """Yield the lines of a plan."""
    for name, role in ROLES.items():
        limits = users_per_node(role, habits, machine)
        needed, first = nodes(users, role, habits, machine)
        each = ", ".join(f"{limit:,.0f} by {resource}" for resource, limit in limits.items())
        yield f"{name}: {needed} nodes because of the {first} (users per node: {each})"


def main() -> None:
    """Print a plan."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=float, default=10_000, help="default 10000")
    for value in (Habits(), Machine()):
        for each in fields(value):
            default = getattr(value, each.name)
            parser.add_argument(f"--{each.name}", type=float, default=default, help=f"{default}")
    options = vars(parser.parse_args())
    habits = Habits(*(options[each.name] for each in fields(Habits)))
    machine = Machine(*(options[each.name] for each in fields(Machine)))
    print("\n".join(report(options["users"], habits, machine)))


if __name__ == "__main__":
    main()
