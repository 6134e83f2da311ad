"""`MapFile`: a file that says which node has the mail of a user.

Lines
-----
``alice mail1``: the mail of alice is on the node mail1. ``*@example.org mail2``: that of all others of a domain.
``* mail3``: that of everybody else. Empty lines, and lines that begin with ``#``, mean nothing.
"""

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from imapshield.front.user_map import Answer, LookUpFailed, Query
from imapshield.regular_file import open_regular

LOOK_SECONDS = 2.0
"""Seconds between two looks at the file. Each costs one `stat`, in a thread, because the disk may be slow."""

EVERYBODY = "*"

_log = Logger(namespace="imapshield")


@dataclass(frozen=True, slots=True)
class MapTable:
    """One state of a file. It never changes, so the reactor uses it while a thread reads the next one.

    Attributes:
        nodes: the node of each user, and of each ``*@domain``; names are in lower case.
        version: which state of the file it is.
    """

    nodes: Mapping[str, str] = field(default_factory=dict)
    version: object = None

    def node(self, user: str) -> str:
        """Return the node of a user; "" if there is none."""
        domain = EVERYBODY + "@" + user.rpartition("@")[2]
        names = (user, domain, EVERYBODY)
        return next((self.nodes[name] for name in names if name in self.nodes), "")


def read_map(path: str, nodes: Collection[str]) -> MapTable:
    """Read a file. Blocking.

    Args:
        path: the file.
        nodes: the names of all nodes.

    Raises:
        ValueError: the file cannot be read or is wrong; the text has the path, and the number of the line.
    """
    try:
        version = file_version(path)
        with open_regular(path) as file:
            text = file.read().decode()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}; name a readable file") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: the text is not UTF-8") from None
    found: dict[str, str] = {}
    lines: dict[str, int] = {}
    # The table has one text for each node, however many users it has.
    names = {name: name for name in nodes}
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        where = f"{path}: line {number}"
        if len(words) != 2:
            raise ValueError(f"{where}: has {len(words)} words; write a user and a node")
        user, node = words[0].lower(), words[1]
        if node not in names:
            known = ", ".join(nodes)
            raise ValueError(f"{where}: no --backend has the name {node}; known are {known}")
        if "*" in user and user != EVERYBODY and not user.startswith("*@"):
            raise ValueError(f"{where}: * stands for everybody, and *@DOMAIN for a domain")
        if user in found:
            raise ValueError(f"{where}: {user} is in line {lines[user]} already; remove one")
        found[user], lines[user] = names[node], number
    return MapTable(found, version)


def file_version(path: str) -> object:
    """Return a value that changes with the file."""
    status = os.stat(path)
    return status.st_mtime_ns, status.st_size, status.st_ino


class MapFile:
    """The file of ``--user-map file:PATH``, which is read again when it changes.

    Args:
        path: the file.
        nodes: the names of all nodes.
        reactor: an `IReactorTime`.
        run_in_thread: calls a function in a thread.

    Raises:
        ValueError: as for `read_map`.
    """

    def __init__(
        self,
        path: str,
        nodes: Collection[str],
        reactor: Any,
        run_in_thread: Callable[..., Deferred[Any]] = deferToThread,
    ) -> None:
        self.text = f"file:{path}"
        self._path, self._nodes, self._run_in_thread = path, nodes, run_in_thread
        self._table = read_map(path, nodes)
        self._problem = ""
        self._loop = LoopingCall(self._look)
        self._loop.clock = reactor

    def start(self) -> None:
        """Begin to look whether the file has changed."""
        self._loop.start(LOOK_SECONDS, now=False)

    def stop(self) -> None:
        """Look no more."""
        if self._loop.running:
            self._loop.stop()

    def known(self, user: str) -> Answer:
        """Return the node of a user."""
        return Answer(self._table.node(user))

    async def look_up(self, query: Query) -> Answer:
        """Return the same."""
        return self.known(query.user)

    async def refresh(self, user: str) -> None:  # noqa: ARG002
        """Read the file now if it has changed.

        Raises:
            LookUpFailed: it is wrong, so the node of the user may have changed.
        """
        await self._read()
        if self._problem:
            raise LookUpFailed(self._problem)

    def _look(self) -> Deferred[None]:
        reading = Deferred.fromCoroutine(self._read())
        # A LoopingCall whose function fails stops for ever.
        return reading.addErrback(lambda f: _log.failure("error while reading the user map", f))

    async def _read(self) -> None:
        """Read the file if it has changed. If it is wrong, the table stays as it is, and the log says why."""
        try:
            table = await self._run_in_thread(self._changed)
        except ValueError as error:
            if str(error) != self._problem:
                self._problem = str(error)
                _log.warn("--user-map {problem}; nothing is changed", problem=self._problem)
            return
        if table is not None or self._problem:
            _log.info("--user-map {text}: was read again", text=self.text)
        self._problem, self._table = "", table or self._table

    def _changed(self) -> MapTable | None:
        """Return the new table; None if the file is as it was. Runs in a thread."""
        try:
            if file_version(self._path) == self._table.version:
                return None
        except OSError:
            pass  # `read_map` says what is wrong
        return read_map(self._path, self._nodes)
