"""`UserMap`: which node has the mail of a user, as a service says. It remembers the answers.

Rules
-----
* An answer counts for ``map_cache_seconds``, also the one that a user is unknown. So a flood of logins of one name asks
  the service once.
* If the service fails, the last known node of a user counts for ``map_stale_seconds``. A service that has failed
  several times is asked by one login in `RETRY_SECONDS`, and only a user without a last known node waits for it.
* Logins of one user that come together ask once. The queue of logins bounds how many users are asked for at once.
* Known and unknown users are remembered in two tables with a maximum size: names that nobody has push out no user.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from imapshield.events import printable
from imapshield.front.circuit_breaker import CircuitBreaker
from imapshield.limits import Limits

RETRY_SECONDS = 2.0
"""Seconds between two look-ups while the service fails."""

MAX_REASONS = 10
"""Different reasons that are logged until the service answers again. The texts may come from the service."""

MAX_REASON_BYTES = 200
"""Bytes of such a text in the log and in the status."""

_log = Logger(namespace="imapshield")


class LookUpFailed(Exception):
    """A service has not said which node a user has. The text is for the log, and has no name of a user."""


class EntryWrong(LookUpFailed):
    """What a service says of one user cannot be used. It works, and can be asked about others."""


@dataclass(frozen=True, slots=True)
class Query:
    """What a service is asked.

    Attributes:
        user: the name of the user, in lower case.
        mechanism: how the user logs in: LOGIN, or a SASL mechanism.
        client: the address of the client; "" if it is unknown.
        password: the password or token; empty if the client has sent none.
    """

    user: str
    mechanism: str = "LOGIN"
    client: str = ""
    password: bytes = b""


class Answer(NamedTuple):
    """What is known of a user.

    Attributes:
        node: the name of the node; "" for an unknown user.
        seconds: for how long the answer counts at least, if the service says so.
        problem: why the user cannot log in now, whom the service knows; "" if there is no problem.
    """

    node: str
    seconds: float = 0.0
    problem: str = ""


class MapSource(Protocol):
    """Says which node a user has."""

    text: str
    """What the operator has typed, without secrets."""

    @property
    def asks_password(self) -> bool:
        """Whether only a login says which node a user has, because the answer depends on its password."""

    @property
    def problem(self) -> str:
        """What is wrong with the map now, and what to do; "" if nothing is known to be wrong."""

    def known(self, user: str) -> Answer | None:
        """Return the answer without waiting; None if that takes a look-up."""

    async def look_up(self, query: Query) -> Answer:
        """Ask.

        Raises:
            LookUpFailed: there is no answer now.
        """

    def start(self) -> None:
        """Begin to work."""

    def stop(self) -> object:
        """End it; may return a Deferred."""

    async def refresh(self, user: str) -> None:
        """Forget what is known of a user, who may have moved.

        Raises:
            LookUpFailed: what is known now may be wrong.
        """


class Service(Protocol):
    """A service that a `UserMap` asks."""

    text: str
    caches: bool
    """Whether its answer is about the user alone. One about a password is not remembered."""

    async def ask(self, query: Query) -> Answer:
        """Return the answer; its node is the name of one.

        Raises:
            LookUpFailed: there is none.
        """

    def stop(self) -> object:
        """Close the connections; may return a Deferred."""


class _Remembered(NamedTuple):
    answer: Answer
    asked_at: float


class UserMap:
    """Asks a service, and remembers its answers.

    Args:
        service: the service.
        reactor: an `IReactorTime`.
        limits: returns the limits that apply now.
    """

    def __init__(self, service: Service, reactor: Any, limits: Callable[[], Limits]) -> None:
        self.text = service.text
        self._service, self._reactor, self._limits = service, reactor, limits
        self._users: OrderedDict[str, _Remembered] = OrderedDict()
        self._unknown: OrderedDict[str, _Remembered] = OrderedDict()
        self._asking: dict[str, list[Deferred[None]]] = {}
        self._breaker = CircuitBreaker(lambda: limits().backend_failures)
        self._tried_at = float("-inf")
        self._logged: set[str] = set()

    def take(self, other: "UserMap", nodes: Collection[str]) -> None:
        """Remember what another map of the same service remembers, as far as it is about these nodes."""
        self._users = OrderedDict(
            (user, found) for user, found in other._users.items() if found.answer.node in nodes
        )

    @property
    def asks_password(self) -> bool:
        """Whether the service needs the password of the user."""
        return not self._service.caches

    @property
    def problem(self) -> str:
        """Why the last question to the service had no answer, and what to do."""
        reason = self._breaker.reason.rstrip(".")
        if not reason:
            return ""
        return (
            f"{self.text}: {reason}; users whose node is not known cannot log in:"
            " see whether the service runs, and can be reached from here"
        )

    def start(self) -> None:
        """Do nothing: the service is asked when somebody logs in."""

    def stop(self) -> object:
        """Close the connections to the service."""
        return self._service.stop()

    def known(self, user: str) -> Answer | None:
        """Return what the service has said lately."""
        if not self._service.caches:
            return None
        now, seconds = self._reactor.seconds(), self._limits().map_cache_seconds
        for table in (self._users, self._unknown):
            found = table.get(user)
            if found is not None and now - found.asked_at < max(seconds, found.answer.seconds):
                table.move_to_end(user)
                return found.answer
        return None

    async def look_up(self, query: Query) -> Answer:
        """Ask the service, or wait for the answer to another login of the user."""
        if not self._service.caches:
            return await self._ask(query)
        user = query.user
        if self._breaker.is_open and self.known(user) is None:
            last = self._last_known(user)
            if last is not None:
                self._ask_behind(query)
                return last
        while (answer := self.known(user)) is None:
            waiters = self._asking.get(user)
            if waiters is None:
                return await self._ask_once(query)
            waiter: Deferred[None] = Deferred()
            waiters.append(waiter)
            await waiter
        return answer

    async def _ask_once(self, query: Query) -> Answer:
        user = query.user
        waiters = self._asking[user] = []
        try:
            answer = await self._ask(query)
            if self._asking.get(user) is waiters:  # otherwise the user may have moved meanwhile
                self._remember(user, answer)
            return answer
        except LookUpFailed:
            last = self._last_known(user)
            if last is None:
                raise
            return last
        finally:
            if self._asking.get(user) is waiters:
                del self._asking[user]
            for waiter in waiters:
                waiter.callback(None)

    def _last_known(self, user: str) -> Answer | None:
        """Return the node that counts while the service fails; None if there is none."""
        found = self._users.get(user)
        if (
            found is None
            or self._reactor.seconds() - found.asked_at > self._limits().map_stale_seconds
        ):
            return None
        return found.answer

    def _ask_behind(self, query: Query) -> None:
        """Ask for the next logins, because the service may answer again; this one has its node and does not wait."""
        if query.user not in self._asking:
            asking = Deferred.fromCoroutine(self._ask_once(query))
            # `_ask_once` returns the last known node if the service fails.
            asking.addErrback(lambda failure: _log.failure("a look-up failed", failure))

    def _remember(self, user: str, answer: Answer) -> None:
        table, other = self._users, self._unknown
        if not answer.node:
            table, other = other, table
        other.pop(user, None)
        table[user] = _Remembered(answer, self._reactor.seconds())
        table.move_to_end(user)
        while len(table) > self._limits().max_map_entries:
            table.popitem(last=False)

    async def _ask(self, query: Query) -> Answer:
        """Ask the service, unless it fails and was asked a moment ago."""
        limits, now = self._limits(), self._reactor.seconds()
        if self._breaker.is_open and now - self._tried_at < RETRY_SECONDS:
            raise LookUpFailed(self._breaker.reason)
        self._tried_at = now
        asking = Deferred.fromCoroutine(self._service.ask(query))
        asking.addTimeout(limits.map_lookup_seconds, self._reactor, _timed_out)
        try:
            answer = await asking
        except EntryWrong as error:
            self._breaker.succeeded()
            self._log(str(error))
            return Answer("", problem=str(error))
        except Exception as error:
            # The text of a service reaches the terminal of an operator.
            reason = self._failed(str(error) or type(error).__name__)
            raise LookUpFailed(reason) from None
        self._logged.clear()
        if self._breaker.succeeded():
            _log.info("--user-map {text}: answers again", text=self.text)
        return answer

    def _failed(self, reason: str) -> str:
        """Note a failure, and return the reason as text for operators."""
        reason = printable(reason.encode("utf-8", "replace"), MAX_REASON_BYTES)
        self._breaker.failed(reason)
        self._log(reason)
        return reason

    def _log(self, reason: str) -> None:
        """Log a reason that is not known yet."""
        if reason not in self._logged and len(self._logged) < MAX_REASONS:
            self._logged.add(reason)
            _log.warn(
                "--user-map {text}: {reason}; users whose node is not known cannot log in",
                text=self.text,
                reason=reason.rstrip("."),
            )

    async def refresh(self, user: str) -> None:
        """Forget what is known of a user. An answer that is on its way does not count any more."""
        self._users.pop(user, None)
        self._unknown.pop(user, None)
        self._asking.pop(user, None)


def _timed_out(_result: object, seconds: float) -> None:
    raise LookUpFailed(f"no answer in {seconds:g} seconds")
