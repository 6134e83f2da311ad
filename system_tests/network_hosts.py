"""Hosts with addresses of their own: network namespaces, each connected to this machine. Needs root and `ip`."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import random
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from system_tests.server import TIMEOUT

PORT = 993
"""Where a server can listen at each gateway, whatever else runs on this machine."""
_CLONE_NEWNET = 0x40000000
_SERIALS = itertools.count()
_C = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Host:
    """A network namespace; it reaches this machine at `gateway` only."""

    namespace: str
    address: str
    gateway: str

    def connect(self, port: int = PORT) -> socket.socket:
        """Return a connection from this host to a port of the gateway."""
        result: list[socket.socket | OSError] = []

        def connect() -> None:
            # The namespace is that of the thread, which ends; a socket stays where it was made.
            with open(f"/run/netns/{self.namespace}", "rb") as file:
                _C.setns(file.fileno(), _CLONE_NEWNET)
            try:
                result.append(socket.create_connection((self.gateway, port), TIMEOUT))
            except OSError as error:
                result.append(error)

        thread = threading.Thread(target=connect)
        thread.start()
        thread.join()
        if isinstance(result[0], OSError):
            raise result[0]
        return result[0]


@contextlib.contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    """Add hosts in networks of their own, of the range for tests (RFC 2544), and remove them at the end.

    Raises:
        subprocess.CalledProcessError: this process is not root.
    """
    mark, network = os.getpid(), random.randrange(256 - count)  # noqa: S311 - two runs at once need two networks
    with contextlib.ExitStack() as stack:
        found = []
        for number in range(count):
            serial = (
                f"{mark}-{next(_SERIALS)}"  # the kernel removes the devices of the last test later
            )
            name, outer, inner = f"shield{serial}", f"o{serial}", f"i{serial}"
            prefix = f"198.18.{network + number}"
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "delete", name)
            _ip("link", "add", outer, "type", "veth", "peer", "name", inner, "netns", name)
            _ip("address", "add", f"{prefix}.1/24", "dev", outer)
            _ip("link", "set", outer, "up")
            _ip("-n", name, "address", "add", f"{prefix}.2/24", "dev", inner)
            _ip("-n", name, "link", "set", inner, "up")
            found.append(Host(name, f"{prefix}.2", f"{prefix}.1"))
        yield found


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
