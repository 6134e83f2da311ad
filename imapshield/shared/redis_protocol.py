"""The connections to Redis: those of txredisapi, with bounds for what a Redis that lies or is broken may send."""

from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.python.failure import Failure
from txredisapi import BaseRedisProtocol, ResponseError

MAX_BULK_BYTES = 2 << 20
"""Bytes of one string that Redis may send. The longest message has a half of that."""

MAX_REPLY_BYTES = 4 << 20
"""Bytes of one reply. The others are a few kilobytes, so one of many long strings is refused before it takes memory."""

MAX_ELEMENTS = 5000
"""Lines and strings of one reply. That of the script for rates has at most two thousand."""


class RedisError(Exception):
    """Redis cannot be used. The text is one line for the operator."""


class RedisCommands(BaseRedisProtocol):  # type: ignore[misc]
    """A connection for commands.

    Attributes:
        on_message: called with each message of the channel, after a SUBSCRIBE.
        on_lost: called when the connection has ended.
        problem: why it was ended, or "".
    """

    def __init__(self) -> None:
        super().__init__(charset=None, convertNumbers=False)
        self.on_message: Any = None
        self.on_lost: Callable[[], object] = lambda: None
        self.problem = ""
        self._elements = self._bytes = 0

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        """Parse what has arrived; whatever cannot be parsed ends the connection."""
        self._bytes += len(data)
        if self._bytes > MAX_REPLY_BYTES:
            self._refuse("a reply that is too long")
            return
        try:
            super().dataReceived(data, unpause)
        except Exception as error:  # of txredisapi, for any malformed reply
            self._refuse(f"malformed reply ({type(error).__name__})")

    def lineReceived(self, line: str) -> None:
        """Refuse lengths that no reply has, before anything is kept for them."""
        self._elements += 1
        most = {"$": MAX_BULK_BYTES, "*": MAX_ELEMENTS}.get(line[:1])
        if self._elements > MAX_ELEMENTS:
            self._refuse("a reply without end")
        elif most is not None and not -1 <= int(line[1:]) <= most:
            self._refuse("a reply that is too long")
        else:
            super().lineReceived(line)

    def replyReceived(self, reply: Any) -> None:
        """Pass a reply to the command that waits for it, and a message on.

        Without a SUBSCRIBE, what looks like a message is a reply: a value may be the word "message".
        """
        self._elements = self._bytes = 0
        is_triple = isinstance(reply, list) and len(reply) == 3
        if self.on_message is not None and is_triple and reply[0] in (b"message", "message"):
            if isinstance(reply[2], bytes):
                self.on_message(reply[2])
        elif self.replyQueue.waiting:
            super().replyReceived(reply)
        else:
            # Redis says at once why it wants no more clients, or none from other machines.
            is_error = isinstance(reply, ResponseError)
            self._refuse(str(reply) if is_error else "a reply that nobody has asked for")

    def _refuse(self, problem: str) -> None:
        self.problem = self.problem or problem
        self.transport.abortConnection()

    def connectionLost(self, why: Failure) -> None:
        """Fail the commands that wait."""
        if not self.problem and why.check(SSL.Error):
            errors: Any = why.value
            reasons = [reason for _, _, reason in errors.args[0]] if errors.args else []
            self.problem = f"TLS: {', '.join(reasons) or 'the connection has ended'}"
        super().connectionLost(why)
        self.on_lost()
