"""`Counters`: how often each kind of event has happened since the start. Pure; no table grows with addresses."""

from collections import Counter
from typing import Any

from imapshield import events

MAX_LIMITS = 200
"""Pairs of a limit and an action; further ones count as `OTHER`. All come from our code, none from clients."""

MAX_LABELS = 20
"""The same for the reasons of ends, and for the limits that ban."""

OTHER = "other"


class Counters(events.EventHandlers):
    """An `events.EventObserver` that counts.

    Attributes:
        opened: connections.
        closed: connections that have ended, by their reason.
        logins: logins by their result: "accepted", "failed" or "refused".
        limits: limits that were reached, by (name of the limit, action).
        bans: bans by the name of their limit.
        refused: connections that bans have refused. It is updated every few seconds.
        unbans: bans that an operator has ended.
        problems: invalid commands, internal errors, failed TLS and invalid PROXY headers.
    """

    def __init__(self) -> None:
        self.opened = self.refused = self.unbans = 0
        self.closed: Counter[str] = Counter()
        self.logins = Counter(accepted=0, failed=0, refused=0)
        self.limits: Counter[tuple[str, str]] = Counter()
        self.bans: Counter[str] = Counter()
        self.problems = Counter(bad_command=0, internal_error=0, tls=0, proxy_header=0)
        self.handlers = {
            events.ConnectionOpened: self._opened,
            events.ConnectionClosed: self._closed,
            events.LimitTriggered: self._limit,
            events.AddressBanned: self._banned,
            events.ConnectionsRefused: self._refused,
            events.AddressUnbanned: self._unbanned,
            **dict.fromkeys(_LOGINS, self._login),
            **dict.fromkeys(_PROBLEMS, self._problem),
        }

    def _opened(self, _: events.ConnectionOpened) -> None:
        self.opened += 1

    def _closed(self, event: events.ConnectionClosed) -> None:
        self.closed[event.reason if _fits(self.closed, event.reason) else OTHER] += 1

    def _limit(self, event: events.LimitTriggered) -> None:
        limit = event.limit, event.action
        self.limits[limit if _fits(self.limits, limit, MAX_LIMITS) else (OTHER, event.action)] += 1

    def _banned(self, event: events.AddressBanned) -> None:
        self.bans[event.limit if _fits(self.bans, event.limit) else OTHER] += 1

    def _refused(self, event: events.ConnectionsRefused) -> None:
        self.refused += event.connections

    def _unbanned(self, _: events.AddressUnbanned) -> None:
        self.unbans += 1

    def _login(self, event: events.Event) -> None:
        self.logins[_LOGINS[type(event)]] += 1

    def _problem(self, event: events.Event) -> None:
        self.problems[_PROBLEMS[type(event)]] += 1

    def limits_by_action(self, action: str) -> int:
        """Return how often the limits were reached that had this action."""
        return sum(number for (_, done), number in self.limits.items() if done == action)


_LOGINS: dict[type[events.Event], str] = {
    events.LoggedIn: "accepted",
    events.LoginFailed: "failed",
    events.LoginRefused: "refused",
}
_PROBLEMS: dict[type[events.Event], str] = {
    events.BadCommandReceived: "bad_command",
    events.CommandFailed: "internal_error",
    events.TLSFailed: "tls",
    events.ProxyHeaderRejected: "proxy_header",
}


def _fits(counter: "Counter[Any]", label: object, number: int = MAX_LABELS) -> bool:
    return label in counter or len(counter) < number
