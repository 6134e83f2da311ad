"""`EndHistory`: why connections ended and logins were refused, for ``imapshield why``.

Rules
-----
* The ends of a user, an address or a network for the same cause are one entry with a count. What is kept of them are
  the first and the last.
* Users and strangers have tables of their own, and a network has at most `MAX_OF_NETWORK` entries of addresses: what
  exceeds that is in the entry of the network only. So a flood erases neither the history of users nor that of others.
* Failed logins with the name of a user are two entries: from networks where the user has logged in, and from others. So
  the failures of the user's own devices are seen during a flood. Names that nobody has logged in with have a table of
  their own. Refused logins are kept in the same way, for each reason and node.
* Full tables take at most 32 MB.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from imapshield import events
from imapshield.control.request_lines import ControlError, Request
from imapshield.guard.bans import ban_target
from imapshield.guard.bounded_table import BoundedTable
from imapshield.guard.networks import Network, describe, is_inside, networks_of

MAX_USERS = 10_000
"""Entries of users: pairs of a user and a cause. One more drops the one whose last end is the longest ago."""

MAX_ADDRESSES = 10_000
"""The same for the addresses of connections without a login."""

MAX_NETWORKS = 4_000
"""The same for their networks: IPv4 /21 and IPv6 /48."""

MAX_PLACES = 4_000
"""Users whose last networks are kept, and entries of failed logins with their names."""

MAX_UNKNOWN_NAMES = 1_000
"""Entries of failed logins with other names."""

PLACES = 4
"""Networks of one user that are kept, those of the last logins."""

MAX_OF_NETWORK = 200
"""Entries of addresses in one such network."""

MAX_REFERENCES = 1_000
"""Internal errors that are found by the reference in their answer. One more drops the oldest."""

MAX_ANSWERS = 200
"""Ends in one answer."""


@dataclass(slots=True)
class End:
    """Why a connection ended, or why something was refused.

    Attributes:
        cause: the name of a limit, or the reason of the end in words.
        action: what the server did, as in `events.LimitTriggered`; "" if the client has ended the connection.
        peer: the address of the client.
        user: the user who was logged in, or "".
        value: the limit; 0 if there is none.
        observed: the value that reached it.
        setting: the option that changes the limit; "" if there is none.
        connection: the number of the connection; 0 for none.
        commands: the names of the last commands, the last one last.
        detail: more about it, such as what the client has sent with ID.
        first: when this has happened for the first time, in seconds since 1970.
        last: when it has happened for the last time. All other attributes are of that time.
        count: how often.
    """

    cause: str
    action: str
    peer: str
    user: str = ""
    value: float = 0
    observed: float = 0
    setting: str = ""
    connection: int = 0
    commands: tuple[str, ...] = ()
    detail: str = ""
    first: float = 0
    last: float = 0
    count: int = 1


_ACTIONS = {"reset by the server": "reset", "closed by the server": "bye"}


def _last(end: End) -> float:
    return end.last


class EndHistory(events.EventHandlers):
    """An `events.EventObserver` that keeps why connections ended.

    Args:
        wall_clock: returns the seconds since 1970.
    """

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self._time = wall_clock
        self._users: BoundedTable[tuple[str, str], End] = BoundedTable(MAX_USERS, _last)
        self._addresses: BoundedTable[tuple[str, str], End] = BoundedTable(MAX_ADDRESSES, _last)
        self._networks: BoundedTable[tuple[str, str], End] = BoundedTable(MAX_NETWORKS, _last)
        # user in lower case → when the last login was, and the networks (IPv4 /21, IPv6 /48) of the last ones
        self._places: BoundedTable[str, tuple[float, tuple[Network, ...]]] = BoundedTable(
            MAX_PLACES, lambda places: places[0]
        )
        self._attempts: BoundedTable[tuple[str, str], End] = BoundedTable(MAX_PLACES, _last)
        self._unknown: BoundedTable[tuple[str, str], End] = BoundedTable(MAX_UNKNOWN_NAMES, _last)
        self._references: dict[str, End] = {}
        self._of_network: Counter[Network] = Counter()
        self._explained: dict[int, End] = {}  # by the number of a connection that has not ended yet
        self.handlers = {
            events.ConnectionClosed: self._closed,
            events.LoggedIn: self._logged_in,
            events.LimitTriggered: self._limit,
            events.AddressBanned: self._ban,
            events.ConnectionsRefused: self._refused,
            events.LoginFailed: self._login_failed,
            events.LoginRefused: self._login_refused,
            events.ProxyHeaderRejected: self._rejected,
            events.TLSFailed: self._rejected,
            events.CommandFailed: self._command_failed,
        }

    def _closed(self, event: events.ConnectionClosed) -> None:
        explained = self._explained.pop(event.connection, None)
        if explained is not None:
            end = replace(explained, user=event.user, commands=event.last_commands)
        else:
            action = _ACTIONS.get(event.reason, "") if event.cause else ""
            end = End(
                event.cause or event.reason,
                action,
                event.peer,
                event.user,
                connection=event.connection,
                commands=event.last_commands,
            )
        self.add(end)

    def _logged_in(self, event: events.LoggedIn) -> None:
        name, networks = event.user.lower(), networks_of(event.peer)[2:3]
        _, before = self._places.get(name) or (0.0, ())
        if before[:1] != networks:
            others = tuple(network for network in before if network not in networks)
            before = (*networks, *others)[:PLACES]
        self._places.put(name, (self._time(), before))

    def _login_failed(self, event: events.LoginFailed) -> None:
        self.add(End("login failed", "refused", event.peer, detail=f"last as {event.user}"))
        self._of_name(event, "login failed", is_disabled=event.is_disabled)

    def _login_refused(self, event: events.LoginRefused) -> None:
        cause, node = f"login refused: {event.reason}", f", node {event.node}" if event.node else ""
        self.add(End(cause, "refused", event.peer, detail=event.user + node))
        if event.user:
            self._of_name(event, cause, node)

    def _of_name(
        self,
        event: events.LoginFailed | events.LoginRefused,
        cause: str,
        node: str = "",
        is_disabled: bool = False,
    ) -> None:
        """Count a login that was not permitted for the name that the client gave."""
        name = event.user.lower()
        places = self._places.get(name)
        table, where = self._unknown, "a name with which nobody has logged in since the start"
        if is_disabled:
            # A line of the password file, so strangers cannot fill the table.
            table, where = self._attempts, "a disabled user"
        elif places is not None:
            is_own = networks_of(event.peer)[2:3] in [(place,) for place in places[1]]
            table = self._attempts
            where = "where the user logs in" if is_own else "where the user has not logged in"
        end = End(cause, "refused", event.peer, detail=f"as {event.user}, {where}{node}")
        _count(table, (name, f"{cause}, {where}{node}"), end, self._time())

    def _limit(self, event: events.LimitTriggered) -> None:
        if event.action not in ("reset", "bye", "refused"):
            return
        values = event.value, event.observed, event.setting, event.connection
        detail = event.client_id or (f"most of it has {event.holder}" if event.holder else "")
        end = End(event.limit, event.action, event.peer, event.user, *values, detail=detail)
        if event.action == "refused" or not event.connection:
            self.add(replace(end, commands=(event.sample,) if event.sample else ()))
        else:
            self._explained[event.connection] = end

    def _refused(self, event: events.ConnectionsRefused) -> None:
        address = event.peer.partition("/")[0]
        self.add(End("banned", "refused", address, count=event.connections))

    def _rejected(self, event: events.ProxyHeaderRejected | events.TLSFailed) -> None:
        end = End(event.reason, "reset", event.peer, connection=event.connection)
        if event.connection:
            self._explained[event.connection] = end
        else:
            self.add(end)

    def _command_failed(self, event: events.CommandFailed) -> None:
        cause = f"internal error in {event.command}"
        end = End(cause, "reset", event.peer, connection=event.connection, detail=event.reference)
        now = self._time()
        self._references[event.reference] = replace(end, first=now, last=now)
        if len(self._references) > MAX_REFERENCES:
            del self._references[next(iter(self._references))]
        if event.connection:
            self._explained[event.connection] = end

    def _ban(self, event: events.AddressBanned) -> None:
        values = event.value, event.observed, event.setting
        detail = f"{event.network} for {event.seconds:.0f} s"
        ban = End(f"banned: {event.limit}", "ban", event.peer, "", *values, detail=detail)
        if event.connection:
            end = replace(ban, cause=event.limit, action="bye", connection=event.connection)
            self._explained[event.connection] = end
        self.add(ban)

    def add(self, end: End) -> None:
        """Add an end that happens now."""
        now = self._time()
        if end.user:
            _count(self._users, (end.user, end.cause), end, now)
            return
        networks = networks_of(end.peer)
        if not networks:
            _count(self._addresses, (end.peer, end.cause), end, now)
            return
        network = networks[2]
        _count(self._networks, (describe(network), end.cause), replace(end), now)
        key = end.peer, end.cause
        is_new = self._addresses.get(key) is None
        if is_new and self._of_network[network] >= MAX_OF_NETWORK:
            return
        dropped = _count(self._addresses, key, end, now)
        if is_new:
            self._of_network[network] += 1
        if dropped is not None:
            self._forget(networks_of(dropped[0]))

    def _forget(self, networks: tuple[Network, ...]) -> None:
        if networks:
            self._of_network[networks[2]] -= 1
            if not self._of_network[networks[2]]:
                del self._of_network[networks[2]]

    def of_user(self, user: str) -> list[End]:
        """Return the ends of the connections of a user, and failed logins with the name; the last one first."""
        name = user.lower()
        ends = [end for end in self._users.values() if end.user == user]
        for table in (self._attempts, self._unknown):
            ends += [table_end for key in table if key[0] == name and (table_end := table.get(key))]
        return _ordered(ends)

    def of_network(self, network: Network) -> list[End]:
        """Return the ends of connections from an address or network, with a login or without, the last one first."""
        tables = self._users, self._addresses
        ends = (end for table in tables for end in table.values())
        return _ordered(end for end in ends if is_in(end.peer, network))

    def around(self, network: Network) -> list[End]:
        """Return the ends without a login of the wider network, IPv4 /21 or IPv6 /48, that an address is in."""
        ends = _ordered(self._networks.values())
        return [end for end in ends if is_inside(network, networks_of(end.peer)[2])]

    def of_reference(self, reference: str) -> End | None:
        """Return the internal error that was answered with a reference; None if it is unknown."""
        return self._references.get(reference)

    def of_connection(self, number: int) -> list[End]:
        """Return the end of a connection, if no later one for the same cause has replaced it."""
        return [end for end in self._everything() if end.connection == number]

    def summary(self) -> list[End]:
        """Return the ends without a login, by network and cause; the most frequent is first."""
        return sorted(self._networks.values(), key=lambda end: -end.count)

    def _everything(self) -> Iterator[End]:
        for table in (self._users, self._addresses):
            yield from table.values()

    async def why(self, request: Request) -> dict[str, Any]:
        """Answer the command `why`: the argument `who` is a user, an address, a network, a connection or a reference.

        Without it, the answer is about the networks with the most ends. Of an address of which nothing is known, which
        is then ``unknown``, it is about the network around it.
        """
        who = request.get("who")
        if not who:
            frequent = self.summary()[:MAX_ANSWERS]
            return {"networks": [_described(end) | {"network": _network(end)} for end in frequent]}
        network = as_network(who)
        reference = self.of_reference(who)
        ends = [reference] if reference is not None else self.of_user(who)
        if not ends and network is not None:
            ends = self.of_network(network)
        if not ends and who.isdecimal():
            ends = self.of_connection(int(who))
        if not ends and network is not None and (around := self.around(network)[:MAX_ANSWERS]):
            # Other addresses have ended so, perhaps: the answer must not look like one about this address.
            of = _network(around[0])
            return {
                "unknown": who,
                "networks": [_described(end) | {"network": of} for end in around],
            }
        if not ends:
            raise ControlError(
                f"{who}: no user, address, connection or reference of which an end is known;"
                " `imapshield why` lists the networks with the most ends"
            )
        return {"ends": [_described(end) for end in ends[:MAX_ANSWERS]]}


def _network(end: End) -> str:
    networks = networks_of(end.peer)
    return describe(networks[2]) if networks else end.peer


def _described(end: End) -> dict[str, Any]:
    return asdict(end)


def as_network(text: str) -> Network | None:
    """Return the network of an address or a network; None if the text is neither."""
    try:
        return ban_target(text)
    except ValueError:
        return None


def _count(
    table: BoundedTable[Any, End], key: tuple[str, str], end: End, now: float
) -> tuple[str, str] | None:
    """Add an end to the entry of `key`. Returns the key of the entry that was dropped for it, or None.

    The entry is `end` itself, which the caller must not use again.
    """
    before = table.get(key)
    end.first, end.last = now, now
    if before is not None:
        end.first = before.first
        end.count += before.count
    dropped: tuple[str, str] | None = table.put(key, end)
    return dropped


def _ordered(ends: Iterable[End]) -> list[End]:
    return sorted(ends, key=lambda end: -end.last)


def is_in(address: str, network: Network) -> bool:
    """Return whether an address is in a network."""
    return any(is_inside(own, network) for own in networks_of(address)[:1])
