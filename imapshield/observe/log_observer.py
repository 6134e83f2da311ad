"""Writes events to the log: one line per event, at once, and with a rate limit for each peer.

Rules
-----
* A line has its ``peer=`` before any text of the client, and client text is in JSON quotes. Otherwise a user name such
  as ``x peer=192.0.2.1`` could make fail2ban ban another host.
* Lines of one kind about one peer are written at most `LINES` times in `WINDOW` seconds. One more line then says how
  many were suppressed, and names the kind by the words with which its lines begin. Each limit is a kind of its own.
* The line of a limit names the option that changes the limit.
"""

import json
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from twisted.logger import Logger, LogLevel

from imapshield import events

LINES = 5
WINDOW = 10.0
MAX_COUNTERS = 10_000
"""Maximum number of counters, one for each kind of line and peer. Above it, the oldest window ends early."""

_OPTIONS = {
    "backlog": "--backlog=N",
    "strict_backlog": "--strict-backlog",
    "report_only": "--report-only",
}

_INFO, _WARN = LogLevel.info, LogLevel.warn
# fail2ban and other programs parse these lines: their wording and keys are part of the interface.
_FORMATS: dict[type[events.Event], tuple[Any, str]] = {
    events.ConnectionOpened: (_INFO, "connected peer={peer} connection={connection}"),
    events.LoggedIn: (
        _INFO,
        (
            "login peer={peer} connection={connection} mechanism={mechanism} tls={tls} "
            "user={user_json}"
        ),
    ),
    events.LoginFailed: (
        _WARN,
        "login failed peer={peer} connection={connection} mechanism={mechanism} user={user_json}",
    ),
    events.BadCommandReceived: (
        _INFO,
        "bad command peer={peer} connection={connection} answer={text_json} sample={sample_json}",
    ),
    events.ProxyHeaderRejected: (
        _WARN,
        "invalid PROXY header peer={peer} connection={connection} reason={reason_json}",
    ),
    events.LimitTriggered: (
        _WARN,
        (
            "limit {limit}={value:g} hit peer={peer} connection={connection} seen={observed:g} "
            "then={action} change-with={option} user={user_json} sample={sample_json}"
        ),
    ),
    events.AddressBanned: (
        _WARN,
        "banned peer={peer} network={network} seconds={seconds:g} limit={limit}",
    ),
    events.CommandFailed: (
        LogLevel.error,
        (
            "internal error ref={reference} peer={peer} connection={connection} "
            "command={command_json}\n{traceback}"
        ),
    ),
    events.ConnectionClosed: (
        _INFO,
        (
            "closed peer={peer} connection={connection} seconds={seconds:.1f} commands={commands} "
            "in={octets_in} out={octets_out} user={user_json} reason={reason_json}"
        ),
    ),
}
_KINDS = {event: re.split(r" \w+=", text)[0] for event, (_, text) in _FORMATS.items()}
"""The words with which the lines of an event begin, such as ``login failed``."""


@dataclass(slots=True, eq=False)
class LogObserver:
    """An `events.EventObserver` that logs with `twisted.logger`.

    Each log event has the fields of the `events.Event`, and the name of its class as the field ``event``, for log
    observers that process structured events.

    Args:
        log: the logger.
        now: returns seconds of a monotonic clock.
        verbose: also log connections that never log in.
    """

    log: Logger = field(default_factory=lambda: Logger(namespace="imapshield"))
    now: Callable[[], float] = time.monotonic
    verbose: bool = False
    # (kind, peer) → start of the window and number of lines. Ordered by start, so that the oldest ends first.
    _counters: OrderedDict[tuple[str, str], tuple[float, int]] = field(default_factory=OrderedDict)

    def __call__(self, event: events.Event) -> None:
        """Log `event`, unless there were too many of its kind from its peer."""
        without_login = isinstance(event, events.ConnectionOpened) or (
            isinstance(event, events.ConnectionClosed) and not event.user
        )
        if without_login and not self.verbose:
            return
        self.summarize()
        kind = _KINDS.get(type(event))
        if isinstance(event, events.LimitTriggered):
            kind = f"limit {event.limit}"
        if kind is None or not self._count(kind, event.peer):
            return
        level, text = _FORMATS[type(event)]
        fields = asdict(event)
        quoted = {f"{key}_json": json.dumps(v) for key, v in fields.items() if isinstance(v, str)}
        if isinstance(event, events.LimitTriggered):
            quoted["option"] = _OPTIONS.get(event.limit, f"--limit={event.limit}=N")
        self.log.emit(level, text, event=type(event).__name__, **quoted, **fields)

    def summarize(self, *, everything: bool = False) -> None:
        """Close the windows that have ended, and log how many lines were suppressed in each. Call this periodically.

        Args:
            everything: close all windows, because the server stops.
        """
        expired = self.now() - WINDOW
        while self._counters:
            start, _ = next(iter(self._counters.values()))
            if start > expired and not everything and len(self._counters) <= MAX_COUNTERS:
                return
            (kind, peer), (start, count) = self._counters.popitem(last=False)
            if count > LINES:
                self.log.warn(
                    'suppressed {suppressed} more "{kind}" lines peer={peer} in {seconds:.1f} s',
                    suppressed=count - LINES,
                    kind=kind,
                    peer=peer,
                    seconds=self.now() - start,
                )

    def _count(self, kind: str, peer: str) -> bool:
        """Count one line, and return whether it may be written."""
        start, count = self._counters.get((kind, peer), (self.now(), 0))
        self._counters[kind, peer] = start, count + 1
        return count < LINES
