"""A backend for `benchmarks.front_cost` that logs everybody in and answers OK to every command, in little memory.

    python -m benchmarks.front_backend PORT

Dovecot needs a process for each user, so it cannot hold ten thousand of them beside what is measured.
"""

from __future__ import annotations

import resource
import select
import socket
import sys

_GREETING = b"* OK [CAPABILITY IMAP4rev1 SASL-IR IDLE AUTH=PLAIN] ready\r\n"
_BEFORE_OK = {
    b"CAPABILITY": b"* CAPABILITY IMAP4rev1 SASL-IR IDLE AUTH=PLAIN\r\n",
    b"LOGOUT": b"* BYE\r\n",
    b"SELECT": b"* 50 EXISTS\r\n* OK [UIDVALIDITY 1] ok\r\n",
}


class Connections:
    """The connections, each with the tag of its IDLE."""

    def __init__(self, port: int) -> None:
        self._listening = socket.create_server(("127.0.0.1", port), backlog=4096)
        self._poll = select.epoll()
        self._poll.register(self._listening, select.EPOLLIN)
        self._open: dict[int, socket.socket] = {}
        self._idle: dict[int, bytes] = {}

    def serve(self) -> None:
        """Answer for ever."""
        while True:
            for number, _ in self._poll.poll():
                if number == self._listening.fileno():
                    self._accept()
                else:
                    self._receive(number)

    def _accept(self) -> None:
        connection, _ = self._listening.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open[connection.fileno()] = connection
        self._poll.register(connection, select.EPOLLIN)
        connection.sendall(_GREETING)

    def _receive(self, number: int) -> None:
        connection = self._open[number]
        try:
            data = connection.recv(1 << 16)
            if data:
                connection.sendall(b"".join(map(self._answerer(number), data.splitlines())))
        except OSError:
            data = b""
        if not data:
            self._idle.pop(number, None)
            self._open.pop(number).close()

    def _answerer(self, number: int):  # type: ignore[no-untyped-def]
        def answer(line: bytes) -> bytes:
            if number in self._idle:
                return self._idle.pop(number) + b" OK done\r\n"
            tag, _, rest = line.partition(b" ")
            name = rest.partition(b" ")[0].upper()
            if name == b"IDLE":
                self._idle[number] = tag
                return b"+ idling\r\n"
            return _BEFORE_OK.get(name, b"") + tag + b" OK done\r\n"

        return answer


def main() -> None:
    """Serve on the port of the command line."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    Connections(int(sys.argv[1])).serve()


if __name__ == "__main__":
    main()
