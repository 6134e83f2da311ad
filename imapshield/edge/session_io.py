"""`SessionIO`: implements `session.connection.Connection`, the connection as a session sees it, with Twisted."""

from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from imapshield.edge.authentication import Authentication
from imapshield.edge.compress import STREAM_BYTES, Deflater, InputDecoder
from imapshield.edge.connection_owner import ConnectionOwner
from imapshield.edge.write_buffer import WORK_PER_TURN, Disconnected
from imapshield.events import printable
from imapshield.guard.verdicts import LimitReached
from imapshield.wire.framing import RawCommand


class SessionIO(Authentication):
    """The connection of one session.

    Args:
        owner: the protocol that owns the connection.
        decoder: inflates the input under COMPRESS.

    Attributes:
        unfinished: how many responses have begun whose rest follows when the client has read enough.
    """

    def __init__(self, owner: ConnectionOwner, decoder: InputDecoder) -> None:
        super().__init__(owner)
        self._decoder = decoder
        self.unfinished = 0
        self._line_waiter: Deferred[bytes] | None = None
        self.on_computed: Callable[[float], object]  # set when the commands can be executed

    def count_seconds(self, seconds: float) -> None:
        """Count the time for which a thread of a store has computed for this connection."""
        self.on_computed(seconds)

    def write(self, data: bytes | memoryview) -> None:
        """Send `data`."""
        self._owner.write_buffer.write(data)

    def write_at_once(self, data: bytes) -> None:
        """Send `data`, which is all that there is for now."""
        self._owner.write_buffer.write_at_once(data)

    @property
    def full(self) -> bool:
        """Whether the client has not read enough of the output: `drain` before you write more."""
        return self._owner.write_buffer.full

    @property
    def room(self) -> int:
        """How many bytes may be written at once: 0 if `drain` is due before."""
        write_buffer = self._owner.write_buffer
        if write_buffer.full or write_buffer.work >= WORK_PER_TURN:
            return 0
        return write_buffer.room

    @property
    def piece_size(self) -> int:
        """How many bytes of a response to encode at once."""
        return self._owner.write_buffer.piece_size

    @property
    def within_response(self) -> bool:
        """Whether what was written may end within a response."""
        return bool(self.unfinished) or self._owner.write_buffer.within_response

    def set_within_response(self, within: bool) -> None:
        """Note whether what was written ends within a response, whose rest follows later without a running command."""
        write_buffer = self._owner.write_buffer
        was_within, write_buffer.within_response = write_buffer.within_response, within
        if was_within and not within:
            write_buffer.on_drained()  # commands may begin again

    def waiting_commands(self, first: int, count: int) -> list[RawCommand]:
        """Return `count` of the commands that wait for the running one, from number `first` on. They are run later."""
        return self._owner.guard.waiting(first, count)

    @property
    def client_reads(self) -> bool:
        """Whether the client has read some of what it was sent. Do not hold much for a client that has not."""
        return self._owner.write_buffer.client_reads

    def call_in_turn(self, work: Callable[[], object]) -> None:
        """Call `work` when it is this connection's turn."""
        self._owner.schedule(work)

    def call_later(self, seconds: float, work: Callable[[], object]) -> Any:
        """Call `work` after some seconds, unless ``cancel()`` of the result is called before."""
        return self._owner.callLater(seconds, work)

    def add_work(self, count: int) -> None:
        """Count lines of responses, or messages that were looked at."""
        self._owner.write_buffer.work += count

    @property
    def turns(self) -> int:
        """How many turns have begun. The connection receives nothing from one command of a turn to the next."""
        return self._owner.write_buffer.turns

    @property
    def turn_is_over(self) -> bool:
        """Whether the session has done enough in this turn: `drain` before it does more."""
        return self._owner.write_buffer.work >= WORK_PER_TURN

    def drain(self) -> Deferred[None]:
        """Let other connections have their turn, and wait while the write buffer is full.

        Raises:
            Disconnected: the connection has ended.
        """
        if self._owner.closed:
            raise Disconnected
        return self._owner.write_buffer.drain()

    def hold_result(self, size: int) -> AbstractContextManager[None]:
        """Count `size` bytes in the block, as a part of what the server holds for the connection and its user."""
        return self._owner.memory.hold_result(size)

    @asynccontextmanager
    async def take_turn(self) -> AsyncIterator[None]:
        """Wait until the client has read enough and few commands of the user compute; the block is one of them.

        Raises:
            Disconnected: the connection has ended.
        """
        # A turn of a client that does not read would last as long as its connection.
        await self.drain()
        owner = self._owner
        async with owner.shared.user_turns.turn(owner.reporter.user, owner.callLater):
            yield

    @property
    def addresses(self) -> tuple[Any, Any]:
        """The addresses of the client and of the server."""
        transport = self._owner.transport
        return transport.getPeer(), transport.getHost()

    @property
    def network(self) -> object:
        """The network of the client, by which connections without a login are counted."""
        return self._owner.counted.networks[0]

    def read_line(self) -> Deferred[bytes]:
        """Return the next line (without CRLF), which belongs to the running command and not to the backlog.

        The name of the command must have the trait `suspends_input`, and one call must have ended before the next.
        Everything written before is flushed, because the client waits for it.

        Raises:
            Disconnected: the connection has ended, or ends before the line arrives.
        """
        if self._owner.closed:
            raise Disconnected
        self._owner.write_buffer.flush()
        self._line_waiter = Deferred()
        self._owner.guard.line_expected = True
        self._owner.callLater(0, self._owner.update_reading)
        return self._line_waiter

    def line_received(self, line: bytes) -> None:
        """Pass `line` to the command that waits for it."""
        waiter, self._line_waiter = self._line_waiter, None
        if waiter is not None:
            waiter.callback(line)

    def connection_lost(self) -> None:
        """Fail a pending `read_line` with `Disconnected`, and release the account."""
        waiter, self._line_waiter = self._line_waiter, None
        if waiter is not None:
            waiter.addErrback(lambda _: None)
            waiter.errback(Disconnected())
        self.release_account()

    @property
    def can_start_tls(self) -> bool:
        """Whether STARTTLS is possible now."""
        return bool(self._owner.ctx and self._owner.canStartTLS and not self.tls)

    def start_tls(self) -> None:
        """Start TLS. Plaintext that the client sent after STARTTLS is dropped unread (CVE-2011-0411)."""
        self._owner.clearLineBuffer()
        self._owner.startedTLS = True
        self._owner.write_buffer.start_tls(self._owner.ctx)

    @property
    def can_compress(self) -> bool:
        """Whether COMPRESS is possible now."""
        return self._owner.write_buffer.compress is None

    def check_compression(self) -> None:
        """Refuse compression if the server holds too much for the user.

        Raises:
            CommandRefused: LIMIT.
        """
        refusal = self._owner.memory.refuse_memory(STREAM_BYTES)
        if refusal is not None:
            raise refusal

    def start_compression(self) -> None:
        """Compress both directions from now on (RFC 4978)."""
        self._owner.write_buffer.flush()
        self._owner.write_buffer.compress = Deflater()
        self._decoder.start_inflating()

    def permit_nul_in_messages(self) -> None:
        """Let a message have NUL, also if it is not a literal8: another server stores it, or refuses it."""
        self._owner.framer.nul_in_messages = True

    def log_out(self) -> None:
        """Apply the limits before login again, and end compression (UNAUTHENTICATE, RFC 8437)."""
        self._owner.write_buffer.flush()
        self._owner.write_buffer.compress = None
        super().log_out()
        self._decoder.stop_inflating()

    def run_in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` concurrently with the commands."""
        Deferred.fromCoroutine(work).addErrback(self._owner.session_failed, "background work")

    def command_parsed(self) -> None:
        """Note that a command was well-formed."""
        self._owner.guard.command_parsed()

    def client_identified(self, fields: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Keep what the client has said about itself, for the events of limits."""
        text = b" ".join(name + b"=" + value for name, value in fields if value is not None)
        self._owner.reporter.client_id = printable(text, 100)

    def login_refused(self, user: bytes, mechanism: str) -> None:
        """Report a password that was refused because the connection is not encrypted."""
        self._owner.reporter.login_refused(user, mechanism, "no-tls")

    def bad_command(self, sample: bytes, text: str) -> None:
        """Report an invalid command, of which `sample` is the beginning, and the answer `text`; count it."""
        self._owner.reporter.bad_command(sample, text)
        guard = self._owner.guard
        guard.bad_command()
        if guard.authenticated and guard.bad_commands > 1:  # most connections need no peaks
            self._owner.reporter.note_peak("max_bad_commands", guard.bad_commands)

    def limit_reached(self, reached: LimitReached, sample: bytes) -> None:
        """Report that the running command is refused because of a limit."""
        self._owner.reporter.limit_triggered("refused", reached, sample=sample)

    def command_failed(self, command: str, traceback: str) -> str:
        """Report an internal error; returns a reference that the client can quote."""
        return self._owner.reporter.command_failed(command, traceback)

    def reset(self, cause: str) -> None:
        """Reset the connection for `cause`."""
        self._owner.reset(cause)

    def bye(self, text: str, code: bytes | None = None, *, cause: str = "") -> None:
        """Send BYE and close; `cause` is for the operator, and by default the same text."""
        self._owner.bye(text, code, cause)

    def close(self, *, logged_out: bool = False, cause: str = "") -> None:
        """Close the connection after everything written is sent; `logged_out`: the client has asked for it."""
        self._owner.reporter.logged_out = logged_out
        self._owner.reporter.cause = cause
        self._owner.close()


class ServedSession(Protocol):
    """Executes the commands of one connection. It writes its responses to the `SessionIO` that it was made with."""

    def greeting(self) -> bytes:
        """Return the first response, including CRLF."""

    def capabilities(self) -> list[bytes]:
        """Return the capabilities that CAPABILITY would list now."""

    async def run(self, command: RawCommand) -> None:
        """Execute `command`, and write its responses up to the tagged one. Called for one command at a time.

        An exception is a bug: it is reported, and resets the connection. Only `Disconnected` is ignored once the
        connection has ended.
        """

    def disconnected(self) -> None:
        """Release everything, because the connection ends. Called once."""


SessionFactory = Callable[[SessionIO], ServedSession]
