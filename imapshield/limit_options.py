"""Reads the options that set limits: ``--limit NAME=VALUE`` with units, ``--report-only-limit``. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from imapshield.limits import REPORTABLE, Limits

_SIZE_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_TIME_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]?)(?:i?b)?", re.ASCII | re.IGNORECASE)

_LIMITS = {limit.name: limit for limit in fields(Limits) if limit.metadata}
_MAX_VALUE = 999_999_999_999


def assignments(options: Mapping[str, Any], prefix: str) -> dict[str, tuple[str, str]]:
    """Return the limits that one source sets: name → the option as it was typed, after `prefix`, and the value."""
    assigned = {}
    for assignment in options.get("limit", ()):
        name, _, text = assignment.partition("=")
        assigned[name.strip().replace("-", "_")] = f"{prefix}limit {assignment}", text.strip()
    if "backlog" in options:
        assigned["backlog"] = f"{prefix}backlog {options['backlog']}", options["backlog"]
    for flag in ("strict-backlog", "report-only"):
        if flag in options:
            assigned[flag.replace("-", "_")] = prefix + flag, str(bool(options[flag]))
    return assigned


def report_only_limits(names: Sequence[str]) -> frozenset[str]:
    """Return the limits of ``--report-only-limit``.

    Raises:
        ValueError: one of them cannot be such a limit. The text begins with the option.
    """
    limits = [name.replace("-", "_") for name in names]
    for name, limit in zip(names, limits, strict=True):
        if limit not in REPORTABLE:
            raise ValueError(f"--report-only-limit {name}: {_report_only_advice(limit)}")
    return frozenset(limits)


def _report_only_advice(limit: str) -> str:
    name = limit.partition("=")[0]
    if name in REPORTABLE:
        return f"write the name alone: --report-only-limit {name}"
    similar = "".join(f" did you mean {n}?" for n in get_close_matches(name, REPORTABLE, 1))
    can = "docs/limits.rst lists those that can be report-only"
    return f"cannot be report-only; {can}" if name in _LIMITS else f"unknown limit;{similar} {can}"


def limit_value(name: str, option: str, text: str) -> float | bool:
    """Return the value of the limit `name` that an operator has typed as `text`.

    Raises:
        ValueError: it is none. The text begins with `option`.
    """
    if name not in _LIMITS:
        similar = "".join(f" did you mean {n}?" for n in get_close_matches(name, _LIMITS, 1))
        raise ValueError(f"{option}: unknown limit;{similar} `--limit help` lists all limits")
    kind, default = _LIMITS[name].type, _LIMITS[name].default
    if not text:
        example = str(default).lower() if kind is bool else default
        raise ValueError(f"{option}: write NAME=VALUE, such as --limit {name}={example}")
    try:
        if kind is bool:
            return ("false", "true").index(text.lower()) == 1
        number = _number(name, text) if kind is int else float(_number(name, text))
        if number != default and not 0 < number <= _MAX_VALUE:
            raise ValueError
    except (ValueError, KeyError):
        raise ValueError(f"{option}: must be {_expected(kind, default)}{_units(name)}") from None
    return number


def _number(name: str, text: str) -> float:
    """Return a number with a unit: K, M, G or T for bytes, s, m, h or d for seconds.

    Raises:
        ValueError, KeyError: it is none.
    """
    units: Mapping[str, int] = _SIZE_UNITS if _is_size(name) else {}
    units = _TIME_UNITS if name.endswith("_seconds") else units
    match = _NUMBER.fullmatch(text)
    if match is None or not (match[2] and units):
        return int(text) if _LIMITS[name].type is int else float(text)
    number = float(match[1]) * units[match[2].lower()]
    if _LIMITS[name].type is int and number != int(number):
        raise ValueError
    return int(number) if _LIMITS[name].type is int else number


def _is_size(name: str) -> bool:
    return name.endswith(("_bytes", "_size", "_length"))


def _units(name: str) -> str:
    """Return which units a limit may have, for an error."""
    if _is_size(name):
        return "; K, M, G and T are units, as in 10M"
    return "; s, m, h and d are units, as in 30m" if name.endswith("_seconds") else ""


def _expected(kind: object, default: object) -> str:
    if kind is bool:
        return "true or false"
    if kind is float:
        return f"a number above 0 and at most {_MAX_VALUE}"
    return f"a whole number from 1 to {_MAX_VALUE}" + ("" if default else ", or 0 for no limit")
