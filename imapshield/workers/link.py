"""`Link`: one end of the socket between the supervising process and a worker.

Rules
-----
* What is not urgent waits `WAIT_SECONDS` for other messages: each write wakes the other process, which costs more than
  the message. Messages that were sent together are one pickle, and events that happen one after the other one message.
* Nobody waits for the other side. What may be left out, such as events for the charts, is left out while the other side
  does not read (`is_full`), and counted for the log.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from imapshield import events
from imapshield.workers.link_messages import (
    Answer,
    BadMessage,
    Happened,
    Message,
    MessageBuffer,
    encode,
)

MAX_UNSENT = 4 << 20
"""Bytes that wait for the other side, above which a message that may be left out is left out."""

WAIT_SECONDS = 0.05
"""Seconds that a message waits which is not urgent."""

FAILED = "internal error; the log of the server has it"
"""The answer to a request that has failed because of an error of this program."""

FINISH_SECONDS = 2.0
"""Seconds that a worker which ends waits until the other side has read what it has sent."""

_LITTLE = MAX_UNSENT // 4

_log = Logger(namespace="imapshield")


class Link(Protocol):
    """Sends and receives messages.

    Args:
        reactor: an `IReactorTime`.

    Attributes:
        on_message: called with each message.
        on_end: called when the socket is closed.
        left_out: how many messages were left out since the log said it last.
    """

    transport: Any

    def __init__(self, reactor: Any) -> None:
        self.left_out = 0
        self._reactor = reactor
        self._waiting: list[Message] = []
        self._events: list[events.Event] | None = None  # those of the last message that waits
        self._waiting_call: Any = None
        self.on_message: Callable[[Message], object] = lambda _: None
        self.on_end: Callable[[], object] = lambda: None
        self._buffer = MessageBuffer()
        self._is_open = False
        self._finished: Deferred[None] | None = None
        self._large = 0  # bytes of the largest message of which some may be unsent

    def connectionMade(self) -> None:
        """Notice from now on how much waits."""
        self._is_open = True

    @property
    def is_full(self) -> bool:
        """Whether the other side does not read. Large messages take a while also if it does, so they do not count."""
        return self._unsent > MAX_UNSENT + self._large

    @property
    def is_drained(self) -> bool:
        """Whether the other side reads, and has read most of what was sent."""
        return self._is_open and self._unsent <= _LITTLE

    @property
    def _unsent(self) -> int:
        transport = self.transport
        if not self._is_open:
            return 0
        unsent: int = len(transport.dataBuffer) - transport.offset + transport._tempDataLen
        return unsent

    def send(self, message: Message) -> None:
        """Send a message at once, and those that wait before it, unless the link has ended."""
        if self._is_open:
            self._waiting.append(message)
            self._events = None
            self.flush()

    def send_soon(self, message: Message) -> None:
        """Send a message that is not urgent, or leave it out if the other side does not read."""
        if not self._is_open:
            return
        if self.is_full:
            self.left_out += 1
            return
        if self.left_out and self.is_drained:  # one line, also while it reads a little now and then
            number, self.left_out = self.left_out, 0
            _log.warn(
                "limit MAX_UNSENT={limit} hit: {number} messages of a worker, such as lines of the log, were left out"
                " because the supervising process did not read",
                limit=MAX_UNSENT,
                number=number,
            )
        self._waiting.append(message)
        self._events = message.events if isinstance(message, Happened) else None
        if self._waiting_call is None:
            self._waiting_call = self._reactor.callLater(WAIT_SECONDS, self.flush)

    def happened(self, event: events.Event) -> None:
        """Send an event soon; an internal error at once, whoever reads."""
        if isinstance(event, events.CommandFailed):
            self.send(Happened([event]))
        elif self._events is None:
            self.send_soon(Happened([event]))
        else:
            self._events.append(event)

    def flush(self) -> None:
        """Send what waits."""
        call, self._waiting_call = self._waiting_call, None
        if call is not None and call.active():
            call.cancel()
        waiting, self._waiting, self._events = self._waiting, [], None
        if self._is_open and waiting:
            try:
                data = encode(*waiting)
            except Exception:  # pickle may raise anything
                data = b"".join(map(_encode_alone, waiting))
            if self._unsent <= _LITTLE:
                self._large = 0
            if len(data) > _LITTLE:
                self._large = max(self._large, len(data))
            self.transport.write(data)

    def close(self) -> None:
        """Close the socket when everything is sent."""
        self.flush()
        if self._is_open:
            self.transport.loseConnection()

    def finish(self) -> Deferred[None]:
        """Send what waits, such as the ends of the last connections, and wait until the other side has read it.

        What is still in the socket when the process has ended is lost (`Supervisor.process_ended`).

        Returns:
            a Deferred that fires when the other side has read it, or after `FINISH_SECONDS` if it does not read.
        """
        if not self._is_open:
            return succeed(None)
        self._finished = Deferred()
        self.flush()
        self.on_message = lambda _: None
        self.transport.loseWriteConnection()  # at the end of what it reads, the other side closes the socket
        return self._finished.addTimeout(FINISH_SECONDS, self._reactor).addErrback(lambda _: None)

    def dataReceived(self, data: bytes) -> None:
        """Pass on the messages that are complete. One that cannot be used is an error in the log, and no more."""
        try:
            for message in self._buffer.add(data):
                try:
                    self.on_message(message)
                except Exception:
                    name = type(message).__name__
                    _log.failure("a message of a worker cannot be used: {name}", name=name)
        except BadMessage as error:
            _log.error("the link of a worker: {error}", error=error)
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure | None = None) -> None:  # noqa: ARG002
        """The other process has ended, or closed the socket."""
        self._is_open = False
        self.flush()
        finished, self._finished = self._finished, None
        if finished is not None:
            finished.callback(None)
        self.on_end()


def _encode_alone(message: Message) -> bytes:
    """Return a message as bytes. In place of one that cannot be encoded, the log has a line, and an asker an error."""
    try:
        return encode(message)
    except Exception:
        if isinstance(message, Happened) and len(message.events) > 1:
            return b"".join(_encode_alone(Happened([event])) for event in message.events)
        _log.failure("a message cannot be sent: {name}", name=type(message).__name__)
        return encode(Answer(message.request, error=FAILED)) if isinstance(message, Answer) else b""


class LinkFactory(Factory):
    """Returns one link, for `adoptStreamConnection`."""

    noisy = False

    def __init__(self, link: Link) -> None:
        self._link = link

    def buildProtocol(self, addr: object) -> Protocol:  # noqa: ARG002
        """Return the link."""
        return self._link
