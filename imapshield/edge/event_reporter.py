"""What is told of one connection: every `facts.Event` that has its number in it is made here."""

from __future__ import annotations

from itertools import count

from imapshield import events
from imapshield.guard.verdicts import Disconnect, Reset
from imapshield.wire.framing import LiteralAnnounced, RawCommand

_numbers = count(1)


class EventReporter:
    """Tells `tell`; `peer` and `user` are whose connection it is, as far as that is known.

    With `report_only` a limit that would have reset is told once, and that nothing came of it.
    """

    def __init__(self, tell: events.EventObserver, report_only: bool) -> None:
        self.number = next(_numbers)
        self.peer = ""
        self.user = ""
        self._tell = tell
        self._report_only = report_only
        self._reported: set[str] = set()

    def connection_opened(self) -> None:
        """It has begun."""
        self._tell(events.ConnectionOpened(self.number, self.peer))

    def logged_in(self, user: str, mechanism: str, tls: bool) -> None:
        """`user` has logged in, and is who is meant from now on."""
        self.user = user
        self._tell(events.LoggedIn(self.number, self.peer, user, mechanism, tls))

    def login_failed(self, name: str, mechanism: str) -> None:
        """Somebody who said to be `name` was not let in."""
        self._tell(events.LoginFailed(self.number, self.peer, name, mechanism))

    def bad_command(self, sample: bytes, text: str) -> None:
        """A malformed command, and what was said to it."""
        self._tell(
            events.BadCommandReceived(self.number, self.peer, events.printable(sample), text)
        )

    def command_failed(self, commands: int, command: str, traceback: str) -> str:
        """Something of ours broke; returns the reference that stands in the log."""
        reference = f"{self.number:x}-{commands:x}"
        self._tell(events.CommandFailed(self.number, self.peer, reference, command, traceback))
        return reference

    def limit_triggered(
        self,
        verdict: Reset | Disconnect,
        action: str,
        event: LiteralAnnounced | RawCommand | None = None,
        sample: bytes = b"",
    ) -> None:
        """A limit fired: at the command `event`, or at octets of which `sample` is the beginning."""
        if self._report_only and isinstance(verdict, Reset) and action == "reset":
            if verdict.limit in self._reported:
                return
            self._reported.add(verdict.limit)
            action = "none"
        if event is not None and event.name not in (b"", b"LOGIN", b"AUTHENTICATE"):
            sample = (event.tag or b"") + b" " + event.name
        self._tell(
            events.LimitTriggered(
                self.number,
                self.peer,
                verdict.limit,
                verdict.value,
                verdict.observed,
                action,
                self.user,
                events.printable(sample),
            )
        )

    def connection_closed(
        self, why: str, seconds: float, commands: int, octets: tuple[int, int]
    ) -> None:
        """It has ended, having carried `octets` in and out."""
        self._tell(
            events.ConnectionClosed(
                self.number, self.peer, why, seconds, commands, *octets, self.user
            )
        )
