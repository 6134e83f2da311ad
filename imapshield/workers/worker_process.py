"""The process of a worker. The supervising process starts it; see `Supervisor`."""

import os
import signal
import socket
import traceback
from contextlib import suppress
from typing import Any

from imapshield.workers.link_messages import LINK, Logged, MessageBuffer, Start, encode


def main() -> None:
    """Serve until the supervising process says stop, or has ended."""
    # Those that a terminal sends to all processes of the server are for the supervising process. SIGTERM ends a worker
    # as if it were told to stop, and another one takes its place.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    start, messages = _first_message()
    try:
        _run(start, messages)
    except SystemExit as error:
        _say(str(error.code))
        os._exit(1)
    except Exception:
        _say(traceback.format_exc())
        os._exit(1)


def _first_message() -> tuple[Start, list[Any]]:
    """Wait for the first message. Returns it, and those that have come with it."""
    buffer, messages = MessageBuffer(), list[Any]()
    with socket.socket(fileno=os.dup(LINK)) as link:
        link.setblocking(True)
        while data := link.recv(1 << 16):
            messages += buffer.add(data)
            if messages:
                link.setblocking(False)
                return messages[0], messages[1:]
    raise SystemExit(0)  # the supervising process has ended


def _say(text: str) -> None:
    with suppress(OSError), socket.socket(fileno=LINK) as link:
        link.sendall(encode(Logged("critical", "imapshield", f"cannot start: {text}", {})))


def _run(start: Start, messages: list[Any]) -> None:
    from twisted.internet import reactor as global_reactor
    from twisted.logger import globalLogBeginner

    from imapshield.config import ConfigError
    from imapshield.tap import use_monotonic_clock
    from imapshield.workers.link import Link, LinkFactory
    from imapshield.workers.worker_log import WorkerLog
    from imapshield.workers.worker_server import Worker

    reactor: Any = global_reactor
    use_monotonic_clock(reactor)
    link = Link(reactor)
    try:
        worker = Worker(start, link, reactor)
    except ConfigError as error:
        raise SystemExit(str(error)) from None
    os.set_blocking(LINK, False)
    reactor.adoptStreamConnection(LINK, socket.AF_UNIX, LinkFactory(link))
    os.close(LINK)
    globalLogBeginner.beginLoggingTo(
        [WorkerLog(link)], discardBuffer=True, redirectStandardIO=False
    )
    service = worker.service
    service.privilegedStartService()
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    for message in messages:
        worker.received(message)
    reactor.run()


if __name__ == "__main__":
    main()
