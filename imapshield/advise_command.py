"""What ``imapshield advise`` prints."""

from collections.abc import Iterable
from typing import Any

from imapshield.command_output import age, counted, moment, table
from imapshield.observe.limit_advice import as_option, is_size

_OF_ALL = ("max_connections", "max_preauth_connections", "max_memory_bytes")
"""Limits whose values no single client has."""


def show_advice(answer: dict[str, Any]) -> Iterable[str]:
    """Yield the lines of an answer of ``advise``."""
    logins = answer["logins"]
    yield (
        f"observed for {age(answer['seconds'])}, since {moment(answer['begun'])}: {counted(logins, 'login')};"
        " honest are users, and addresses where users log in"
    )
    if not answer["enough"]:
        yield (
            f"not enough data: wait until there are {age(answer['enough_seconds'])} with"
            f" {answer['enough_logins']} logins; until then only limits that were reached get another value"
        )
    yield ""
    rows, limits = [], answer["limits"]
    for each in limits:
        name = each["limit"]
        rows.append(
            [
                name,
                shown(name, each["value"]),
                "enforced" if each["enforced"] else "reported",
                _observed(each),
                each["reached"] or "-",
                each["strangers"] or "-",
                shown(name, each["suggested"]) if each["option"] else "keep",
            ]
        )
    heads = ("limit", ">today", "", ">honest maximum", ">reached", ">by strangers", ">suggested")
    yield from table(heads, rows)
    for each in limits:
        yield from _who(each)
    for name, number in answer["paused"].items():
        yield ""
        yield (
            f"{name}: reading has paused {counted(number, 'time')}, which is not counted as reached, nor what was"
            " pending then: the client loses nothing, and needs no other value"
        )
    options = [each["option"] for each in limits if each["option"]]
    yield ""
    if options:
        yield f"to set them: {' '.join(options)}"
    else:
        yield "nothing to set: no honest client needs another value" + (
            "" if answer["enough"] else " so far"
        )
    cut = [each["limit"] for each in limits if each["enforced"] and each["reached"]]
    if cut:
        names = " ".join(f"--report-only-limit {name}" for name in cut)
        yield f"enforced limits cut off what clients need; to see it: {names}"


def _observed(limit: dict[str, Any]) -> str:
    if not limit["observed"]:
        return "-"
    return shown(limit["limit"], limit["observed"]) + (" or more" if limit["at_least"] else "")


def _who(limit: dict[str, Any]) -> Iterable[str]:
    """Yield who has reached a limit."""
    name = limit["limit"]
    if limit["reached"]:
        number = limit["clients_reached"]
        of_clients = f" of {counted(number, 'client')}" if number else ""
        yield ""
        yield f"{name}: reached by {counted(limit['reached'], 'honest connection')}{of_clients}"
        for client in limit["clients"]:
            if client["reached"] and name not in _OF_ALL:
                who = client["name"] or "a client of an earlier run"
                detail = f", from {client['detail']}" if client["detail"] else ""
                times, value = counted(client["reached"], "time"), shown(name, client["value"])
                yield f"    {who}: {times}, up to {value}, last {moment(client['last'])}{detail}"
    if limit["addresses"] and limit["strangers"]:
        first = limit["addresses"][0]
        if not limit["reached"]:
            yield ""
        yield (
            f"{name}: reached by strangers {counted(limit['strangers'], 'time')},"
            f" most often by {first['address']}"
        )


def shown(limit: str, value: float) -> str:
    """Return a value of a limit for people: bytes with a unit, and seconds with ``s``."""
    if is_size(limit) and value >= 1024 and value % 1024:
        return f"{value / 1024:.4g}K" if value < 1 << 20 else f"{value / (1 << 20):.4g}M"
    if limit.endswith("_seconds"):
        return f"{value:.4g}s" if value < 10_000 else f"{value:.12g}s"
    return as_option(limit, value)
