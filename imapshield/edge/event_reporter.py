"""`EventReporter`: makes the `events.Event` values of one connection and sends them to the observers."""

from collections.abc import Iterable
from itertools import count

from twisted.logger import Logger

from imapshield import events
from imapshield.guard.verdicts import CommandEvent, Disconnect, Reset
from imapshield.wire.traits import traits_of

_connection_numbers = count(1)
_log = Logger(namespace="imapshield")


def publish(event: events.Event, observers: Iterable[events.EventObserver]) -> None:
    """Call each of `observers` with `event`, in order.

    An exception of an observer is logged. It reaches neither the other observers nor the connection.
    """
    for observer in observers:
        try:
            observer(event)
        except Exception:
            _log.failure(
                "observer {observer!r} failed on {event!r}", observer=observer, event=event
            )


class EventReporter:
    """Reports the events of one connection.

    Args:
        observers: called with each event.
        report_only: each limit that would reset the connection is reported once, with the action "none".

    Attributes:
        number: the number of the connection.
        peer: the client's address; "" while it is unknown.
        user: the user who is logged in; "" before login.
        commands: how many commands of the connection were executed or are running.
    """

    def __init__(self, observers: Iterable[events.EventObserver], report_only: bool) -> None:
        self.number = next(_connection_numbers)
        self.peer = self.user = ""
        self.commands = 0
        self._observers = tuple(observers)
        self._report_only = report_only
        self._reported_limits: set[str] = set()

    def connection_opened(self) -> None:
        """Report that the client has connected."""
        self._publish(events.ConnectionOpened(self.number, self.peer))

    def logged_in(self, user: str, mechanism: str, tls: bool) -> None:
        """Report that `user` has logged in; later events name this user."""
        self.user = user
        self._publish(events.LoggedIn(self.number, self.peer, user, mechanism, tls))

    def login_failed(self, user: bytes, mechanism: str) -> None:
        """Report a failed login. `user` is the name that the client gave."""
        name = events.printable(user, 64)
        self._publish(events.LoginFailed(self.number, self.peer, name, mechanism))

    def bad_command(self, sample: bytes, text: str) -> None:
        """Report an invalid command, of which `sample` is the beginning, and the answer `text`."""
        printable = events.printable(sample)
        self._publish(events.BadCommandReceived(self.number, self.peer, printable, text))

    def command_failed(self, command: str, traceback: str) -> str:
        """Report an internal error, and return the reference by which the log entry is found."""
        reference = f"{self.number:x}-{self.commands:x}"
        self._publish(events.CommandFailed(self.number, self.peer, reference, command, traceback))
        return reference

    def limit_triggered(
        self,
        verdict: Reset | Disconnect,
        action: str,
        event: CommandEvent | None = None,
        sample: bytes = b"",
    ) -> None:
        """Report a limit that was reached by the command `event`, or by input of which `sample` is the beginning."""
        if self._report_only and isinstance(verdict, Reset) and action == "reset":
            if verdict.limit in self._reported_limits:
                return
            self._reported_limits.add(verdict.limit)
            action = "none"
        if event is not None and event.name and not traits_of(event.name).secret:
            sample = (event.tag or b"") + b" " + event.name
        values = verdict.limit, verdict.value, verdict.observed, action
        printable = events.printable(sample)
        self._publish(events.LimitTriggered(self.number, self.peer, *values, self.user, printable))

    def connection_closed(self, reason: str, seconds: float, octets: tuple[int, int]) -> None:
        """Report that the connection has ended, after `seconds` and after `octets` in and out."""
        totals = seconds, self.commands, *octets
        self._publish(events.ConnectionClosed(self.number, self.peer, reason, *totals, self.user))

    def _publish(self, event: events.Event) -> None:
        publish(event, self._observers)
