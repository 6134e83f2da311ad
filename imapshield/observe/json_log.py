"""Writes log events as JSON, one object a line, for ``--log-format json``."""

import json
import time
from collections.abc import Callable
from typing import Any, TextIO

from twisted.logger import ILogObserver, LogEvent, formatEvent
from zope.interface import implementer

_QUOTED = "_json"
"""The end of the name of a field that has a value a second time, quoted for a line of text."""


def json_line(event: LogEvent) -> str:
    """Return a log event as a line of JSON.

    It has ``time`` (RFC 3339, UTC), ``level``, ``event``, ``message``, and the fields of the event. ``event`` is the
    name of a class of `imapshield.events`; for other lines it is the part of the program that wrote it. ``message`` is
    the text that a log without JSON has.
    """
    fields = plain_fields(event)
    level = getattr(event.get("log_level"), "name", "info")
    message = formatEvent(event)
    known = {
        "time": _time(event.get("log_time") or time.time()),
        "level": level,
        "event": fields.pop("event", None) or _part(event),
        "message": message.split("\n", 1)[0] if "traceback" in fields else message,
    }
    return json.dumps({**known, **fields}) + "\n"


def plain_fields(event: LogEvent) -> dict[str, Any]:
    """Return the fields of a log event that JSON can have, and the field ``traceback`` if there is a failure."""
    fields = {
        key: value
        for key, value in event.items()
        if not key.startswith("log_") and not key.endswith(_QUOTED) and _is_plain(value)
    }
    for name in ("format", "isError", "why", "system", "time", "message"):  # of Twisted's old log
        fields.pop(name, None)
    failure = event.get("log_failure")
    if failure is not None:
        fields["traceback"] = failure.getTraceback()
    return fields


def _part(event: LogEvent) -> str:
    """Return which part of the program has written a line."""
    namespace = str(event.get("log_namespace") or "log")
    return "twisted" if namespace.startswith("log_legacy") else namespace.split(".", maxsplit=1)[0]


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (str, int, float, bool))


def _time(seconds: float) -> str:
    milliseconds = int(seconds * 1000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(milliseconds // 1000))
    return f"{text}.{milliseconds % 1000:03d}Z"


@implementer(ILogObserver)
class JsonLogObserver:
    """An observer of `twisted.logger` that writes each event as a line of JSON.

    Args:
        file: the log.
        to_line: returns the line of an event.
    """

    def __init__(self, file: TextIO | Any, to_line: Callable[[LogEvent], str] = json_line) -> None:
        self._file, self._to_line = file, to_line

    def __call__(self, event: LogEvent) -> None:
        """Write an event."""
        self._file.write(self._to_line(event))
        self._file.flush()
