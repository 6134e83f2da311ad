"""The process of a worker. The supervising process starts it; see `Supervisor`."""

import os
import signal
import socket
import sys
import traceback
from typing import Any

from imapshield.workers.link_messages import (
    COUNTS,
    HEADER,
    LINK,
    BadMessage,
    Start,
    decode,
    length_of,
)


def main() -> None:
    """Serve until the supervising process says stop, or has ended."""
    # Those that a terminal sends to all processes of the server are for the supervising process. SIGTERM ends a worker
    # as if it were told to stop, and another one takes its place.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    try:
        with socket.socket(fileno=os.dup(LINK)) as link:
            link.setblocking(True)
            start = first_message(link)
        if start is not None:
            _run(start)
    except SystemExit as error:
        _say(str(error.code))
        os._exit(1)
    except Exception:
        _say(traceback.format_exc())
        os._exit(1)


def first_message(link: socket.socket) -> Start | None:
    """Wait for the first message, and read no byte of the next one, which is for the `Link`.

    Returns:
        the message; None if the supervising process has ended.

    Raises:
        BadMessage: the bytes are no message, or another one.
    """
    header = _read(link, HEADER.size)
    data = _read(link, length_of(header)) if header is not None else None
    if data is None:
        return None
    start, *others = decode(data)
    if others or not isinstance(start, Start):
        raise BadMessage(f"{type(start).__name__} came first")
    return start


def _read(link: socket.socket, size: int) -> bytearray | None:
    """Return so many bytes; None if the socket is closed before."""
    data = bytearray()
    while len(data) < size:
        more = link.recv(min(size - len(data), 1 << 20))
        if not more:
            return None
        data += more
    return data


def _say(text: str) -> None:
    """Tell the supervising process, which logs what a worker prints, why this one ends.

    The socket may be closed already, and its number be that of another one.
    """
    sys.stderr.write(f"cannot start: {text}\n")
    sys.stderr.flush()


def _run(start: Start) -> None:
    from twisted.internet import reactor as global_reactor
    from twisted.logger import globalLogBeginner

    from imapshield.config import ConfigError
    from imapshield.process.signals import stop_once
    from imapshield.tap import use_monotonic_clock
    from imapshield.workers.accepting import ConnectionCounts
    from imapshield.workers.link import Link, LinkFactory
    from imapshield.workers.worker_log import WorkerLog
    from imapshield.workers.worker_server import Worker

    reactor: Any = global_reactor
    use_monotonic_clock(reactor)
    link = Link(reactor)
    stop = stop_once(reactor)
    try:
        worker = Worker(start, link, reactor, ConnectionCounts(COUNTS, start.count), stop)
    except ConfigError as error:
        raise SystemExit(str(error)) from None
    os.set_blocking(LINK, False)
    reactor.adoptStreamConnection(LINK, socket.AF_UNIX, LinkFactory(link))
    os.close(LINK)
    os.close(COUNTS)
    globalLogBeginner.beginLoggingTo(
        [WorkerLog(link)], discardBuffer=True, redirectStandardIO=False
    )
    service = worker.service
    service.privilegedStartService()
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()


if __name__ == "__main__":
    main()
