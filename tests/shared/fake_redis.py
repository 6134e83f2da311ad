"""A stand-in for Redis on a loopback port: it answers what `RedisLink` asks, well or badly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import Factory, Protocol


class FakeRedisProtocol(Protocol):
    factory: FakeRedis
    transport: Any

    def connectionMade(self) -> None:
        self.buffer = b""
        self.factory.connections.append(self)

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.connections.remove(self)

    def dataReceived(self, data: bytes) -> None:
        self.buffer += data
        while (command := self._command()) is not None:
            self.factory.commands.append(command)
            answer = self.factory.answers.get(command[0], b"+OK\r\n")
            if callable(answer):
                answer = answer(self, command)
            self.transport.write(answer)

    def _command(self) -> list[bytes] | None:
        lines = self.buffer.split(b"\r\n")
        count = int(lines[0][1:] or b"0") if lines[0] else 0
        if not count or len(lines) < 2 * count + 2:
            return None  # the test's arguments have no line ends
        command = lines[2 : 2 * count + 2 : 2]
        self.buffer = b"\r\n".join(lines[2 * count + 1 :])
        return command


def bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)


Answer = bytes | Callable[[FakeRedisProtocol, list[bytes]], bytes]


class FakeRedis(Factory):
    """Attributes: `answers` by command, `commands` that have arrived, `connections`."""

    protocol = FakeRedisProtocol  # type: ignore[assignment]
    noisy = False

    def __init__(self) -> None:
        self.commands: list[list[bytes]] = []
        self.connections: list[FakeRedisProtocol] = []
        self.listeners: list[FakeRedisProtocol] = []
        self.answers: dict[bytes, Answer] = {
            b"TIME": b"*2\r\n" + bulk(b"5000") + bulk(b"500000"),
            b"SUBSCRIBE": self._subscribe,
            b"PUBLISH": self._publish,
            b"EVAL": b"*1\r\n" + bulk(b"2.500000"),
            b"EVALSHA": b"*1\r\n" + bulk(b"3.500000"),
        }

    def _subscribe(self, listener: FakeRedisProtocol, command: list[bytes]) -> bytes:
        self.listeners.append(listener)
        return b"*3\r\n" + bulk(b"subscribe") + bulk(command[1]) + b":1\r\n"

    def _publish(self, _: FakeRedisProtocol, command: list[bytes]) -> bytes:
        for listener in self.listeners:
            if listener in self.connections:
                listener.transport.write(
                    b"*3\r\n" + bulk(b"message") + bulk(command[1]) + bulk(command[2])
                )
        return b":1\r\n"

    def close_all(self) -> None:
        for connection in list(self.connections):
            connection.transport.abortConnection()
