"""Facts become log lines: one line each, at the event, with the setting to change, and never a flood of them.

A line names its `peer` first and ends with what the client typed, in JSON quotes: a user name like ``x peer=192.0.2.1``
must not make fail2ban ban somebody else. The same kind of line for the same peer comes at most `LINES` times in
`WINDOW` seconds; what was left out is then counted in one line.
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
PEERS = 10_000
"""Peers (times kinds of line) counted at once; with more, the oldest count is told early and begun anew."""

_OPTIONS = {
    "backlog": "--backlog=N",
    "strict_backlog": "--strict-backlog",
    "report_only": "--report-only",
}

_INFO, _WARN = LogLevel.info, LogLevel.warn
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
            "gone peer={peer} connection={connection} seconds={seconds:.1f} commands={commands} "
            "in={octets_in} out={octets_out} user={user_text} reason={reason_text}"
        ),
    ),
}


class LogObserver:
    """A `facts.EventObserver` that logs with `twisted.logger`; each event carries the fact's fields and, as `fact`, its kind.

    Args:
        log: the logger.
        now: seconds that never go back.
        verbose: also each connection that came and went without a login.
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
        # In the order in which the windows began, so that the oldest ends first.
        self._seen: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()

    def __call__(self, fact: events.Event) -> None:
        """Log `fact`, unless there were too many of its like."""
        kind = type(fact)
        idle = kind is events.ConnectionOpened or (
            isinstance(fact, events.ConnectionClosed) and not fact.user
        )
        if idle and not self._verbose:
            return
        self.summarise()
        if kind not in _FORMATS or not self._admit(kind.__name__, fact.peer):
            return
        level, text = _FORMATS[kind]
        fields = asdict(fact)
        quoted = {f"{key}_text": json.dumps(v) for key, v in fields.items() if isinstance(v, str)}
        if isinstance(fact, events.LimitTriggered):
            quoted["option"] = _OPTIONS.get(fact.limit, f"--limit={fact.limit}=N")
        self._log.emit(level, text, fact=kind.__name__, **quoted, **fields)

    def summarise(self, *, everything: bool = False) -> None:
        """Tell how many lines were left out where the time is over, or of everything; call it now and then."""
        over = self._now() - WINDOW
        while self._seen:
            began, _ = next(iter(self._seen.values()))
            if began > over and not everything and len(self._seen) <= PEERS:
                return
            (kind, peer), (_, count) = self._seen.popitem(last=False)
            if count > LINES:
                self._log.warn(
                    "left out {left_out} more lines of the kind {fact} peer={peer} in {window:g} s",
                    left_out=count - LINES,
                    fact=kind,
                    peer=peer,
                    window=WINDOW,
                )

    def _admit(self, kind: str, peer: str) -> bool:
        began, count = self._seen.get((kind, peer), (self._now(), 0))
        self._seen[kind, peer] = began, count + 1
        return count < LINES
