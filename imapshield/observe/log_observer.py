"""Writes events to the log: one line per event, at once, within a `LineBudget`.

Rules
-----
* A line has its ``peer=`` before any text of the client, and client text is in JSON quotes. Otherwise a user name such
  as ``x peer=192.0.2.1`` could make fail2ban ban another host.
* ``peer=`` is the client that did what the line is about. The line of a limit on what all clients share has
  ``holder=``, the address that uses most of it, and ``client=``, which was only refused: no program may ban that one.
* The line of a limit names the setting that changes the limit.
"""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any

from twisted.logger import Logger, LogLevel

from imapshield import events
from imapshield.observe.line_budget import LineBudget, Weight

SHARED_LIMITS = frozenset({"max_connections", "login_queue_seconds", "login_check_seconds"})
"""Limits on what all clients share. Who is refused because of them has done nothing wrong."""

_INFO, _WARN = LogLevel.info, LogLevel.warn
_LIMIT = (
    " connection={connection} seen={observed_text} then={action} change-with={setting} network={network_text}"
    " commands={commands} executed={executed} busy={busy:.3f} in={octets_in} out={octets_out} seconds={seconds:.1f}"
    " user={user_json}"
    " client-id={client_id_json} sample={sample_json}"
)
_PAUSED = "paused by {limit}={value_text} peer={peer}" + _LIMIT
_SHARED_LIMIT = "limit {limit}={value_text} hit holder={holder_text} client={peer}" + _LIMIT
_BANNED_BY_OPERATOR = (
    "banned peer={peer} network={network} seconds={seconds:.12g} shared={shared} limit={limit}"
)
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
    events.MasterLoggedIn: (
        _INFO,
        "master login peer={peer} connection={connection} master={master_json} user={user_json}",
    ),
    events.PageLoggedIn: (_INFO, "status page login peer={peer} user={user_json}"),
    events.LoginFailed: (
        _WARN,
        (
            "login failed peer={peer} connection={connection} mechanism={mechanism} repeated={repeated} "
            "delay={delay:g} {disabled_text}user={user_json}"
        ),
    ),
    events.LoginRefused: (
        _WARN,
        (
            "login refused peer={peer} connection={connection} mechanism={mechanism} reason={reason} "
            "user={user_json}"
        ),
    ),
    events.BadCommandReceived: (
        _INFO,
        "bad command peer={peer} connection={connection} answer={text_json} sample={sample_json}",
    ),
    events.ProxyHeaderRejected: (
        _WARN,
        "invalid PROXY header peer={peer} connection={connection} reason={reason_json}",
    ),
    events.TLSFailed: (
        _INFO,
        "TLS failed peer={peer} connection={connection} reason={reason_json}",
    ),
    events.LimitTriggered: (_WARN, "limit {limit}={value_text} hit peer={peer}" + _LIMIT),
    events.AddressBanned: (
        _WARN,
        (
            "banned peer={peer} network={network} seconds={seconds:.12g} shared={shared} limit={limit}={value_text} "
            "seen={observed_text} last={last_text} change-with={setting}"
        ),
    ),
    events.UserBusy: (
        _INFO,
        (
            "busy peer={peer} connection={connection} share={share:.2f} seconds={seconds:.0f} "
            "commands={commands} user={user_json}"
        ),
    ),
    events.AddressUnbanned: (_WARN, "unbanned network={peer}"),
    events.ConnectionsRefused: (
        _INFO,
        "refused network={peer} connections={connections} banned-for={remaining:.0f}",
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
            "executed={executed} busy={busy:.3f} in={octets_in} out={octets_out} user={user_json} reason={reason_json}"
            "{cause_text}"
        ),
    ),
}
_KINDS = {event: re.split(r" \w+=", text)[0] for event, (_, text) in _FORMATS.items()}
"""The words with which the lines of an event begin, such as ``login failed``."""


_IMPORTANT = (events.AddressBanned, events.AddressUnbanned, events.CommandFailed)


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
    _budget: LineBudget = field(default_factory=LineBudget)

    @property
    def handlers(self) -> dict[type[events.Event], events.EventObserver]:
        """The observer, for each class of events that has a line (see `events.EventHandlers`)."""
        return dict.fromkeys(_FORMATS, self)

    def of_worker(self, number: int) -> events.EventHandlers:
        """Return an observer for the events of a worker, whose number is then in the lines."""
        return _WorkerLines(dict.fromkeys(_FORMATS, partial(self, worker=number)))

    def __call__(self, event: events.Event, worker: int | None = None) -> None:
        """Log `event`, of a worker if its number is given, unless there were too many lines."""
        without_login = isinstance(event, events.ConnectionOpened) or (
            isinstance(event, events.ConnectionClosed) and not event.user
        )
        kind = _KINDS.get(type(event))
        if kind is None or (without_login and not self.verbose):
            return
        origin, weight = event.peer, Weight.NORMAL
        if isinstance(event, events.LimitTriggered):
            words = "paused by" if event.action == "paused" else "limit"
            kind, origin = f"{words} {event.limit}", event.holder or event.peer
        elif (
            isinstance(event, (events.LoggedIn, events.ConnectionClosed, events.UserBusy))
            and event.user
        ):
            origin, weight = _quoted(event.user), Weight.USER
        elif isinstance(event, _IMPORTANT):
            weight = Weight.IMPORTANT
        self.summarize()
        if not self._budget.take(kind, origin, weight, self.now()):
            return
        level, text = _FORMATS[type(event)]
        fields = {name: getattr(event, name) for name in event.__dataclass_fields__}
        quoted = {f"{key}_json": _quoted(v) for key, v in fields.items() if isinstance(v, str)}
        if isinstance(event, events.LimitTriggered):
            quoted |= _limit_fields(event)
            if event.action == "paused":
                level, text = _INFO, _PAUSED  # correct clients are paused too
            elif event.holder or event.limit in SHARED_LIMITS:
                text = _SHARED_LIMIT
        elif isinstance(event, events.AddressBanned):
            text = _BANNED_BY_OPERATOR if event.limit == "operator" else text
            quoted |= _values(event) | {"last_text": event.last or "none"}
        quoted["disabled_text"] = "disabled=True " * getattr(event, "is_disabled", False)
        quoted["cause_text"] = f" cause={quoted['cause_json']}" if fields.get("cause") else ""
        text, of = (text, {}) if worker is None else (_with_worker(text), {"worker": worker})
        self.log.emit(level, text, event=type(event).__name__, **quoted, **fields, **of)

    def summarize(self, *, everything: bool = False) -> None:
        """Log how many lines were suppressed, if a window has ended. Call this periodically.

        Args:
            everything: end the present window, because the server stops.
        """
        for summary in self._budget.end_window(self.now(), early=everything):
            self.log.warn(
                'suppressed {suppressed} more "{kind}" lines in {seconds:.1f} s, most from {worst} ({worst_lines})',
                **asdict(summary),
            )


class _WorkerLines(events.EventHandlers):
    """Logs the events of one worker."""

    def __init__(self, handlers: Mapping[type[events.Event], events.EventObserver]) -> None:
        self.handlers = handlers


@cache
def _with_worker(text: str) -> str:
    """Return a format with the worker at the end of its first line, after what programs parse."""
    first, newline, rest = text.partition("\n")
    return f"{first} worker={{worker}}{newline}{rest}"


def _limit_fields(event: events.LimitTriggered) -> dict[str, str]:
    return _values(event) | {
        "network_text": event.network or "none",
        "holder_text": event.holder or "unknown",
    }


def _values(event: events.LimitTriggered | events.AddressBanned) -> dict[str, str]:
    return {
        "setting": _quoted(event.setting) if " " in event.setting else event.setting,
        "value_text": f"{event.value:.12g}",
        "observed_text": f"{round(event.observed, 3):.12g}",
    }
