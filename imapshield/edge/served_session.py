"""`ServedSession`: what a connection needs of the session that executes its commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from imapshield.edge.session_io import SessionIO
from imapshield.wire.framing import RawCommand


class ServedSession(Protocol):
    """Executes the commands of one connection. It writes its responses to the `SessionIO` it was made with."""

    def greeting(self) -> bytes:
        """Return the first response, including CRLF."""

    def capabilities(self) -> list[bytes]:
        """Return the capabilities that CAPABILITY would list now."""

    async def run(self, command: RawCommand) -> None:
        """Execute `command`, and write its responses up to the tagged one. Called for one command at a time."""

    def disconnected(self) -> None:
        """Release everything, because the connection ends. Called once."""


SessionFactory = Callable[[SessionIO], ServedSession]
