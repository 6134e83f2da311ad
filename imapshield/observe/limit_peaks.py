"""`LimitPeaks`: the highest values of each limit that honest clients had, and who had them. Pure.

Honest are the connections of users, and those without a login from an address where users log in. All others are
strangers: how often they reached a limit is counted, but their values are not.

Rules
-----
* `MAX_CLIENTS` clients of each limit are kept, those with the highest values, and `MAX_STRANGERS` addresses.
* What `dump` returns has hashes in place of names. `load` takes it over, and a client gets the name again when it
  is seen again.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import Any

from imapshield.limits import Limits
from imapshield.observe.space_saving import Summary

MAX_CLIENTS = 32
"""Honest clients of one limit that are kept."""

MAX_STRANGERS = 32
"""Counters of the addresses of strangers who have reached a limit."""

MAX_DETAIL = 80
"""Characters of what is kept about a client."""

_NAMES = frozenset(f.name for f in fields(Limits))


@dataclass(slots=True)
class Client:
    """A user, or an address where users log in.

    Attributes:
        name: the user or the address; "" if it is known only from an earlier run.
        value: the highest value.
        reached: how many connections have reached the limit.
        detail: the address of the user, and what the client has sent with ID.
        last: when it had the value, in seconds since 1970.
    """

    name: str
    value: float = 0
    reached: int = 0
    detail: str = ""
    last: float = 0


@dataclass(slots=True)
class Peaks:
    """What is known about one limit.

    Attributes:
        value: the highest value of honest clients.
        measured: how many values were looked at.
        reached: how many honest connections have reached the limit.
        strangers: how many others have.
        clients: those with the highest values, by hashes of their names.
        addresses: which strangers have reached it most often.
        floor: if there are `MAX_CLIENTS` clients, none has a lower value.
    """

    value: float = 0
    measured: int = 0
    reached: int = 0
    strangers: int = 0
    clients: dict[str, Client] = field(default_factory=dict)
    addresses: Summary[str] = field(default_factory=lambda: Summary(MAX_STRANGERS))
    floor: float = float("-inf")

    def largest(self) -> list[Client]:
        """Return the clients, that with the highest value first."""
        return sorted(self.clients.values(), key=lambda client: (-client.value, -client.reached))


class LimitPeaks:
    """The peaks of all limits.

    Args:
        hash_of: returns a short keyed hash of a name. A login asks for the same one about ten times.

    Attributes:
        limits: the peaks by the name of the limit.
        logins: how many logins there were.
        seconds: for how long they were observed before `load`.
        begun: when that began, in seconds since 1970.
    """

    def __init__(self, hash_of: Callable[[str], str], begun: float) -> None:
        self.limits: defaultdict[str, Peaks] = defaultdict(Peaks)
        self.logins = 0
        self.seconds = 0.0
        self.begun = begun
        self._hash_of = hash_of

    def note(self, limit: str, value: float, name: str, detail: str, now: float) -> None:
        """Note a value of an honest client. `now` is in seconds since 1970."""
        self.note_all({limit: value}, name, detail, now)

    def note_all(
        self, values: Mapping[str, float], name: str, detail: str, now: float, times: int = 1
    ) -> None:
        """Note the values of an honest client by their limits; they are the highest of `times` values each.

        The rest is as for `note`.
        """
        key = self._hash_of(name)
        for limit, value in values.items():
            peaks = self.limits[limit]
            peaks.measured += times
            peaks.value = max(peaks.value, value)
            client = peaks.clients.get(key)
            if client is None:
                client = self._add(peaks, key, name, value)
                if client is None:
                    continue
            else:
                client.name = name
            if value > client.value or not client.detail:
                client.value = max(client.value, value)
                client.detail, client.last = detail[:MAX_DETAIL], now

    def reach(self, limit: str, value: float, name: str, detail: str, now: float) -> None:
        """Note that a connection of an honest client has reached a limit, with a value that is at least `value`."""
        self.note(limit, value, name, detail, now)
        self.count_reached(limit, name)

    def count_reached(self, limit: str, name: str) -> None:
        """Count that the last value of a client for a limit has reached it."""
        peaks = self.limits[limit]
        peaks.reached += 1
        client = peaks.clients.get(self._hash_of(name))
        if client is not None:
            client.reached += 1

    def reach_as_stranger(self, limit: str, address: str) -> None:
        """Note that a connection of a stranger has reached a limit."""
        peaks = self.limits[limit]
        peaks.strangers += 1
        peaks.addresses.add({address: 1})

    def _add(self, peaks: Peaks, key: str, name: str, value: float) -> Client | None:
        """Add a client if its value is one of the highest; return it, or None."""
        if len(peaks.clients) >= MAX_CLIENTS:
            if value <= peaks.floor:
                return None
            lowest = min(peaks.clients, key=lambda key: peaks.clients[key].value)
            peaks.floor = peaks.clients[lowest].value
            if value <= peaks.floor:
                return None
            del peaks.clients[lowest]
        client = peaks.clients[key] = Client(name)
        return client

    def dump(self, seconds: float) -> str:
        """Return everything as text without names; `seconds` is for how long it was observed since `load`."""
        limits = {
            limit: [
                *(peaks.value, peaks.measured, peaks.reached, peaks.strangers),
                [[key, c.value, c.reached, c.last] for key, c in peaks.clients.items()],
            ]
            for limit, peaks in self.limits.items()
        }
        numbers = {"begun": self.begun, "seconds": self.seconds + seconds, "logins": self.logins}
        return json.dumps(numbers | {"limits": limits})

    def load(self, text: str) -> None:
        """Add what an earlier run has dumped. A damaged text changes nothing."""
        with suppress(ValueError, TypeError, KeyError, AttributeError):
            found = json.loads(text)
            begun, seconds, logins = (float(found[k]) for k in ("begun", "seconds", "logins"))
            rows = found["limits"].items()
            earlier = {limit: _loaded(row) for limit, row in rows if limit in _NAMES}
            self.begun = min(begun, self.begun)
            self.seconds += seconds
            self.logins += int(logins)
            for limit, peaks in earlier.items():
                self._merge(limit, peaks)

    def _merge(self, limit: str, earlier: Peaks) -> None:
        own = self.limits[limit]
        own.value = max(own.value, earlier.value)
        own.measured += earlier.measured
        own.reached += earlier.reached
        own.strangers += earlier.strangers
        for key, client in earlier.clients.items():
            mine = own.clients.setdefault(key, client)
            if mine is not client:
                mine.reached += client.reached
                mine.value = max(mine.value, client.value)
        kept = sorted(own.clients, key=lambda key: -own.clients[key].value)[:MAX_CLIENTS]
        own.clients = {key: own.clients[key] for key in kept}


def _loaded(row: list[Any]) -> Peaks:
    value, measured, reached, strangers, clients = row
    peaks = Peaks(float(value), int(measured), int(reached), int(strangers))
    for key, highest, times, last in clients:
        peaks.clients[str(key)] = Client("", float(highest), int(times), "", float(last))
    return peaks
