"""`EventReporter`: makes the `events.Event` values of one connection and sends them to the observers."""

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count
from typing import Any, ClassVar, Literal, Protocol

from twisted.internet.error import ConnectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from imapshield import events
from imapshield.edge.tls_failures import TLS_HANDSHAKE, TLS_UNEXPECTED, describe_tls_failure
from imapshield.guard.connection_guard import ConnectionGuard
from imapshield.guard.networks import describe, networks_of
from imapshield.guard.verdicts import CommandEvent, LimitReached
from imapshield.wire.proxy_header import begins_with_header
from imapshield.wire.traits import log_sample

_log = Logger(namespace="imapshield")


class Observers:
    """The observers of one server. It knows which of them want a class of events, so that the others cost nothing.

    Args:
        observers: called with each event, in order. Of one with the attribute `handlers`, only the function for the
            class of the event is called (`events.EventHandlers`).

    Attributes:
        by_class: what `wanting` has returned.
    """

    def __init__(self, observers: Iterable[events.EventObserver] = ()) -> None:
        self._observers = tuple(observers)
        self.by_class: dict[type[events.Event], tuple[events.EventObserver, ...]] = {}

    @classmethod
    def of(cls, observers: "Iterable[events.EventObserver] | Observers") -> "Observers":
        """Return `observers` as one object, which connections share."""
        return observers if isinstance(observers, Observers) else cls(observers)

    def __iter__(self) -> Iterator[events.EventObserver]:
        return iter(self._observers)

    def wanting(self, kind: type[events.Event]) -> tuple[events.EventObserver, ...]:
        """Return what is called with events of a class, and remember it."""
        functions = [_function_for(kind, each) for each in self]
        found = self.by_class[kind] = tuple(each for each in functions if each is not None)
        return found


def _function_for(
    kind: type[events.Event], observer: events.EventObserver
) -> events.EventObserver | None:
    handlers = getattr(observer, "handlers", None)
    # Another attribute of this name is none of ours.
    return handlers.get(kind) if isinstance(handlers, Mapping) else observer


def publish(event: events.Event, observers: Iterable[events.EventObserver]) -> None:
    """Call each of `observers` with `event`, in order.

    An exception of an observer is logged. It reaches neither the other observers nor the connection.
    """
    shared = observers if isinstance(observers, Observers) else Observers(observers)
    wanting = shared.by_class.get(type(event))
    if wanting is None:  # empty: nobody wants it, which is known, too
        wanting = shared.wanting(type(event))
    for observer in wanting:
        try:
            observer(event)
        except Exception:
            _log.failure(
                "observer {observer!r} failed on {event!r}", observer=observer, event=event
            )


class Tap(Protocol):
    """What is called while the dialogue of a connection is traced."""

    def line(self, line: bytes, continues: bool, guard: ConnectionGuard) -> None:
        """Note a line of the client, without its end, before `guard` gets it; `continues`: after a literal."""

    def literal(self, size: int) -> None:
        """Note that `size` bytes of a literal of the client have arrived."""

    def output(self, data: bytes) -> None:
        """Note bytes that the server writes, before they are compressed."""


class EventReporter:
    """Reports the events of one connection.

    Args:
        observers: called with each event.

    Attributes:
        numbers: yields the numbers of connections.
        number: the number of the connection.
        peer: the client's address; "" while it is unknown.
        user: the user who is logged in; "" before login.
        master: the master user who has logged in as `user`, or "".
        client_id: what the client has sent with ID, made printable.
        was_reset: whether the server has reset the connection. With TLS, the reason of the end does not show it.
        logged_out: whether the server closes the connection because the client has sent LOGOUT.
        cause: why the server ends the connection; "" while it does not.
        tap: is called with the dialogue while it is traced, otherwise None. The write buffer has the same.
        measure: returns what the connection has done until now, as the fields of `events.ActivityEvent`.
        most_pending: the most pending commands since the login, or before it since the beginning.
        longest_idle: the seconds that the user was longest without a command.
        peaks: name of a limit → the highest value that was noted since the last report; None for none.
    """

    was_reset = logged_out = _has_ended = False
    numbers: ClassVar[Iterator[int]] = count(1)

    def __init__(self, observers: Iterable[events.EventObserver]) -> None:
        self.number = next(self.numbers)
        self.tap: Tap | None = None
        self.peer = self.user = self.master = self.client_id = self.cause = ""
        self.measure: Callable[[], dict[str, Any]] = dict
        self.peaks: dict[str, float] | None = None  # an empty dict takes memory
        self.most_pending = 0
        self.longest_idle = 0.0
        self._observers = Observers.of(observers)
        self._reported_limits: tuple[str, ...] = ()

    @property
    def open_number(self) -> int:
        """The number of the connection, and 0 when its end was reported.

        Observers keep some events until the end of their connection. The check of a password may go on after it.
        """
        return 0 if self._has_ended else self.number

    def connection_opened(self) -> None:
        """Report that the client has connected."""
        publish(events.ConnectionOpened(self.number, self.peer), self._observers)

    def logged_in(self, user: str, mechanism: str, tls: bool) -> None:
        """Report that `user` has logged in. Later `LimitTriggered` and `ConnectionClosed` events name this user."""
        self.user, self.master = user, ""
        publish(events.LoggedIn(self.number, self.peer, user, mechanism, tls), self._observers)

    def master_logged_in(self, master: str) -> None:
        """Report that the user who has just logged in is in truth the master user `master`."""
        self.master = master
        publish(events.MasterLoggedIn(self.number, self.peer, self.user, master), self._observers)

    def note_peak(self, limit: str, value: float) -> None:
        """Note a value that is compared with `limit`. This is too slow for every command."""
        self.peaks = self.peaks or {}
        self.peaks[limit] = max(value, self.peaks.get(limit, 0))

    def report_peaks(self, values: Mapping[str, float]) -> None:
        """Report the peaks of the connection of a user, and `values`, and begin with new ones."""
        found = {**self.peaks, **values} if self.peaks else values
        peaks = {name: value for name, value in found.items() if value}
        self.peaks, self.most_pending, self.longest_idle = None, 0, 0.0
        values_of = self.user, peaks, self.client_id
        publish(events.PeaksMeasured(self.number, self.peer, *values_of), self._observers)

    def login_failed(
        self, user: bytes, mechanism: str, repeated: bool, delay: float, is_disabled: bool
    ) -> None:
        """Report a failed login. `user` is the name that the client gave; see `events.LoginFailed` for the rest."""
        fields = events.printable(user, 64), mechanism, repeated, delay, is_disabled
        publish(events.LoginFailed(self.number, self.peer, *fields), self._observers)

    def login_refused(
        self, user: bytes, mechanism: str, reason: Literal["no-tls", "unavailable"], node: str = ""
    ) -> None:
        """Report a login that was refused without a check; see `events.LoginRefused`."""
        name = events.printable(user, 64)
        publish(
            events.LoginRefused(self.number, self.peer, name, mechanism, reason, node),
            self._observers,
        )

    def bad_command(self, sample: bytes, text: str) -> None:
        """Report an invalid command, of which `sample` is the beginning, and the answer `text`."""
        printable = events.printable(sample)
        publish(events.BadCommandReceived(self.number, self.peer, printable, text), self._observers)

    def command_failed(self, command: str, traceback: str) -> str:
        """Report an internal error, and return the reference by which the log entry is found.

        The reference is random, because numbers begin again when the server restarts and the log does not.
        """
        reference = secrets.token_hex(4)
        failed = events.CommandFailed(self.open_number, self.peer, reference, command, traceback)
        publish(failed, self._observers)
        return reference

    def limit_triggered(
        self,
        action: events.Action,
        reached: LimitReached,
        event: CommandEvent | None = None,
        *,
        holder: str = "",
        sample: bytes = b"",
    ) -> bool:
        """Report a limit that was reached, by the command `event` if a command reached it.

        A limit that is not enforced (action "none") is reported once for a connection. `holder` is the address that
        holds most of a resource that the connection shares with others. `sample`: as the method `bad_command` has it.

        Returns:
            whether it is the first limit of the connection that is reported, or one that is enforced.
        """
        is_first = action != "none" or not self._reported_limits
        if action == "none":
            if reached.limit in self._reported_limits:
                return False
            self._reported_limits += (reached.limit,)
        if event is not None:
            sample = log_sample(event.tag, event.name)
        values = reached.limit, reached.value, reached.observed, action
        printable = events.printable(sample)
        networks = networks_of(self.peer)
        network = describe(networks[1]) if networks else ""
        fields = *values, self.user, printable, holder, network, self.client_id, reached.binding
        publish(
            events.LimitTriggered(self.open_number, self.peer, *fields, **self.measure()),
            self._observers,
        )
        return is_first

    def input_begun(self, data: bytes) -> None:
        """Report if the first input of a client is not IMAP, but shows a mistake in settings."""
        if begins_with_header(data):
            reason = (
                f"--proxy does not name this address; if it is a proxy, add --proxy {self.peer}"
            )
            publish(events.ProxyHeaderRejected(self.number, self.peer, reason), self._observers)
        elif data.startswith(TLS_HANDSHAKE):
            publish(events.TLSFailed(self.number, self.peer, TLS_UNEXPECTED), self._observers)

    def connection_closed(self, reason: Failure, *, by_server: bool) -> None:
        """Report that the connection has ended, for the `reason` of the transport; `by_server`: whether it began."""
        tls_reason = describe_tls_failure(reason.value)
        if tls_reason is not None:
            publish(events.TLSFailed(self.number, self.peer, tls_reason), self._observers)
        if self.was_reset:
            end = "reset by the server"
        elif by_server:
            end = "logged out" if self.logged_out else "closed by the server"
        else:
            end = "closed by the client" if reason.check(ConnectionDone) else "connection lost"
        why = end, self.user, self.cause
        closed = events.ConnectionClosed(self.number, self.peer, *why, **self.measure())
        self._has_ended = True
        publish(closed, self._observers)
