"""Whether the server could listen at its endpoints, found without listening."""

import errno
import os
import re
import socket
from collections.abc import Callable, Collection, Iterator
from typing import Any

from imapshield.check_findings import ERROR, OK, WARNING, Finding

_IN_USE = "another program uses this address, or a server with other options"


class PortCheck:
    """Checks endpoints, and remembers their ports: two options cannot have the same one.

    Args:
        running: returns the options with the endpoints of the running server, such as ``--listen tcp:1143``. It is
            called if one is in use.
        freed: those of them that it will not have after a restart, so that others can have their ports.
    """

    def __init__(
        self, running: Callable[[], Collection[str]] = tuple, freed: Collection[str] = ()
    ) -> None:
        self._running, self._freed = running, freed
        self._seen: list[tuple[str, int, str]] = []  # interface, port, option

    def check(self, option: str, endpoint: Any) -> Iterator[Finding]:
        """Yield why the server could not listen.

        Args:
            option: the option with its value, for messages.
            endpoint: the endpoint, of which only those of Twisted for TCP, TLS and UNIX are known.
        """
        # That below TLS has the attribute `endpoint` in Twisted 26, and `_wrappedEndpoint` before.
        below = getattr(endpoint, "endpoint", getattr(endpoint, "_wrappedEndpoint", endpoint))
        port, interface = getattr(below, "_port", None), getattr(below, "_interface", "")
        path = getattr(below, "_address", None)
        if isinstance(path, str):
            if os.path.exists(path) and self._is_own(option, path):
                yield OK, f"{option}: the server is running, and has it"
            else:
                yield from _unix(option, path)
        elif isinstance(port, int) and isinstance(interface, str):
            other = next(
                (o for i, p, o in self._seen if port and p == port and _meet(i, interface)), ""
            )
            self._seen.append((interface, port, option))
            if other:
                yield ERROR, f"{option}: has the port of {other}; choose another"
                return
            for severity, text in _tcp(interface, port):
                if text == _IN_USE and self._is_own(option, str(port)):
                    yield OK, f"{option}: the server is running, and has it"
                else:
                    yield severity, f"{option}: {text}"

    def _is_own(self, option: str, place: str) -> bool:
        """Return whether the running server has an endpoint, or frees its port or path."""
        named = re.compile(rf"(?<![\w.]){re.escape(place)}(?![\w.])")
        return option in self._running() or any(named.search(each) for each in self._freed)


def _meet(one: str, other: str) -> bool:
    """Return whether two interfaces have an address in common. All addresses of IPv6 include those of IPv4."""
    if one == other or "::" in (one, other):
        return True
    return bool({one, other} & {"", "0.0.0.0"}) and ":" not in one + other  # noqa: S104  all addresses


def _tcp(interface: str, port: int) -> Iterator[Finding]:
    """Yield why a TCP port cannot be opened, found by a bind without a listen."""
    # Twisted chooses the family by the address, too: that of an IPv6 endpoint for all addresses is "::".
    family = socket.AF_INET6 if ":" in interface else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((interface, port))
    except OSError as error:
        texts = {
            errno.EADDRINUSE: _IN_USE,
            errno.EACCES: "permission denied; start as root with twistd --uid, or with systemd",
            errno.EADDRNOTAVAIL: "this machine does not have this address; omit interface=",
        }
        is_warning = error.errno in (errno.EADDRINUSE, errno.EACCES)
        code = error.errno or 0
        yield WARNING if is_warning else ERROR, texts.get(code, str(error.strerror or error))


def _unix(option: str, path: str) -> Iterator[Finding]:
    directory = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(directory):
        yield ERROR, f"{option}: the directory {directory} does not exist; create it"
    elif os.path.exists(path):
        yield (
            WARNING,
            f"{option}: {path} exists; another program may use it, or a server with other options",
        )
    elif not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
        yield (
            WARNING,
            f"{option}: permission denied in {directory}; start as root with twistd --uid",
        )
