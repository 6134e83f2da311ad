"""`ControlPort`: opens and closes the control socket of a server."""

import os
from contextlib import suppress
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IProtocolFactory

from imapshield.control.request_lines import ControlError
from imapshield.control.socket_file import make_room


class ControlPort:
    """The control socket of a server.

    Args:
        path: the file; None for no socket.
        factory: answers the clients.
        reactor: an `IReactorUNIX`.
    """

    def __init__(self, path: str | None, factory: IProtocolFactory, reactor: Any) -> None:
        self.path = path
        self._factory, self._reactor = factory, reactor
        self._port: Any = None

    @property
    def is_open(self) -> bool:
        """Whether the server listens at the path."""
        return self._port is not None

    def open(self) -> None:
        """Listen.

        Raises:
            ControlError: that is not possible.
        """
        if self.path is None:
            return
        make_room(self.path)
        with suppress(OSError):
            os.makedirs(os.path.dirname(self.path) or ".", mode=0o700, exist_ok=True)
        # No client can connect before the file has this mode: Twisted sets it before it listens.
        try:
            self._port = self._reactor.listenUNIX(self.path, self._factory, mode=0o600)
        except CannotListenError as error:
            reason = os.strerror(getattr(error.socketError, "errno", None) or 0)
            raise ControlError(f"{self.path}: {reason}; name another path") from None

    async def close(self) -> None:
        """Stop listening, and remove the file."""
        port, self._port = self._port, None
        if port is not None and self.path is not None:
            await port.stopListening()
            # A server that has given up the rights of root cannot remove it.
            with suppress(OSError):
                os.unlink(self.path)
