"""`LoginQueue`: decides whose password is checked next, so that no address can take the checks from the others.

Rules
-----
* At most `max_checks` checks run at once, and at most a quarter of them are of one address.
* Users who have logged in from their address before come first. At least every fourth check is one of the others, or
  somebody with one account and many addresses could stop all new logins.
* Within both groups the networks take turns, from the widest to the address: an attacker with all addresses of a
  network waits like one client of another network.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from imapshield.guard.networks import networks_of

KNOWN_IN_A_ROW = 3
"""Checks of users who are known from their address that may start, one after another, while others wait."""

_Path = tuple[Hashable, ...]


class LoginQueue:
    """Attempts to log in that wait for a password check, and those whose check runs.

    Each attempt has a `ticket`, which the caller chooses. A connection has at most one attempt at a time, so the
    number of attempts is bounded by the number of connections.
    """

    def __init__(self, max_checks: int) -> None:
        self.set_max_checks(max_checks)
        self._waiting = {True: _Turns(), False: _Turns()}
        self._paths: dict[Hashable, tuple[bool, _Path]] = {}  # of the attempts that wait
        self._running: dict[Hashable, Hashable] = {}
        self._running_of: Counter[Hashable] = Counter()
        self._known_in_a_row = 0
        self._holders = Holders()

    def set_max_checks(self, max_checks: int) -> None:
        """Let so many checks run at once, of which one address has a quarter."""
        self._max_checks = max_checks
        self._max_of_address = max(1, max_checks // 4)

    def __len__(self) -> int:
        """Return the number of attempts that wait."""
        return len(self._paths)

    def add(self, ticket: Hashable, address: str, known: bool) -> None:
        """Let an attempt wait.

        Args:
            ticket: identifies the attempt.
            address: the address of the client.
            known: whether the user has logged in from this address before.
        """
        path = _path(address)
        self._paths[ticket] = known, path
        self._waiting[known].add(path, ticket)
        self._holders.add(path[-1], address)

    def next(self) -> Hashable | None:
        """Take the attempt whose check begins now; None if none waits, or none may begin yet."""
        if len(self._running) >= self._max_checks:
            return None
        known_first = self._known_in_a_row < KNOWN_IN_A_ROW
        for known in (known_first, not known_first):
            ticket = self._waiting[known].take(self._may_run)
            if ticket is not None:
                self._known_in_a_row = self._known_in_a_row + 1 if known else 0
                _, path = self._paths.pop(ticket)
                self._running[ticket] = path[-1]
                self._running_of[path[-1]] += 1
                return ticket
        return None

    def _may_run(self, unit: Hashable) -> bool:
        return self._running_of[unit] < self._max_of_address

    def remove(self, ticket: Hashable) -> None:
        """Forget an attempt: its check has ended, or its client waits no longer. Does nothing if it is unknown."""
        if ticket in self._running:
            unit = self._running.pop(ticket)
            self._running_of[unit] -= 1
            if not self._running_of[unit]:
                del self._running_of[unit]
        elif ticket in self._paths:
            known, path = self._paths.pop(ticket)
            self._waiting[known].remove(path, ticket)
            unit = path[-1]
        else:
            return
        self._holders.remove(unit)

    def holder(self) -> str:
        """Return the address of which most attempts wait or run; "" if there is none."""
        return self._holders.most()


def _path(address: str) -> _Path:
    """Return the networks of an address, the widest first. The last one is the unit that may have a quarter."""
    return networks_of(address)[::-1] or (address,)


@dataclass(slots=True, eq=False)
class _Turns:
    """Tickets by network. The networks take turns, and within each the narrower networks do."""

    tickets: OrderedDict[Hashable, None] = field(default_factory=OrderedDict)
    networks: "OrderedDict[Hashable, _Turns]" = field(default_factory=OrderedDict)

    def add(self, path: _Path, ticket: Hashable) -> None:
        """Add a ticket, which waits for its turn within the network at the end of `path`."""
        turns = self
        for network in path:
            turns = turns.networks.setdefault(network, _Turns())
        turns.tickets[ticket] = None

    def remove(self, path: _Path, ticket: Hashable) -> None:
        """Remove a ticket that was added with `path`."""
        if not path:
            del self.tickets[ticket]
            return
        inner = self.networks[path[0]]
        inner.remove(path[1:], ticket)
        if not inner.tickets and not inner.networks:
            del self.networks[path[0]]

    def take(self, may_run: Callable[[Hashable], bool], unit: Hashable = None) -> Hashable | None:
        """Remove and return the next ticket in turn, among those of the units that `may_run`.

        The units that may not run are few, because each of them has a part of the running checks.
        """
        if self.tickets:
            return self.tickets.popitem(last=False)[0] if may_run(unit) else None
        for network, inner in self.networks.items():
            ticket = inner.take(may_run, network)
            if ticket is not None:
                if inner.tickets or inner.networks:
                    self.networks.move_to_end(network)
                else:
                    del self.networks[network]
                return ticket
        return None


class Holders:
    """Counts what each holder of a shared resource holds, and knows the one that holds most. Each call is O(1)."""

    def __init__(self) -> None:
        self._names: dict[
            Hashable, tuple[str, int]
        ] = {}  # unit → its newest name, and how much it holds
        self._units: dict[
            int, OrderedDict[Hashable, None]
        ] = {}  # how much → the units that hold as much
        self._most = 0

    def add(self, unit: Hashable, name: str) -> None:
        """Count one more for `unit`, which `name` describes."""
        _, count = self._names.get(unit, ("", 0))
        self._names[unit] = name, count + 1
        self._move(unit, count, count + 1)
        self._most = max(self._most, count + 1)

    def remove(self, unit: Hashable) -> None:
        """Count one less for `unit`."""
        name, count = self._names.pop(unit)
        if count > 1:
            self._names[unit] = name, count - 1
        self._move(unit, count, count - 1)
        if self._most not in self._units:
            self._most -= 1

    def _move(self, unit: Hashable, before: int, after: int) -> None:
        if before:
            units = self._units[before]
            del units[unit]
            if not units:
                del self._units[before]
        if after:
            self._units.setdefault(after, OrderedDict())[unit] = None

    def most(self) -> str:
        """Return the name of the unit that holds most; "" if none holds anything."""
        if not self._most:
            return ""
        return self._names[next(iter(self._units[self._most]))][0]
