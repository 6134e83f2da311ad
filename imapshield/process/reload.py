"""`Reloader`: applies a changed configuration to the running server.

Rules
-----
* New settings are checked completely before one of them is applied. If one is wrong, none is applied.
* The log has a line for each change, with the old and the new value. It never has passwords.
* A setting that needs a restart keeps its value. Each reload names it until the restart.
* Whatever becomes of the settings, the log file is opened again: a program that rotates it must not wait.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, fields, replace
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.threads import deferToThread
from twisted.logger import Logger, LogLevel

from imapshield.config import ConfigError, Settings
from imapshield.limits import Limits

Apply = Callable[[], object]
Prepare = Callable[[Settings], Awaitable[Apply | None]]
"""Checks new settings, and returns what applies them; None if they need a restart. Raises `ConfigError`."""

Renew = Callable[[], Awaitable[Sequence[str]]]
"""Reads files again that have no setting of their own. Returns one line for each problem."""

CheckRestart = Callable[[Settings, Set[str]], Sequence[str]]

_log = Logger(namespace="imapshield")


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What a reload has done.

    Attributes:
        changed: what has changed, with the old and the new value.
        needs_restart: the options that have changed, and apply after a restart.
        problems: what is wrong, and what to do. Settings with a problem are all as before.
    """

    changed: Sequence[str] = ()
    needs_restart: Sequence[str] = ()
    problems: Sequence[str] = ()


class Reloader:
    """Reloads the configuration of one server.

    Args:
        settings: those with which it runs.
        load: returns the new ones, or raises `ConfigError`. Called in a thread.
        parts: what can be applied to a running server, by the names of the settings.
        renewals: called at each reload, unless a setting is wrong.
        reopen: opens the log files again, and returns problems.
        run_in_thread: calls a function in a thread.
        check_restart: called in a thread with new settings and the names of those that need a restart; returns why it
            would fail.

    Attributes:
        settings: those with which the server runs now.
        before, after: called before and after each reload.
        renewals: as above.
        level: the level of lines about what has changed. Below info, problems have it, too: a worker returns them to
            the supervising process, which logs them.
    """

    def __init__(
        self,
        settings: Settings,
        load: Callable[[], Settings],
        parts: Mapping[tuple[str, ...], Prepare],
        renewals: Iterable[Renew] = (),
        reopen: Callable[[], Sequence[str]] = list,
        run_in_thread: Callable[[Callable[[], Any]], Deferred[Any]] = deferToThread,
        check_restart: CheckRestart = lambda _settings, _names: (),
    ) -> None:
        self._check_restart = check_restart
        self.settings = settings
        self.before: Callable[[], object] = lambda: None
        self.after: Callable[[], object] = lambda: None
        self.renewals = list(renewals)
        self.level = LogLevel.info
        self._load, self._parts = load, parts
        self._reopen, self._run_in_thread = reopen, run_in_thread
        self._lock = DeferredLock()
        self._callers: list[Deferred[Reloaded]] = []  # of the reload that has not begun

    def reload(self) -> Deferred[Reloaded]:
        """Reload, after a reload that runs. Callers who wait for it to begin share one."""
        result: Deferred[Reloaded] = Deferred()
        self._callers.append(result)
        if len(self._callers) == 1:
            self._lock.run(self._begin)
        return result

    def _begin(self) -> Deferred[None]:
        callers, self._callers = self._callers, []

        def finished(outcome: Any) -> None:
            for caller in callers:
                caller.callback(outcome)

        return Deferred.fromCoroutine(self._reload()).addBoth(finished)

    async def _reload(self) -> Reloaded:
        self.before()
        try:
            problems = list(self._reopen())
            done, is_applied = await self._settings_reloaded()
            if is_applied:
                problems += await self._renew()
                _log.emit(
                    self.level,
                    "reloaded: changes={changes} problems={problems}",
                    changes=len(done.changed),
                    problems=len(problems),
                )
            return replace(done, problems=[*done.problems, *problems])
        finally:
            self.after()

    async def _renew(self) -> list[str]:
        """Read files again; return the problems, which are logged here: what finds one logs it once, and not again."""
        found = [problem for renew in self.renewals for problem in await renew()]
        problems = [*dict.fromkeys(found)]  # workers may have the same ones
        for problem in problems:
            level = LogLevel.warn if self.level >= LogLevel.info else self.level
            _log.emit(level, "reload: {problem}", problem=problem)
        return problems

    async def _settings_reloaded(self) -> tuple[Reloaded, bool]:
        """Apply new settings; return what has changed, and whether they could be applied."""
        old = self.settings
        try:
            new = await self._run_in_thread(self._load)
            changed = {
                f.name for f in fields(Settings) if getattr(old, f.name) != getattr(new, f.name)
            }
            applies = {
                names: await prepare(new)
                for names, prepare in self._parts.items()
                if changed & {*names}
            }
        except ConfigError as error:
            text = f"{error}; nothing is changed"
            _log.warn("reload: {problem}", problem=text)
            return Reloaded(problems=[text]), False
        applied: set[str] = set()
        for names, apply in applies.items():
            if apply is not None:
                apply()
                applied.update(names)
        restart = sorted(changed - applied)
        self.settings = replace(new, **{name: getattr(old, name) for name in restart})
        lines = [line for name in sorted(changed & applied) for line in _describe(name, old, new)]
        for line in lines:
            _log.emit(self.level, "reload: {change}", change=line)
        options = [name.replace("_", "-") for name in restart]
        if options:
            _log.warn("reload: {options} changed; restart the server", options=", ".join(options))
        return Reloaded(lines, options, await self._problems_of_restart(new, {*restart})), True

    async def _problems_of_restart(self, new: Settings, names: Set[str]) -> list[str]:
        if not names:
            return []
        try:
            found = await self._run_in_thread(lambda: self._check_restart(new, names))
        except Exception:  # the rest of the reload must be done, in workers too
            _log.failure("error in the check of a restart")
            return []
        problems = [f"a restart would fail: {problem}" for problem in found]
        for problem in problems:
            _log.warn("reload: {problem}", problem=problem)
        return problems


def _describe(name: str, old: Settings, new: Settings) -> list[str]:
    """Return lines about the change of a setting."""
    if name != "limits":
        before, after = (_shown(name, getattr(each, name)) for each in (old, new))
        return [f"{name.replace('_', '-')}: {before} -> {after}"]
    lines = []
    for limit in fields(Limits):
        before, after = getattr(old.limits, limit.name), getattr(new.limits, limit.name)
        if before != after:
            lines.append(f"{limit.name}: {_text(before)} -> {_text(after)}")
    return lines


def _shown(name: str, value: Any) -> str:
    """Return a setting as text for the log. Only files of users are named: other checkers may have passwords in it.

    Of a URL of ``--user-map``, what may be a password is left out.
    """
    if name == "auth":
        value = [t if t.startswith("file:") else t.partition(":")[0] + ":..." for t in value]
    if name == "user_map" and value is not None:
        value = re.sub(r"//[^/]*@", "//…@", value).partition("?")[0]
    return _text(value)


def _text(value: object) -> str:
    if isinstance(value, (list, tuple, frozenset)):
        return ",".join(sorted(value) if isinstance(value, frozenset) else value) or "none"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    return f"{value:.12g}" if isinstance(value, float) else str(value)
