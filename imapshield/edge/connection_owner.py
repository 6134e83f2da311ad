"""`ConnectionOwner`: the interface of the protocol that owns a connection, for the parts of the connection.

`protocol.ShieldedIMAP4Server` implements it. The parts do not import the protocol, and each of them gets the state of
the connection (`guard`, `framer`, `write_buffer`, `reporter`) from here.
"""

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from imapshield.edge.event_reporter import EventReporter
from imapshield.edge.memory_share import MemoryShare
from imapshield.edge.shared_parts import SharedParts
from imapshield.edge.write_buffer import WriteBuffer
from imapshield.guard.connection_guard import ConnectionGuard
from imapshield.guard.shares import Connection
from imapshield.guard.verdicts import CommandEvent, Verdict
from imapshield.limits import Limits
from imapshield.wire.framing import Framer


class ConnectionOwner(Protocol):
    """The owner of one connection.

    `transport`, `portal`, `challengers`, `account`, `state`, `ctx`, `paused`, `line_mode` and `MAX_LENGTH`, and all
    names in camelCase, come from Twisted's `IMAP4Server` and its base classes.

    Attributes:
        active_at: when the user was active for the last time; before login, since when the connection has none.
        bytes_in: how many bytes have arrived, before decompression.
        closed: whether the connection is ending, so that nothing is read, executed or written any more.
        now: returns the seconds of the reactor's clock.
        shared: what the connections of the server share.
        counted: this connection, as ``shared.admission`` has counted it.
    """

    limits: Limits
    guard: ConnectionGuard
    framer: Framer
    reporter: EventReporter
    memory: MemoryShare
    write_buffer: WriteBuffer
    active_at: float
    bytes_in: int
    closed: bool
    now: Callable[[], float]
    shared: SharedParts
    counted: Connection
    transport: Any
    portal: Any
    challengers: dict[bytes, Callable[[], Any]]
    account: Any
    state: Any
    ctx: Any
    canStartTLS: Any
    startedTLS: Any
    paused: Any
    line_mode: Any
    MAX_LENGTH: int

    def callLater(self, period: float, func: Callable[[], object]) -> Any:
        """Call `func` in `period` seconds."""

    def clearLineBuffer(self) -> bytes:
        """Drop and return the received bytes that were not processed yet."""

    def setRawMode(self) -> Any:
        """Receive literal bytes instead of lines from now on."""

    def setTimeout(self, period: float) -> Any:
        """Close the connection after `period` seconds, counted from now."""

    def restart_timeout(self) -> None:
        """Start the timeout of a logged-in user again, because the client or the server has done something."""

    def authenticateLogin(self, user: bytes, passwd: bytes) -> Deferred[Any]:
        """Have the portal check a password; fires with (interface, avatar, logout)."""

    def process_input(self, data: bytes) -> None:
        """Process input that is not compressed."""

    def receive_again(self, data: bytes) -> None:
        """Process `data`, which is not compressed, before all later input, but in a later reactor turn."""

    def update_reading(self) -> None:
        """Pause or resume reading as the guard says."""

    def schedule(self, work: Callable[[], object]) -> None:
        """Run `work` when it is this connection's turn in the fair queue."""

    def apply_verdict(self, verdict: Verdict, event: CommandEvent | None = None) -> None:
        """Do what the guard has decided about `event`, or about the connection if there is no event."""

    def session_failed(self, failure: Failure, work: str) -> None:
        """Handle an exception that the session did not handle, and that ended `work`."""

    def bye(self, text: str, code: bytes | None = None, cause: str = "") -> None:
        """Send BYE and close; `cause` is for the operator, and by default the same text."""

    def close(self) -> None:
        """Close the connection after everything written is sent."""

    def reset(self, cause: str) -> None:
        """Reset the connection (TCP RST) for `cause`, which is one of the words of `events.ConnectionClosed`."""
