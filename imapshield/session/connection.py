"""The interface between a session and the connection that it runs on; `edge.session_io.SessionIO` implements it."""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Protocol

from imapshield.limits import LimitReached
from imapshield.mailbox.account_api import IAccount


class Connection(Protocol):
    """The connection of a session.

    When the connection ends, `drain` and `read_line` raise an exception of the implementation, even in a command that
    already waits. No handler catches it, so it ends the command, and the dispatcher sends no response.

    Attributes:
        unfinished: how many responses have begun whose rest is not written yet. Meanwhile the connection may end, but
            without a BYE, which would be taken for a part of them, such as mail.
    """

    unfinished: int

    def write(self, data: bytes | memoryview) -> None:
        """Send bytes to the client. A memoryview is one of bytes that do not change."""

    @property
    def full(self) -> bool:
        """Whether the client has not read enough of the output, so that `drain` is due before the next `write`."""

    @property
    def room(self) -> int:
        """How many bytes may be written at once, so that few are unsent: 0 if `drain` is due before."""

    @property
    def piece_size(self) -> int:
        """How many bytes of a response of long strings to encode at once: many, once the client reads."""

    @property
    def client_reads(self) -> bool:
        """Whether the client has read some of what it was sent. Do not hold much for a client that has not."""

    def call_in_turn(self, work: Callable[[], object]) -> None:
        """Call `work` when the fair queue schedules this connection, also if it has ended by then."""

    def call_later(self, seconds: float, work: Callable[[], object]) -> Any:
        """Call `work` after some seconds, unless ``cancel()`` of the result is called before."""

    def add_work(self, count: int) -> None:
        """Count work of about `count` microseconds: so many lines of responses, or messages that were looked at."""

    @property
    def turns(self) -> int:
        """How many turns have begun. The connection receives nothing from one command of a turn to the next."""

    @property
    def turn_is_over(self) -> bool:
        """Whether so much work was counted since `drain` returned that `drain` is due before more of it."""

    def drain(self) -> Awaitable[None]:
        """Wait until the fair queue schedules this connection again and the client has read enough of the output.

        Raises:
            Exception: the connection has ended, for example by `reset`.
        """

    def hold_result(self, size: int) -> AbstractContextManager[None]:
        """Count `size` bytes of memory in the block: a result that the command holds until the client has read enough.

        If the server holds too much, it resets the connection in a later turn.
        """

    def take_turn(self) -> AbstractAsyncContextManager[None]:
        """Make the block one of the few computations of the user that are in memory at the same time.

        The block must not write much, because it would wait for the client then. When it begins, the connection may
        have ended: `drain` then raises.
        """

    def read_line(self) -> Awaitable[bytes]:
        """Return the next line from the client. It belongs to the running command (IDLE, AUTHENTICATE).

        Raises:
            Exception: the connection has ended.
        """

    @property
    def secure(self) -> bool:
        """Whether a password may be sent over this connection."""

    @property
    def accepts_passwords(self) -> bool:
        """Whether the server has a checker for user names and passwords."""

    @property
    def can_start_tls(self) -> bool:
        """Whether STARTTLS is possible now."""

    def start_tls(self) -> None:
        """Negotiate TLS after the output written so far."""

    @property
    def can_compress(self) -> bool:
        """Whether COMPRESS is possible now."""

    def check_compression(self) -> None:
        """Refuse compression, which takes memory, if the server holds too much for the user.

        Raises:
            CommandRefused: LIMIT.
        """

    def start_compression(self) -> None:
        """Deflate output and inflate input from now on (RFC 4978)."""

    def sasl_mechanisms(self) -> list[bytes]:
        """Return the names of the SASL mechanisms that are offered in addition to PLAIN."""

    async def login(self, user: bytes, password: bytes, mechanism: str) -> IAccount:
        """Return the account of this user.

        Raises:
            CommandRefused: the name or the password is wrong, or too many logins are in progress.
        """

    def master_name(self, master: bytes, user: bytes) -> bytes:
        """Return the name for `login` with which a master user acts for another user.

        Raises:
            CommandRefused: nobody may do that.
        """

    async def login_sasl(
        self, mechanism: bytes, challenge: Callable[[bytes], Awaitable[bytes]], /
    ) -> IAccount:
        """Run one of `sasl_mechanisms` and return the account.

        Args:
            mechanism: the SASL mechanism.
            challenge: sends a challenge to the client and returns its response, both decoded.

        Raises:
            CommandRefused: the login failed, or too many logins are in progress.
            BadCommand: a response of the client is malformed, or `challenge` raised this error.
        """

    def count_seconds(self, seconds: float) -> None:
        """Count the time for which a thread of a store has computed for this connection."""

    def run_in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` concurrently with commands."""

    def log_out(self) -> None:
        """Apply the limits before login again, and end compression. The client may log in again (RFC 8437)."""

    def command_parsed(self) -> None:
        """Note that a command was well-formed."""

    def client_identified(self, fields: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Note what the client has said about itself with ID: pairs of name and value."""

    def login_refused(self, user: bytes, mechanism: str) -> None:
        """Log that a password was refused because the connection is not encrypted.

        Args:
            user: the user name; b"" if the client has not sent it yet.
            mechanism: LOGIN or PLAIN.
        """

    def bad_command(self, sample: bytes, text: str) -> None:
        """Note that a command was malformed.

        Args:
            sample: the result of `traits.log_sample`.
            text: the text of the BAD response.
        """

    def limit_reached(self, reached: LimitReached, sample: bytes) -> None:
        """Log that the running command is refused because of a limit. `sample`: as for `bad_command`."""

    def command_failed(self, command: str, traceback: str) -> str:
        """Log an internal error, and return a reference that the client can quote."""

    def reset(self, cause: str) -> None:
        """Reset the connection, because data that was announced to the client cannot be delivered."""

    def close(self, *, logged_out: bool = False) -> None:
        """Close the connection once the output written so far is sent; `logged_out`: the client has asked for it."""
