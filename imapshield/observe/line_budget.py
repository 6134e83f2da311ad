"""`LineBudget`: decides which log lines are written, so that neither one client nor many can flood the log.

Rules
-----
* Of one kind and one origin (the address of a client, or a user), `LINES` lines are written in a window of `WINDOW`
  seconds.
* All lines of unimportant kinds together have `MAX_LINES` lines in a window. The first `KIND_LINES` lines of each kind
  are written even then, so that no flood hides that something else happens.
* Bans and internal errors have a budget of their own, and lines about logged-in users have none: nobody can be logged
  in as many users.
* At the end of a window there is one `Summary` for each kind of which lines were suppressed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

LINES = 5
"""Lines of one kind about one origin in a window."""

WINDOW = 10.0
"""Seconds of a window. It begins with the first line after the end of the one before."""

MAX_LINES = 200
"""Unimportant lines in a window: 20 in a second, or 4 MB in a day."""

KIND_LINES = 5
"""Lines of each kind that are written in a window although `MAX_LINES` are written already."""

IMPORTANT_LINES = 100
"""Lines of one important kind in a window."""

MAX_COUNTERS = 10_000
"""Maximum number of counters, one for each kind and origin. Unimportant lines of further origins are suppressed."""


class Weight(Enum):
    """How important the lines of a kind are."""

    NORMAL = 1
    IMPORTANT = 2
    USER = 3


@dataclass(frozen=True, slots=True)
class Summary:
    """The lines of one kind that were suppressed in a window.

    Attributes:
        kind: the kind.
        suppressed: how many lines were suppressed.
        worst: the origin that most of them were about; "unknown" if their origins were not counted.
        worst_lines: how many these were.
        seconds: the duration of the window.
    """

    kind: str
    suppressed: int
    worst: str
    worst_lines: int
    seconds: float


@dataclass(slots=True)
class _Kind:
    written: int = 0
    suppressed: int = 0
    origins: dict[str, int] = field(default_factory=dict)  # all lines
    suppressed_of: dict[str, int] = field(default_factory=dict)


class LineBudget:
    """The budget of one log. The caller gives the time, in seconds of a clock that never goes back."""

    def __init__(self) -> None:
        self._start = 0.0
        self._kinds: dict[str, _Kind] = {}
        self._written = 0
        self._counters = 0

    def take(self, kind: str, origin: str, weight: Weight, now: float) -> bool:
        """Count a line; return whether it may be written. Call `end_window` first."""
        if not self._kinds:
            self._start = now
        counts = self._kinds.setdefault(kind, _Kind())
        number = counts.origins.get(origin)
        if number is None and not self._may_count(counts, weight):
            counts.suppressed += 1
            return False
        self._counters += number is None and weight is Weight.NORMAL
        counts.origins[origin] = number = (number or 0) + 1
        if number > LINES or not self._has_room(counts, weight):
            counts.suppressed += 1
            counts.suppressed_of[origin] = counts.suppressed_of.get(origin, 0) + 1
            return False
        counts.written += 1
        self._written += weight is Weight.NORMAL
        return True

    def _may_count(self, counts: _Kind, weight: Weight) -> bool:
        """Whether one more origin may be counted. Nobody can be logged in as many users."""
        if weight is Weight.NORMAL:
            return self._counters < MAX_COUNTERS or len(counts.origins) < KIND_LINES
        return weight is Weight.USER or len(counts.origins) < IMPORTANT_LINES

    def _has_room(self, counts: _Kind, weight: Weight) -> bool:
        if weight is Weight.NORMAL:
            return self._written < MAX_LINES or counts.written < KIND_LINES
        return weight is Weight.USER or counts.written < IMPORTANT_LINES

    def end_window(self, now: float, *, early: bool = False) -> Iterator[Summary]:
        """Begin a new window if the present one is over, or if `early`; yield what was suppressed in the old one."""
        if not self._kinds or (now - self._start < WINDOW and not early):
            return
        kinds, seconds = self._kinds, now - self._start
        self._kinds, self._written, self._counters = {}, 0, 0
        for kind, counts in kinds.items():
            if counts.suppressed:
                of = counts.suppressed_of
                worst = max(of, key=of.__getitem__, default="unknown")
                lines = of.get(worst, 0)
                yield Summary(kind, counts.suppressed, worst, lines, seconds)
