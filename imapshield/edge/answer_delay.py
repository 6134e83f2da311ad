"""`AnswerDelay`: delays the answer to a failed login, as long as the client is still there."""

from functools import partial

from twisted.internet.defer import Deferred

from imapshield.edge import peer
from imapshield.edge.connection_owner import ConnectionOwner
from imapshield.edge.login_checks import LEFT
from imapshield.edge.write_buffer import Disconnected

_PRESENCE_SECONDS = 2.0
"""Seconds after which the server looks whether a client whose answer is delayed is still there."""


class AnswerDelay:
    """The delay of one answer.

    Args:
        owner: the protocol that owns the connection, which is reset if its client has left.
    """

    def __init__(self, owner: ConnectionOwner) -> None:
        self._owner = owner
        self._waiting: Deferred[None] | None = None

    async def wait(self, seconds: float) -> None:
        """Wait so long, or until the connection has ended.

        Raises:
            Disconnected: `cancel` was called.
        """
        owner = self._owner
        while seconds > 0 and not owner.closed:
            waiting = self._waiting = Deferred(lambda it: it.errback(Disconnected()))
            timer = owner.callLater(
                min(seconds, _PRESENCE_SECONDS), partial(waiting.callback, None)
            )
            try:
                await waiting
            finally:
                self._waiting = None
                if timer.active():
                    timer.cancel()
            seconds -= _PRESENCE_SECONDS
            if peer.has_left(owner.transport):
                owner.reset(LEFT)

    def cancel(self) -> None:
        """Wait no more, because the connection has ended."""
        if self._waiting is not None:
            self._waiting.cancel()
