"""What the clients do until the power is cut, and what they were told until then."""

from __future__ import annotations

import random
import selectors
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from benchmarks.client import Response
from benchmarks.powercut_choice import Chooser
from benchmarks.powercut_delivery import DeliveryAgent
from benchmarks.powercut_mailboxes import Create, Rename, Select
from benchmarks.powercut_messages import Fetch, Move
from benchmarks.powercut_model import REFUSED, SEPARATOR, Account, Fault, Mailbox, Message
from benchmarks.powercut_operation import Operation
from benchmarks.powercut_session import Session

_WAIT = 0.05
_SMALLEST_TIMED_MOVE = 50
_LONGEST_RENAME = 1.0


@dataclass(slots=True)
class Plan:
    """When the power is cut.

    Attributes:
        bulk: the messages of a MOVE during which it is cut; 0 for none.
        tree: the mailboxes of a RENAME during which it is cut; 0 for none.
        answers: the acknowledged commands before the cut.
        delay: seconds from the last of them to the cut. If `bulk`, the share of the duration of the MOVE; if `tree`,
            of the folders that are renamed before the cut.
        new_boot: the machine restarts; otherwise a volume is attached again.
    """

    bulk: int
    tree: int
    answers: int
    delay: float
    new_boot: bool

    @classmethod
    def draw(cls, rng: random.Random) -> Plan:
        """Return a random plan."""
        kind = rng.random()
        bulk = tree = 0
        if kind > 1 - 1 / 6:
            tree = rng.randint(3, 12)
        if kind < 1 / 12:
            bulk = rng.randint(100, 600)
        if kind < 1 / 80:
            bulk = rng.randint(1000, 3000)
        if kind < 1 / 300:
            bulk = 10_000
        answers = rng.choice([rng.randint(1, 5), rng.randint(5, 30), rng.randint(5, 60)])
        delay = rng.choice([0.0, rng.uniform(0, 0.005), rng.uniform(0, 0.03)])
        if bulk:
            delay = rng.uniform(0, 1.3)
        if tree:
            delay = rng.random()
        return cls(bulk, tree, answers, delay, rng.random() < 0.5)


@dataclass(slots=True)
class Result:
    """What one cut showed.

    Attributes:
        commands: the number by operation; those in flight under their own names (`powercut_model.in_flight`).
        in_flight: the commands in flight, as in the log.
    """

    number: int
    commands: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)
    in_flight: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Client:
    """A client: its connection, the mailbox it has selected, and the command it waits for, perhaps after a NOOP."""

    number: int
    session: Session
    chooser: Chooser
    selected: Mailbox | None = None
    operation: Operation | None = None
    updating: bool = False
    sent: float = 0


class Work:
    """The clients between two cuts.

    Args:
        accounts: the account of each client.
        connect: returns a session that has logged in.
        agent: delivers messages.
        number: the number of the cut.
        rng: the random numbers.
        unsupported: choices of `powercut_choice` that the server lacks.
    """

    def __init__(
        self,
        accounts: Sequence[Account],
        connect: Callable[[Account], Session],
        agent: DeliveryAgent,
        number: int,
        rng: random.Random,
        unsupported: Sequence[str],
    ) -> None:
        self.result = Result(number)
        self._agent = agent
        self._started = time.monotonic()
        self._next_token = 0
        self._clients = [
            Client(index, connect(account), self._chooser(account, rng, unsupported))
            for index, account in enumerate(accounts)
        ]

    def _chooser(self, account: Account, rng: random.Random, unsupported: Sequence[str]) -> Chooser:
        return Chooser(
            account,
            random.Random(rng.random()),
            lambda size: self._token(account, size),
            lambda mailbox, token: self._deliver(account, mailbox, token),
            unsupported,
        )

    def run(self, plan: Plan, sync: Callable[[], None], seconds_per_move: float) -> float:
        """Let the clients work until the moment of the cut.

        Args:
            plan: says when that is.
            sync: writes everything to the disk.
            seconds_per_move: how long a MOVE takes for each message, which is measured again.

        Returns:
            The new `seconds_per_move`.
        """
        self._seconds_per_move = seconds_per_move
        cut_at = None
        answers = 0
        if plan.bulk:
            cut_at = self._begin_bulk(self._clients[0], plan, sync)
        elif plan.tree:
            self._rename(self._clients, plan)
            return seconds_per_move
        with selectors.DefaultSelector() as selector:
            for client in self._clients:
                selector.register(client.session, selectors.EVENT_READ, client)
            while cut_at is None or time.monotonic() < cut_at:
                for client in self._clients:
                    if client.operation is None:
                        self._next(client)
                wait = _WAIT if cut_at is None else max(0, cut_at - time.monotonic())
                for key, _ in selector.select(wait):
                    for response in key.data.session.receive():
                        answers += self._finish(key.data, response)
                if cut_at is None and answers >= plan.answers:
                    cut_at = time.monotonic() + plan.delay
        return self._seconds_per_move

    def drain(self) -> list[Operation]:
        """Handle what the clients received before the cut; return the commands that were sent and not answered."""
        self.log("cut")
        operations = [operation for client in self._clients for operation in self._drain(client)]
        for operation in operations:
            operation.in_flight = True
            self.result.commands[operation.by] += 1
            self.result.in_flight.append(_describe(operation))
        return operations

    def _drain(self, client: Client) -> Iterator[Operation]:
        for response in client.session.drain():
            if client.updating and client.operation:
                self.result.faults += client.operation.announce(response.untagged)
            else:
                self._finish(client, response)
        client.session.close()
        if client.operation:
            self.result.faults += client.operation.announce(client.session.untagged)
            client.operation.unlock()
            if not client.updating:
                yield client.operation

    def _token(self, account: Account, size: int) -> str:
        self._next_token += 1
        return f"{account.user}-{self.result.number}-{self._next_token}-{size}"

    def _deliver(self, account: Account, mailbox: Mailbox, token: str) -> None:
        self._agent.deliver(account, mailbox, token)
        self.result.commands["delivery"] += 1
        self.log(f"delivery of {token} to {account.user}'s {mailbox.name}")

    def _next(self, client: Client) -> None:
        selected = [c.selected for c in self._clients if c.selected]
        operation = client.chooser.choose(client.selected, selected)
        if operation is not None:
            self._send(client, operation)

    def _send(self, client: Client, operation: Operation) -> None:
        operation.lock()
        if isinstance(operation, Select):
            client.selected = operation.mailbox
        client.operation, client.sent = operation, time.monotonic()
        self.log(f"{client.number} > {_describe(operation)}")
        # A session ignores the UIDs of messages that it has not been told of. Dovecot delays the update of a NOOP
        # beyond a command that is sent together with it.
        client.updating = bool(operation.messages)
        client.session.send(b"NOOP" if client.updating else operation.command)

    def _finish(self, client: Client, response: Response) -> int:
        """Handle the response of a client's command; return 1 if it was OK."""
        operation = client.operation
        assert operation is not None, response
        if client.updating:
            client.updating = False
            self.result.faults += operation.announce(response.untagged)
            client.session.send(operation.command)
            return 0
        client.operation = None
        operation.unlock()
        text = response.tagged.decode(errors="replace").strip()
        self.log(f"{client.number} < {text}")
        self.result.faults += operation.announce(response.untagged, response.tagged)
        if text.split()[1] != "OK":
            fault = Fault(REFUSED, operation.name, f"{_describe(operation)}: {text}")
            self.result.faults.append(fault)
            return 0
        self.result.faults += operation.acknowledge()
        self.result.commands[operation.name] += 1
        if isinstance(operation, Move) and len(operation.messages) > _SMALLEST_TIMED_MOVE:
            seconds = (time.monotonic() - client.sent) / len(operation.messages)
            self._seconds_per_move = (self._seconds_per_move + seconds) / 2
        return 1

    def _begin_bulk(self, client: Client, plan: Plan, sync: Callable[[], None]) -> float:
        """Fill a mailbox, and begin to move all its messages; return the time of the cut."""
        account = client.chooser.account
        name = f"Bulk{self.result.number}"
        target = client.chooser.rng.choice([*account.mailboxes.values()])
        self._run(client, Create(account, name))
        mailbox = account.mailboxes[name]
        for _ in range(plan.bulk):
            token = self._token(account, 200)
            self._agent.write(account, mailbox, token)
            mailbox.delivered.append(Message(token, frozenset(), None, "delivery", "delivery"))
        sync()
        self._run(client, Select(account, mailbox))
        self._run(client, Fetch(account, mailbox))
        self._send(client, Move(account, mailbox, [*mailbox.messages.values()], target))
        return time.monotonic() + plan.delay * plan.bulk * self._seconds_per_move

    def _rename(self, clients: Sequence[Client], plan: Plan) -> None:
        """Rename a mailbox with mailboxes below it, and return when a part of the folders has new names."""
        account, create = clients[0].chooser.account, partial(Create, clients[0].chooser.account)
        tops = [m.name for m in account.mailboxes.values() if SEPARATOR not in m.name]
        old = max(tops, key=lambda name: len(account.children(name)))
        if not account.children(old):
            old = f"Tree{self.result.number}"
            self._run(clients[0], create(old))
        for index in range(plan.tree - 1 - len(account.children(old))):
            self._run(clients[0], create(f"{old}{SEPARATOR}{self.result.number}-{index}"))
        rename = Rename(account, account.mailboxes[old], f"Renamed{self.result.number}")
        names = sorted(new for _, new in rename.names)
        last = names[int(plan.delay * len(names))]
        self._send(clients[0], rename)
        for client in clients[1:]:
            self._next(client)
        end = time.monotonic() + _LONGEST_RENAME
        while not self._agent.has_folder(account, last) and time.monotonic() < end:
            pass

    def _run(self, client: Client, operation: Operation) -> None:
        self._send(client, operation)
        while client.operation is not None:
            for response in client.session.receive():
                self._finish(client, response)

    def log(self, text: str) -> None:
        """Add a line to the log of the cut."""
        elapsed = (time.monotonic() - self._started) * 1000
        self.result.log.append(f"{elapsed:8.2f} ms {text}")


def _describe(operation: Operation) -> str:
    command = operation.command.split(b"\r\n", 1)[0].decode(errors="replace")
    tokens = getattr(operation, "tokens", None) or getattr(operation, "token", "")
    return f"{operation.account.user}: {command[:300]} {tokens}".strip()
