"""`ShieldedIMAP4Server`: Twisted's `IMAP4Server`, with the rule about pending commands in its `lineReceived`.

Rules
-----
* Commands enter only through `lineReceived`, which executes none. `CommandRunner` executes them in later reactor turns.
* The base class contributes line and raw mode, timeouts, portal and challengers. Its parser is never reached.
* Every command is answered once, in order, one at a time.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any

from twisted.cred.credentials import UsernamePassword
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorTime
from twisted.mail import imap4
from twisted.python.failure import Failure

from imapshield import events
from imapshield.edge.client_peaks import report_user_peaks
from imapshield.edge.command_runner import CommandRunner
from imapshield.edge.compress import InputDecoder
from imapshield.edge.event_reporter import EventReporter
from imapshield.edge.flow_control import FlowControlReport
from imapshield.edge.idle_timeout import IdleTimeout
from imapshield.edge.input_turns import partial_read_delay
from imapshield.edge.long_input import LongInput
from imapshield.edge.memory_share import MemoryShare
from imapshield.edge.session_io import SessionFactory, SessionIO
from imapshield.edge.shared_parts import SharedParts
from imapshield.edge.write_buffer import Disconnected, WriteBuffer
from imapshield.edge.write_timeout import WriteTimeout
from imapshield.guard import verdicts
from imapshield.guard.connection_guard import ConnectionGuard
from imapshield.guard.shares import Connection
from imapshield.guard.verdicts import CommandEvent, Disconnect, LimitReached, Reset, Verdict
from imapshield.limits import Limits
from imapshield.session.dispatcher import Dispatcher
from imapshield.wire import encode
from imapshield.wire.framing import Framer, LiteralAnnounced


class ShieldedIMAP4Server(IdleTimeout, imap4.IMAP4Server):
    """Serves IMAP on one connection.

    Before login, the 101st pending command resets it; after login, reading pauses at 100 (`ConnectionGuard`).
    """

    # These three methods are the rule about pending commands. They come first because everything else serves them.

    def lineReceived(self, line: bytes) -> None:
        """Put the command that `line` begins, continues or completes on the backlog. Nothing is executed here."""
        if self.closed:
            return
        self._line_completed = True
        if self.reporter.tap is not None:
            self.reporter.tap.line(line, self.framer.inside, self.guard)
        if self.guard.authenticated:
            self.restart_timeout(ends_idle=True)
        else:
            self.MAX_LENGTH = self.limits.preauth_line_length  # a long ID has raised it
        if self.guard.consume_expected_line():
            self._io.line_received(line)
        else:
            event = self.framer.receive_line(line)
            self.apply_verdict(self.guard.admit(event), event)
        self.update_reading()

    def apply_verdict(self, verdict: Verdict, event: CommandEvent | None = None) -> None:
        """Do what the guard has decided about `event`, or about the connection if there is no event."""
        if isinstance(verdict, Reset):
            only_report = self.limits.reports_only(verdict.limit)
            action: events.Action = "none" if only_report else "reset"
            if self.reporter.limit_triggered(action, verdict, event):
                self.shared.admission.violation(self.counted, verdict)
            if not only_report:
                self.reset(verdict.limit)
                return
            verdict = verdict.instead
        if isinstance(verdict, Disconnect):
            only_report = verdict.limit in self.limits.report_only_limits
            self.reporter.limit_triggered("none" if only_report else "bye", verdict, event)
            if not only_report:
                self.bye(verdict.text)
        elif isinstance(event, LiteralAnnounced):
            if self._long_input.begin_literal(verdict, event):
                self._runner.request_continuation()
        elif event is not None:
            self._runner.command_received()

    def reset(self, cause: str) -> None:
        """Reset the connection (TCP RST) for `cause`. Input that was not processed yet is dropped."""
        self.reporter.cause = self.reporter.cause or cause
        self._teardown()
        self.memory.close()
        self.abort()

    def abort(self) -> None:
        """Reset the connection, whose other parts have ended already."""
        self.reporter.was_reset = True
        self.transport.abortConnection()

    # With the attributes of the base classes there are more than 30, for which each instance would have a dictionary of
    # its own, of 1,500 bytes.
    __slots__ = (
        "_clock",
        "_connected_at",
        "_decoder",
        "_input_held",
        "_io",
        "_line_completed",
        "_long_input",
        "_make_session",
        "_partial_reads",
        "_runner",
        "_session",
        "_write_timeout",
        "account",
        "active_at",
        "bytes_in",
        "closed",
        "counted",
        "framer",
        "guard",
        "limits",
        "memory",
        "now",
        "on_lost",
        "reporter",
        "shared",
        "state",
        "write_buffer",
    )

    transport: Any
    portal: Any
    challengers: dict[bytes, Callable[[], Any]]
    timeOut: Any

    def __init__(
        self,
        chal: dict[bytes, Callable[[], Any]] | None = None,
        contextFactory: Any = None,
        scheduler: Any = None,
        *,
        limits: Limits | None = None,
        observers: Iterable[events.EventObserver] = (),
        clock: IReactorTime | None = None,
        make_session: SessionFactory | None = None,
        shared: SharedParts | None = None,
        counted: Connection | None = None,
    ) -> None:
        """Make a server for one connection; `portal` must be set before `connectionMade`.

        Args:
            chal: SASL mechanisms besides PLAIN; name to factory of `twisted.mail.interfaces` challenge credentials.
            contextFactory: an OpenSSL context factory, which enables STARTTLS.
            scheduler: ignored. The base class schedules commands with it, and executes none here.
            limits: every limit that applies to the client.
            observers: called with each `events.Event`.
            clock: the clock for timeouts; by default the global reactor.
            make_session: makes the session that executes the commands; by default an IMAP session on the user's
                account.
            shared: what the connections of the server share; by default the connection shares nothing.
            counted: this connection, as ``shared.admission`` has counted it. It belongs to `shared`.
        """
        super().__init__(chal, contextFactory, scheduler)
        self.account, self.state = None, "unauth"
        self.limits = limits = limits or Limits()
        self.reporter = EventReporter(observers)
        self.guard = ConnectionGuard(limits)
        self.framer = Framer()
        self._clock = clock
        self.now = time.monotonic if clock is None else clock.seconds
        self.shared = shared or SharedParts.make(limits, observers, self.callLater, self.now)
        own = counted or self.shared.admission.admit("unknown").connection
        assert own is not None  # an admission of one connection has room for it
        self.counted = own
        own.owner = self
        self.on_lost: Callable[[ShieldedIMAP4Server], object] = lambda _: None
        self.bytes_in = self._partial_reads = 0
        self.closed = self._input_held = self._line_completed = False
        self._make_session = make_session or (lambda io: Dispatcher(io, limits))
        self._decoder = InputDecoder(self)
        self._long_input = LongInput(self)
        self._io = SessionIO(self, self._decoder)

    # Input

    def dataReceived(self, data: bytes) -> None:
        """Count the bytes, inflate them under COMPRESS, and let the base class split them into lines."""
        if self.closed:
            return
        if self._busyReceiving:
            # The base class passes what follows a literal, which is counted already.
            super().dataReceived(data)
            return
        if not self.bytes_in:
            self.reporter.input_begun(data)
        self.bytes_in += len(data)
        self._decoder.receive(data)

    def process_input(self, data: bytes) -> None:
        """Process input that is not compressed."""
        if data and not self.closed:
            verdict = self.guard.bytes_received(len(data))
            if type(verdict) is not verdicts.Accepted:
                self.apply_verdict(verdict)
        if not self.closed:
            was_literal = not self.line_mode
            self._line_completed = False
            super().dataReceived(self._long_input.skip_overlong_line(data))
            if was_literal or not self.line_mode:
                self.restart_timeout()
            self.memory.update()
            if self.guard.authenticated:
                self._partial_reads = 0
            elif data and not self._line_completed:
                self._partial_reads += 1
                self._hold_input_for(partial_read_delay(self._partial_reads))

    def _hold_input_for(self, seconds: float) -> None:
        if seconds and not self.closed and not self._input_held:
            self._input_held = True
            self.callLater(seconds, self._continue_input)
            self.update_reading()

    def _continue_input(self) -> None:
        self._input_held = self._runner.waits_for_input = False
        if self.paused and not (self.closed or self.guard.input_paused):
            self.resumeProducing()  # which processes one line at least, also if the turn is over

    def lineLengthExceeded(self, line: bytes) -> None:
        """Handle a line longer than `MAX_LENGTH`. `line` may contain more than the line."""
        if not self.closed:
            self._long_input.begin_overlong_line(line)

    def receive_again(self, data: bytes) -> None:
        """Process `data` in a later reactor turn, because the base class is not reentrant."""
        if data:
            self._buffer += data
            self.callLater(0, lambda: self.dataReceived(b""))

    def rawDataReceived(self, data: bytes) -> None:
        """Receive bytes of a literal."""
        rest = self._long_input.receive_literal(data)
        if rest is not None:
            self.setLineMode(rest)

    def update_reading(self) -> None:
        """Pause or resume reading as the guard says. Input that others must not wait for is held for a while, too."""
        if (
            self._buffer
            and not (self._input_held or self.closed)
            and self.shared.input_turns.is_over()
        ):
            self._input_held = True
            self._runner.waits_for_input = not self.guard.authenticated
            self.schedule(self._continue_input)
        if self.closed or (self.guard.input_paused or self._input_held) == self.paused:
            return
        if self.paused:
            self.resumeProducing()
        else:
            self.pauseProducing()
            if self.guard.backlog_full():
                self._flow_control.backlog_is_full()

    # Commands and login
    def schedule(self, work: Callable[[], object]) -> None:
        """Run `work` when it is this connection's turn.

        The connections of one user share their turns, and so do those of one address before login.
        """
        key = self.guard.authenticated, self.reporter.user or self.counted.networks[0]
        self.shared.fair_queue.add(key, work)

    def session_failed(self, failure: Failure, work: str) -> None:
        """Ignore an exception caused by the end of the connection; report any other as a bug in `work`, and reset."""
        if not (self.closed and failure.check(Disconnected)):
            self.reporter.command_failed(work, failure.getTraceback())
            self.reset(f"internal error in {work}")
        failure.cleanFailure()  # its traceback refers to all that the command holds

    def authenticateLogin(self, user: bytes, passwd: bytes) -> Deferred[Any]:
        """Have the portal check a password; fires with (interface, avatar, logout)."""
        return self._io.check_credentials(UsernamePassword(user, passwd))

    # Life of the connection

    def callLater(self, period: float, func: Callable[[], object]) -> Any:
        """Call `func` in `period` seconds of the clock. The base class uses this method for its timeouts."""
        call_later = super().callLater if self._clock is None else self._clock.callLater
        return call_later(period, func)

    def connectionMade(self) -> None:
        """Set the connection up and send the greeting."""
        limits = self.limits
        self._connected_at = self.active_at = self.now()
        self.MAX_LENGTH = limits.preauth_line_length
        self.timeOut = limits.preauth_seconds
        self.write_buffer = WriteBuffer(
            self.transport, self.callLater, self.schedule, limits.preauth_unsent_bytes
        )
        self.memory = MemoryShare(self, self.shared.memory_budget)
        self._write_timeout = WriteTimeout(self)
        self._flow_control = FlowControlReport(self)
        self._io.identify_peer()
        self._session = self._make_session(self._io)
        self._runner = CommandRunner(self, self._session)
        self._io.on_computed = self._runner.count_seconds
        self.write_buffer.on_flushed = self.memory.output_changed
        self.write_buffer.on_drained = self._output_drained
        self.reporter.measure = self._measure
        self.reporter.connection_opened()
        super().connectionMade()

    def _output_drained(self) -> None:
        self.memory.output_changed()
        self._runner.wake()

    def _measure(self) -> dict[str, Any]:
        octets = {"octets_in": self.bytes_in, "octets_out": self.write_buffer.bytes_written}
        return self._runner.measure() | octets | {"seconds": self.now() - self._connected_at}

    def sendServerGreeting(self) -> None:
        """Send the greeting."""
        self.write_buffer.write(self._session.greeting())
        self.write_buffer.flush()

    def listCapabilities(self) -> list[bytes]:
        """Return the capabilities that CAPABILITY would list now."""
        return self._session.capabilities()

    def timeoutConnection(self) -> None:
        """Close after a timeout: of the login, of an idle user, of a literal, or of the last BYE."""
        if self.closed:
            self.abort()
        elif self.timeout_is_early():
            pass  # `restart_timeout` has been called since
        elif self.guard.authenticated and self.guard.busy and not self.guard.line_expected:
            self.restart_timeout()  # The client waits for the server.
            self.timeout_is_early()
        else:
            self.apply_verdict(self.guard.timed_out(self.timeOut, in_literal=not self.line_mode))

    def bye(self, text: str, code: bytes | None = None, cause: str = "") -> None:
        """Send BYE and close. Within a response only close: BYE would be taken for a part of it, such as mail."""
        if not self.closed:
            self.reporter.cause = cause or text
            if not self._io.within_response:
                self.write_buffer.write(encode.untagged(b"BYE", text, code))
            self.close()

    def evict(self, reached: LimitReached, *, only_report: bool = False) -> None:
        """Reset this connection, because it must make room for others or its address is banned."""
        if not self.closed:
            self.reporter.limit_triggered("none" if only_report else "reset", reached)
            if not only_report:
                self.reset(reached.limit)
        elif not only_report:
            self.abort()

    def close(self) -> None:
        """Close after everything written is sent; reset a peer that has not read it in `closing_seconds`."""
        if not self.closed:
            self._teardown()
            self.transport.loseConnection()
            self.setTimeout(self.limits.closing_seconds)

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        """Release everything that the connection uses, and report its end."""
        by_server = self.closed
        self._teardown(lost=True)
        self._write_timeout.stop()
        self._flow_control.stop()
        self._io.connection_lost()
        self.memory.close()
        self.shared.admission.close(self.counted)
        super().connectionLost(reason)
        report_user_peaks(self)
        self.reporter.connection_closed(reason, by_server=by_server)
        self.on_lost(self)

    def _teardown(self, *, lost: bool = False) -> None:
        """Stop reading, executing and writing."""
        if self.closed:
            return
        self.closed = True
        self.clearLineBuffer()
        self.guard.discard()
        self.framer.discard()
        self.setTimeout(None)
        self._runner.stop()
        # The session first: when the write buffer fails a command that waits in `drain`, that must not look like a bug.
        self._session.disconnected()
        self._io.cancel_login()
        self.write_buffer.close(lost=lost)
