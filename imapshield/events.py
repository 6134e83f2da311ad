"""Events: what happened on a connection, as values. `edge` reports them; observers turn them into log lines.

An event holds no mail, no password and no Twisted object. `peer` is the client's address as text.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened on connection number `connection` (0: on no connection)."""

    connection: int
    peer: str


@dataclass(frozen=True, slots=True)
class ConnectionOpened(Event):
    """A client connected."""


@dataclass(frozen=True, slots=True)
class LoggedIn(Event):
    """A client logged in as `user`."""

    user: str
    mechanism: str
    tls: bool


@dataclass(frozen=True, slots=True)
class LoginFailed(Event):
    """A login failed. `user` is the name that the client gave, shortened and made printable."""

    user: str
    mechanism: str


@dataclass(frozen=True, slots=True)
class BadCommandReceived(Event):
    """A command was invalid. `sample` is its beginning, made printable; `text` is what the server answered."""

    sample: str
    text: str


@dataclass(frozen=True, slots=True)
class LimitTriggered(Event):
    """A limit was reached.

    Attributes:
        limit: the name of the limit in `limits.Limits`.
        value: the configured limit.
        observed: the value that reached it.
        action: "reset", "bye", "refused", "paused", or "none" in report-only mode.
        user: the logged-in user, or "".
        sample: the beginning of the command that reached the limit, made printable.
    """

    limit: str
    value: float
    observed: float
    action: str
    user: str = ""
    sample: str = ""


@dataclass(frozen=True, slots=True)
class CommandFailed(Event):
    """A command failed because of a bug or a failing disk. The response to the client contains `reference`."""

    reference: str
    command: str
    traceback: str


@dataclass(frozen=True, slots=True)
class ConnectionClosed(Event):
    """A connection ended for `reason`, after `seconds`, with the number of its commands and bytes."""

    reason: str
    seconds: float
    commands: int
    octets_in: int
    octets_out: int
    user: str = ""


EventObserver = Callable[[Event], None]


def printable(data: bytes, limit: int = 40) -> str:
    """Return client bytes in a form that is safe in a log: ASCII, controls escaped, cut to `limit` bytes."""
    text = data[:limit].decode("ascii", "backslashreplace")
    escaped = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return escaped + ("…" if len(data) > limit else "")
