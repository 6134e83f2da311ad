"""What a row of the table is: a function that measures it, the mail that it needs, and the goal for imapshield.

A function does one round. It puts what is measured into `with stopwatch:`, and returns the number of units
(messages, commands, megabytes) in there. Code outside of the `with` is preparation. A `ServerError` becomes a
line of the report, and the run continues with the next row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.bench import Bench, Stopwatch
from benchmarks.report import NO_GOAL, Goal

Round = Callable[[Bench, Stopwatch], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One row of the table.

    Attributes:
        name: the name of the row; reports are compared by it.
        unit: what one figure is for, such as a message.
        round: does one round.
        goal: what imapshield has to reach.
        warm: a first round is discarded.
        folder: a folder with the corpus that only this row reads. There is one round, because its mail is not
            new in a second one.
        scaled: the row has a folder with so many messages, which all rows with this number share.
        big: the row reads the mailbox `mail.BIG`.
        users: how many users with a small mailbox the row needs.
        rounds: how many rounds at most.
        seldom: measured only if asked for.
        program: a program that the row needs.
        reference: the row says something about `noop_server.py`, too.
    """

    name: str
    unit: str
    round: Round
    goal: Goal = NO_GOAL
    warm: bool = False
    folder: str = ""
    scaled: int = 0
    big: bool = False
    users: int = 0
    rounds: int = 1000
    seldom: bool = False
    program: str = ""
    reference: bool = False

    def possible(self, bench: Bench) -> bool:
        """Whether a server has the mail and the users for this row."""
        if bench.reference:
            return self.reference
        needs_folder = self.folder or self.scaled or self.big
        return len(bench.users) >= self.users and (bench.folders or not needs_folder)


MEASURES: list[Measure] = []


def measure(
    name: str,
    unit: str,
    *,
    goal: Goal = NO_GOAL,
    warm: bool = False,
    folder: str = "",
    scaled: int = 0,
    big: bool = False,
    users: int = 0,
    rounds: int = 1000,
    seldom: bool = False,
    program: str = "",
    reference: bool = False,
) -> Callable[[Round], Round]:
    """Add a function that does one round to `MEASURES`; the arguments are the attributes of `Measure`."""

    def add(function: Round) -> Round:
        MEASURES.append(
            Measure(
                name=name,
                unit=unit,
                round=function,
                goal=goal,
                warm=warm,
                folder=folder,
                scaled=scaled,
                big=big,
                users=users,
                rounds=1 if folder else rounds,
                seldom=seldom,
                program=program,
                reference=reference,
            )
        )
        return function

    return add
