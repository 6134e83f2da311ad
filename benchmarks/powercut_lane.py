"""One lane of the power cut benchmark: cuts one after another, in a mount namespace of its own.

`benchmarks.powercut` starts it, and reads one line of JSON for each cut.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import selectors
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import peers
from benchmarks.client import Response
from benchmarks.powercut_choice import Chooser
from benchmarks.powercut_mailboxes import Create, Select
from benchmarks.powercut_messages import Fetch, Move
from benchmarks.powercut_model import REFUSED, Account, Fault, Mailbox, Message
from benchmarks.powercut_operation import Operation, content_of
from benchmarks.powercut_servers import PASSWORD, SERVERS, USERS, Server
from benchmarks.powercut_session import Closed, Session
from benchmarks.powercut_verify import VerificationRefused, log_in, read_account, refused, verify
from benchmarks.powercut_volume import BootId, Volume

CUTS_PER_VOLUME = 50
CLIENTS = (*(USERS[0],) * 3, USERS[1])
_WAIT = 0.05


@dataclass(slots=True)
class Plan:
    """When the power is cut.

    Attributes:
        bulk: the messages of a MOVE during which it is cut; 0 for none.
        answers: the acknowledged commands before the cut.
        delay: seconds from the last of them to the cut; the share of a MOVE's duration, if `bulk`.
        new_boot: the machine restarts; otherwise a volume is attached again.
    """

    bulk: int
    answers: int
    delay: float
    new_boot: bool

    @classmethod
    def draw(cls, rng: random.Random) -> Plan:
        """Return a random plan."""
        kind = rng.random()
        bulk = 0
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
        return cls(bulk, answers, delay, rng.random() < 0.5)


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


@dataclass(slots=True)
class Result:
    """What one cut showed."""

    number: int
    acknowledged: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)
    in_flight: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)


class Lane:
    """A server, and the volume that its mail is on.

    Args:
        server: the server.
        directory: for images and logs.
        seed: of all random numbers.
        kinds: the kinds of file systems, which alternate.
        keep: a directory for the images of cuts that show faults, or None.
    """

    def __init__(
        self, server: Server, directory: Path, seed: str, kinds: list[str], keep: Path | None
    ) -> None:
        self.server, self.directory, self.seed = server, directory, seed
        self.kinds, self.keep = kinds, keep
        self.boot_id = BootId(directory)
        self._seconds_per_move = 0.0002

    def run(self, first: int, last: int) -> Iterator[dict[str, object]]:
        """Cut the power of one volume many times; yield the result of each cut, for JSON.

        Args:
            first: the number of the first cut.
            last: the number after that of the last one.
        """
        kind = self.kinds[first // CUTS_PER_VOLUME % len(self.kinds)]
        fresh = True
        for number in range(first, last):
            started = time.monotonic()
            if fresh:
                begun = number
                self._create_volume(kind, number)
            rng = random.Random(f"{self.seed}/{number}")
            plan = Plan.draw(rng)
            result = self._cut(number, plan, rng)
            fresh = bool(
                result.faults
                or self.volume.fill_level() > 0.5
                or (plan.bulk >= 1000 and rng.random() < 0.6)
            )
            yield {
                "server": self.server.name,
                "fs": kind,
                "cut": number,
                "begun": begun,
                "plan": repr(plan),
                "acknowledged": dict(result.acknowledged),
                "faults": result.faults,
                "in_flight": result.in_flight,
                "log": result.log if result.faults else [],
                "output": self.server.output() if result.faults else "",
                "seconds": time.monotonic() - started,
            }
            if fresh:
                self._drop_volume()
        if not fresh:
            self._drop_volume()

    def _create_volume(self, kind: str, number: int) -> None:
        self.volume = Volume(self.directory, kind, self.server.owner)
        self.accounts = {user: Account(user) for user in USERS}
        for account in self.accounts.values():
            account.mailboxes["INBOX"] = Mailbox("INBOX", "login")
        self._next_token = 0
        self.port = self.server.start(self.volume.root)
        list(self._verify([], Result(number)))

    def _drop_volume(self) -> None:
        self.server.kill()
        self.server.wait()
        self.volume.unmount()

    def _cut(self, number: int, plan: Plan, rng: random.Random) -> Result:
        result = Result(number)
        self._result, self._started = result, time.monotonic()
        self._clients = [self._connect(index, user, rng) for index, user in enumerate(CLIENTS)]
        try:
            self._work(plan)
        finally:
            self.server.kill()
            self.volume.cut()
            self.server.wait()
        self._log("cut")
        in_flight = [operation for client in self._clients for operation in self._drain(client)]
        result.in_flight = [_describe(operation) for operation in in_flight]
        self._remount(plan)
        result.faults += self._verify(in_flight, result)
        if result.faults and self.keep:
            self._keep(result)
        return result

    def _drain(self, client: Client) -> Iterator[Operation]:
        """Handle what a client received before the cut; yield the command that was sent and not answered."""
        for response in client.session.drain():
            if client.updating and client.operation:
                self._result.faults += client.operation.announce(response.untagged)
            else:
                self._finish(client, response)
        client.session.close()
        if client.operation:
            self._result.faults += client.operation.announce(client.session.untagged)
            client.operation.unlock()
            if not client.updating:
                yield client.operation

    def _remount(self, plan: Plan) -> None:
        self.volume.unmount()
        if self.keep:
            _copy_sparse(self.volume.image, self.directory / "kept.img")
        if plan.new_boot:
            self.boot_id.change()
        self.volume.remount()
        self.port = self.server.start(self.volume.root)

    def _keep(self, result: Result) -> None:
        assert self.keep is not None
        name = f"{self.server.name}-{self.seed}-{result.number}"
        shutil.move(self.directory / "kept.img", self.keep / f"{name}.img")
        text = "\n".join([*map(str, result.faults), "", *result.log, "", self.server.output()])
        (self.keep / f"{name}.log").write_text(text)

    def _connect(self, index: int, user: str, rng: random.Random) -> Client:
        account = self.accounts[user]
        session = Session(peers.HOST, self.port)
        log_in(session, account, PASSWORD)
        chooser = Chooser(
            account,
            random.Random(rng.random()),
            lambda size: self._token(account, size),
            lambda mailbox, token: self._deliver(account, mailbox, token),
            self.server.unsupported,
        )
        return Client(index, session, chooser)

    def _token(self, account: Account, size: int) -> str:
        self._next_token += 1
        return f"{account.user}-{self._result.number}-{self._next_token}-{size}"

    def _folder(self, account: Account, mailbox: Mailbox) -> Path:
        home = self.volume.root / account.user
        return home if mailbox.name == "INBOX" else home / f".{mailbox.name}"

    def _write(self, folder: Path, token: str, *, sync: bool) -> None:
        temporary, final = folder / "tmp" / token, folder / "new" / token
        with temporary.open("wb") as file:
            file.write(content_of(token).replace(b"\r\n", b"\n"))
            if sync:
                file.flush()
                os.fsync(file.fileno())
        if self.server.owner:
            os.chown(temporary, *self.server.owner)
        temporary.rename(final)

    def _deliver(self, account: Account, mailbox: Mailbox, token: str) -> None:
        folder = self._folder(account, mailbox)
        self._write(folder, token, sync=True)
        _sync_directory(folder / "new")
        self._result.acknowledged["delivery"] += 1
        self._log(f"delivery of {token} to {account.user}'s {mailbox.name}")

    def _work(self, plan: Plan) -> None:
        """Let the clients work until the moment of the cut."""
        cut_at = None
        answers = 0
        if plan.bulk:
            cut_at = self._begin_bulk(self._clients[0], plan)
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
        self._log(f"{client.number} > {_describe(operation)}")
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
            self._result.faults += operation.announce(response.untagged)
            client.session.send(operation.command)
            return 0
        client.operation = None
        operation.unlock()
        text = response.tagged.decode(errors="replace").strip()
        self._log(f"{client.number} < {text}")
        self._result.faults += operation.announce(response.untagged, response.tagged)
        if text.split()[1] != "OK":
            where = operation.account.user
            fault = Fault(REFUSED, operation.name, f"{_describe(operation)} of {where}: {text}")
            self._result.faults.append(fault)
            return 0
        self._result.faults += operation.acknowledge()
        self._result.acknowledged[operation.name] += 1
        if isinstance(operation, Move) and len(operation.messages) > 50:
            seconds = (time.monotonic() - client.sent) / len(operation.messages)
            self._seconds_per_move = (self._seconds_per_move + seconds) / 2
        return 1

    def _begin_bulk(self, client: Client, plan: Plan) -> float:
        """Fill a mailbox, and begin to move all its messages; return the time of the cut."""
        account = client.chooser.account
        name = f"Bulk{self._result.number}"
        target = client.chooser.rng.choice([*account.mailboxes.values()])
        self._run(client, Create(account, name))
        mailbox = account.mailboxes[name]
        folder = self._folder(account, mailbox)
        for _ in range(plan.bulk):
            token = self._token(account, 200)
            self._write(folder, token, sync=False)
            mailbox.delivered.append(Message(token, frozenset(), None, "delivery", "delivery"))
        self.volume.sync()
        self._run(client, Select(account, mailbox))
        self._run(client, Fetch(account, mailbox))
        self._send(client, Move(account, mailbox, [*mailbox.messages.values()], target))
        return time.monotonic() + plan.delay * plan.bulk * self._seconds_per_move

    def _run(self, client: Client, operation: Operation) -> None:
        self._send(client, operation)
        while client.operation is not None:
            for response in client.session.receive():
                self._finish(client, response)

    def _verify(self, in_flight: list[Operation], result: Result) -> Iterator[Fault]:
        metadata = "metadata" not in self.server.unsupported
        for account in self.accounts.values():
            with suppress(OSError):
                session = Session(peers.HOST, self.port)
            try:
                log_in(session, account, PASSWORD)
                found = read_account(session, account, metadata=metadata)
            except (VerificationRefused, Closed, OSError) as error:
                yield refused(error)
                continue
            finally:
                session.close()
            own = [operation for operation in in_flight if operation.account is account]
            for fault in verify(account, found, own, metadata=metadata):
                yield fault._replace(text=f"{account.user}: {fault.text}")
        del result

    def _log(self, text: str) -> None:
        elapsed = (time.monotonic() - self._started) * 1000
        self._result.log.append(f"{elapsed:8.2f} ms {text}")


def _describe(operation: Operation) -> str:
    command = operation.command.split(b"\r\n", 1)[0].decode(errors="replace")
    tokens = getattr(operation, "tokens", None) or getattr(operation, "token", "")
    return f"{operation.account.user}: {command[:300]} {tokens}".strip()


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy_sparse(source: Path, target: Path) -> None:
    os.system(f"cp --sparse=always {source} {target}")  # noqa: S605


def main() -> int:
    """Run the volumes of one lane."""
    parser = argparse.ArgumentParser(prog="powercut_lane")
    parser.add_argument("--server", choices=SERVERS, required=True)
    parser.add_argument("--first", type=int, required=True)
    parser.add_argument("--cuts", type=int, required=True)
    parser.add_argument("--lane", type=int, default=0)
    parser.add_argument("--lanes", type=int, default=1)
    parser.add_argument("--seed", default="0")
    parser.add_argument("--kinds", default="ext4")
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="powercut-", dir=options.directory) as name:
        directory = Path(name)
        directory.chmod(0o755)
        server = SERVERS[options.server](directory)
        lane = Lane(server, directory, options.seed, options.kinds.split(","), options.keep)
        gc.collect()
        gc.freeze()
        last = options.first + options.cuts
        starts = [
            start
            for start in range(options.first, last)
            if start == options.first or start % CUTS_PER_VOLUME == 0
        ]
        for start in starts[options.lane :: options.lanes]:
            end = min(last, (start // CUTS_PER_VOLUME + 1) * CUTS_PER_VOLUME)
            for result in lane.run(start, end):
                print(json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
