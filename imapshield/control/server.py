"""Answers requests on the control socket, which only the user of the server and root can use.

Rules
-----
* The file of the socket has the mode 0600 from its first moment: the kernel checks it at each connection.
* A request is answered in the reactor. Its cost is that of looking at each connection once.
* A client that does not read gets no further items until it does; the server never waits for it.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from imapshield.control.request_lines import (
    MAX_LINE,
    ControlError,
    Request,
    encode_error,
    encode_item,
    encode_result,
    parse_request,
)

MAX_CLIENTS = 32
"""Clients of the socket at the same time: several operators with `top` and `trace`, and programs that monitor."""

Handler = Callable[[Request], Awaitable[object]]
"""Answers a command: its value can be written as JSON. Raises `ControlError` with a text for the operator."""

Stream = Callable[[Request], AsyncGenerator[object, None]]
"""Answers a command with any number of items, until it ends or the client leaves."""

_log = Logger(namespace="imapshield")


class ControlConnection(LineOnlyReceiver):
    """One client of the socket. It sends one request, gets its answer, and may send the next one."""

    delimiter = b"\n"
    MAX_LENGTH = MAX_LINE
    factory: "ControlFactory"
    transport: Any

    def __init__(self) -> None:
        self._running: Deferred[None] | None = None
        self._unread = False
        self._waiting: Deferred[None] | None = None

    def connectionMade(self) -> None:
        """Refuse a client above `MAX_CLIENTS`."""
        self.factory.clients.add(self)
        if len(self.factory.clients) > MAX_CLIENTS:
            self.transport.write(encode_error("too many clients of the control socket; end one"))
            self.transport.loseConnection()
            return
        self.transport.registerProducer(self, True)

    def lineReceived(self, line: bytes) -> None:
        """Answer a request. No other is read meanwhile."""
        self.transport.pauseProducing()
        self._running = Deferred.fromCoroutine(self._answer(line))
        self._running.addErrback(self._failed).addBoth(self._answered)

    def lineLengthExceeded(self, line: bytes) -> None:  # noqa: ARG002
        """Refuse a line that is too long."""
        self.transport.write(encode_error(f"a request has at most {MAX_LINE} bytes"))
        self.transport.loseConnection()

    async def _answer(self, line: bytes) -> None:
        try:
            request = parse_request(line)
            if request.command in self.factory.streams:
                async with aclosing(self.factory.streams[request.command](request)) as items:
                    async for item in items:
                        self.transport.write(encode_item(item))
                        await self._written()
                result: object = None
            elif request.command in self.factory.handlers:
                result = await self.factory.handlers[request.command](request)
            else:
                known = ", ".join(sorted([*self.factory.handlers, *self.factory.streams]))
                raise ControlError(f"unknown command {request.command!r}; known are {known}")
        except ControlError as error:
            self.transport.write(encode_error(str(error)))
        else:
            self.transport.write(encode_result(result))

    async def _written(self) -> None:
        """Wait until the client has read enough."""
        if self._unread:
            self._waiting = Deferred()
            await self._waiting

    def pauseProducing(self) -> None:
        """Wait with further items: the client has not read the last ones."""
        self._unread = True

    def resumeProducing(self) -> None:
        """Go on with items."""
        self._unread = False
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def stopProducing(self) -> None:
        """The connection has ended."""

    def _failed(self, failure: Failure) -> None:
        if not isinstance(failure.value, CancelledError):
            _log.failure("error in a command of the control socket", failure)
            self.transport.write(encode_error("internal error; the log of the server has it"))

    def _answered(self, _: object) -> None:
        self._running = None
        self.transport.resumeProducing()

    def connectionLost(self, reason: Failure | None = None) -> None:  # noqa: ARG002
        """End the command of a client that has left."""
        self.factory.clients.discard(self)
        if self._running is not None:
            self._running.cancel()


class ControlFactory(ServerFactory):
    """Serves the control socket.

    Args:
        handlers: the commands with one answer, by name.
        streams: the commands with an answer that goes on, by name.

    Attributes:
        clients: the open connections.
    """

    noisy = False

    def __init__(
        self, handlers: Mapping[str, Handler], streams: Mapping[str, Stream] | None = None
    ) -> None:
        self.handlers, self.streams = handlers, streams or {}
        self.clients: set[ControlConnection] = set()

    def buildProtocol(self, addr: object) -> Protocol:  # noqa: ARG002
        """Return the protocol of a new client."""
        connection = ControlConnection()
        connection.factory = self
        return connection
