"""`ProcessControl`: what the operator and systemd tell the running process to do, and what it tells them."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from imapshield.config import Settings
from imapshield.control.request_lines import Request
from imapshield.process.reload import Reloader
from imapshield.process.server_user import ServerUser
from imapshield.process.signals import SIGHUP, SIGUSR1, ProcessSignals
from imapshield.process.systemd import Notifier

_log = Logger(namespace="imapshield")


class EarlierFiles(NamedTuple):
    """What another process of this server has read, for files that cannot be used when this one starts.

    Attributes:
        certificates: what `certificates.Certificates.saved` returns.
        authorities: what `Front.authorities` returns.
    """

    certificates: Mapping[str, Sequence[tuple[str, bytes, list[bytes]]]]
    authorities: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Process:
    """What a program that starts a server knows of its process.

    Args:
        load: reads and returns the settings again, or raises `ConfigError`; None if they cannot change.
        signals: those of the process; None if the server does not handle any.
        user: the user to which the process will change.
        earlier: what the process has read that has checked the settings and starts this one, which is a worker; None
            for another process. With it, a file that is wrong at the start is no error, as at a reload.
    """

    load: Callable[[], Settings] | None = None
    signals: ProcessSignals | None = None
    user: ServerUser = field(default_factory=ServerUser)
    earlier: EarlierFiles | None = None


@dataclass(frozen=True, slots=True)
class ProcessControl:
    """Reloads on SIGHUP and on request, logs the state on SIGUSR1, and tells systemd about both.

    Args:
        reloader: reloads the configuration.
        notifier: tells systemd.
        status: answers the request ``status``.
        reactor: the reactor.
    """

    reloader: Reloader
    notifier: Notifier
    status: Callable[[Request], Awaitable[dict[str, Any]]]
    reactor: Any

    def start(
        self,
        signals: ProcessSignals | None,
        when_ready: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        """Handle signals, and tell systemd when the server serves and when it stops.

        Args:
            signals: those of the process.
            when_ready: calls a function when the server serves; by default when the reactor runs.
        """
        self.reloader.before, self.reloader.after = self.notifier.reloading, self.notifier.ready
        if signals is not None:
            signals.handlers[SIGHUP] = self._hangup
            signals.handlers[SIGUSR1] = self.log_status
        if self.notifier.is_used:
            (when_ready or self.reactor.callWhenRunning)(self.notifier.ready)
            self.reactor.callWhenRunning(self.update)
            self.reactor.addSystemEventTrigger("before", "shutdown", self.notifier.stopping)

    def _hangup(self) -> None:
        reloading = self.reloader.reload()
        reloading.addErrback(lambda failure: _log.failure("error while reloading", failure))

    def log_status(self) -> None:
        """Log a line about what the server is doing, and one for each thing that is wrong."""

        def log(status: dict[str, Any]) -> None:
            for warning in status.get("warnings", ()):
                _log.warn("status: {problem}", problem=warning)
            _log.info(
                "status connections={connections} without-login={without_login}"
                " max-connections={max_connections} pending={pending_commands}"
                " memory={memory_of_connections} max-memory={max_memory} bans={bans}"
                " seconds={seconds:.0f} version={version}",
                **status,
            )

        self._with_status(log)

    def update(self) -> None:
        """Set the text that ``systemctl status`` shows. Call this periodically."""
        if self.notifier.is_used:
            self._with_status(
                lambda status: self.notifier.status(
                    f"{status['connections']} connections, {status['without_login']} without a login,"
                    f" {status['pending_commands']} commands pending, {status['bans']} bans"
                )
            )

    def _with_status(self, show: Callable[[dict[str, Any]], object]) -> None:
        asked = Deferred.fromCoroutine(self._ask())
        asked.addCallback(show)
        asked.addErrback(lambda failure: _log.failure("error in the status", failure))

    async def _ask(self) -> dict[str, Any]:
        return await self.status(Request("status"))

    async def reload(self, request: Request) -> dict[str, Any]:  # noqa: ARG002
        """Answer the request ``reload`` of the control socket."""
        return asdict(await self.reloader.reload())
