"""`Traces`: shows an operator the dialogue of the connections of a user or an address while it goes on.

Rules
-----
* A connection that nobody traces pays nothing but a look at an attribute that is None.
* A trace ends after its time, when its operator leaves, or with the server. It keeps at most `MAX_WAITING` lines for an
  operator who does not read; what exceeds that is counted and left out.
"""

import re
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Any

from twisted.internet.defer import Deferred

from imapshield import events
from imapshield.command_output import counted
from imapshield.control.request_lines import ControlError, Request
from imapshield.edge.protocol import ShieldedIMAP4Server
from imapshield.guard.connection_guard import ConnectionGuard
from imapshield.observe.dialogue import Dialogue

DEFAULT_SECONDS = 600.0
"""The time of a trace for which no time is given."""

MAX_WAITING = 2000
"""Lines that wait for an operator."""

MAX_TRACES = 8
"""Traces at the same time."""


class _Trace:
    """One trace: lines that wait, and the connections that it is attached to."""

    def __init__(self, who: str) -> None:
        self.who = who
        self.lines: deque[str] = deque()
        self.left_out = 0
        self.attached: dict[int, ShieldedIMAP4Server] = {}
        self.waiting: Deferred[None] | None = None
        self.ended = False

    def add(self, number: int, text: str) -> None:
        if len(self.lines) >= MAX_WAITING:
            self.left_out += 1
            return
        self.lines.append(f"{number} {text}")
        self.wake()

    def wake(self) -> None:
        waiting, self.waiting = self.waiting, None
        if waiting is not None:
            waiting.callback(None)


class _Tap:
    """What `edge` calls for a traced connection (`edge.event_reporter.Tap`); several traces may show it."""

    def __init__(self, number: int) -> None:
        self.traces: list[_Trace] = []
        self._number = number
        self._dialogue = Dialogue()

    def line(self, line: bytes, continues: bool, guard: ConnectionGuard) -> None:
        """Show a line of the client."""
        expected, user = guard.line_expected, guard.authenticated
        self._show(self._dialogue.line(line, continues=continues, expected=expected, user=user))

    def literal(self, size: int) -> None:
        """Show that bytes of a literal have arrived."""
        self._show(self._dialogue.literal(size))

    def output(self, data: bytes) -> None:
        """Show what the server has written."""
        for text in self._dialogue.output(data):
            self._show(text)

    def _show(self, text: str) -> None:
        for trace in self.traces:
            trace.add(self._number, text)


class Traces:
    """The traces of one server. It is an observer of events: new connections and logins may be traced, too.

    Args:
        call_later: the reactor's `callLater`.

    Attributes:
        matching: returns the connections of a user, an address, a network, or with a number.
    """

    def __init__(self, call_later: Callable[[float, Callable[[], None]], Any]) -> None:
        self._call_later = call_later
        self.matching: Callable[[str], list[ShieldedIMAP4Server]] = lambda _: []
        self._traces: list[_Trace] = []

    def __call__(self, event: events.Event) -> None:
        """Attach traces to a connection that has begun or logged in, and note its end."""
        if not self._traces:
            return
        if isinstance(event, (events.ConnectionOpened, events.LoggedIn)):
            for trace in self._traces:
                self._attach(trace)
        elif isinstance(event, events.ConnectionClosed):
            for trace in self._traces:
                if trace.attached.pop(event.connection, None) is not None:
                    trace.add(event.connection, f"-- {event.reason}")
        elif isinstance(event, events.LimitTriggered):
            for trace in self._traces:
                if event.connection in trace.attached:
                    text = f"-- limit {event.limit}={event.value:.12g} hit, seen {event.observed:.12g}: {event.action}"
                    trace.add(event.connection, text)

    def _attach(self, trace: _Trace) -> None:
        for server in self.matching(trace.who):
            reporter = server.reporter
            if reporter.number in trace.attached:
                continue
            trace.attached[reporter.number] = server
            tap = reporter.tap
            if not isinstance(tap, _Tap):
                tap = reporter.tap = server.write_buffer.tap = _Tap(reporter.number)
            tap.traces.append(trace)
            who = f"{reporter.peer} {reporter.user or 'without a login'}"
            trace.add(reporter.number, f"-- traced from here: {who}")

    async def trace(self, request: Request) -> AsyncGenerator[object, None]:
        """Yield the lines of the dialogue of `who`, a user, an address, a network or a number, for `seconds`."""
        seconds = request.get("seconds", DEFAULT_SECONDS)
        trace = _Trace(request.get("who"))
        if len(self._traces) >= MAX_TRACES:
            raise ControlError(f"{MAX_TRACES} traces are running; end one of them")
        # Numbers are not used again, so no later connection can have this one. A user may have a number as name.
        if not self.matching(trace.who) and re.fullmatch(r"[1-9][0-9]*", trace.who):
            raise ControlError(f"{trace.who}: no connection; `imapshield who` lists them")
        end = self._call_later(seconds, lambda: self._end(trace))
        try:
            self._traces.append(trace)
            self._attach(trace)
            now = counted(len(trace.attached), "connection")
            yield f"-- {trace.who}: {now} now, and those to come, for {seconds:.0f} s"
            while not trace.ended:
                while trace.lines:
                    yield trace.lines.popleft()
                if trace.left_out:
                    yield f"-- {trace.left_out} lines left out"
                    trace.left_out = 0
                if not trace.ended:
                    trace.waiting = Deferred()
                    await trace.waiting
        finally:
            if end.active():
                end.cancel()
            self._detach(trace)

    def _end(self, trace: _Trace) -> None:
        trace.ended = True
        trace.wake()

    def _detach(self, trace: _Trace) -> None:
        self._traces.remove(trace)
        for server in trace.attached.values():
            tap = server.reporter.tap
            if isinstance(tap, _Tap):
                tap.traces.remove(trace)
                if not tap.traces:
                    server.reporter.tap = server.write_buffer.tap = None
