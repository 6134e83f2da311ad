"""What the peaks of honest clients say about the limits: a value for each that none of them would have reached. Pure.

Rules
-----
* A limit that an honest client has reached, or of which it has used more than four fifths, gets the highest value and
  a quarter more, rounded up. A time gets that only if it was reached: clients wait as long as they are allowed.
* A limit above its default that is higher than that needs is lowered, but not below the default: the defaults have
  reasons, which a day cannot refute.
* All others keep their value. Before `ENOUGH_SECONDS` and `ENOUGH_LOGINS` only a limit that was reached gets another:
  what was not seen yet may still come.
"""

import math
from dataclasses import dataclass, fields

from imapshield.events import setting_of
from imapshield.limits import POLITE_LIMITS, REPORTABLE, Limits
from imapshield.observe.limit_peaks import LimitPeaks, Peaks

ENOUGH_SECONDS = 86400.0
"""A day: clients do other things in the morning than at night."""

ENOUGH_LOGINS = 50
"""Logins without which a day says little."""

_MARGIN = 1.25


@dataclass(frozen=True, slots=True)
class Advice:
    """What is advised about one limit.

    Attributes:
        limit: the name of the limit.
        value: its value now.
        enforced: whether it is enforced now. Then no client can have more.
        observed: the highest value of honest clients; 0 if nothing was observed.
        at_least: whether it may have been more, because a value is not measured any further when the limit is reached.
        suggested: the value to set.
        option: the option that sets it; "" if the value is kept.
        peaks: what was observed.
    """

    limit: str
    value: float
    enforced: bool
    observed: float
    at_least: bool
    suggested: float
    option: str
    peaks: Peaks


def advise(limits: Limits, peaks: LimitPeaks, seconds: float) -> list[Advice]:
    """Return advice for each limit that can be report-only, and for others that an honest client has reached.

    Args:
        limits: those that apply now.
        peaks: what was observed.
        seconds: for how long.
    """
    enough = is_enough(peaks, seconds)
    found = []
    for each in fields(Limits):
        seen = peaks.limits.get(each.name, Peaks())
        if each.name not in REPORTABLE and not seen.reached:
            continue
        today, default = getattr(limits, each.name), getattr(Limits(), each.name)
        suggested = _suggested(each.name, today, default, seen, enough)
        option = setting_of(each.name).replace("=N", f"={as_option(each.name, suggested)}")
        found.append(
            Advice(
                each.name,
                value=today,
                enforced=not is_reported(limits, each.name),
                observed=seen.value,
                at_least=bool(seen.reached) and seen.value <= today * 1.05 + 1,
                suggested=suggested,
                option=option if suggested != today else "",
                peaks=seen,
            )
        )
    return found


def is_enough(peaks: LimitPeaks, seconds: float) -> bool:
    """Return whether limits that nobody has reached can be judged, too."""
    return seconds >= ENOUGH_SECONDS and peaks.logins >= ENOUGH_LOGINS


def is_reported(limits: Limits, name: str) -> bool:
    """Return whether a limit is only reported now."""
    if name in POLITE_LIMITS:
        return name in limits.report_only_limits
    return name in REPORTABLE and limits.reports_only(name)


def _suggested(name: str, today: float, default: float, seen: Peaks, enough: bool) -> float:
    needed = _round_up(name, seen.value * _MARGIN)
    is_tight = seen.value >= today if name.endswith("_seconds") else needed > today
    if seen.reached or seen.value > today or (is_tight and enough):
        return max(needed, today)
    if enough and seen.measured and today > default:
        return min(today, max(needed, default))
    return today


def _round_up(name: str, value: float) -> float:
    """Return a value with two digits that is not less; of bytes, two digits before the unit."""
    unit = 1.0
    while is_size(name) and value >= 1000 * unit and unit < 1 << 40:
        unit *= 1024
    value /= unit
    step = 10.0 ** max(0, math.floor(math.log10(value)) - 1) if value > 0 else 1.0
    return math.ceil(value / step - 1e-9) * step * unit


def is_size(name: str) -> bool:
    """Return whether a limit is a number of bytes."""
    return name.endswith(("_bytes", "_size", "_length"))


def as_option(name: str, value: float) -> str:
    """Return a value as one types it, such as ``128K``."""
    units = (("T", 1 << 40), ("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10))
    if is_size(name) and value:
        for unit, size in units:
            if not value % size:
                return f"{value / size:.12g}{unit}"
    return f"{value:.12g}"
