"""The connection: Twisted's `IMAP4Server` with the rule in its `lineReceived`.

Rules
-----
* `lineReceived` is the only door for commands, and executes none: a later turn of the reactor does.
* Of the base class we use its life (lines and raw mode, timeouts, portal, challengers) and never its parser.
* Every command is answered once, in the order they came, one at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

from twisted.cred.credentials import UsernamePassword
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorTime, ITLSTransport
from twisted.mail import imap4
from twisted.mail.interfaces import IAccountIMAP
from twisted.python.failure import Failure

from imapshield import events
from imapshield.edge import peer
from imapshield.edge.compress import BadStream, Inflater
from imapshield.edge.event_reporter import EventReporter
from imapshield.edge.fair_queue import FairQueue
from imapshield.edge.session_io import SessionIO
from imapshield.edge.spool import Spool
from imapshield.edge.write_buffer import Disconnected, WriteBuffer
from imapshield.edge.write_timeout import WriteTimeout
from imapshield.errors import BadCommand
from imapshield.guard.connection_guard import ConnectionGuard
from imapshield.guard.verdicts import AcceptLiteral, Disconnect, RejectLiteral, Reset, Verdict
from imapshield.limits import Limits
from imapshield.mailbox.account_api import IAccount
from imapshield.session.dispatcher import Dispatcher
from imapshield.wire import encode
from imapshield.wire.framing import (
    ANNOUNCEMENT,
    LITERAL,
    Framer,
    LiteralAnnounced,
    MemorySink,
    RawCommand,
)

INFLATED_FREELY = 1 << 20
"""Octets of commands that may come out of COMPRESS before `Limits.max_inflate_ratio` is asked for."""


class ShieldedIMAP4Server(imap4.IMAP4Server):
    """An IMAP server for one connection that cannot be flooded.

    Args (all optional, the first three are the base class's):
        chal: SASL mechanisms beside PLAIN, name → factory of `twisted.mail.interfaces` challenge credentials.
        contextFactory: turns STARTTLS on.
        limits: every number that the peer can push against.
        tell: is told each `facts.Event`.
        clock: an `IReactorTime` for tests; by default the reactor's.
        turns: shared with the other connections; by default this one's own.
    `portal` must be set before the connection is made; `factory.ShieldedIMAP4Factory` does.
    """

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
        tell: events.EventObserver = events.ignore,
        clock: IReactorTime | None = None,
        fair_queue: FairQueue | None = None,
    ) -> None:
        super().__init__(chal, contextFactory, scheduler)
        self.limits = limits or Limits()
        self.now: Callable[[], float] = time.monotonic
        if clock is not None:
            self.now = clock.seconds
        self._clock = clock
        self.fair_queue = fair_queue or FairQueue(
            self.callLater, self.now, self.limits.turn_seconds
        )
        self.report = EventReporter(tell, self.limits.report_only)
        self.commands = self.octets_in = 0
        self.on_lost: Callable[[ShieldedIMAP4Server], object] | None = None
        self._guard = ConnectionGuard(self.limits)
        self._framer = Framer()
        self._turn_due = False
        self._go_due = 0
        self._taken_up = 0
        self._late: dict[int, int] = {}
        self._skipping: bytes | None = None
        self._spool = Spool(0)
        self._tail = b""
        self._dead = False
        self._inflater: Inflater | None = None
        self._inflated = 0
        self._inflating = False

    # The rule.

    def lineReceived(self, line: bytes) -> None:
        """Put a line's command on the backlog. Nothing is executed here; the 101st pending command is a reset."""
        if self._dead:
            return
        if not self._guard.authenticated:
            self.MAX_LENGTH = self.limits.preauth_line_length
        if self._guard.consume_expected_line():
            self._link.answer(line)
        else:
            event = self._framer.receive_line(line)
            self.apply_verdict(self._guard.check(event), event)
        self.update_reading()

    def apply_verdict(
        self, verdict: Verdict, event: LiteralAnnounced | RawCommand | None = None
    ) -> None:
        if isinstance(verdict, Reset):
            self.report.limit_triggered(verdict, "reset", event)
            if not self.limits.report_only:
                return self.reset()
            verdict = AcceptLiteral()
        if isinstance(verdict, Disconnect):
            self.report.limit_triggered(verdict, "bye", event)
            return self.bye(verdict.text)
        if isinstance(event, LiteralAnnounced):
            self._literal(verdict, event)
        elif event is not None:
            self._taken_up += 1
            if self._go_due:
                # The client did not wait for its "+": they come before the answer all the same.
                self._late[self._taken_up] = self._go_due
                self._go_due = 0
            self._wake()
        return None

    def reset(self) -> None:
        """Reset the connection (RST), and let nothing that it sent after this cost anything."""
        self.teardown()
        self.transport.abortConnection()

    def teardown(self, *, lost: bool = False) -> None:
        self._dead = True
        self.clearLineBuffer()
        self._guard.discard()
        self._framer.discard()
        self.setTimeout(None)
        # First the session: a command that waits for room hears of the end from the outbox, and it is no bug then.
        self._session.disconnected()
        self._outbox.close(lost=lost)

    # What comes in.

    def dataReceived(self, data: bytes) -> None:
        """Count octets, then let the base class cut lines out of them, inflated under COMPRESS."""
        if self._dead:
            return
        first = not self.octets_in
        self.octets_in += len(data)
        if first:
            self._meet()
        if self._inflater is None or self._busyReceiving:
            self._received(data)
            return
        self._inflater.feed(data)
        if not data:  # going on after a pause: first what lies here inflated already
            self._received(b"")
        self._inflate_soon()

    def _inflate_soon(self) -> None:
        # In turn, with nothing more read meanwhile: of the cheapest blocks 64 KiB take longer than a turn.
        if not self._inflating and not self._dead and not self.paused:
            self._inflating = True
            self.transport.pauseProducing()
            self._in_turn(self._inflate)

    def _inflate(self) -> None:
        self._inflating = False
        until = self.now() + self.limits.turn_seconds
        try:
            while self._inflater is not None and not self._dead and not self.paused:
                piece = self._inflater.take()
                if not piece and not self._inflater.waiting:
                    self.transport.resumeProducing()
                    break
                if self.line_mode:  # literals have limits of their own, and may well be all zeros
                    self._inflated += len(piece)
                self._inflated_too_much(self._inflater.octets_in)
                self._received(piece)
                if self.now() > until:
                    self._inflate_soon()
                    break
        except BadStream:
            self.report.bad_command(b"", "What is sent deflated cannot be read")
            self.reset()

    def _inflated_too_much(self, octets_in: int) -> None:
        seen = self._inflated // max(1, octets_in)
        if self._inflated > INFLATED_FREELY and seen > self.limits.max_inflate_ratio:
            self.apply_verdict(Reset("max_inflate_ratio", self.limits.max_inflate_ratio, seen))

    def _received(self, data: bytes) -> None:
        if self._dead:
            return
        if data:
            self.apply_verdict(self._guard.bytes_received(len(data)))
            if self._dead:
                return
            if self._skipping is not None:
                data = self._skip(data)
        super().dataReceived(data)

    def rawDataReceived(self, data: bytes) -> None:
        """Take octets of a literal."""
        if self._guard.authenticated:
            self.setTimeout(self.limits.literal_seconds)
        rest = self._framer.receive_literal(data)
        if rest is not None:
            if self._guard.authenticated:
                self.setTimeout(self.limits.idle_seconds)
            if not rest:
                self._outbox.send_tcp_ack()
            self.setLineMode(rest)

    def lineLengthExceeded(self, line: bytes) -> None:
        """Answer an overlong line: a stranger goes, a user's line is skipped to its end."""
        if self._dead:
            return
        if self._may_be_long(line):
            self.MAX_LENGTH = self.limits.preauth_id_length
            self._buffer = line
            self.callLater(0, lambda: self.dataReceived(b""))
            return
        limit = "max_line_length" if self._guard.authenticated else "preauth_line_length"
        abort = Reset(limit, self.MAX_LENGTH, len(line))
        if not self._guard.authenticated:
            self.report.limit_triggered(abort, "bye", sample=line)
            self.bye("A line was too long")
            return
        self.report.limit_triggered(abort, "refused", sample=line)
        self._skipping = line[: self.MAX_LENGTH]
        rest = self._skip(line)
        if rest:
            self._buffer = rest
            self.callLater(0, lambda: self.dataReceived(b""))

    def _may_be_long(self, line: bytes) -> bool:
        """Whether a stranger's overlong line is an ID, which may be longer than all else that strangers say."""
        return (
            not self._guard.authenticated
            and self.MAX_LENGTH < self.limits.preauth_id_length
            and not self._framer.inside
            and line[:72].upper().partition(b" ")[2].startswith(b"ID (")
        )

    def _skip(self, data: bytes) -> bytes:
        """Skip an overlong line; what it began with is answered as a malformed command once it ends.

        A literal that it announces is skipped with it: "the server MUST treat the specified number of following
        octets and the following line as part of the same command" (RFC 7888 section 3).
        """
        skipped, end, rest = (self._tail + data).partition(self.delimiter)
        self._tail = skipped[-ANNOUNCEMENT:]  # or half of the delimiter
        if not end:
            return b""
        start, self._skipping = self._skipping or b"", None
        literal, self._tail = LITERAL.search(self._tail), b""
        event = self._framer.receive_line(
            start.partition(b"{")[0] + (literal[0] if literal else b"")
        )
        refusal = BadCommand(f"A line may have {self.MAX_LENGTH} octets")
        if isinstance(event, RawCommand):
            event = RawCommand(event.tag, event.name, (), event.octets, refusal)
        verdict = self._guard.check(event)
        if isinstance(event, LiteralAnnounced) and not isinstance(verdict, (Reset, Disconnect)):
            verdict = RejectLiteral(refusal)
        self.apply_verdict(verdict, event)
        return rest

    def _literal(self, verdict: Verdict, event: LiteralAnnounced) -> None:
        if isinstance(verdict, RejectLiteral):
            frame = self._framer.reject_literal(verdict.rejection, event.synchronizing)
            if frame is not None:
                self.apply_verdict(self._guard.check(frame), frame)
            elif self._framer.literal_bytes_due:
                self.setRawMode()
            return
        if event.literals == 0:
            self._spool = Spool(self.limits.append_memory_bytes)
        # arguments have limits of their own, messages together the size of one
        message = event.name in (b"APPEND", b"REPLACE")
        if self._framer.accept_literal(self._spool.literal() if message else MemorySink()):
            self.setRawMode()
        if event.synchronizing:
            self._go_due += 1
            self._wake()

    def update_reading(self) -> None:
        """Stop taking up lines while the guard says so, and go on when it does not."""
        if self._dead or self._guard.input_paused == self.paused:
            return
        if self.paused:
            self.resumeProducing()
        else:
            self.pauseProducing()

    # What is done about it, in turns.

    def _wake(self) -> None:
        if not self._turn_due and not self._dead:
            self._turn_due = True
            self._in_turn(self._turn)

    def _in_turn(self, work: Callable[[], object]) -> None:
        # Strangers of one address share its turns, as the connections of one user share theirs.
        self.fair_queue.add((self._guard.authenticated, self.report.user or self.report.peer), work)

    def _turn(self) -> None:
        """Answer a few commands; the other connections have their turn before our next."""
        self._turn_due = False
        self._outbox.defer_flush()
        until = self.now() + self.limits.turn_seconds
        for _ in range(self.limits.commands_per_turn):
            if self._dead or self._outbox.full:
                break
            if self._outbox.flush_due or self.now() > until:
                self._wake()
                break
            frame = self._guard.next_command()
            if frame is None:
                break
            self.commands += 1
            for _ in range(self._late.pop(self.commands, 0)):
                self._outbox.write(encode.continuation("Go ahead"))
            done = Deferred.fromCoroutine(self._session.run(frame))
            done.addErrback(self.interrupted)
            if not done.called:
                done.addCallback(self._finished_late)
                break
            self._finished()
        else:
            self._wake()
        if self._go_due and not self._guard.busy:
            for _ in range(self._go_due):
                self._outbox.write(encode.continuation("Go ahead"))
            self._go_due = 0
        self._outbox.flush()

    def _finished(self) -> None:
        self._guard.command_finished()
        if self._guard.authenticated and not self._dead:
            self.resetTimeout()
        self.update_reading()

    def _finished_late(self, _: object) -> None:
        self._finished()
        self._wake()

    def interrupted(self, failure: Failure) -> None:
        """A command was cut short because its connection ended; anything else is a bug, and is logged as one."""
        if failure.check(Disconnected) and self._dead:
            return
        self.failed("command", failure.getTraceback())
        self.reset()

    def authenticateLogin(self, user: bytes, passwd: bytes) -> Deferred[Any]:
        """Ask the portal whose these are: fires with (interface, avatar, logout)."""
        return self.authenticate_with(UsernamePassword(user, passwd))

    def authenticate_with(self, credentials: Any) -> Deferred[Any]:
        """Ask the portal whose credentials these are."""
        return cast("Deferred[Any]", self.portal.login(credentials, None, IAccount, IAccountIMAP))

    def log_in(self, user: str, mechanism: str, account: Any, logout: Callable[[], None]) -> None:
        """The session has an account now, and a user's limits."""
        self.account = account
        self._onLogout = logout
        self.state = "auth"
        self.MAX_LENGTH = self.limits.max_line_length
        self._outbox.set_limit(self.limits.max_unsent_bytes)
        self._guard.login()
        self.setTimeout(self.limits.idle_seconds)
        self.report.logged_in(user, mechanism, self._link.tls)

    def log_out(self) -> None:
        """The user has gone and the connection stays: a stranger's limits count again."""
        logout, self._onLogout = self._onLogout, None
        if logout is not None:
            logout()
        self.account, self.report.user, self.state = None, "", "unauth"
        self.MAX_LENGTH = self.limits.preauth_line_length
        self._outbox.set_limit(self.limits.preauth_unsent_bytes)
        self._guard.logout()
        self.setTimeout(self.limits.preauth_seconds)
        if self._inflater is not None:  # RFC 8437 section 4.1: neither side deflates any more
            rest, self._inflater = self._inflater.rest(), None
            if not self.paused:
                self.transport.resumeProducing()
            self.callLater(0, lambda: self._received(rest))

    def start_inflating(self) -> None:
        """Take what comes from now on as deflated (RFC 4978)."""
        self._inflater = Inflater()
        early = self.clearLineBuffer()
        if early:  # deflated already, by a client that did not wait for the OK
            self.callLater(0, lambda: self.dataReceived(early))

    def failed(self, command: str, traceback: str) -> str:
        """Something of ours broke; returns the reference that stands in the log."""
        return self.report.command_failed(self.commands, command, traceback)

    def apply_verdict_later(self, verdict: Verdict) -> None:
        """Obey once the answer that is being written is out."""
        if isinstance(verdict, Disconnect):
            self.callLater(0, lambda: None if self._dead else self.apply_verdict(verdict))

    def bye(self, text: str, code: bytes | None = None) -> None:
        """Say BYE and close; reset a peer that does not read it."""
        if not self._dead:
            self._outbox.write(encode.untagged(b"BYE", text, code))
            self.close()

    def close(self) -> None:
        """Close after what was written is sent, or in `closing_seconds` whether it is or not."""
        if not self._dead:
            self.teardown()
            self.transport.loseConnection()
            self.setTimeout(self.limits.closing_seconds)

    @property
    def dead(self) -> bool:
        """Whether it is over: nothing more is read, executed or written."""
        return self._dead

    # The life of the connection.

    def callLater(self, period: float, func: Callable[[], object]) -> Any:
        """The base class's seam for tests."""
        if self._clock is not None:
            return self._clock.callLater(period, func)
        return super().callLater(period, func)

    def connectionMade(self) -> None:
        """Greet."""
        self._connected_at = self.now()
        self.MAX_LENGTH = self.limits.preauth_line_length
        self.timeOut = self.limits.preauth_seconds
        set_no_delay = getattr(self.transport, "setTcpNoDelay", None)
        if set_no_delay is not None:
            set_no_delay(True)
        self._outbox = WriteBuffer(self.transport, self.callLater, self.limits.preauth_unsent_bytes)
        self._outbox.on_room = self._wake
        self._outbox.schedule = self._in_turn
        self._patience = WriteTimeout(
            self._outbox, self.callLater, self.limits, self._guard.backlog_full, self.apply_verdict
        )
        self.canStartTLS = ITLSTransport.providedBy(self.transport)
        self._link = SessionIO(self, self._guard, self._outbox)
        self._meet()
        self._session = Dispatcher(self._link, self.limits)
        self.report.connection_opened()
        super().connectionMade()

    def _meet(self) -> None:
        """See who it is; behind a proxy only the first octets tell, and until then it is a stranger from anywhere."""
        self.report.peer, local = peer.peer_address(self.transport)
        self._link.local = local and (bool(self.octets_in) or not peer.is_proxied(self.transport))

    def sendServerGreeting(self) -> None:
        """Greet with the capabilities, which saves every client a round trip."""
        self._outbox.write(self._session.greeting())
        self._outbox.flush()

    def listCapabilities(self) -> list[bytes]:
        """What CAPABILITY answers."""
        return self._session.capabilities()

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        """Release everything."""
        if not self._dead:
            self.teardown(lost=True)
        self.setTimeout(None)
        self._patience.stop()
        self._link.lost()
        super().connectionLost(reason)
        self.account = None
        seconds = self.now() - self._connected_at
        octets = self.octets_in, self._outbox.octets
        self.report.connection_closed(reason.getErrorMessage(), seconds, self.commands, octets)
        if self.on_lost is not None:
            self.on_lost(self)

    def timeoutConnection(self) -> None:
        """A deadline has passed: a stranger's, an idle user's, a literal's, or that of a last BYE."""
        if self._dead:
            self.transport.abortConnection()
            return
        if self._guard.authenticated and self._guard.busy and not self._link.awaiting_line:
            self.setTimeout(self.limits.idle_seconds)  # it waits for us, not we for it
            return
        if not self._guard.authenticated:
            name = "preauth_seconds"
        elif self.line_mode:
            name = "idle_seconds"
        else:
            name = "literal_seconds"
        value = getattr(self.limits, name)
        self.report.limit_triggered(Reset(name, value, value), "bye")
        self.bye("Too long without a login" if name == "preauth_seconds" else "Idle for too long")
