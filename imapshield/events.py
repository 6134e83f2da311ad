"""Events: what happened on a connection, as values. `edge` reports them; observers turn them into log lines.

An event holds no mail, no password and no Twisted object. `peer` is the client's address as text.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Action = Literal["reset", "bye", "refused", "paused", "none"]

_OPTIONS = {
    "backlog": "--backlog=N",
    "strict_backlog": "--strict-backlog",
    "report_only": "--report-only",
    "ban": "none",
    "operator": "none",
    "user_removed": "none",
    "open_files": "LimitNOFILE",
}


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened on connection number `connection` (0: on no connection)."""

    connection: int
    peer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityEvent(Event):
    """An event that says what its connection has done until then.

    Attributes:
        commands: how many commands have arrived, the last one included.
        octets_in: the bytes received, before they were decompressed (COMPRESS), but without the overhead of TLS.
        octets_out: the bytes sent, after they were compressed, but without the overhead of TLS.
        seconds: how long the connection has been open.
        executed: how many of the commands were executed or are running.
        busy: the seconds for which the server has computed for them: CPU time of the store's threads, and elapsed time
            of the main thread, which is more on a machine that others use, too.
        last_commands: the names of the last three commands that were executed, the last one last.
    """

    commands: int = 0
    octets_in: int = 0
    octets_out: int = 0
    seconds: float = 0.0
    executed: int = 0
    busy: float = 0.0
    last_commands: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ConnectionOpened(Event):
    """A client connected."""


@dataclass(frozen=True, slots=True)
class LoggedIn(Event):
    """A client logged in.

    Attributes:
        user: the user, by the name that the account has.
        mechanism: "LOGIN" for the command LOGIN, otherwise the SASL mechanism of AUTHENTICATE, such as "PLAIN".
        tls: whether the connection is encrypted, by STARTTLS or from its beginning.
    """

    user: str
    mechanism: str
    tls: bool


@dataclass(frozen=True, slots=True)
class MasterLoggedIn(Event):
    """A master user has logged in as another user. It follows the `LoggedIn` of that user.

    Attributes:
        user: the user.
        master: the master user.
    """

    user: str
    master: str


@dataclass(frozen=True, slots=True)
class PageLoggedIn(Event):
    """Somebody has logged in to the status page.

    Attributes:
        user: the name; any name or "" with the token.
    """

    user: str


@dataclass(frozen=True, slots=True)
class LoginFailed(Event):
    """A login failed: the user does not exist or is disabled, or the password or token is wrong.

    Attributes:
        user: the name that the client gave, shortened and made printable.
        mechanism: as in `LoggedIn`; "status-page" for a password or token of the status page.
        repeated: whether this address has failed with the same user and password in the last day. A device with an
            old password does; somebody who guesses does not.
        delay: the seconds by which the answer to the client is delayed.
        is_disabled: whether the user is disabled, so that no password is correct.
    """

    user: str
    mechanism: str
    repeated: bool = False
    delay: float = 0.0
    is_disabled: bool = False


@dataclass(frozen=True, slots=True)
class LoginRefused(Event):
    """A login was refused before the password was checked, or without a result.

    Attributes:
        user: the name that the client gave, as in `LoginFailed`; "" if it is unknown.
        mechanism: as in `LoggedIn`.
        reason: "no-tls": the connection is not encrypted. "unavailable": the checker cannot decide now.
        node: the node of the user that cannot be used now; "" if it is unknown, or there are none.
    """

    user: str
    mechanism: str
    reason: Literal["no-tls", "unavailable"]
    node: str = ""


@dataclass(frozen=True, slots=True)
class BadCommandReceived(Event):
    """A command was invalid.

    Attributes:
        sample: its tag and name, made printable; "" if they may hold a part of a password.
        text: what the server answered.
    """

    sample: str
    text: str


@dataclass(frozen=True, slots=True)
class ProxyHeaderRejected(Event):
    """A PROXY header was not accepted.

    A configured proxy has sent none, or an invalid one, and its connection was reset; `peer` is the address of the
    proxy, because that of the client is unknown. Or a client that is no configured proxy has sent one.

    Attributes:
        reason: what is wrong with the header; without any of its bytes.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class TLSFailed(Event):
    """TLS could not be used: the handshake failed, or the client began it where IMAP is expected.

    Attributes:
        reason: what is wrong, what to do, and in parentheses the reason code of OpenSSL, if there is one.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class LimitTriggered(ActivityEvent):
    """A limit was reached.

    Attributes:
        limit: the name of the limit in `limits.Limits`.
        value: the configured limit.
        observed: the value that reached it.
        action: what the server did. "reset": it reset the connection (TCP RST). "bye": it sent BYE and closed.
            "refused": it refused a connection or a command. "paused": it lets the commands of the client wait. "none":
            nothing, in report-only mode.
        user: the logged-in user, or "".
        sample: the tag and name of the command that reached the limit, as in `BadCommandReceived`.
        holder: the address that holds most of a resource that all connections share; "" for a limit of one connection.
            It may be another address than `peer`, which was only refused because of it.
        network: the network of the client: an IPv4 /26 or an IPv6 /56; "" if the client has no IP address.
        client_id: what the client has sent with ID, shortened and made printable.
        binding: as in `limits.LimitReached`.
    """

    limit: str
    value: float
    observed: float
    action: Action
    user: str = ""
    sample: str = ""
    holder: str = ""
    network: str = ""
    client_id: str = ""
    binding: str = ""

    @property
    def setting(self) -> str:
        """The option that changes the limit; several with commas if all must be changed; "none" for a constant.

        A quota that is in the line of a user in a password file is changed there: then this names both, with spaces.
        """
        if " " in self.binding:
            return self.binding
        return ",".join(map(setting_of, (self.binding or self.limit).split(",")))


@dataclass(frozen=True, slots=True)
class AddressBanned(Event):
    """An address was banned: its connections without a login are reset, and further ones closed before the greeting.

    Attributes:
        network: the address, or for IPv6 its /64, such as ``2001:db8::/64``.
        limit: ``max_failed_pairs``, ``max_limit_violations`` or ``operator``.
        value: the configured limit.
        observed: the value that reached it.
        seconds: the duration of the ban.
        last: the limit that the last violation exceeded; "" for failed logins.
        shared: many users log in from the address, so the ban is only for others (`guard.bans.Ban.strangers_only`).
    """

    network: str
    limit: str
    value: float
    observed: float
    seconds: float
    last: str = ""
    shared: bool = False

    @property
    def setting(self) -> str:
        """The option that changes the limit."""
        return setting_of(self.limit)


@dataclass(frozen=True, slots=True)
class AddressUnbanned(Event):
    """An operator has ended the ban of a network, with ``imapshield unban`` for example. `peer` is the network."""


@dataclass(frozen=True, slots=True)
class ConnectionsRefused(Event):
    """A ban has refused connections since the last event about it. `peer` is the banned network.

    Attributes:
        connections: how many connections.
        remaining: the seconds until the ban ends.
    """

    connections: int
    remaining: float


@dataclass(frozen=True, slots=True)
class CommandFailed(Event):
    """An exception that is not one of `errors`: a bug.

    Attributes:
        reference: in the response to the client, if a command failed, so that this event is found.
        command: the name of the command, or "background work".
        traceback: the traceback, which may contain paths and data.
    """

    reference: str
    command: str
    traceback: str


@dataclass(frozen=True, slots=True)
class ConnectionClosed(ActivityEvent):
    """A connection ended.

    Attributes:
        reason: "logged out": the client has sent LOGOUT. "reset by the server", "closed by the server", "closed by the
            client". "connection lost": the client has reset it, or the network has failed.
        user: the logged-in user, or "".
        cause: why the server has ended it: the name of a limit, the text of BYE, or some words; "" if it has not.
    """

    reason: str
    user: str = ""
    cause: str = ""


@dataclass(frozen=True, slots=True)
class PeaksMeasured(Event):
    """How near the connection of a user came to limits: reported after the login, and at the end.

    Attributes:
        user: the user.
        peaks: name of a limit → the highest value that the connection has had since the last such event.
        client_id: as in `LimitTriggered`.
    """

    user: str
    peaks: Mapping[str, float]
    client_id: str = ""


@dataclass(frozen=True, slots=True)
class UserBusy(Event):
    """The commands of a user have kept the server busy for a large part of a minute. Correct clients may do that.

    `peer` and `connection` are of the connection whose command was the last one.

    Attributes:
        user: the user.
        share: the part of the time for which the server has computed for the user, measured like the field `busy` of
            `ActivityEvent`. More than 1 for threads that compute at the same time, or for a call that began before.
        seconds: the duration of that time.
        commands: how many commands of the user were executed in it.
    """

    user: str
    share: float
    seconds: float
    commands: int


EventObserver = Callable[[Event], None]


class EventHandlers:
    """An `EventObserver` that has a function for each class of events it wants.

    Attributes:
        handlers: the functions by the class. They never change.
    """

    handlers: Mapping[type[Event], Callable[[Any], None]]

    def __call__(self, event: Event) -> None:
        """Call the function for `event`, if there is one."""
        handler = self.handlers.get(type(event))
        if handler is not None:
            handler(event)


def setting_of(limit: str) -> str:
    """Return the option that changes a limit, such as ``--limit=idle_seconds=N``; "none" for a constant."""
    return _OPTIONS.get(limit, f"--limit={limit}=N") if limit.islower() else "none"


def printable(data: bytes, limit: int = 40) -> str:
    """Return bytes from a client as text for a log.

    Everything but printable ASCII is escaped. Only the first `limit` bytes are used; "…" stands for the others.
    """
    text = data[:limit].decode("ascii", "backslashreplace")
    escaped = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return escaped + ("…" if len(data) > limit else "")
