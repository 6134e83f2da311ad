"""What a session asks of the connection that it runs on; `edge.protocol` is one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from imapshield.mailbox.account_api import IAccount


class Connection(Protocol):
    """What a session asks of the edge. Awaitables end in an exception that is not ours when the peer is gone."""

    def write(self, data: bytes) -> None:
        """Send octets."""

    def drain(self) -> Awaitable[None]:
        """Let other connections have their turn, and the peer read what it was sent."""

    def read_line(self) -> Awaitable[bytes]:
        """The next line, which belongs to the command that is running."""

    @property
    def secure(self) -> bool:
        """Whether a password may be sent."""

    @property
    def accepts_passwords(self) -> bool:
        """Whether there is anybody who can look at a name and password."""

    @property
    def can_start_tls(self) -> bool:
        """Whether STARTTLS can be done now."""

    def start_tls(self) -> None:
        """Negotiate TLS after what was written."""

    @property
    def can_compress(self) -> bool:
        """Whether COMPRESS can be done now."""

    def start_compression(self) -> None:
        """Deflate what is written from now on, and inflate what comes (RFC 4978)."""

    def sasl_mechanisms(self) -> list[bytes]:
        """SASL mechanisms beside PLAIN."""

    async def login(self, user: bytes, password: bytes, mechanism: str) -> IAccount:
        """Whose name and password these are; `CommandRefused` when nobody's."""

    async def login_sasl(
        self, mechanism: bytes, ask: Callable[[bytes], Awaitable[bytes]]
    ) -> IAccount:
        """Run one of `mechanisms`: `ask` sends a challenge and awaits the answer."""

    def run_in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` beside the commands."""

    def logged_out(self) -> None:
        """The user has gone, and the client may log in as another (RFC 8437)."""

    def command_parsed(self) -> None:
        """A command was well-formed."""

    def bad_command(self, sample: bytes, text: str) -> None:
        """A command was malformed."""

    def command_failed(self, command: str, traceback: str) -> str:
        """Something broke; returns a reference for the client to quote."""

    def reset(self) -> None:
        """Reset the connection: what was promised to the client cannot be delivered."""

    def close(self) -> None:
        """Close after what was written is sent."""
