"""What happened, as values: `edge` and `cred` tell facts, `observe` turns them into logs and numbers.

A fact holds no mail, no password and no object of Twisted's. `peer` is the client's address as text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened on connection number `connection` (0: none)."""

    connection: int
    peer: str


@dataclass(frozen=True, slots=True)
class ConnectionOpened(Event):
    """A client connected."""


@dataclass(frozen=True, slots=True)
class LoggedIn(Event):
    """A login was right."""

    user: str
    mechanism: str
    tls: bool


@dataclass(frozen=True, slots=True)
class LoginFailed(Event):
    """A login was wrong; `user` as typed, shortened and made printable."""

    user: str
    mechanism: str


@dataclass(frozen=True, slots=True)
class BadCommandReceived(Event):
    """A command was malformed: its first octets, printable, and our answer."""

    sample: str
    text: str


@dataclass(frozen=True, slots=True)
class LimitTriggered(Event):
    """A limit of `limits.Limits` fired: which, its value, what was `seen`, and what that led to.

    `action` is "reset", "bye", "refused", "paused", or "none" in report-only mode.
    """

    limit: str
    value: float
    observed: float
    action: str
    user: str = ""
    sample: str = ""


@dataclass(frozen=True, slots=True)
class CommandFailed(Event):
    """Our own bug or a failing disk met a command: answered with `reference`, whose traceback is in the log."""

    reference: str
    command: str
    traceback: str


@dataclass(frozen=True, slots=True)
class ConnectionClosed(Event):
    """A connection ended: how, after how long, what it cost."""

    reason: str
    seconds: float
    commands: int
    octets_in: int
    octets_out: int
    user: str = ""


EventObserver = Callable[[Event], None]


def ignore(fact: Event) -> None:
    """Tell nobody: for tests and for servers that watch nothing."""


def printable(octets: bytes, limit: int = 40) -> str:
    """Client bytes as a log may show them: ASCII, controls escaped, cut at `limit` octets."""
    text = octets[:limit].decode("ascii", "backslashreplace")
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return shown + ("…" if len(octets) > limit else "")
