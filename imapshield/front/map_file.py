"""`MapFile`: a file that says which node has the mail of a user, and is read again when it changes."""

from collections.abc import Callable, Collection
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from imapshield.front.map_lines import MapTable, file_version, read_map
from imapshield.front.user_map import Answer, LookUpFailed, Query

LOOK_SECONDS = 2.0
"""Seconds between two looks at the file. Each costs one `stat`, in a thread, because the disk may be slow."""

_log = Logger(namespace="imapshield")


class MapFile:
    """The file of ``--user-map file:PATH``, which is read again when it changes.

    Args:
        path: the file.
        nodes: the names of all nodes.
        reactor: an `IReactorTime`.
        run_in_thread: calls a function in a thread.
        waits_for_file: whether a file that is wrong now is no error. Until it is correct, nobody can log in.

    Raises:
        ValueError: as for `read_map`.
    """

    asks_password = False

    def __init__(
        self,
        path: str,
        nodes: Collection[str],
        reactor: Any,
        run_in_thread: Callable[..., Deferred[Any]] = deferToThread,
        *,
        waits_for_file: bool = False,
    ) -> None:
        self.text = f"file:{path}"
        self._path, self._nodes, self._run_in_thread = path, nodes, run_in_thread
        self._problem, self._is_stale = "", False
        self._table: MapTable | None = None
        try:
            self._table = read_map(path, nodes)
        except ValueError as error:
            if not waits_for_file:
                raise
            self._problem = str(error)
        self._one_at_a_time = DeferredLock()
        self._loop = LoopingCall(self._look)
        self._loop.clock = reactor

    @property
    def problem(self) -> str:
        """Why the file could not be read the last time, and what to do."""
        if not self._problem:
            return ""
        state = "nobody can log in" if self._table is None else "what was read before applies"
        return f"file:{self._problem}; {state}: correct the file, which is then read again"

    @property
    def _version(self) -> object:
        return None if self._table is None else self._table.version

    def take_over(self, other: "MapFile") -> None:
        """Begin in the place of another one. If that has read another state of the file, the first answer waits.

        A user may have been released since this one has read the file.
        """
        self._is_stale = other._version != self._version

    def start(self) -> None:
        """Begin to look whether the file has changed."""
        if self._table is None:
            _log.error(
                "--user-map {problem}; nobody can log in until it is correct", problem=self._problem
            )
        self._loop.start(LOOK_SECONDS, now=self._is_stale)

    def stop(self) -> None:
        """Look no more."""
        if self._loop.running:
            self._loop.stop()

    def known(self, user: str) -> Answer | None:
        """Return the node of a user."""
        return None if self._is_stale else self._answer(user)

    def _answer(self, user: str) -> Answer:
        if self._table is None:
            return Answer("", problem=f"--user-map {self.problem}")
        return Answer(self._table.node(user))

    async def look_up(self, query: Query) -> Answer:
        """Return the same."""
        if self._is_stale:
            await self._read()
        return self._answer(query.user)

    async def refresh(self, user: str) -> None:  # noqa: ARG002
        """Read the file now if it has changed.

        Raises:
            LookUpFailed: it is wrong, so the node of the user may have changed.
        """
        await self._read()
        if self._problem:
            raise LookUpFailed(self._problem)

    async def reread(self) -> list[str]:
        """Read the file now if it has changed, and return one line if it is wrong."""
        await self._read()
        table = "nobody can log in" if self._table is None else "the table stays as it was"
        return [f"--user-map file:{self._problem}; {table}"] if self._problem else []

    def _look(self) -> Deferred[None]:
        reading = Deferred.fromCoroutine(self._read())
        # A LoopingCall whose function fails stops for ever.
        return reading.addErrback(lambda f: _log.failure("error while reading the user map", f))

    async def _read(self) -> None:
        """Read the file if it has changed. If it is wrong, the table stays as it is, and the log says why."""
        # One after the other: the slower of two could otherwise put an older table back.
        async with self._one_at_a_time:
            await self._read_alone()

    async def _read_alone(self) -> None:
        try:
            table = await self._run_in_thread(self._changed)
        except ValueError as error:
            if str(error) != self._problem:
                self._problem = str(error)
                _log.warn("--user-map {problem}; nothing is changed", problem=self._problem)
            return
        finally:
            self._is_stale = False
        if table is not None or self._problem:
            _log.info("--user-map {text}: was read again", text=self.text)
        self._problem, self._table = "", table or self._table

    def _changed(self) -> MapTable | None:
        """Return the new table; None if the file is as it was. Runs in a thread."""
        try:
            if file_version(self._path) == self._version:
                return None
        except OSError:
            pass  # `read_map` says what is wrong
        return read_map(self._path, self._nodes)
