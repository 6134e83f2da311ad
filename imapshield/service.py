"""The Twisted service. It listens on all endpoints or on none, and stops in order: ports, connections, mail."""

import errno
import gc
import os
import resource
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.task import LoopingCall
from twisted.logger import ILogObserver, Logger

from imapshield.endpoints import listen_now, port_text

SUMMARY_SECONDS = 10.0
"""Seconds between the periodic calls, which log how many lines were suppressed."""

SWITCH_SECONDS = 0.0001
"""Seconds after which a thread that waits for the interpreter lock requests it (`sys.setswitchinterval`).

A thread that reads an index requests the lock again after each row or file. With Python's default of 5 ms, a SELECT
that takes 20 ms took two seconds while the search of another client kept the reactor busy.
"""

GC_THRESHOLDS = 20_000, 5, 1000
"""The thresholds of Python's garbage collector (`gc.set_threshold`).

A collection holds the interpreter lock. With the default of 700 objects, a SELECT that reads 100,000 rows caused dozens
of collections, some of which traversed all objects of the server. What exists when the server starts is never
traversed (`gc.freeze`). A collection of the second generation traverses about 100,000 objects. With 400,000, the rows
of a large mailbox that is opened made it a pause of 10 ms. A collection of all objects took 30 ms with a mailbox of
100,000 messages, so Python hardly ever starts one: `free_memory` does, in a quiet second, when memory has grown.
"""

_log = Logger(namespace="imapshield")


class CannotServe(SystemExit, Exception):
    """The server cannot start. The constructor logs the text and prints it on standard error; the exit status is 1.

    twistd needs both base classes. On an Exception it removes its PID file and reports the error to the process that
    started the daemon. SystemExit ends the process without a traceback.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = 1
        # In the background twistd shows only the beginning of the text, so the log has it, too.
        _log.critical("cannot start: {text}", text=text)
        # twistd has redirected sys.stderr to the log, so print to the original one.
        print(f"imapshield: {text}", file=sys.__stderr__, flush=True)


@dataclass(eq=False, repr=False)
class ShieldService(Service):
    """Serves one factory on any number of endpoints.

    Args:
        endpoints: pairs of an endpoint's description, for messages, and the endpoint.
        factory: has ``shutdown()``, which sends BYE to all clients and fires when their connections are closed.
        on_start: called one after another when the process has its final user, before the first connection.
        on_stop: called one after another when all connections are closed; may return Deferreds.
        periodic: called every `SUMMARY_SECONDS` seconds.
        clock: an `IReactorTime`.
        needed_files: the number of open files that the connections need.
        on_open_files: called with the number of files that the system permits the process to open, or None.
        on_port: called with each endpoint description and port when it listens.
        logs_ports: whether the log has a line for each port.
        on_listening: called, while the process may still be root, with (endpoint description, address) of each port.

    Attributes:
        log_observer: writes the log of twistd, in place of twistd's own observer; None for that one.
    """

    endpoints: Sequence[tuple[str, Any]]
    factory: Any
    on_stop: Sequence[Callable[[], Any]]
    periodic: Callable[[], object]
    clock: Any
    needed_files: int = 0
    on_start: Sequence[Callable[[], object]] = ()
    on_open_files: Callable[[int | None], object] = lambda _: None
    on_port: Callable[[str, Any], object] = lambda _text, _port: None
    on_listening: Callable[[Sequence[tuple[str, str]]], object] | None = None
    logs_ports: bool = True
    log_observer: ILogObserver | None = field(default=None, init=False)
    _ports: list[tuple[str, Any]] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._loop = LoopingCall(self.periodic)
        self._loop.clock = self.clock

    def setServiceParent(self, parent: Any) -> None:
        """Belong to an application, which takes its log observer from one of its components."""
        if self.log_observer is not None and hasattr(parent, "setComponent"):
            parent.setComponent(ILogObserver, self.log_observer)
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:
        """Listen on all endpoints, while the process may still be root.

        Raises:
            CannotServe: one of the endpoints failed; the others are closed again.
        """
        super().privilegedStartService()
        self.on_open_files(self._raise_open_file_limit())
        ports = self._ports = []
        for text, endpoint in self.endpoints:
            try:
                ports.append((text, listen_now(endpoint, self.factory)))
            except Exception as error:
                while ports:
                    ports.pop()[1].stopListening()
                raise CannotServe(f"cannot listen on {text}: {listen_advice(error)}") from None
        for text, port in ports:
            self.on_port(text, port)
        if self.on_listening is not None:
            self.on_listening([(text, port_text(port.getHost())) for text, port in ports])

    def _raise_open_file_limit(self) -> int | None:
        """Raise the limit of open files as far as the system permits, and return it; None if there is none.

        The usual default of 1,024 is too low.
        """
        needed, unlimited = self.needed_files, resource.RLIM_INFINITY
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft not in (unlimited, hard):
            wanted = max(soft, needed) if hard == unlimited else hard
            # A container may forbid it, and no kernel permits RLIM_INFINITY.
            with suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
                soft = wanted
        return None if soft == unlimited else soft

    def startService(self) -> None:
        """Start the periodic call, and listen if `privilegedStartService` has not run."""
        if self._ports is None:  # the program `twist` has no privileged start
            self.privilegedStartService()
        super().startService()
        if os.geteuid() == 0:
            # A thread that opens an index with the rights of its owner must not keep groups of root (`file_rights`).
            # In a user namespace root may not change them.
            with suppress(PermissionError):
                os.setgroups([])
        sys.setswitchinterval(SWITCH_SECONDS)
        for step in self.on_start:
            step()
        gc.set_threshold(*GC_THRESHOLDS)
        if not gc.get_freeze_count():
            gc.collect()
            gc.freeze()
        self._loop.start(SUMMARY_SECONDS, now=False)
        for _, port in (self._ports or ()) if self.logs_ports else ():
            address = port.getHost()
            _log.info("serving at {where}", where=port_text(address), address=address)

    def stopService(self) -> Deferred[None]:
        """Stop listening, send BYE to all clients, and then close the mail stores."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        ports, self._ports = self._ports or [], None
        if self._loop.running:
            self._loop.stop()
        await DeferredList([maybeDeferred(port.stopListening) for _, port in ports])
        for step in (self.factory.shutdown, *self.on_stop):
            try:
                await maybeDeferred(step)
            except Exception:
                _log.failure("error while stopping; the remaining steps continue")


def listen_advice(error: BaseException | None, option: str = "--listen") -> str:
    """Return why listening failed, and what to do."""
    cause = error.socketError if isinstance(error, CannotListenError) else error
    code = getattr(cause, "errno", None)
    if code == errno.EADDRINUSE:
        example = "such as --listen tcp:2143:interface=127.0.0.1"
        example = example if option == "--listen" else f"with {option}"
        return f"another program uses this address; stop it, or choose another {example}"
    if code == errno.EACCES:
        return "permission denied; for a port below 1024 start as root with twistd --uid, or use another port"
    if code == errno.ENOENT:
        return "its directory does not exist; create it"
    if code == errno.EADDRNOTAVAIL:
        return "this machine does not have this address; omit interface= to listen on all addresses"
    return f"{str(cause).rstrip('.')}; see --help for {option}"
