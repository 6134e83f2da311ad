"""`BanQueue`: the bans and their ends that wait until they are passed to the program of ``--ban-command``."""

from collections.abc import Iterator
from dataclasses import dataclass, field

MAX_WAITING = 1000
"""Networks that wait. One more drops the oldest ban; the server enforces it all the same."""


@dataclass(slots=True)
class BanQueue:
    """The networks whose state must be passed on, each once, in the order of their latest change.

    Attributes:
        dropped: how many bans were dropped because the queue was full.
    """

    dropped: int = 0
    _until: dict[str, float | None] = field(default_factory=dict)  # None: end the ban

    def __len__(self) -> int:
        return len(self._until)

    def ban(self, network: str, until: float) -> None:
        """Pass on a ban that ends at the time `until`. It replaces what waits for the same network."""
        self._put(network, until)

    def unban(self, network: str) -> None:
        """Pass on that a ban was ended by hand."""
        self._put(network, None)

    def _put(self, network: str, until: float | None) -> None:
        self._until.pop(network, None)
        self._until[network] = until
        if len(self._until) > MAX_WAITING:
            # What an operator has ended is dropped last: otherwise it would stay banned.
            oldest = next(self._bans(), None) or next(iter(self._until))
            del self._until[oldest]
            self.dropped += 1

    def _bans(self) -> Iterator[str]:
        return (network for network, until in self._until.items() if until is not None)

    def next(self, now: float) -> tuple[str, ...] | None:
        """Remove the first entry and return it as arguments of the program; None if nothing waits.

        They are ``ban NETWORK SECONDS`` or ``unban NETWORK``. Bans that end within a second are left out.
        """
        while self._until:
            network = next(iter(self._until))
            until = self._until.pop(network)
            if until is None:
                return "unban", network
            if until - now >= 1:
                return "ban", network, str(round(until - now))
        return None

    def clear(self) -> None:
        """Forget what waits."""
        self._until.clear()
