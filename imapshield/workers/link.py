"""`Link`: one end of the socket between the supervising process and a worker.

Rules
-----
* Nobody waits for the other side. What may be left out, such as events for the charts, is left out while the other side
  does not read (`is_full`), and counted.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from imapshield.workers.link_messages import BadMessage, Message, MessageBuffer, encode

MAX_UNSENT = 4 << 20
"""Bytes that wait for the other side, above which a message that may be left out is left out."""

_log = Logger(namespace="imapshield")


class Link(Protocol):
    """Sends and receives messages.

    Attributes:
        on_message: called with each message.
        on_end: called when the socket is closed.
        left_out: how many messages were left out.
    """

    transport: Any

    def __init__(self) -> None:
        self.left_out = 0
        self.on_message: Callable[[Message], object] = lambda _: None
        self.on_end: Callable[[], object] = lambda: None
        self._buffer = MessageBuffer()
        self._unsent = 0
        self._is_open = False

    def connectionMade(self) -> None:
        """Notice from now on how much waits."""
        self._is_open = True

    @property
    def is_full(self) -> bool:
        """Whether the other side does not read."""
        transport = self.transport
        unsent = len(transport.dataBuffer) - transport.offset + transport._tempDataLen
        return bool(unsent > MAX_UNSENT)

    def send(self, message: Message) -> None:
        """Send a message that must not be left out, unless the link has ended."""
        if self._is_open:
            self.transport.write(encode(message))

    def send_if_read(self, message: Message) -> None:
        """Send a message, or leave it out if the other side does not read."""
        if self._is_open and self.is_full:
            self.left_out += 1
        else:
            self.send(message)

    def close(self) -> None:
        """Close the socket when everything is sent."""
        if self._is_open:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        """Pass on the messages that are complete."""
        try:
            for message in self._buffer.add(data):
                self.on_message(message)
        except BadMessage as error:
            _log.error("the link of a worker: {error}", error=error)
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure | None = None) -> None:  # noqa: ARG002
        """The other process has ended, or closed the socket."""
        self._is_open = False
        self.on_end()


class LinkFactory(Factory):
    """Returns one link, for `adoptStreamConnection`."""

    noisy = False

    def __init__(self, link: Link) -> None:
        self._link = link

    def buildProtocol(self, addr: object) -> Protocol:  # noqa: ARG002
        """Return the link."""
        return self._link
