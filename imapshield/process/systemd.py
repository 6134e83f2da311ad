"""`Notifier`: tells systemd the state of the service, and feeds its watchdog.

A service tells its state in datagrams to the socket that ``$NOTIFY_SOCKET`` names (sd_notify(3)). Without the variable,
nothing is sent.
"""

import faulthandler
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from twisted.internet.task import LoopingCall

WATCHDOG_CALLS = 3
"""How many times the watchdog is fed in its time: a single long turn of the reactor must not end the service."""


class Notifier:
    """Tells systemd what the service does.

    Args:
        environ: the environment.
        clock: an `IReactorTime`.
        now: returns nanoseconds of CLOCK_MONOTONIC.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        clock: Any,
        now: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._environ, self._clock, self._now = environ, clock, now
        self._status = ""
        self._loop: LoopingCall | None = None

    @property
    def is_used(self) -> bool:
        """Whether systemd wants to know."""
        return self._address[:1] in ("/", "@")

    def ready(self) -> None:
        """The service serves, or has reloaded. Feed the watchdog from now on."""
        self._send("READY=1")
        seconds = self._watchdog_seconds()
        if seconds and self._loop is None:
            # systemd ends a service that hangs with SIGABRT. Then the journal gets what each thread was doing.
            with suppress(OSError, ValueError, AttributeError, RuntimeError):
                faulthandler.enable(sys.__stderr__ or sys.stderr)
            self._loop = LoopingCall(self._send, "WATCHDOG=1")
            self._loop.clock = self._clock
            self._loop.start(seconds / WATCHDOG_CALLS)

    def reloading(self) -> None:
        """The service reloads its configuration; `ready` follows."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={self._now() // 1000}")

    def stopping(self) -> None:
        """The service stops. The watchdog is fed until it has, because the mail stores may take a while."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Set the text that ``systemctl status`` shows."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    def _watchdog_seconds(self) -> float:
        """Return the time after which systemd ends a service that is silent; 0 if it does not."""
        try:
            microseconds = int(self._environ.get("WATCHDOG_USEC", "0"))
            process = int(self._environ.get("WATCHDOG_PID", "0"))
        except ValueError:
            return 0
        is_ours = process in (0, os.getpid())
        return max(0, microseconds) / 1e6 if is_ours and self.is_used else 0

    def _send(self, *fields: str) -> None:
        """Send one datagram. The server works without systemd, so what cannot be sent is left out."""
        if not self.is_used:
            return
        name = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto("\n".join(fields).encode(), name)
