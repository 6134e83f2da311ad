"""What a worker inherits: its environment, and the listening sockets that the supervising process has opened."""

import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, succeed

_NOT_INHERITED = ("LISTEN_", "NOTIFY_SOCKET", "WATCHDOG_")

FIRST_SOCKET = 5
"""The file descriptor of the first listening socket of a worker, after those of `link_messages`."""


class InheritedUNIXPort(unix.Port):
    """A UNIX socket of another process: its file is neither changed nor removed."""

    startListening = tcp.Port.startListening
    connectionLost = tcp.Port.connectionLost


_UNIX_PORT: Any = InheritedUNIXPort


class InheritedEndpoint:
    """An endpoint that listens on a socket that is open already.

    Args:
        reactor: an `IReactorSocket`.
        descriptor: that of the socket.
        family: its address family.
    """

    def __init__(self, reactor: Any, descriptor: int, family: int) -> None:
        self._reactor, self._descriptor, self._family = reactor, descriptor, family

    def listen(self, factory: Any) -> Deferred[Any]:
        """Listen at once, with a descriptor of the port's own, which it closes when it stops."""
        try:
            if self._family != socket.AF_UNIX:
                port = self._reactor.adoptStreamPort(self._descriptor, self._family, factory)
            else:
                port = _UNIX_PORT._fromListeningDescriptor(self._reactor, self._descriptor, factory)
                port.startListening()
        finally:
            os.close(self._descriptor)
        return succeed(port)


def environment(environ: Mapping[str, str], path: Sequence[str]) -> dict[str, str]:
    """Return the environment of a worker: it finds the same modules, and does not talk to systemd."""
    kept = {k: v for k, v in environ.items() if not k.startswith(_NOT_INHERITED)}
    return kept | {"PYTHONPATH": os.pathsep.join(each for each in path if each)}
