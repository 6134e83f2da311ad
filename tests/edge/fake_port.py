"""Stands for Twisted's listening port and for the sockets that it accepts."""

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import ITLSTransport
from zope.interface import directlyProvides

from imapshield.testing.in_process import Transport


class FakeSocket:
    """An accepted socket. `ending`: "reset" or "closed" if the client has left."""

    def __init__(self, ending: str) -> None:
        self.ending = ending
        self.closed = False

    def getsockopt(self, *_: int) -> int:
        self._check_open()
        return int(self.ending == "reset")

    def _check_open(self) -> None:
        if self.closed:
            raise OSError("closed")

    def recv(self, *_: int) -> bytes:
        self._check_open()
        if self.ending:
            return b""
        raise BlockingIOError

    def close(self) -> None:
        self.closed = True


class FakePort:
    """A listening port that records the length of its accept queue, and the transports and protocols that were made."""

    numberAccepts = 1000

    def __init__(self, factory: Any) -> None:
        self.factory = factory
        self.socket = self
        self.backlog = 50
        self.made: list[Transport] = []
        self.protocols: list[Any] = []

    def listen(self, backlog: int) -> None:
        self.backlog = backlog

    def transport(self, skt: object, protocol: object, address: tuple[str, int]) -> Transport:
        transport = Transport(address[0])
        directlyProvides(transport, ITLSTransport)
        self.made.append(transport)
        self.protocols.append(protocol)
        return transport

    def accept(self, address: str, ending: str = "") -> FakeSocket:
        """Accept a connection as Twisted's port does: protocol, transport, and then both are connected."""
        skt = FakeSocket(ending)
        protocol = self.factory.buildProtocol(IPv4Address("TCP", address, 1))
        if protocol is None:
            skt.close()
        else:
            protocol.makeConnection(self.transport(skt, protocol, (address, 1)))
        return skt
