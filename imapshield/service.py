"""The service: listens on every endpoint or on none, and stops without losing anything."""

from __future__ import annotations

import errno
import resource
import sys
from collections.abc import Callable, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

SUMMARY_SECONDS = 10.0
SPARE_FILES = 200
"""Files that are not connections: logs, and messages and indexes while they are read."""


SWITCH_SECONDS = 0.0005
"""How long a thread that could run waits for another that does. A thread that reads an index asks for the interpreter
back after each row or file, and with Python's 5 ms, while somebody's search kept the reactor busy, a SELECT that takes
20 ms took two seconds."""


class CannotServe(SystemExit, Exception):
    """The server cannot start: one line on standard error, and status 1.

    It is both, because twistd wants both: an Exception has its PID file removed and is told to whoever started the
    daemon, and SystemExit ends the process without a traceback.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = 1
        # By now twistd has turned sys.stderr into a log.
        print(f"imapshield: {text}", file=sys.__stderr__, flush=True)


class ShieldService(Service):
    """One factory behind any number of endpoints.

    Args:
        endpoints: what to listen on, with the text that described each.
        factory: has ``shutdown()``, which says BYE to all and fires when they are gone.
        closing: what to do, one after another, when the last client is gone.
        every_now_and_then: called every few seconds.
        clock: an `IReactorTime`.
        connections: how many there may be, each an open file.
    """

    _log = Logger(namespace="imapshield")

    def __init__(
        self,
        endpoints: Sequence[tuple[str, Any]],
        factory: Any,
        closing: Sequence[Callable[[], Any]],
        periodic: Callable[[], object],
        clock: Any,
        connections: int = 0,
    ) -> None:
        self.factory = factory
        self._connections = connections
        self._endpoints = endpoints
        self._closing = closing
        self._loop = LoopingCall(periodic)
        self._loop.clock = clock
        self._ports: list[Any] | None = None

    def privilegedStartService(self) -> None:
        """Listen while we may still be root.

        Raises:
            CannotServe: on one of the endpoints we cannot; none is listened on then.
        """
        super().privilegedStartService()
        self._open_files()
        self._ports = []
        for text, endpoint in self._endpoints:
            problems: list[Failure] = []
            waiting = maybeDeferred(endpoint.listen, self.factory)
            waiting.addCallbacks(self._ports.append, problems.append)
            if problems:
                while self._ports:
                    self._ports.pop().stopListening()
                raise CannotServe(f"cannot listen on {text}: {_why(problems[0].value)}")

    def _open_files(self) -> None:
        """Take as many open files as the system lets us have; a shell's default of 1,024 is a low limit."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        if resource.RLIM_INFINITY != hard < self._connections + SPARE_FILES:
            self._log.warn(
                "at most {files} files may be open (ulimit -n), so fewer connections fit than"
                " --limit connections={connections}",
                files=hard,
                connections=self._connections,
            )

    def startService(self) -> None:
        """Listen, unless that is done."""
        if self._ports is None:  # the program `twist` knows no privileges
            self.privilegedStartService()
        super().startService()
        sys.setswitchinterval(SWITCH_SECONDS)
        self._loop.start(SUMMARY_SECONDS, now=False)
        for port in self._ports or ():
            address = port.getHost()
            host, number = getattr(address, "host", None), getattr(address, "port", None)
            where = address if host is None else f"{host}:{number}"
            self._log.info("serving at {where}", where=where, address=address)

    def stopService(self) -> Deferred[None]:
        """Let nobody in, say BYE to all, then close the mail."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        ports, self._ports = self._ports or [], None
        if self._loop.running:
            self._loop.stop()
        await DeferredList([maybeDeferred(port.stopListening) for port in ports])
        for close in (self.factory.shutdown, *self._closing):
            try:
                await maybeDeferred(close)
            except Exception:
                self._log.failure("while stopping")


def _why(error: BaseException | None) -> str:
    """What is wrong and what to do."""
    cause = error.socketError if isinstance(error, CannotListenError) else error
    code = getattr(cause, "errno", None)
    if code == errno.EADDRINUSE:
        return "another program listens there already; stop it, or name another with --listen"
    if code == errno.EACCES:
        return "not allowed; ports below 1024 are root's: start as root with twistd --uid, or use another"
    if code == errno.EADDRNOTAVAIL:
        return "this machine has no such address; leave interface= out to listen on all"
    return f"{cause}; see --help for how to write another --listen"
