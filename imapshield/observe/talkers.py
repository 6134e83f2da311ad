"""`Talkers`: which connections, addresses, networks and users cause most of the server's work. Pure.

A connection counts its own work. `Talkers` gets the difference once per second, and when the connection ends. So a
command costs nothing here, and an address that nobody has seen before costs as much as any other.

Each period has two halves: what is reported is between one half and the whole of it, and `Report.seconds` says how
much. A half that ends is added to the next longer period.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from imapshield.observe.space_saving import Share, Summary
from imapshield.observe.talker_history import TalkerHistory

PERIODS: Mapping[str, float] = {"minute": 60.0, "ten minutes": 600.0, "day": 86400.0}
"""The periods by name, in seconds; each is a multiple of the one before."""

SUBJECTS = ("connection", "address", "network", "user")
MEASURES = ("commands", "octets", "busy", "resets")

CAPACITY = 1000
"""Counters of each summary: everyone above a thousandth is listed, and an error is at most a thousandth. Three periods
of two halves with 16 summaries each take at most 15 MB."""

MAX_TOLD = 25
"""Keys of each subject and measure that are sent to other servers."""

MAX_KEY = 300
"""Characters of a key that are sent to other servers."""

MAX_WAITING = 2000
"""Sources that wait for the end of the second. A flood from more addresses is added earlier."""


class Work(NamedTuple):
    """What a connection has done since the last time. `busy` is in seconds, `octets` are those of both directions."""

    commands: float = 0
    octets: float = 0
    busy: float = 0
    resets: float = 0

    def since(self, before: "Work") -> "Work":
        """Return the difference to an earlier value."""
        return Work(
            self.commands - before.commands,
            self.octets - before.octets,
            self.busy - before.busy,
            self.resets - before.resets,
        )

    def plus(self, other: "Work") -> "Work":
        """Return the sum with another value."""
        return Work(
            self.commands + other.commands,
            self.octets + other.octets,
            self.busy + other.busy,
            self.resets + other.resets,
        )


class Source(NamedTuple):
    """Whose work it is: the number of a connection, and "" for what is unknown or does not exist."""

    connection: str
    address: str
    network: str
    user: str


class Report(NamedTuple):
    """Who has most of one measure, as `Talkers.report` returns it.

    Attributes:
        total: what all have together.
        seconds: the time in which.
        shares: those with most, largest first.
    """

    total: float
    seconds: float
    shares: list[Share[str]]


class _Half:
    """One half of a period: a summary for each subject and measure, and when it began."""

    def __init__(self, begin: float) -> None:
        self.begin = begin
        self.summaries: dict[tuple[str, str], Summary[str]] = {
            (subject, measure): Summary(CAPACITY) for subject in SUBJECTS for measure in MEASURES
        }

    def merge(self, other: "_Half") -> None:
        for key, summary in self.summaries.items():
            summary.merge(other.summaries[key])


class Talkers:
    """Sums up the work of all connections. `now` is the time in seconds, of a clock that never goes back.

    Attributes:
        history: who had most in the last minutes.
    """

    def __init__(self, now: float) -> None:
        self.history = TalkerHistory(now)
        self._halves = {name: (_Half(now), _Half(now)) for name in PERIODS}
        # Of the present second, by (address, network, user) and by connection.
        self._waiting: dict[tuple[str, ...], Work] = {}
        self._news: dict[tuple[str, str], Summary[str]] = {}

    def collect_news(self) -> None:
        """Keep for `take_news` what is added from now on."""
        self._news = {(s, m): Summary[str](CAPACITY) for s in SUBJECTS[1:] for m in MEASURES}

    def take_news(self) -> list[tuple[str, str, str, float]]:
        """Return what was added since the last call, for `add_remote` of other servers: those with most.

        A connection is not told, because its number is that of one server.
        """
        found: list[tuple[str, str, str, float]] = []
        for (subject, measure), summary in self._news.items():
            if summary.total:
                shares = summary.top(MAX_TOLD)
                found += [(subject, measure, s.key[:MAX_KEY], s.amount) for s in shares if s.key]
                found.append((subject, measure, "", summary.total))
                self._news[subject, measure] = Summary(CAPACITY)
        return found

    def add_remote(self, works: Iterable[tuple[str, str, str, float]]) -> None:
        """Add what `take_news` of another server has returned."""
        batches: dict[tuple[str, str], dict[str, float]] = {}
        for subject, measure, key, amount in works:
            batches.setdefault((subject, measure), {})[key] = amount
        current = self._halves[next(iter(PERIODS))][1]
        for kind, batch in batches.items():
            if kind in current.summaries:
                total = batch.pop("", 0.0)
                told = sum(batch.values())
                current.summaries[kind].add(batch)
                current.summaries[kind].total += max(0.0, total - told)

    def add(self, source: Source, work: Work, now: float) -> None:
        """Add the work of a connection. It is in reports after the next `end_second`."""
        waiting = self._waiting
        for key in (source[1:], source[:1]):
            before = waiting.get(key)
            waiting[key] = work if before is None else before.plus(work)
        if len(waiting) >= 2 * MAX_WAITING:
            self.end_second(now)

    def _batches(self) -> dict[tuple[str, str], dict[str, float]]:
        """Return the work of the present second: for each subject and measure, how much each key has."""
        batches: dict[tuple[str, str], dict[str, float]] = {
            (subject, measure): {} for subject in SUBJECTS for measure in MEASURES
        }
        for keys, work in self._waiting.items():
            subjects = SUBJECTS[1:] if len(keys) > 1 else SUBJECTS[:1]
            for measure, amount in zip(MEASURES, work, strict=True):
                if amount > 0:
                    for subject, key in zip(subjects, keys, strict=True):
                        if key:
                            batch = batches[subject, measure]
                            batch[key] = batch.get(key, 0.0) + amount
        return batches

    def end_second(self, now: float) -> None:
        """Put the work of the last second into the summaries. Call this once per second."""
        first = next(iter(PERIODS))
        current = self._halves[first][1]
        batches, self._waiting = self._batches(), {}
        for key, batch in batches.items():
            if batch:
                current.summaries[key].add(batch)
                if key in self._news:
                    self._news[key].add(batch)
        self.history.add(batches, now)
        ended: _Half | None = None
        for name, seconds in PERIODS.items():
            current = self._halves[name][1]
            if ended is not None:
                current.merge(ended)
            ended = None
            if now - current.begin >= seconds / 2:
                self._halves[name] = current, _Half(now)
                ended = current

    def report(
        self, period: str, subject: str, measure: str, now: float, number: int = 10
    ) -> Report:
        """Return who has most of `measure` in a period.

        Args:
            period: a key of `PERIODS`.
            subject: one of `SUBJECTS`.
            measure: one of `MEASURES`.
            now: the time in seconds.
            number: how many shares to return.
        """
        halves = list(self._halves[period])
        for shorter in PERIODS:
            if shorter == period:
                break
            halves.append(self._halves[shorter][1])  # what it has is not in the longer period yet
        summary = Summary[str](len(halves) * CAPACITY)
        for half in halves:
            summary.merge(half.summaries[subject, measure])
        return Report(summary.total, now - halves[0].begin, summary.top(number))


def headline(shares: Sequence[Share[str]], total: float, subject: str, measure: str) -> str:
    """Return in one line how few have most of a measure, such as ``3 hosts, 85 % of commands``.

    It is empty if no ten of `shares`, which are ordered, have half of `total`.
    """
    amounts = [share.amount for share in shares[:10]]
    number = next((n for n in range(1, 11) if sum(amounts[:n]) >= total / 2), 0)
    if not amounts or not number:
        return ""
    # Those who have about as much as the last one belong to the same party.
    least = amounts[number - 1] / 2
    number = next((n for n in range(number, len(amounts)) if amounts[n] < least), len(amounts))
    name = {"address": "host"}.get(subject, subject)
    share = 100 * sum(amounts[:number]) / total
    what = "cpu" if measure == "busy" else measure
    return f"{number} {name}{'s' if number > 1 else ''}, {share:.0f} % of {what}"
