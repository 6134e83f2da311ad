"""`ExchangeQueue`: SCRAM logins that wait for their turn. Each occupies a connection while its client computes."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from imapshield.errors import CommandRefused
from imapshield.limits import LimitReached, Limits


class ExchangeQueue:
    """The exchanges of all clients. Of those that wait, the first goes on whose network runs the fewest.

    So a few networks whose clients do not answer cannot keep the others out, however many of them wait.

    Each connection waits for one exchange at most, so there are no more waiters than clients without a login.

    Args:
        clock: an `IReactorTime`.
        limits: returns the limits that apply now.

    Attributes:
        running: the network of each exchange that has begun.
    """

    def __init__(self, clock: Any, limits: Callable[[], Limits]) -> None:
        self.running: list[object] = []
        self._clock, self._limits = clock, limits
        self._waiting: dict[Deferred[None], object] = {}

    def enter(self, network: object) -> Deferred[None]:
        """Return what fires when a client of `network` may begin; then call `leave` in the end.

        It fails with `CommandRefused` after ``backend_exchange_wait_seconds``. Cancel it if the client leaves.
        """
        seconds = self._limits().backend_exchange_wait_seconds
        turn: Deferred[None] = Deferred(self._forget)
        self._waiting[turn] = network
        timer = self._clock.callLater(seconds, self._give_up, turn, seconds)

        def ended(outcome: Any) -> Any:
            if timer.active():
                timer.cancel()
            return outcome

        turn.addBoth(ended)
        self._serve()
        return turn

    def _forget(self, turn: Deferred[None]) -> None:
        del self._waiting[turn]

    def leave(self, network: object) -> None:
        """Note that an exchange of `network` has ended."""
        self.running.remove(network)
        self._serve()

    def _serve(self) -> None:
        limits = self._limits()
        most = limits.max_backend_exchanges
        # Half of them stay for others, also in one of many workers.
        share = max(1, min(limits.max_backend_exchanges_per_network, most // 2))
        while self._waiting and len(self.running) < most:
            runs = Counter(self.running)
            turn, network = min(self._waiting.items(), key=lambda waiter: runs[waiter[1]])
            if runs[network] >= share:
                return
            del self._waiting[turn]
            self.running.append(network)
            turn.callback(None)  # it may end at once, which serves others

    def _give_up(self, turn: Deferred[None], seconds: float) -> None:
        self._forget(turn)
        is_full = len(self.running) >= self._limits().max_backend_exchanges
        name = "max_backend_exchanges" if is_full else "max_backend_exchanges_per_network"
        reached = LimitReached("backend_exchange_wait_seconds", seconds, seconds, binding=name)
        text = "Too many simultaneous logins; try again later"
        turn.errback(CommandRefused(b"UNAVAILABLE", text, reached))
