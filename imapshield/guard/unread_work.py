"""`UnreadWork`: bounds the work for clients that send very many commands and may not read the answers.

Whether a client reads shows when its TCP has received more than it opens its window for: about 100 KB on one machine,
which are the answers to 5,000 NOOPs. Until then all such clients together get a small share of the server's time, if
they are many: a few of them may well be honest, and cost little.
"""

from collections.abc import Hashable

FEW_CLIENTS = 24
"""Clients that do not wait. Correct clients that send thousands of commands at once are rarely more at the same time;
what so many cost that never read is some seconds of work, once."""

RECENT_SECONDS = 10.0
"""Seconds for which a client counts as one of them after its last command."""

SHARE = 0.1
"""Part of the time in which the server works for all of them."""

BURST_SECONDS = 0.2
"""Seconds of work that it does for them at once: as much as one client needs that is alone, until it is trusted."""

COMMAND_SECONDS = 0.0001
"""Seconds that a command counts at least. What it costs to wake the reactor, or a thread, is not measured."""

MAX_DELAY = 2.0
"""Seconds after which a client continues, however many there are: an honest one among them must not give up."""

TRUSTED_BYTES = 128 << 10
"""Bytes sent to a client after which its window would show that it does not read."""

TRUSTED_SECONDS = BURST_SECONDS
"""Seconds of work after which a client is trusted all the same: its commands are not cheap, so they are few."""


class UnreadWork:
    """The work for all clients of a server that are not known to read."""

    __slots__ = ("_clients", "_used_until")

    def __init__(self) -> None:
        self._used_until = 0.0
        self._clients: dict[Hashable, float] = {}  # when each has had a command, the last one last

    def add(self, client: Hashable, seconds: float, now: float) -> float:
        """Count `seconds` of work for a connection, and return the seconds for which it waits.

        This is GCRA as in `rates.RateTable`, but what exceeds the rate is counted, too, so that clients that wait
        continue one after the other.
        """
        clients = self._clients
        clients.pop(client, None)
        clients[client] = now
        while clients[oldest := next(iter(clients))] < now - RECENT_SECONDS:
            del clients[oldest]
        if len(clients) <= FEW_CLIENTS:
            return 0.0
        burst = BURST_SECONDS / SHARE
        used_until = max(self._used_until, now) + seconds / SHARE
        self._used_until = min(used_until, now + burst + MAX_DELAY)
        return max(0.0, self._used_until - now - burst)
