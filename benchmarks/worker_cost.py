"""What ``--workers 2`` costs: beside one process, and beside two servers that have nothing to do with each other.

    python -m benchmarks.worker_cost --turns 7

A client that must wait for two processes in turn makes both slower, whatever they do: their memory has left the caches
of the processors. The third server shows how much that is: half of the clients of each load connect to one process
without workers, and half to another. What two workers take more than these is the price of ``--workers``. The servers
take turns, and a figure is the median, because the speed of a shared machine changes from second to second.
"""

from __future__ import annotations

import argparse
import random
import selectors
import socket
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import mail, mixed_load, peers
from benchmarks.client import Client
from benchmarks.processes import cpu, settled_cpu

USERS = 100
MESSAGES = 300
COMMANDS = 3000
IDLE_SECONDS = 10.0

Servers = Sequence[peers.Peer]
Load = Callable[[Servers], tuple[int, float, float]]
"""Returns how many commands were done, and the seconds of processor time and of time that they took."""


def logins(servers: Servers, number: int, at_once: int) -> int:
    """Log `number` clients in, `at_once` of them at the same time; each leaves when it has the answer."""
    begun = ended = 0
    with selectors.DefaultSelector() as selector, ExitStack() as stack:
        while ended < number:
            while begun < number and begun - ended < at_once:
                server = servers[begun % len(servers)]
                connection = socket.create_connection((server.host, server.port))
                stack.enter_context(connection)
                selector.register(
                    connection, selectors.EVENT_READ, mail.user_names(USERS)[begun % USERS]
                )
                begun += 1
            for key, _ in selector.select(10):
                connection = key.fileobj  # type: ignore[assignment]
                data = connection.recv(1 << 16)
                if data.startswith(b"* OK"):
                    connection.sendall(f"a LOGIN {key.data} {peers.PASSWORD}\r\n".encode())
                elif b"a OK" in data:
                    selector.unregister(connection)
                    connection.close()
                    ended += 1
                else:
                    raise RuntimeError(f"no login: {data!r}")
    return number


@contextmanager
def measured(servers: Servers) -> Iterator[list[float]]:
    """Yield a list that has the processor time and the time of the block at its end."""
    found: list[float] = []
    before = [settled_cpu(server.pid) for server in servers]
    begun = time.perf_counter()
    yield found
    seconds = time.perf_counter() - begun
    after = [settled_cpu(server.pid) for server in servers]
    found += [sum(after) - sum(before), seconds]


def login_load(at_once: int, number: int = 400) -> Load:
    """Return a load of logins."""

    def load(servers: Servers) -> tuple[int, float, float]:
        logins(servers, 50, at_once)
        with measured(servers) as found:
            logins(servers, number, at_once)
        return number, found[0], found[1]

    return load


def mixed(count: int) -> Load:
    """Return the mixed load of `count` clients, each with a user of its own."""

    def load(servers: Servers) -> tuple[int, float, float]:
        with ExitStack() as stack:
            clients = []
            for number, user in enumerate(mail.user_names(count)):
                server = servers[number % len(servers)]
                clients.append(stack.enter_context(Client(server.host, server.port)))
                clients[-1].login(user, peers.PASSWORD)
                clients[-1].select()
                clients[-1].command(r"STORE 1:* -FLAGS.SILENT (\Flagged)")
            messages = min(mail.SMALL, MESSAGES)

            def begin() -> list[mixed_load._LoadClient]:
                rows = enumerate(clients)
                return [mixed_load._LoadClient(c, random.Random(n), messages) for n, c in rows]

            mixed_load.drive(begin(), 10)
            with measured(servers) as found:
                done = mixed_load.drive(begin(), COMMANDS // count)
            for client in clients:
                if client.select() > messages:
                    client.command(rf"STORE {messages + 1}:* +FLAGS.SILENT (\Deleted)")
                client.command("EXPUNGE")
        return done, found[0], found[1]

    return load


LOADS = {
    "login, clients: 1": login_load(1),
    "login, clients: 10": login_load(10),
    "mixed load, clients: 20": mixed(20),
    "mixed load, clients: 100": mixed(100),
}
NAMES = {
    "one process": ["imapshield"],
    "two workers": ["workers"],
    "two servers": ["imapshield"] * 2,
}


@contextmanager
def running(root: Path) -> Iterator[dict[str, Servers]]:
    """Start all servers, each with mail of its own."""
    users = mail.user_names(USERS)
    mail.write_corpus(root / "corpus", MESSAGES, 1)
    settings = peers.Settings(users=(peers.USER, *users))
    with ExitStack() as stack:
        servers: dict[str, Servers] = {}
        for name, kinds in NAMES.items():
            folders = [
                root / f"{name[:3]}-{name[4:]}-{number}".replace(" ", "")
                for number in range(len(kinds))
            ]
            for folder in folders:
                mail.link(root / "corpus", folder / peers.USER)
                mail.link_users(root / "corpus", folder, users)
            peers.change_owner(root)
            servers[name] = [
                stack.enter_context(peers.start_with(kind, folder, settings))
                for kind, folder in zip(kinds, folders, strict=True)
            ]
        yield servers


def main() -> None:
    """Print what each load costs on each server."""
    parser = argparse.ArgumentParser(prog="worker_cost", description=__doc__)
    parser.add_argument(
        "--turns", type=int, default=7, help="how often each load runs on each server"
    )
    turns = parser.parse_args().turns
    found: defaultdict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="worker-cost-") as folder:
        Path(folder).chmod(0o755)
        with running(Path(folder)) as servers:
            time.sleep(5)
            for name, each in servers.items():
                before = sum(cpu(server.pid) for server in each)
                time.sleep(IDLE_SECONDS)
                used = sum(cpu(server.pid) for server in each) - before
                print(f"{name}, idle: {used / IDLE_SECONDS:.2%} of a processor", flush=True)
            for turn in range(turns):
                for text, load in LOADS.items():
                    order = [*servers.items()]
                    for name, each in order if turn % 2 else reversed(order):
                        number, used, seconds = load(each)
                        found[text, name].append((used / number * 1e6, number / seconds))
    print(f"{'load':26}{'server':14}{'us each':>9}{'beside one':>12}{'each second':>13}")
    for text in LOADS:
        (one, one_rate), *others = [_median(found[text, name]) for name in NAMES]
        for name, (used, rate) in zip(NAMES, [(one, one_rate), *others], strict=True):
            print(f"{text:26}{name:14}{used:9.0f}{used / one:12.2f}{rate:13.0f}")


def _median(rows: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return statistics.median(row[0] for row in rows), statistics.median(row[1] for row in rows)


if __name__ == "__main__":
    main()
