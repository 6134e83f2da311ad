"""`BusyUsers`: finds the users whose commands take a large part of the server's time, although no limit triggers.

A user who sends NOOP as fast as it is answered exceeds no limit, and others do not wait for long, because users take
turns. But the operator must be able to see who keeps the server busy.
"""

from typing import NamedTuple

WINDOW = 60.0
"""Seconds for which the time of each user is summed up."""

BUSY_SHARE = 0.25
"""Part of the window from which on a user is reported. Clients that download a large mailbox may be, for a minute."""


class BusyUser(NamedTuple):
    """A user whose commands have taken much of a window: `share` of its `seconds`. For the rest see `BusyUsers.add`."""

    user: str
    share: float
    seconds: float
    commands: int
    peer: str
    connection: int


class BusyUsers:
    """The time that each user has taken in the present window, which begins at `now`.

    There is one entry for each user who was active in it: nobody can have a login of many users. The first who is
    active after a window ends it. So a program that does not call `end_window` learns of busy users, too.
    """

    def __init__(self, now: float) -> None:
        self._start = now
        self._users: dict[str, tuple[float, int, str, int]] = {}

    def add(
        self, user: str, seconds: float, commands: int, peer: str, connection: int, now: float
    ) -> list[BusyUser]:
        """Count `seconds` in which `commands` of a user were executed, on a connection from the address `peer`.

        If a window is over, they count in the next one. Returns what `end_window` returns.
        """
        busy = self.end_window(now)
        before = self._users.get(user, (0.0, 0))
        self._users[user] = before[0] + seconds, before[1] + commands, peer, connection
        return busy

    def end_window(self, now: float) -> list[BusyUser]:
        """Begin a new window if the present one is over, and return the busy users of the old one, busiest first."""
        seconds = now - self._start
        if seconds < WINDOW:
            return []
        users, self._users, self._start = self._users, {}, now
        busy = [
            BusyUser(user, used / seconds, seconds, commands, peer, connection)
            for user, (used, commands, peer, connection) in users.items()
            if used >= BUSY_SHARE * seconds
        ]
        return sorted(busy, key=lambda each: each.share, reverse=True)
