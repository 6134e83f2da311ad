"""`Nodes`: all backends of a server, and which of them serves a user. To clients they look like one server."""

import secrets
from collections.abc import Callable, Container, Mapping, Sequence
from hashlib import blake2b
from itertools import chain, count
from typing import Any

from imapshield.front.backend import Backend
from imapshield.front.backend_address import BackendAddress
from imapshield.front.backend_connection import NodeDrained
from imapshield.front.exchange_queue import ExchangeQueue
from imapshield.front.offered_capabilities import WITHOUT_CHECK
from imapshield.front.user_holds import UserHolds
from imapshield.front.user_map import Answer, MapSource, Query
from imapshield.front.user_sessions import UserSessions
from imapshield.limits import Limits


class Nodes:
    """The backends of a server.

    Args:
        backends: all of them.
        reactor: the reactor.
        limits: returns the limits that apply now.
        source: says which of them a user has; None if there is one for everybody.

    Attributes:
        by_name: the backends by their names.
        exchanges: the SASL exchanges that wait for their clients, and those that wait for their turn.
        sessions: the sessions of the users.
        holds: the users who are being moved.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        reactor: Any,
        limits: Callable[[], Limits],
        source: MapSource | None = None,
    ) -> None:
        self.by_name: Mapping[str, Backend] = {each.address.node: each for each in backends}
        self.exchanges = ExchangeQueue(reactor, limits)
        self.limits, self.reactor, self.source = limits, reactor, source
        self.sessions = UserSessions()
        self.holds = UserHolds(self.sessions, reactor, limits)
        self._first = backends[0]
        self._removed: list[Backend] = []
        self._outgoing: set[MapSource] = set()
        self._is_running = False
        self._decoy_key = secrets.token_bytes(16)

    def start(self) -> None:
        """Begin to check the backends."""
        self._is_running = True
        for backend in self.by_name.values():
            backend.start()
        if self.source is not None:
            self.source.start()

    def stop(self) -> object:
        """Check no more, and release what waits."""
        self._is_running = False
        for backend in self.by_name.values():
            backend.stop()
        for source in [*self._outgoing]:
            self._end_source(source)
        self.holds.stop()
        return None if self.source is None else self.source.stop()

    def replace(self, backends: Sequence[Backend], source: MapSource | None) -> None:
        """Serve the logins to come with other backends, which may be the same in part, and with another source.

        A backend that is not among them takes no logins. Its sessions go on, and its row is shown until they end.
        """
        before, old = self.by_name, self.source
        self._removed = [each for each in self._removed if each.connections]
        self.by_name = {each.address.node: each for each in backends}
        self._first, self.source = backends[0], source
        if not self._is_running:
            return
        for name, backend in before.items():
            after = self.by_name.get(name)
            if after is not backend:
                if after is not None:
                    after.is_draining = backend.is_draining
                self._removed.append(backend)
                backend.remove()
        for backend in backends:
            if backend not in before.values():
                backend.start()
        if source is not None and source is not old:
            source.start()
        if old is not None and source is not old:
            self._outgoing.add(old)
            # Until then, logins that have asked it get their answer.
            self.reactor.callLater(self.limits().map_lookup_seconds, self._end_source, old)

    def _end_source(self, source: MapSource) -> None:
        if source in self._outgoing:
            self._outgoing.discard(source)
            source.stop()

    @property
    def max_connections(self) -> int:
        """Connections to all backends at the same time."""
        return sum(each.max_connections for each in self.by_name.values())

    # What clients see before the login

    @property
    def greeting(self) -> bytes:
        """The text of the greeting: that of the first backend that has answered a check."""
        answered = (each for each in self.by_name.values() if each.has_answered)
        return next(answered, self._first).greeting

    @property
    def capabilities(self) -> tuple[bytes, ...]:
        """What all backends offer before the login that have answered a check, in the order of the first one."""
        answered = [each for each in self.by_name.values() if each.has_answered]
        if len(answered) < 2:
            return (answered or [self._first])[0].capabilities
        others = [{name.upper() for name in each.capabilities} for each in answered[1:]]
        first = answered[0].capabilities
        common = tuple(name for name in first if all(name.upper() in each for each in others))
        return common or WITHOUT_CHECK

    # Which node serves a user

    def known(self, user: str) -> Answer | None:
        """Return the node of a user without waiting; None if that takes a look-up."""
        if self.source is None:
            return Answer(self._first.address.node)
        return self.source.known(user)

    async def look_up(self, query: Query) -> Answer:
        """Ask which node a user has.

        Raises:
            LookUpFailed: nobody can say.
        """
        return self.known(query.user) or await self._ask(query)

    async def _ask(self, query: Query) -> Answer:
        assert self.source is not None
        return await self.source.look_up(query)

    async def release(self, user: str) -> bool:
        """Let the logins of a held user go on, with the node that the map has now; return whether they were held.

        Raises:
            LookUpFailed: the map cannot be read. The hold stays.
        """
        source: MapSource | None = None
        while source is not self.source:  # a reload may have changed it meanwhile
            source = self.source
            if source is not None:
                await source.refresh(user)
        return self.holds.release(user)

    def backend_of(self, answer: Answer, user: str) -> Backend:
        """Return the backend of a user; for one who is unknown, one that depends on the name.

        Raises:
            NodeDrained: a reload has removed it while the map was asked.
        """
        if answer.node and answer.node not in self.by_name:
            raise NodeDrained(f"{answer.node} was removed meanwhile")
        return self.by_name[answer.node] if answer.node else self._decoy(user)

    def _decoy(self, user: str) -> Backend:
        """Return the backend that refuses an unknown user, always the same one of a name.

        So its answer comes as late as that of a wrong password, and is missing if a node is down.
        """
        digest = blake2b(user.encode("utf-8", "replace"), key=self._decoy_key, digest_size=8)
        names = sorted(self.by_name)
        return self.by_name[names[int.from_bytes(digest.digest()) % len(names)]]

    # What operators see

    def described(self) -> list[dict[str, Any]]:
        """Return a row for each backend, in the order of the options, then for removed ones that have users."""
        counts, now = self.sessions.counts(), self.reactor.seconds()
        rows = []
        self._removed = [each for each in self._removed if each.connections]
        shown = {**self.by_name}
        for each in self._removed:
            shown[_free_name(each.address, shown)] = each
        for name, backend in shown.items():
            users, sessions = counts.get(backend, (0, 0))
            checked = backend.checked_at
            rows.append(
                {
                    "node": name,
                    "address": backend.address.text,
                    "state": backend.state,
                    "users": users,
                    "sessions": sessions,
                    "connections": backend.connections,
                    "max_connections": backend.max_connections_of_server,
                    "failures": backend.failures,
                    "consecutive_failures": backend.breaker.failures,
                    "max_consecutive_failures": backend.breaker.max_failures,
                    "checked": None if checked is None else round(now - checked, 1),
                    "latency": None if backend.latency is None else round(backend.latency, 4),
                    "reason": backend.breaker.reason,
                }
            )
        return rows


def _free_name(address: BackendAddress, taken: Container[str]) -> str:
    """Return the name of the row of a removed backend: the whole option if another one has its name now."""
    more = (f"{address.text} ({number})" for number in count(2))
    return next(each for each in chain((address.node, address.text), more) if each not in taken)
