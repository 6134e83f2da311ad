"""Which arguments the commands of the control socket accept: one table. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from imapshield.observe.talkers import MEASURES, PERIODS

MAX_TEXT = 1000
"""Characters of a text. The longest are names of users."""

MAX_ROWS = 1000
"""Rows of each table of `talkers`."""

MAX_LISTED = 10_000
"""Connections that `who` lists at most, and bans for which `bans` can be asked."""

MAX_TRACE_SECONDS = 86400.0
"""The longest time of a trace, so that none is forgotten for ever."""

MAX_BAN_SECONDS = 100 * 365 * 86400.0
"""The longest ban by an operator: longer than any server runs."""

MAX_HOLD_SECONDS = 600.0
"""The longest hold of a user that is not repeated. Who moves users may die, and nobody would let the logins go on."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text; one of `choices` if there are any."""

    is_required: bool = False
    choices: tuple[str, ...] = ()

    def problem(self, value: object) -> str:
        """Return what a value must be; "" if it is that."""
        if self.choices:
            return "" if value in self.choices else f"must be one of {', '.join(self.choices)}"
        least = int(self.is_required)
        is_text = isinstance(value, str) and least <= len(value) <= MAX_TEXT
        return "" if is_text else f"must be a text of {least} to {MAX_TEXT} characters"


@dataclass(frozen=True, slots=True)
class Number:
    """A number from `least` to `most`."""

    least: float
    most: float
    is_whole: bool = False
    is_required: ClassVar[bool] = False

    def problem(self, value: object) -> str:
        """Return what a value must be; "" if it is that."""
        is_number = isinstance(value, int if self.is_whole else int | float)
        # NaN is not between any two numbers.
        if is_number and not isinstance(value, bool) and self.least <= value <= self.most:  # type: ignore[operator]
            return ""
        kind = "whole number" if self.is_whole else "number"
        return f"must be a {kind} from {self.least:.12g} to {self.most:.12g}"


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    is_required: ClassVar[bool] = False

    def problem(self, value: object) -> str:
        """Return what a value must be; "" if it is that."""
        return "" if isinstance(value, bool) else "must be true or false"


_NAMED = Text(is_required=True)
_LISTED = Number(1, MAX_LISTED, is_whole=True)

ARGUMENTS: Mapping[str, Mapping[str, Text | Number | Flag]] = {
    "admin": {},
    "advise": {"forget": Flag()},
    "ban": {"network": _NAMED, "seconds": Number(1, MAX_BAN_SECONDS), "force": Flag()},
    "bans": {"number": _LISTED},
    "close-account": {"user": _NAMED},
    "drain": {"node": _NAMED},
    "hold": {"user": _NAMED, "seconds": Number(1, MAX_HOLD_SECONDS)},
    "kick": {"who": _NAMED},
    "nodes": {"check": Flag()},
    "options": {},
    "release": {"user": _NAMED},
    "reload": {},
    "status": {},
    "talkers": {
        "period": Text(choices=tuple(PERIODS)),
        "by": Text(choices=MEASURES),
        "number": Number(1, MAX_ROWS, is_whole=True),
    },
    "trace": {"who": _NAMED, "seconds": Number(1, MAX_TRACE_SECONDS)},
    "undrain": {"node": _NAMED},
    "unban": {"network": _NAMED},
    "user-map": {},
    "who": {"who": Text(), "number": _LISTED},
    "why": {"who": Text()},
}
"""The arguments of each command, by name. One that is null counts as missing."""


def problem_of(command: str, arguments: Mapping[str, object]) -> str:
    """Return what is wrong with the arguments of a command; "" if nothing is, or if the command is unknown."""
    known = ARGUMENTS.get(command)
    if known is None:
        return ""
    for name in arguments:
        if name not in known:
            names = ", ".join(known) or "none"
            return f"{command}: unknown argument {name[:MAX_TEXT]!r}; known are {names}"
    for name, argument in known.items():
        value = arguments.get(name)
        is_missing = value is None and not argument.is_required
        problem = "" if is_missing else argument.problem(value)
        if problem:
            return f"{command}: {name} {problem}"
    return ""
