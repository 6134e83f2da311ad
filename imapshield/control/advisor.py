"""`Advisor`: observes how near honest clients come to the limits, and answers ``imapshield advise``.

Rules
-----
* A command costs nothing here. A connection costs some microseconds at its login and its end, and the server once per
  second.
* What a connection without a login has reached is decided at its login or its end (`observe.limit_peaks`). At most
  `MAX_UNDECIDED` connections wait for that.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from twisted.internet.task import LoopingCall

from imapshield import events
from imapshield.control.request_lines import Request
from imapshield.edge.factory import ShieldedIMAP4Factory
from imapshield.limits import Limits
from imapshield.observe.limit_advice import ENOUGH_LOGINS, ENOUGH_SECONDS, Advice, advise, is_enough
from imapshield.observe.limit_peaks import LimitPeaks

MAX_UNDECIDED = 10_000
"""Connections without a login that have reached a limit. Those of the flood of a moment; further ones are strangers."""

MAX_NAMED = 5
"""Clients of one limit in an answer."""

MAX_HASHES = 256
"""Hashes of names that are kept, because a login needs that of a user and that of an address several times."""

SAVE_SECONDS = 60.0
"""Seconds between two changes of the state file."""

_BEFORE_LOGIN = frozenset({"preauth_commands", "preauth_bytes"})
_NAMES = frozenset(Limits.__dataclass_fields__)


@dataclass(slots=True)
class _Opened:
    """The highest values when connections of one address were opened, and their number."""

    number: int = 0
    strangers: int = 0
    rate: float = 0.0
    guests: int = 0
    connections: int = 0


class Advisor(events.EventHandlers):
    """Observes the clients of one server. It is an observer of events, too.

    Args:
        reactor: an `IReactorTime`.
        wall_clock: returns the seconds since 1970.

    Attributes:
        memory: returns the bytes that are held for the connections of users, the user with the largest part, and
            its bytes.
    """

    def __init__(self, reactor: Any, wall_clock: Callable[[], float] = time.time) -> None:
        self._now: Callable[[], float] = reactor.seconds
        self._time = wall_clock
        self._key = b""
        self._hash_of = lru_cache(MAX_HASHES)(self._keyed_hash)
        self._factory: ShieldedIMAP4Factory | None = None
        self.memory = self._memory_of_factory
        self._forget()
        self._next_save = self._now() + SAVE_SECONDS
        self._loop = LoopingCall(self._sample)
        self._loop.clock = reactor
        self.handlers = {
            events.PeaksMeasured: self._measured,
            events.LimitTriggered: self._limit,
            events.LoggedIn: self._logged_in,
            events.ConnectionOpened: self._opened,
            events.ConnectionClosed: self._closed,
            events.LoginFailed: self._login_failed,
            events.AddressBanned: self._banned,
        }

    def _forget(self) -> None:
        self._since = self._now()
        self._peaks = LimitPeaks(self._hash_of, self._time())
        self._undecided: dict[int, list[events.LimitTriggered]] = {}
        self._paused: Counter[str] = Counter()
        # Connections without a login from addresses where users log in.
        self._guests: set[int] = set()
        # What such connections of the present second have shown, by their address.
        self._opened_at: dict[str, _Opened] = {}

    def _keyed_hash(self, name: str) -> str:
        return blake2b(name.encode("utf-8", "replace"), key=self._key, digest_size=8).hexdigest()

    def start(self, factory: ShieldedIMAP4Factory) -> None:
        """Begin to observe `factory`."""
        self._factory = factory
        self._loop.start(1.0, now=False)

    def stop(self) -> None:
        """Observe no more."""
        if self._loop.running:
            self._loop.stop()

    def restore(self, key: bytes, text: str) -> None:
        """Add what an earlier run has observed, whose names are hashed with `key`."""
        self._key = key
        self._hash_of.cache_clear()
        for peaks in self._peaks.limits.values():
            peaks.clients = {self._hash_of(client.name): client for client in peaks.largest()}
        self._peaks.load(text)

    def changed(self, *, force: bool = False) -> str | None:
        """Return what is to be saved; None if it is not time yet."""
        now = self._now()
        if now < self._next_save and not force:
            return None
        self._next_save = now + SAVE_SECONDS
        self._note_opened()
        return self._peaks.dump(now - self._since)

    def _closed(self, event: events.ConnectionClosed) -> None:
        self._guests.discard(event.connection)
        for reached in self._undecided.pop(event.connection, ()):
            self._decided(reached, event.user)

    def _banned(self, event: events.AddressBanned) -> None:
        if self._factory is not None and event.limit in _NAMES:
            self._reached(event.limit, event.observed, event.peer, "")

    def _measured(self, event: events.PeaksMeasured) -> None:
        if self._factory is None:
            return
        detail = f"{event.peer} {event.client_id}" if event.client_id else event.peer
        self._peaks.note_all(event.peaks, event.user, detail, self._time())
        reached = self._undecided.pop(event.connection, ())
        for each in reached:
            self._decided(each, event.user)
        limits = self._factory.limits
        for limit in _BEFORE_LOGIN:
            # Of two limits that one command reaches, only the first is reported.
            if event.peaks.get(limit, 0) > getattr(limits, limit) and (
                not any(each.limit == limit for each in reached)
            ):
                self._peaks.count_reached(limit, event.user)

    def _limit(self, event: events.LimitTriggered) -> None:
        if self._factory is None:
            return
        if event.action == "paused":
            self._paused[event.limit] += 1
            return
        # A quota of one user says nothing about the limit.
        if event.limit not in _NAMES or " " in event.binding:
            return
        if event.user or not event.connection or len(self._undecided) >= MAX_UNDECIDED:
            self._decided(event, event.user)
        else:
            self._undecided.setdefault(event.connection, []).append(event)

    def _decided(self, event: events.LimitTriggered, user: str) -> None:
        configured = getattr(self._limits, event.limit)
        # A wider network has a multiple of the limit of one address, and a share may be less than configured.
        scale = configured / event.value if event.value else 1.0
        observed = max(configured, event.observed * scale)
        self._reached(event.limit, observed, event.holder or event.peer, user, event.client_id)

    def _reached(
        self, limit: str, observed: float, address: str, user: str, client_id: str = ""
    ) -> None:
        if user:
            detail = f"{address} {client_id}".rstrip()
            self._peaks.reach(limit, observed, user, detail, self._time())
        elif self._has_users(address):
            self._peaks.reach(limit, observed, address, client_id, self._time())
        else:
            self._peaks.reach_as_stranger(limit, address)

    @property
    def _limits(self) -> Limits:
        assert self._factory is not None
        return self._factory.limits

    @property
    def _guard(self) -> Any:
        assert self._factory is not None
        return self._factory.shared.admission.guard

    def _has_users(self, address: str) -> bool:
        return bool(self._guard.failures.has_users(address, self._now()))

    def _note_address(self, address: str, **values: float) -> None:
        found = {limit: value for limit, value in values.items() if value}
        if found:
            self._peaks.note_all(found, address, "", self._time())

    def _opened(self, event: events.ConnectionOpened) -> None:
        if self._factory is None:
            return
        address, guard, now = event.peer, self._factory.shared.admission.guard, self._now()
        opened = self._opened_at.get(address)
        if opened is None:
            if not guard.failures.has_users(address, now):
                return
            opened = self._opened_at[address] = _Opened()
        self._guests.add(event.connection)
        guests = len(self._guests)
        opened.number += 1
        opened.strangers = max(opened.strangers, guard.shares.strangers_at(address))
        opened.rate = max(opened.rate, guard.rate_taken(address, now))
        opened.guests = max(opened.guests, guests)
        opened.connections = max(opened.connections, guard.shares.logins + guests)

    def _note_opened(self) -> None:
        """Note what connections that were opened lately have shown."""
        opened_at, self._opened_at = self._opened_at, {}
        for address, opened in opened_at.items():
            of_all = {
                "max_preauth_connections": opened.guests,
                "max_connections": opened.connections,
            }
            own = {
                "max_preauth_per_address": opened.strangers,
                "connections_per_minute": round(opened.rate),
            }
            for values, name in ((of_all, ""), (own, address)):
                noted = {limit: value for limit, value in values.items() if value}
                self._peaks.note_all(noted, name, "", self._time(), opened.number)

    def _logged_in(self, event: events.LoggedIn) -> None:
        if self._factory is None:
            return
        self._peaks.logins += 1
        self._guests.discard(event.connection)
        guard, now = self._factory.shared.admission.guard, self._now()
        pairs = guard.failures.pairs_of(event.peer, now)
        violations = guard.bans.violations(event.peer, now)
        if pairs or violations:
            self._note_address(event.peer, max_failed_pairs=pairs, max_limit_violations=violations)

    def _login_failed(self, event: events.LoginFailed) -> None:
        if self._factory is not None and self._has_users(event.peer):
            pairs = self._guard.failures.pairs_of(event.peer, self._now())
            self._note_address(
                event.peer, max_failed_pairs=pairs, max_login_delay_seconds=event.delay
            )

    def _sample(self) -> None:
        """Note what was opened in the last second, and look at the memory that connections hold."""
        self._note_opened()
        memory, user, held = self.memory()
        if memory:
            self._peaks.note("max_memory_bytes", memory, "", "", self._time())
            self._peaks.note("max_user_bytes", held, user, "", self._time())

    def _memory_of_factory(self) -> tuple[int, str, int]:
        assert self._factory is not None
        budget = self._factory.shared.memory_budget
        memory = budget.memory_of_users
        return memory, *(budget.largest_user() if memory else ("", 0))

    async def advise(self, request: Request) -> dict[str, Any]:
        """Return what is advised about each limit. With the argument `forget`, begin to observe again."""
        self._note_opened()
        seconds = self._peaks.seconds + self._now() - self._since
        answer = {
            "begun": self._peaks.begun,
            "seconds": round(seconds, 1),
            "logins": self._peaks.logins,
            "enough": is_enough(self._peaks, seconds),
            "enough_seconds": ENOUGH_SECONDS,
            "enough_logins": ENOUGH_LOGINS,
            "paused": dict(self._paused),
            "limits": [_described(each) for each in advise(self._limits, self._peaks, seconds)],
        }
        if request.get("forget"):
            self._forget()
            self._next_save = self._now()
        return answer


def _described(advice: Advice) -> dict[str, Any]:
    peaks, clients = advice.peaks, advice.peaks.largest()
    return {
        "limit": advice.limit,
        "value": advice.value,
        "enforced": advice.enforced,
        "observed": round(advice.observed, 3),
        "at_least": advice.at_least,
        "measured": peaks.measured,
        "reached": peaks.reached,
        "clients_reached": sum(1 for client in clients if client.reached),
        "strangers": peaks.strangers,
        "suggested": advice.suggested,
        "option": advice.option,
        "clients": [
            {
                "name": client.name,
                "value": round(client.value, 3),
                "reached": client.reached,
                "detail": client.detail,
                "last": client.last,
            }
            for client in clients[:MAX_NAMED]
        ],
        "addresses": [
            {"address": share.key, "reached": share.amount} for share in peaks.addresses.top(3)
        ],
    }
