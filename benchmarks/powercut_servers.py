"""The servers of the power cut benchmark, which start in milliseconds and end at once.

imapshield is imported once; each start is a fork of this process. A fork has the real reactor, threads and factory,
and only lacks the command line. Its renames of folders are slow, so that the power can be cut between two of them.
Dovecot starts as in `benchmarks.peers`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Protocol

from benchmarks import peers
from benchmarks.processes import process_tree

USERS = ("alice", "bob")
PASSWORD = peers.PASSWORD
_NAMESPACE = """\
namespace inbox {
  inbox = yes
  separator = /
}
"""
_RENAME_SECONDS = 0.001
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class Server(Protocol):
    """A server that can be started many times.

    Attributes:
        name: its name in the table.
        owner: (uid, gid) that the mail must belong to, or None.
        unsupported: choices of `powercut_choice` that it lacks.
    """

    name: str
    owner: tuple[int, int] | None
    unsupported: tuple[str, ...]

    def start(self, root: Path) -> int:
        """Serve the Maildirs of `USERS` below `root`, and return the port."""

    def kill(self) -> None:
        """Send SIGKILL to all processes, if there are any, and return at once."""

    def wait(self) -> None:
        """Wait until the processes are gone."""

    def output(self) -> str:
        """Return the end of the log."""


class Imapshield:
    """imapshield, in a child process of this process, which must have no other threads."""

    name: str = "imapshield"
    owner: tuple[int, int] | None = None
    unsupported: tuple[str, ...] = ()

    def __init__(self, directory: Path) -> None:
        self._log = directory / "imapshield.log"
        self._pid = 0
        _import_server()

    def start(self, root: Path) -> int:
        listening = socket.create_server((peers.HOST, 0), backlog=50)
        sys.stdout.flush()
        self._pid = os.fork()
        if not self._pid:
            try:
                _serve(root, listening, self._log)
            finally:
                os._exit(1)
        port: int = listening.getsockname()[1]
        listening.close()
        return port

    def kill(self) -> None:
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)

    def wait(self) -> None:
        if self._pid:
            os.waitpid(self._pid, 0)
            self._pid = 0

    def output(self) -> str:
        return self._log.read_text(errors="replace")[-4000:] if self._log.exists() else ""


def _import_server() -> None:
    """Import all that `_serve` needs, but not the reactor, which opens descriptors that a fork would share."""
    import twisted.cred.checkers
    import twisted.cred.portal
    import twisted.internet.epollreactor  # noqa: F401

    import imapshield.cred.realm
    import imapshield.edge.factory
    import imapshield.observe.log_observer
    import imapshield.service  # noqa: F401


def _slow_for_folders(rename: Callable[..., None]) -> Callable[..., None]:
    """Return a function that waits after the rename of a folder, as on a slow disk."""

    def slow_rename(source: bytes, target: bytes, **directories: int) -> None:
        rename(source, target, **directories)
        if target.startswith(b"."):
            time.sleep(_RENAME_SECONDS)

    return slow_rename


def _serve(root: Path, listening: socket.socket, log: Path) -> None:
    """Serve until this process is killed."""
    from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
    from twisted.cred.portal import Portal
    from twisted.internet.epollreactor import EPollReactor
    from twisted.internet.main import installReactor
    from twisted.python.log import startLogging

    from imapshield.cred.realm import MaildirRealm
    from imapshield.edge.factory import ShieldedIMAP4Factory
    from imapshield.observe.log_observer import LogObserver
    from imapshield.service import SWITCH_SECONDS

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.rename = _slow_for_folders(os.rename)
    reactor: Any = EPollReactor()  # type: ignore[no-untyped-call]
    installReactor(reactor)  # type: ignore[no-untyped-call]
    startLogging(log.open("w"), setStdout=False)  # type: ignore[no-untyped-call]
    sys.setswitchinterval(SWITCH_SECONDS)
    users = dict.fromkeys(USERS, PASSWORD.encode())
    checker = InMemoryUsernamePasswordDatabaseDontUse(**users)
    factory = ShieldedIMAP4Factory(
        Portal(MaildirRealm(str(root), reactor=reactor), [checker]),
        observers=[LogObserver()],
        reactor=reactor,
    )
    listening.setblocking(False)
    reactor.adoptStreamPort(listening.fileno(), socket.AF_INET, factory)
    reactor.run(installSignalHandlers=False)


class Dovecot:
    """Dovecot with ``mail_fsync = always``."""

    name: str = "dovecot"
    owner: tuple[int, int] | None
    unsupported: tuple[str, ...] = ("replace", "metadata")

    def __init__(self, directory: Path) -> None:
        self.owner = peers.mail_owner()
        self._running = ExitStack()
        self._pid = 0
        self._killed: list[int] = []
        del directory
        # Dovecot's processes outlive their parent when they are killed; the volume is busy until they are gone.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)

    def start(self, root: Path) -> int:
        # Dovecot waits two minutes for a lock file that a power cut has left empty.
        for lock in root.glob("**/*.lock"):
            lock.unlink()
        peer = self._running.enter_context(peers.start("dovecot", root, configuration=_NAMESPACE))
        self._pid = peer.pid
        return peer.port

    def kill(self) -> None:
        self._killed = process_tree(self._pid) if self._pid else []
        for pid in self._killed:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def wait(self) -> None:
        self._running.close()
        self._pid = 0
        for pid in self._killed[1:]:
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)

    def output(self) -> str:
        return ""


SERVERS: dict[str, Callable[[Path], Server]] = {"imapshield": Imapshield, "dovecot": Dovecot}
