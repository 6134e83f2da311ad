"""imapshield in one process whose disk can be made slow, with a meter of its reactor.

    python -m benchmarks.slow_disk_server CONTROL_PORT OPTION...

The options are those of ``twistd imapshield``. A line on the control port is the name of one of `DISKS`, which is used
from then on. The answer is a line about the time until then: the longest turn of the reactor, the number of turns that
took longer than `LONG_SECONDS`, and their sum, all in seconds, and a place in the code where the longest turn was seen.
"""

from __future__ import annotations

import errno
import os
import random
import sys
import time
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.protocol import ServerFactory
from twisted.protocols.basic import LineOnlyReceiver

from benchmarks.fairness_server import TurnMeter
from benchmarks.in_process import serve

Access = Callable[[bool], None]
"""Called before a store accesses a file or a directory. The argument says whether it reads a message."""


def _healthy(_: bool) -> None:
    """Do not wait."""


def _slow(_: bool) -> None:
    time.sleep(0.02)


def _hangs_sometimes(_: bool) -> None:
    if random.random() < 0.002:
        time.sleep(1.0)


def _cold(is_message: bool) -> None:
    if is_message:
        time.sleep(0.02)


DISKS: dict[str, Access] = {
    "healthy": _healthy,
    "slow": _slow,
    "hangs": _hangs_sometimes,
    "cold": _cold,
}


class Disk:
    """Stands between the stores and the functions of `os` that access files in open directories.

    Attributes:
        access: what happens at each access.
    """

    def __init__(self) -> None:
        self.access: Access = _healthy
        for name in ("open", "stat", "rename", "link", "unlink"):
            self._replace(name, lambda _, options: self._access_name(options))
        self._replace("pread", lambda _, __: self.access(True))
        self._replace("preadv", lambda _, __: self._read_cached())
        self._replace("fsync", lambda _, __: self.access(False))

    def _replace(self, name: str, before: Callable[[Any, Any], None]) -> None:
        function = getattr(os, name)

        def replaced(*arguments: Any, **options: Any) -> Any:
            before(arguments, options)
            return function(*arguments, **options)

        setattr(os, name, replaced)

    def _access_name(self, options: dict[str, Any]) -> None:
        if "dir_fd" in options or "src_dir_fd" in options:
            self.access(False)

    def _read_cached(self) -> None:
        if self.access is _cold:
            raise BlockingIOError(errno.EAGAIN, "not in memory")


class Control(LineOnlyReceiver):
    """Changes the disk, and sends what was measured before."""

    delimiter = b"\n"

    def __init__(self, meter: TurnMeter, disk: Disk) -> None:
        self._meter = meter
        self._disk = disk

    def lineReceived(self, line: bytes) -> None:
        """Use another disk, and answer."""
        meter = self._meter
        answer = f"{meter.longest:.6f} {meter.long_turns} {meter.long_seconds:.6f} {meter.seen_at}"
        self.sendLine(answer.encode())  # type: ignore[no-untyped-call]
        self._disk.access = DISKS[line.decode()]
        meter.start_again()


class ControlFactory(ServerFactory):
    """Makes `Control` protocols."""

    noisy = False

    def __init__(self, meter: TurnMeter, disk: Disk) -> None:
        self._made_of = meter, disk

    def buildProtocol(self, addr: object) -> Control:
        """Serve one connection."""
        return Control(*self._made_of)


def main() -> None:
    """Serve until a signal ends the process."""
    reactor: Any = global_reactor
    meter = reactor._poller = TurnMeter(reactor._poller)
    factory = ControlFactory(meter, Disk())
    reactor.listenTCP(int(sys.argv[1]), factory, interface="127.0.0.1")
    serve(sys.argv[2:], sys.stdout)


if __name__ == "__main__":
    main()
