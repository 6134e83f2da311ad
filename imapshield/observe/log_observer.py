"""Turns events into log lines: one line per event, written at once, with the option to change and a rate limit.

Rules
-----
* A line names its `peer` before anything that the client sent, and client text is in JSON quotes. Otherwise a user
  name such as ``x peer=192.0.2.1`` could make fail2ban ban another host.
* Lines of one kind about one peer are written at most `LINES` times in `WINDOW` seconds. One more line then says how
  many were suppressed.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from twisted.logger import Logger, LogLevel

from imapshield import events

LINES = 5
WINDOW = 10.0
MAX_COUNTERS = 10_000
"""Pairs of a kind of line and a peer that are counted at once. Above this the oldest window ends early."""

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
        "login peer={peer} connection={connection} mechanism={mechanism} tls={tls} user={user_text}",
    ),
    events.LoginFailed: (
        _WARN,
        "login failed peer={peer} connection={connection} mechanism={mechanism} user={user_text}",
    ),
    events.BadCommandReceived: (
        _INFO,
        "bad command peer={peer} connection={connection} answer={text_text} sample={sample_text}",
    ),
    events.LimitTriggered: (
        _WARN,
        (
            "limit {limit}={value:g} hit peer={peer} connection={connection} seen={observed:g} "
            "then={action} change-with={option} user={user_text} sample={sample_text}"
        ),
    ),
    events.CommandFailed: (
        LogLevel.error,
        "internal error ref={reference} peer={peer} connection={connection} command={command_text}\n{traceback}",
    ),
    events.ConnectionClosed: (
        _INFO,
        (
            "closed peer={peer} connection={connection} seconds={seconds:.1f} commands={commands} "
            "in={octets_in} out={octets_out} user={user_text} reason={reason_text}"
        ),
    ),
}


class LogObserver:
    """An `events.EventObserver` that logs with `twisted.logger`.

    Each logged event carries the fields of the `events.Event`, and the name of its class as the field ``event``, for
    log observers that process structured events.

    Args:
        log: the logger.
        now: returns seconds of a monotonic clock.
        verbose: also log connections that never log in.
    """

    def __init__(
        self,
        log: Logger | None = None,
        now: Callable[[], float] = time.monotonic,
        *,
        verbose: bool = False,
    ) -> None:
        self._log = log or Logger(namespace="imapshield")
        self._now = now
        self._verbose = verbose
        # (kind, peer) → start of the window and number of lines. Ordered by start, so that the oldest ends first.
        self._counters: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()

    def __call__(self, event: events.Event) -> None:
        """Log `event`, unless there were too many of its kind from its peer."""
        kind = type(event)
        without_login = kind is events.ConnectionOpened or (
            isinstance(event, events.ConnectionClosed) and not event.user
        )
        if without_login and not self._verbose:
            return
        self.summarize()
        if kind not in _FORMATS or not self._count(kind.__name__, event.peer):
            return
        level, text = _FORMATS[kind]
        fields = asdict(event)
        quoted = {f"{key}_text": json.dumps(v) for key, v in fields.items() if isinstance(v, str)}
        if isinstance(event, events.LimitTriggered):
            quoted["option"] = _OPTIONS.get(event.limit, f"--limit={event.limit}=N")
        self._log.emit(level, text, event=kind.__name__, **quoted, **fields)

    def summarize(self, *, everything: bool = False) -> None:
        """End the windows that are over, and log how many lines each suppressed. Call this periodically.

        Args:
            everything: end all windows, because the server stops.
        """
        expired = self._now() - WINDOW
        while self._counters:
            start, _ = next(iter(self._counters.values()))
            if start > expired and not everything and len(self._counters) <= MAX_COUNTERS:
                return
            (kind, peer), (_, count) = self._counters.popitem(last=False)
            if count > LINES:
                self._log.warn(
                    "suppressed {suppressed} more {event} lines peer={peer} in {window:g} s",
                    suppressed=count - LINES,
                    event=kind,
                    peer=peer,
                    window=WINDOW,
                )

    def _count(self, kind: str, peer: str) -> bool:
        """Count one line; returns whether it may be written."""
        start, count = self._counters.get((kind, peer), (self._now(), 0))
        self._counters[kind, peer] = start, count + 1
        return count < LINES
