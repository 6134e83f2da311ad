"""`BackendRelay`: the connection of a user after the login: commands to the backend, responses to the client.

Rules
-----
* The backend is asked for each literal, also with LITERAL+. If it reads a line in another way than the framer does, or
  refuses it, what the client calls a literal would be commands there, and nobody would have counted them.
* The backend gets only complete commands. So a client that sends slowly, or stops in the middle of a message, occupies
  nothing there.
* It gets one command at a time, except for those of `command_pieces.PIPELINED`: of these a few that the client has sent
  together are sent together. They stay pending in the guard, and run one after another as if they were not sent yet.
* Nothing is collected. The backend is read no faster than the client reads, and written to no faster than it reads.
* The client gets whole responses, or the connection is reset: a BYE within a response would be taken for mail.
"""

from typing import Any

from twisted.internet.defer import Deferred

from imapshield.edge.session_io import SessionIO
from imapshield.errors import BadCommand
from imapshield.front.backend import Backend
from imapshield.front.backend_address import UNNAMED
from imapshield.front.backend_connection import BackendConnection
from imapshield.front.command_pieces import Piece, announcement, pieces, pipelined_line
from imapshield.front.offered_capabilities import (
    after_login,
    capability_names,
    replace_capabilities,
)
from imapshield.front.response_stream import Awaited, ProtocolViolation, ResponseStream
from imapshield.front.user_sessions import MOVED
from imapshield.wire import encode
from imapshield.wire.commands.base import LiteralData
from imapshield.wire.framing import RawCommand
from imapshield.wire.grammar import bare_command
from imapshield.wire.responses import ok
from imapshield.wire.traits import log_name

CHUNK_SIZE = 64 << 10
"""Bytes of a literal that are written to the backend at once."""

UNSENT_BYTES = 2 * CHUNK_SIZE
"""Bytes of a literal that wait here at most while the backend does not read: Twisted's buffer and a chunk."""

MAX_SENT_AHEAD = 31
"""Commands that are sent before the one before them is answered. More would hardly save round trips."""

MAX_BYTES_AHEAD = 8 << 10
"""Bytes of these commands, which may wait here for a backend that does not read."""

_HELD = "the user is being moved (imapshield hold)"

_BYTES_PER_WORK = 256
"""Bytes from the backend that count as one line of a response, for the turns of the connection."""


class BackendRelay:
    """Relays between one client and one backend.

    Args:
        io: the connection of the client.
        connection: the connection to the backend, on which the user is logged in.
        backend: the backend.

    Attributes:
        lost: whether the connection to the backend has ended.
    """

    def __init__(self, io: SessionIO, connection: BackendConnection, backend: Backend) -> None:
        self.lost = False
        self._io, self._connection, self._backend = io, connection, backend
        self._stream = ResponseStream(self.rewrite)
        self._ahead: list[Awaited] = []  # the next commands, which were sent already
        self._waiter: Deferred[None] | None = None
        self._paused = False
        self._is_leaving = False
        self._running = b""  # the name of the command whose response is awaited
        self._heard_at = 0.0
        self._timer: Any = None

    def rewrite(self, line: bytes) -> bytes:
        """Return a line of the backend with the capabilities that pass."""
        size = self._backend.limits().max_message_size
        names = after_login(
            capability_names(line), can_compress=self._io.can_compress, max_message_size=size
        )
        return replace_capabilities(line, names)

    # From the client to the backend

    async def run(self, command: RawCommand) -> bytes:
        """Have the backend execute a command, and return OK, NO or BAD; empty if the connection has ended.

        Raises:
            BadCommand: the command is refused, and the backend has not seen it.
        """
        if self._ahead:
            awaited = self._ahead.pop(0)
            self._send_ahead(b"")
        else:
            awaited = await self._begin(command)
        if not awaited.condition:
            self._await(command.name)
        while self._runs(awaited):
            await self._event()
        self._running = b""
        # A backend that answers what it has not read must not be sent more and more.
        await self._connection.drained()
        if self._is_leaving:
            self.leave()
        return b"" if self.lost else awaited.condition

    async def _begin(self, command: RawCommand) -> Awaited:
        """Send a command, and what the backend or the client is asked for in its course."""
        stream, line = self._stream, pipelined_line(command)
        if line is not None:
            assert command.tag is not None
            awaited = stream.expect(command.tag)
            self._send_ahead(line)
            return awaited
        parts, is_idle = pieces(command), command.name == b"IDLE"
        if is_idle and bare_command(command.parts) is None:
            # Dovecot ignores the rest of the line, and its request for DONE would be taken for that of a literal.
            raise BadCommand("IDLE has no arguments")
        assert command.tag is not None
        awaited = stream.expect(command.tag)
        self._await(command.name)
        stream.passes_continuation = is_idle
        stream.asked += is_idle
        try:
            continuations = stream.continuations
            await self._send(awaited, parts)
            if is_idle:
                await self._idle(awaited, continuations)
        finally:
            stream.passes_continuation = False
        return awaited

    def _send_ahead(self, line: bytes) -> None:
        """Send `line`, and the next commands with it if they may be sent before it is answered.

        They are few while the backend does not read, and are sent together.
        """
        ahead, size = self._ahead, 0
        lines = [line] if line else []
        may_send = not (self._connection.full or self._is_leaving)
        if len(ahead) <= MAX_SENT_AHEAD // 2 and may_send:
            for command in self._io.waiting_commands(len(ahead), MAX_SENT_AHEAD - len(ahead)):
                following = pipelined_line(command)
                size += len(following or b"")
                if following is None or size > MAX_BYTES_AHEAD:
                    break
                assert command.tag is not None
                lines.append(following)
                ahead.append(self._stream.expect(command.tag))
        if lines:
            self._connection.write(b"".join(lines))

    def _runs(self, awaited: Awaited) -> bool:
        return not (awaited.condition or self.lost)

    async def _send(self, awaited: Awaited, parts: list[Piece]) -> None:
        for data, literal in parts:
            if literal is None:
                self._connection.write(data)
                continue
            continuations = self._stream.continuations
            self._stream.asked += 1
            self._connection.write(data + announcement(literal))
            while self._runs(awaited) and self._stream.continuations == continuations:
                await self._event()
            if self.lost or self._stream.continuations == continuations:
                return  # the backend refuses the literal, and does not expect it
            # A command that is answered already, as DELETE {0} by Dovecot, still lacks the end of its line: without it,
            # the backend would take the next command for that.
            await self._send_literal(literal)

    async def _send_literal(self, literal: LiteralData) -> None:
        for offset in range(0, literal.size, CHUNK_SIZE):
            self._connection.write(literal.read(offset, CHUNK_SIZE))
            if self._connection.full:
                with self._io.hold_result(UNSENT_BYTES):
                    await self._connection.drained()
                self._heard_at = self._backend.reactor.seconds()
            if self.lost:
                return

    async def _idle(self, awaited: Awaited, continuations: int) -> None:
        """Wait for the line that ends IDLE (RFC 2177), and send it."""
        while self._runs(awaited) and self._stream.continuations == continuations:
            await self._event()
        if not self._runs(awaited):
            return
        self._running = b""  # the client may be in IDLE for as long as it likes
        if self._is_leaving:
            self.leave()
        lines: list[bytes] = []

        def ended(line: bytes) -> None:
            lines.append(line)
            self._wake()

        self._io.read_line().addCallbacks(ended, lambda _: None)
        while self._runs(awaited) and not lines:
            await self._event()
        if self._runs(awaited):
            self._await(b"IDLE")
            # Any other line becomes one that the backend can only refuse: it is not a command that was counted. Courier
            # permits spaces after DONE.
            line = lines[0].upper()
            self._connection.write(
                (line if line.rstrip(b" ") == b"DONE" else b"NOT-DONE") + b"\r\n"
            )

    def _event(self) -> Deferred[None]:
        """Wait until something has happened."""
        self._waiter = Deferred()
        return self._waiter

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.callback(None)

    # From the backend to the client

    def data_received(self, data: bytes) -> None:
        """Pass on what the backend sends, and stop reading from it while the client does not read."""
        io, stream = self._io, self._stream
        started_at = self._backend.reactor.seconds()
        before, lines = (stream.ended, stream.continuations), stream.lines
        violation = ""
        try:
            passed = stream.feed(data)
        except ProtocolViolation as error:
            passed, violation = error.passed, str(error)
        if passed or before[1] != stream.continuations:
            self._heard_at = started_at  # what neither the client nor a command gets is no answer
        if passed:
            io.write_at_once(passed)
        if self.lost:
            return  # the client's connection has ended, because it holds too much
        is_whole = stream.at_line_start
        io.set_within_response(not is_whole)
        if violation:
            self._connection.abort(violation)
            return
        if not is_whole:
            self._watch()
        # Also for what is not passed on: others must have their turn during a flood of it.
        io.add_work(stream.lines - lines + len(data) // _BYTES_PER_WORK)
        if io.full or io.turn_is_over:
            self._pause()
        io.count_seconds(self._backend.reactor.seconds() - started_at)
        if before != (stream.ended, stream.continuations):
            self._wake()

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self._connection.pause_reading()
            self._io.drain().addCallbacks(self._resume, lambda _: None)

    def _resume(self, _: None) -> None:
        self._paused = False
        self._heard_at = self._backend.reactor.seconds()
        self._connection.resume_reading()

    # The end

    def _await(self, name: bytes) -> None:
        """Note that the response to a command is awaited from now on."""
        self._running = name
        self._heard_at = self._backend.reactor.seconds()
        self._watch()

    def _watch(self) -> None:
        """Measure how long the backend is silent. One timer serves many commands, because most end soon."""
        if self._timer is None and not self.lost:
            limit = self._backend.limits().backend_silent_seconds
            self._timer = self._backend.reactor.callLater(limit, self._look, limit)

    def _look(self, limit: float) -> None:
        self._timer = None
        if not self._running and self._stream.at_line_start:
            return  # nothing is awaited
        silent = 0.0 if self._paused else self._backend.reactor.seconds() - self._heard_at
        if silent < limit:
            self._timer = self._backend.reactor.callLater(limit - silent, self._look, limit)
            return
        awaited = f"no answer to {log_name(self._running)}" if self._running else "half a response"
        # The limit, and not the time, so that `why` has one entry for all.
        self._connection.abort(f"{awaited} in {limit:g} seconds")

    def _stop_watching(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def backend_lost(self, reason: str) -> None:
        """End the connection of the client, because that to the backend has ended."""
        if self.lost:
            return
        self.lost = True
        self._stop_watching()
        awaited = self._stream.awaited
        cause = self._cause(reason)
        if not self._stream.at_line_start:
            self._io.reset(f"{cause}, within a response")
        elif self._running == b"LOGOUT" and self._stream.said_bye and awaited:
            self._io.write(encode.short_tagged(awaited[0].tag, ok("LOGOUT completed")))
            self._io.close(logged_out=True)
        elif self._stream.said_bye:
            self._io.close(cause=f"{self._who} has said BYE")
        else:
            self._backend.protocol_violation(reason)
            text = "The mail server has closed the connection"
            self._io.bye(text, b"UNAVAILABLE", cause=cause)
        self._wake()

    @property
    def _who(self) -> str:
        """The backend, for operators."""
        node = self._backend.address.node
        return "the backend" if node == UNNAMED else f"node {node}"

    def _cause(self, reason: str) -> str:
        """Return which of the two servers has ended the connection between them, and why."""
        if self._connection.gave_up:
            return f"{self._who} was given up: {reason}"
        return f"{self._who}: {reason}"

    def leave(self) -> None:
        """End the session when no command runs, because its user moves to another node. IDLE is no obstacle."""
        self._is_leaving = True
        if self.lost or self._running or self._ahead:
            return
        is_idle = bool(self._stream.awaited)
        self._connection.log_out(b"DONE\r\n" if is_idle else b"")
        self._io.bye(MOVED, b"UNAVAILABLE", cause=_HELD)

    def cut(self) -> None:
        """End the session now, also within a command."""
        if self._stream.at_line_start:
            self._io.bye(MOVED, b"UNAVAILABLE", cause=_HELD)
        else:
            self._io.reset(f"{_HELD}, and the command took too long")

    def close(self) -> None:
        """Release everything, because the connection of the client has ended."""
        self.lost = True
        self._stop_watching()
        self._connection.close()
        self._wake()
