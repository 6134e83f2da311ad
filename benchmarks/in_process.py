"""Runs imapshield in this process, for measurements from inside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TextIO

from twisted.internet import reactor as global_reactor
from twisted.logger import FileLogObserver, formatEventAsClassicLogText, globalLogBeginner

from imapshield.tap import Options, makeService


def serve(arguments: Sequence[str], log: TextIO) -> None:
    """Serve until a signal ends the process, or the reactor is stopped.

    Args:
        arguments: the options of ``twistd imapshield``.
        log: where the log goes.
    """
    reactor: Any = global_reactor
    observer = FileLogObserver(log, lambda event: formatEventAsClassicLogText(event) or "")
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    options: Any = Options()  # type: ignore[no-untyped-call]
    options.parseOptions(arguments)
    service: Any = makeService(options)
    service.privilegedStartService()
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()
