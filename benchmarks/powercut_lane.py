"""One lane of the power cut benchmark: cuts one after another, in a mount namespace of its own.

`benchmarks.powercut` starts it, and reads one line of JSON for each cut.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks import peers
from benchmarks.powercut_delivery import DeliveryAgent
from benchmarks.powercut_model import Account, Fault, Mailbox
from benchmarks.powercut_operation import Operation
from benchmarks.powercut_servers import PASSWORD, SERVERS, USERS, Server
from benchmarks.powercut_session import Closed, Session
from benchmarks.powercut_verify import VerificationRefused, log_in, read_account, refused, verify
from benchmarks.powercut_volume import BootId, Volume
from benchmarks.powercut_work import Plan, Result, Work

CUTS_PER_VOLUME = 50
CLIENTS = (*(USERS[0],) * 3, USERS[1])

_BULK_KEPT = 1000
"""After a MOVE of so many messages the volume is often replaced, because verification takes long."""

_TIMEOUT = 20.0
"""Seconds after which a client gives up. Dovecot waits for two minutes for some files that a power cut leaves."""


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
        number = first
        while number < last:
            begun = number
            with self._volume(kind):
                fresh = False
                while number < last and not fresh:
                    rng = random.Random(f"{self.seed}/{number}")
                    plan = Plan.draw(rng)
                    result = self._cut(number, plan, rng)
                    fresh = bool(
                        result.faults
                        or self.volume.fill_level() > 0.5
                        or (plan.bulk >= _BULK_KEPT and rng.random() < 0.6)
                    )
                    yield {
                        "server": self.server.name,
                        "fs": kind,
                        "cut": number,
                        "begun": begun,
                        "plan": repr(plan),
                        "commands": dict(result.commands),
                        "faults": result.faults,
                        "in_flight": result.in_flight,
                        "log": result.log if result.faults else [],
                        "output": self.server.output() if result.faults else "",
                    }
                    number += 1

    @contextmanager
    def _volume(self, kind: str) -> Iterator[None]:
        """Create a file system, and start the server; afterwards undo both."""
        self.volume = Volume(self.directory, kind, self.server.owner)
        try:
            self._start_accounts()
            yield
        finally:
            self.server.kill()
            self.server.wait()
            self.volume.unmount()

    def _start_accounts(self) -> None:
        self.accounts = {user: Account(user) for user in USERS}
        for account in self.accounts.values():
            account.mailboxes["INBOX"] = Mailbox("INBOX", "login")
        self.port = self.server.start(self.volume.root)
        list(self._verify([]))

    def _cut(self, number: int, plan: Plan, rng: random.Random) -> Result:
        accounts = [self.accounts[user] for user in CLIENTS]
        agent = DeliveryAgent(self.volume.root, self.server.owner)
        work = Work(accounts, self._connect, agent, number, rng, self.server.unsupported)
        try:
            self._seconds_per_move = work.run(plan, self.volume.sync, self._seconds_per_move)
        finally:
            self.server.kill()
            if plan.tree:
                self.volume.sync()  # renames that are not synced would be lost together
            # Before the server is gone, so that it cannot finish what it had begun.
            self.volume.cut()
            self.server.wait()
        in_flight, result = work.drain(), work.result
        self._remount(plan)
        result.faults += self._verify(in_flight)
        if result.faults and self.keep:
            self._keep(result)
        return result

    def _remount(self, plan: Plan) -> None:
        self.volume.unmount()
        if self.keep:
            self.volume.copy_image(self.directory / "kept.img")
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

    def _connect(self, account: Account) -> Session:
        session = Session(peers.HOST, self.port, _TIMEOUT)
        log_in(session, account, PASSWORD)
        return session

    def _verify(self, in_flight: list[Operation]) -> Iterator[Fault]:
        metadata = "metadata" not in self.server.unsupported
        for account in self.accounts.values():
            connect = partial(self._connect, account)
            try:
                found = read_account(connect, account, metadata=metadata)
            except (VerificationRefused, Closed, OSError) as error:
                yield refused(error)
                continue
            own = [operation for operation in in_flight if operation.account is account]
            for fault in verify(account, found, own, metadata=metadata):
                yield fault._replace(text=f"{account.user}: {fault.text}")


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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # which removes the images
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
